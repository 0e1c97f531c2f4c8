"""Windows of a raster: the selected pixels, and the bytes and blocks that contain them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

GAP = 16 * 1024
"""Bytes that are rather read than asked around."""
MAX_RANGE = 8 << 20
"""Bytes per request: what is lost when a connection breaks."""

Mask = npt.NDArray[np.bool_]
"""Bool (height, width) of a window: the selected pixels."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a raster, in its pixels.

    Raises
    ------
    ValueError
        If it has no pixels, or starts before the raster.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Reject windows that no raster has."""
        if min(self.row, self.col) < 0 or min(self.height, self.width) < 1:
            raise ValueError(f"a window starts at row and column 0 or more and is not empty, found {self}")

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of rows and columns, to index an array."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.height, self.width

    def is_within(self, shape: tuple[int, int]) -> bool:
        """Return whether it is entirely inside a raster with that many rows and columns."""
        return self.row + self.height <= shape[0] and self.col + self.width <= shape[1]


def runs(mask: Mask) -> Iterator[tuple[int, int, int]]:
    """Yield (row, first column, column after the last) of every run of wanted pixels, in file order."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, first = np.nonzero(edges == 1)
    _, after = np.nonzero(edges == -1)
    yield from zip(rows.tolist(), first.tolist(), after.tolist(), strict=True)


def byte_ranges(window: Window, mask: Mask, item: int, width: int) -> list[tuple[int, int]]:
    """Return the ranges of an array's bytes, without its header, to read.

    Parameters
    ----------
    window, mask
        What is wanted.
    item
        Bytes of a pixel.
    width
        Pixels of a row of the array.
    """
    joined: list[tuple[int, int]] = []
    for row, first, last in runs(mask):
        line = (window.row + row) * width + window.col
        start, stop = (line + first) * item, (line + last) * item
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    pixels = MAX_RANGE // item * item
    return [(at, min(at + pixels, stop)) for start, stop in joined for at in range(start, stop, pixels)]


def scatter(
    out: npt.NDArray[Any],
    window: Window,
    shape: tuple[int, ...],
    first: int,
    pixels: npt.NDArray[Any],
    step: int = 1,
) -> None:
    """Put pixels that follow each other in an array where they belong in a window; others are dropped.

    Parameters
    ----------
    out, window
        The window, and its every ``step``-th pixel: (rows, columns, ...).
    shape
        Of the array.
    first
        Which pixel of the array is the first, row by row.
    pixels
        (n, ...)
    step
        Which rows and columns of the window are taken.
    """
    rows, cols = window.slices
    while len(pixels):
        row, col = divmod(first, shape[1])
        line = pixels[: shape[1] - col]
        lo, hi = max(col, cols.start), min(col + len(line), cols.stop)
        lo += -(lo - cols.start) % step
        if lo < hi and rows.start <= row < rows.stop and (row - rows.start) % step == 0:
            taken, at = line[lo - col : hi - col : step], (lo - cols.start) // step
            out[(row - rows.start) // step, at : at + len(taken)] = taken
        first, pixels = first + len(line), pixels[len(line) :]


def blocks(window: Window, mask: Mask, block: tuple[int, int], shape: tuple[int, int]) -> Iterator[Window]:
    """Yield runs of neighbouring blocks that hold wanted pixels, as windows of the whole raster.

    Parameters
    ----------
    window, mask
        What is wanted.
    block, shape
        Rows and columns of a block, and of the raster.
    """
    height, width = block
    top, left = window.row, window.col
    for block_row in range(top // height, (top + window.height - 1) // height + 1):
        r0, r1 = block_row * height, min((block_row + 1) * height, shape[0])
        band = mask[max(r0 - top, 0) : r1 - top].any(axis=0)
        touched = sorted({int(c) // width for c in np.flatnonzero(band) + left})
        while touched:
            n = 1
            while n < len(touched) and touched[n] == touched[0] + n:
                n += 1
            c0, c1 = touched[0] * width, min((touched[0] + n) * width, shape[1])
            yield Window(r0, c0, r1 - r0, c1 - c0)
            touched = touched[n:]


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
