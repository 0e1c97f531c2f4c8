"""What is read at points, and what is found there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import QueryError
from catalog_builder.tile.files import ALL_BANDS, N_BANDS
from catalog_builder.vectors.points.vectors import Floats, Indices, Vectors

MAX_SCALE = 1.0
"""Scales from here on are corrupt: those of real embeddings are some hundredths."""
MAX_NEAREST = 1000.0
"""Metres."""
MAX_WINDOW = 101
"""Pixels."""


@dataclass(frozen=True, slots=True)
class PointOptions:
    """What is read at points.

    Raises
    ------
    QueryError
        If they contradict each other, or one is out of range.
    """

    years: tuple[int, ...] | None = None
    """Years, in the order of the result; None: all of the collection."""
    dataset: str | None = None
    """Directory name or collection id; None: the only one, or the first real one."""
    bands: tuple[int, ...] = ALL_BANDS
    """Dimensions, counted from 0."""
    nearest: float = 0.0
    """If the pixel that contains a point has no data, the nearest one that has, within so many metres."""
    window: int = 1
    """The mean of so many by so many pixels around a point, of those that have data; odd."""
    max_scale: float | None = MAX_SCALE
    """Pixels whose scale is at least this, infinite or negative have no data; None: whatever is stored."""

    def __post_init__(self) -> None:
        """Reject what cannot be done."""
        if not self.bands or not all(0 <= band < N_BANDS for band in self.bands):
            raise QueryError(f"bands: expected some of 0 to {N_BANDS - 1}, found {self.bands}")
        if not 0 <= self.nearest <= MAX_NEAREST:
            raise QueryError(f"nearest: expected 0 to {MAX_NEAREST:.0f} metres, found {self.nearest}")
        if self.window % 2 == 0 or not 1 <= self.window <= MAX_WINDOW:
            raise QueryError(f"window: expected an odd number from 1 to {MAX_WINDOW}, found {self.window}")
        if self.nearest and self.window > 1:
            raise QueryError("nearest and window: only one of them may be given")
        if self.max_scale is not None and not self.max_scale > 0:
            raise QueryError(f"max_scale: expected a number above 0, found {self.max_scale}")
        if self.years is not None and (not self.years or len(set(self.years)) < len(self.years)):
            raise QueryError(f"years: expected at least one, and each once, found {list(self.years)}")

    @property
    def reach(self) -> float:
        """How far from a point pixels may be read, in metres."""
        return max(self.nearest, self.window * 10.0 if self.window > 1 else 0.0)


@dataclass(slots=True)
class PointYear:
    """Vectors at points in one year."""

    year: int
    at: Indices
    """Which points, by their number; n of them."""
    vectors: Vectors
    """n vectors; no data where the outcome is not valid."""
    outcome: npt.NDArray[np.uint8]
    """uint8 (n,) of :class:`~catalog_builder.vectors.points.vectors.Outcome`."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why unreadable ones are, by position in ``at``."""
    distance: Floats | None = None
    """With ``nearest``: metres from the point to the centre of the pixel; 0 where that contains the point."""
    pixels: npt.NDArray[np.int32] | None = None
    """With ``window``: number of pixels with data that the mean is of."""
    corrupt: int = 0
    """Pixels that were taken for no data because of their scales."""
