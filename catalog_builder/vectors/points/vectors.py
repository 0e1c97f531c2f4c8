"""Vectors in memory, and why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from catalog_builder.pixels.values import NODATA_CODE, Pixels, Quantized, Status, Values

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


class Outcome(IntEnum):
    """What became of a point, or of a polygon, in a year."""

    VALID = 0
    """It has a vector."""
    WATER = 1
    """Water by the landmask, in stores that say so."""
    NODATA = 2
    """A tile is there, and has no value."""
    UNREADABLE = 3
    """A tile is listed, but cannot be read now: there is a reason, and it is worth another try."""
    MISSING_YEAR = 4
    """The catalogue has other years of this place."""
    OUTSIDE = 5
    """The catalogue has no year of this place."""

    @property
    def text(self) -> str:
        """Its name in tables, such as ``missing-year``."""
        return self.name.lower().replace("_", "-")


OUTCOME_OF = np.zeros(len(Status), np.uint8)
"""The outcome of each status of a pixel."""
OUTCOME_OF[[Status.NODATA, Status.UNFILLED]] = Outcome.NODATA
OUTCOME_OF[Status.WATER], OUTCOME_OF[Status.OUTSIDE] = Outcome.WATER, Outcome.OUTSIDE


@dataclass(slots=True)
class Vectors:
    """n vectors: codes and scales, a quarter of the memory, as long as all that is put in has those."""

    bands: int
    codes: npt.NDArray[np.int8] | None
    """int8 (n, bands), -128 where there is no data; None if these are values."""
    scales: Floats
    """float32 (n,), NaN where there is no data or these are values."""
    values: Floats | None = None
    """float32 (n, bands), NaN where there is no data; None if these are codes."""

    @classmethod
    def empty(cls, n: int, bands: int) -> Vectors:
        """Return vectors without data."""
        return cls(bands, np.full((n, bands), NODATA_CODE, np.int8), np.full(n, np.nan, np.float32))

    @classmethod
    def of_values(cls, values: Floats) -> Vectors:
        """Return vectors of values, (n, bands)."""
        return cls(values.shape[1], None, np.full(len(values), np.nan, np.float32), values)

    @property
    def _values(self) -> Floats:
        return np.empty((0, self.bands), np.float32) if self.values is None else self.values

    def __len__(self) -> int:
        return len(self.scales)

    def put(self, at: Indices, pixels: Pixels) -> None:
        """Put a row of pixels, (1, n, bands), at some places."""
        if isinstance(pixels, Quantized) and self.codes is not None:
            self.codes[at], self.scales[at] = pixels.codes[0], pixels.scales[0]
            return
        if self.values is None:
            self.values, self.codes = self.dequantized(), None
            self.scales[:] = np.nan
        self.values[at] = pixels.dequantized()[0]

    def put_vectors(self, at: Indices, other: Vectors) -> None:
        """Put other vectors at some places."""
        self.put(at, other.pixels())

    def pixels(self) -> Pixels:
        """Return them as one row of pixels."""
        if self.codes is not None:
            return Quantized(self.codes[None], self.scales[None])
        return Values(self.dequantized()[None])

    def blank(self, at: npt.NDArray[np.bool_]) -> None:
        """Set vectors, chosen by bool (n,), to no data."""
        if self.codes is not None:
            self.codes[at] = NODATA_CODE
        if self.values is not None:
            self.values[at] = np.nan
        self.scales[at] = np.nan

    def dequantized(self, at: slice | Indices = slice(None)) -> Floats:
        """Return float32 (n, bands) of all, or of some."""
        if self.codes is None:
            picked: Floats = self._values[at]
            return picked
        of_codes: Floats = Quantized(self.codes[None, at], self.scales[None, at]).dequantized()[0]
        return of_codes

    def corrupt(self, max_scale: float) -> npt.NDArray[np.bool_]:
        """Return bool (n,): whose scale no embedding has; see :meth:`Quantized.corrupt`."""
        found: npt.NDArray[np.bool_] = self.pixels().corrupt(max_scale)[0]
        return found
