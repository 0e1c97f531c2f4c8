"""The tiles of a year among the pixels of a zone, read by window from their ``.npy`` files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import GridError
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import Written
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import TileId

BLOCK = 256
"""Side in pixels of what is read and written at a time: 8.4 MB of codes."""


def by[K: int](tiles: Iterable[Written], key: Callable[[Written], K]) -> Iterator[tuple[K, list[Written]]]:
    """Yield tiles in groups, by a number and in its order."""
    for found, some in groupby(sorted(tiles, key=key), key):
        yield found, list(some)


class Window(NamedTuple):
    """Part of a group's pixels."""

    row: int
    col: int
    height: int
    width: int

    def cells(self, side: int) -> Iterator[tuple[int, int]]:
        """Yield row and column of the squares of some pixels that it touches."""
        for row in range(self.row // side, (self.row + self.height - 1) // side + 1):
            for col in range(self.col // side, (self.col + self.width - 1) // side + 1):
                yield row, col

    def overlap(self, other: Window) -> Window | None:
        """Return what two windows share; None if they share nothing."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row + self.height, other.row + other.height) - row
        width = min(self.col + self.width, other.col + other.width) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def within(self, other: Window) -> tuple[slice, slice]:
        """Return the rows and columns of another window that this one is."""
        row, col = self.row - other.row, self.col - other.col
        return slice(row, row + self.height), slice(col, col + self.width)


@dataclass(frozen=True, slots=True)
class Pixels:
    """A block of :data:`BLOCK` x :data:`BLOCK` pixels, (H, W)."""

    codes: npt.NDArray[np.int8]
    """(H, W, 128); 0 where there is no tile."""
    scales: npt.NDArray[np.float32]
    """As in the ``.npy`` files: 0 where unprocessed, and where there is no tile."""
    land: npt.NDArray[np.bool_]
    """By the tiles' landmasks; False where there is no tile."""
    covered: npt.NDArray[np.bool_]
    """Whether there is a tile."""

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Whether a pixel has a vector: its scale is finite, positive and plausible (below 1)."""
        return np.isfinite(self.scales) & (self.scales > 0) & (self.scales < 1)


class Mosaic:
    """The tiles of one year in one group of a store.

    Raises
    ------
    GridError
        If a tile is not within the group.
    """

    def __init__(self, group: ZoneGroup, tiles: Iterable[Written]) -> None:
        self.tiles = [(_window(group, w.tile), w) for w in tiles]

    def squares(self, side: int) -> list[tuple[int, int]]:
        """Return row and column of the squares of some pixels that tiles touch, sorted."""
        return sorted({cell for window, _ in self.tiles for cell in window.cells(side)})

    def block(self, row: int, col: int) -> Pixels | None:
        """Read the block whose upper left pixel is given; None if no tile touches it.

        Where tiles overlap the later one counts, as in geotessera's ``zarr-fill``.
        """
        import rasterio
        from rasterio.windows import Window as RasterWindow

        here = Window(row, col, BLOCK, BLOCK)
        shared = [(part, window, w) for window, w in self.tiles if (part := window.overlap(here))]
        if not shared:
            return None
        shape = (BLOCK, BLOCK)
        codes, scales = np.zeros((*shape, N_BANDS), np.int8), np.zeros(shape, np.float32)
        land, covered = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for part, window, written in shared:
            into, of = part.within(here), part.within(window)
            codes[into] = np.load(written.npy, mmap_mode="r")[of]
            scales[into] = np.load(written.scales, mmap_mode="r")[of]
            with rasterio.open(written.landmask) as mask:
                land[into] = mask.read(1, window=RasterWindow.from_slices(*of)) != 0
            covered[into] = True
        return Pixels(codes, scales, land, covered)


def _window(group: ZoneGroup, tile: TileId) -> Window:
    raster = tile.raster()
    row, col = group.position(raster)
    if not (0 <= row <= group.rows - raster.height and 0 <= col <= group.cols - raster.width):
        raise GridError(f"{tile.name} is not within {group.name}, which is {group.bbox} in metres")
    return Window(row, col, raster.height, raster.width)
