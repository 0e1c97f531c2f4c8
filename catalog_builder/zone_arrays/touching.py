"""Which tiles touch a window of a zone's arrays: pure geometry, whatever tiles there are."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder.pixels.window import Window
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import FALSE_NORTHING
from catalog_builder.tile.grid import COLS_PER_ZONE, N_ROWS, PIXEL, TileId

IntArray = npt.NDArray[np.int64]


class Touched(NamedTuple):
    """A tile that touches a window of a group."""

    tile: TileId
    row: int
    """Row and column of the group at which its raster begins; outside the group, if the raster does."""
    col: int
    height: int
    width: int

    def shared(self, window: Window) -> Window | None:
        """Return what it shares with a window of the group, in pixels of the group; None if nothing."""
        row, col = max(self.row, window.row), max(self.col, window.col)
        height = min(self.row + self.height, window.row + window.height) - row
        width = min(self.col + self.width, window.col + window.width) - col
        return Window(row, col, height, width) if min(height, width) > 0 else None


class _Edges(NamedTuple):
    """Edges of all rasters of a zone in tens of metres on its northern CRS, (1800, 60) and by row.

    All zones have the same.
    """

    left: IntArray
    top: IntArray
    height: IntArray
    width: IntArray
    highest: IntArray
    """Northern edge of the northernmost raster of each row of tiles; ascending, as are the lowest."""
    lowest: IntArray


@cache
def _edges() -> _Edges:
    row, col = np.mgrid[:N_ROWS, :COLS_PER_ZONE]
    found = grid.rasters(row, col)
    left = np.rint(found.origin_x / PIXEL).astype(np.int64)
    false = np.where(row < N_ROWS // 2, FALSE_NORTHING, 0)
    top = np.rint((found.origin_y - false) / PIXEL).astype(np.int64)
    height, width = found.height.astype(np.int64), found.width.astype(np.int64)
    return _Edges(left, top, height, width, top.max(axis=1), (top - height).min(axis=1))


def tiles_touching(group: ZoneGroup, window: Window) -> list[Touched]:
    """Return the tiles of the grid whose rasters touch a window, as upstream writes them one over another.

    A later tile's pixels replace those of earlier ones, without data or not. geotessera 0.11 takes tiles in
    the order of its registry, which is sorted by longitude and then by latitude (``registry_cli.py``).

    Parameters
    ----------
    group
        On the northern CRS of a zone.
    window
        In its pixels.

    Examples
    --------
    >>> group = ZoneGroup("utm31", 32631, 300930, 5776130, 4096, 4096, (2024,), (2024,))
    >>> [(one.tile.name, one.row, one.col) for one in tiles_touching(group, Window(0, 0, 9, 9))]
    [('grid_0.15_52.05', 0, 0)]
    """
    edges, ten = _edges(), round(PIXEL)
    top, left = group.top // ten - window.row, group.west // ten + window.col
    bottom, right = top - window.height, left + window.width
    first = int(np.searchsorted(edges.highest, bottom, side="right"))
    last = int(np.searchsorted(edges.lowest, top, side="left"))
    rows = slice(first, max(last, first))
    of_top, of_left = edges.top[rows], edges.left[rows]
    touches = (of_top > bottom) & (of_top - edges.height[rows] < top)
    touches &= (of_left < right) & (of_left + edges.width[rows] > left)
    cols, found_rows = np.nonzero(touches.T)  # by column, then by row
    return [
        Touched(
            TileId.from_row_col(first + row, (group.zone - 1) * COLS_PER_ZONE + col),
            group.top // ten - int(of_top[row, col]),
            int(of_left[row, col]) - group.west // ten,
            int(edges.height[first + row, col]),
            int(edges.width[first + row, col]),
        )
        for row, col in zip(found_rows.tolist(), cols.tolist(), strict=True)
    ]
