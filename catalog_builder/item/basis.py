"""The colours of a dataset's ``visual`` assets: three principal directions in embedding space."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from catalog_builder.errors import ConvertError

BASIS_FILE = "visual_basis.json"
"""File name of a dataset's basis, in the dataset's output folder."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Three directions and their stretch; everything is in the units of the embedding."""

    dataset: str
    """Directory name of the dataset it was fitted to; it is meaningless for others."""
    mean: tuple[float, ...]
    """128 values."""
    components: tuple[tuple[float, ...], ...]
    """Red, green, blue: 3 x 128, orthonormal."""
    low: tuple[float, ...]
    """Projection that becomes 1, per colour."""
    high: tuple[float, ...]
    """Projection that becomes 255, per colour."""
    explained: tuple[float, ...] = ()
    """Share of the sample's variance along each direction."""
    tiles: tuple[str, ...] = ()
    """Jobs (tile-years) that were sampled."""
    pixels: int = 0
    """Number of pixels that were sampled."""

    def __post_init__(self) -> None:
        """Reject a basis that cannot be projected onto."""
        bands = len(self.mean)
        if len(self.components) != 3 or any(len(c) != bands for c in self.components):
            raise ConvertError(f"a basis needs 3 components of {bands} values")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ConvertError(f"the stretch of a basis is empty: {self.low} to {self.high}")

    def to_json(self) -> str:
        """Serialise; the inverse of :meth:`from_json`."""
        about = (
            "PCA of dequantised embeddings; colour = 1 + 254 * (component . (v - mean) - low) / (high - low)"
        )
        return json.dumps({"about": about, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the output of :meth:`to_json`.

        Raises
        ------
        ConvertError
            If it is not a basis.
        """
        try:
            said = json.loads(text)
            said.pop("about", None)
            said["components"] = tuple(map(tuple, said["components"]))
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
            return cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise ConvertError(f"not a visual basis: {error}") from error
