"""Windows of a raster, and which of their pixels are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
"""(height, width) of a window: the pixels that are wanted."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a raster, in its pixels.

    Raises
    ------
    ValueError
        If it has no pixels, or begins before the raster does.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse what no raster has."""
        if min(self.row, self.col) < 0 or min(self.height, self.width) < 1:
            raise ValueError(f"a window begins at row and column 0 or more and has pixels, found {self}")

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array with."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, how many."""
        return self.height, self.width

    def is_within(self, shape: tuple[int, int]) -> bool:
        """Whether a raster of so many rows and columns has all of it."""
        return self.row + self.height <= shape[0] and self.col + self.width <= shape[1]


def paste(out: npt.NDArray[np.generic], window: Window, read: Window, data: npt.NDArray[np.generic]) -> None:
    """Copy what was read into a window's array; the two overlap somewhere.

    Parameters
    ----------
    out, window
        (height, width, ...) of the window.
    read, data
        Another window of the same raster, and its pixels.
    """
    r0, r1 = max(read.row, window.row), min(read.row + read.height, window.row + window.height)
    c0, c1 = max(read.col, window.col), min(read.col + read.width, window.col + window.width)
    out[r0 - window.row : r1 - window.row, c0 - window.col : c1 - window.col] = data[
        r0 - read.row : r1 - read.row, c0 - read.col : c1 - read.col
    ]
