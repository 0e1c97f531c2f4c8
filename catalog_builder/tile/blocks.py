"""Blocks: the squares of pixels in which a store was filled, and the tiles that lie in them.

The registry of dClimate's Icechunk store has a row per block of 2048 x 2048 pixels, of a grid per zone and
hemisphere: the official area of use of its CRS, snapped outward to whole blocks. All of a hemisphere are the
same in their own CRS (``zone_grid.py`` of dClimate's tessera-embeddings). Of other stores a block is a shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.tile import grid
from catalog_builder.tile.grid import PIXEL, Cells

FALSE_NORTHING = 10_000_000
"""Northing of the equator in southern UTM zones, in metres."""

BLOCK_PIXELS = 2048
"""Rows and columns of pixels in a block."""
ZONE_WEST = 163_840.0
"""Left edge of every zone's grid in metres."""
ZONE_COLS = 67_584
"""Columns of pixels of every zone's grid."""
ZONE_TOP = {False: 9_338_880.0, True: 10_014_720.0}
"""Top edge of the grids of the northern (False) and southern (True) hemisphere in metres of their CRS."""
ZONE_ROWS = {False: 933_888, True: 890_880}
"""Rows of pixels of these grids."""

BLOCK_SCHEMA = pa.schema(
    [
        pa.field("epsg", pa.int32(), nullable=False),  # of the grid that the block is in
        pa.field("year", pa.int16(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),  # in blocks, 0 at the top
        pa.field("col", pa.int32(), nullable=False),  # 0 at the left
        pa.field("embedded", pa.bool_(), nullable=False),  # at least one pixel
        pa.field("refused_px", pa.int32()),  # null: not measured
        pa.field("assembled_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""A row of a registry: a block of a zone in a year, as one run left it. The latest of a block counts."""


@cache
def block_centres(south: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return longitudes, relative to the zone's central meridian, and latitudes of the centres of all blocks.

    Parameters
    ----------
    south
        Of which hemisphere's grid.

    Returns
    -------
    tuple of ndarray
        Degrees, float64, each (rows of blocks, columns of blocks).
    """
    from pyproj import Transformer  # 0.1 s to import: only when it is needed

    rows, cols = ZONE_ROWS[south] // BLOCK_PIXELS, ZONE_COLS // BLOCK_PIXELS
    size = BLOCK_PIXELS * PIXEL
    x, y = np.meshgrid(
        ZONE_WEST + (np.arange(cols) + 0.5) * size, ZONE_TOP[south] - (np.arange(rows) + 0.5) * size
    )
    to_degrees = Transformer.from_crs(32731 if south else 32631, 4326, always_xy=True)
    lon, lat = to_degrees.transform(x, y)
    return lon - 3.0, lat  # zone 31 has its central meridian at 3 degrees east


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The grid of squares that the pixels of a UTM zone, or of one hemisphere of it, are divided into."""

    epsg: int
    """Its CRS."""
    west: int
    """Left edge in metres."""
    top: int
    """Upper edge in metres."""
    side: int
    """Rows and columns of pixels in a block."""
    both: bool
    """Whether tiles of both hemispheres lie in it, southern northings being negative."""

    def tiles(self) -> tuple[slice, slice]:
        """Return the rows and columns of the 0.1 degree grid whose tiles are in this zone and hemisphere."""
        equator, zone = grid.N_ROWS // 2, self.epsg % 100
        south = self.epsg // 100 == 327
        rows = slice(0 if self.both or south else equator, equator if south else grid.N_ROWS)
        return rows, slice((zone - 1) * grid.COLS_PER_ZONE, zone * grid.COLS_PER_ZONE)


def published_grid(epsg: int) -> BlockGrid:
    """Return the grid of a zone and hemisphere of dClimate's store."""
    return BlockGrid(epsg, int(ZONE_WEST), int(ZONE_TOP[epsg // 100 == 327]), BLOCK_PIXELS, both=False)


def order_of_neighbours(cell: Cells) -> npt.NDArray[np.int64]:
    """Return the positions of tiles in an order in which neighbours are near each other, zone by zone.

    Tiles are taken in squares of five: a store's block has as many, and neighbours have chunks in common.
    """
    row, col = grid.rows_cols(cell)
    square, zone = 5, col // grid.COLS_PER_ZONE
    return np.lexsort((col, row, col // square, row // square, zone))


def tiles_in_blocks(blocks: pa.Table, of: BlockGrid, cell: Cells) -> tuple[Cells, npt.NDArray[np.float64]]:
    """Return which tiles have pixels in an embedded block, and how many of them may have been refused.

    Parameters
    ----------
    blocks
        Those of one grid and year, :data:`BLOCK_SCHEMA`, each once.
    of
        Their grid.
    cell
        Tiles of that zone and hemisphere.

    Returns
    -------
    cells, refused_fraction
        Both (n,). The fraction is an upper bound: how many pixels of a block were refused is known, and not
        which, so all of those that fit into the tile are counted. Rounded up to 1/10,000. NaN where it was
        not measured in one of the tile's blocks.
    """
    tile_row, tile_col = grid.rows_cols(cell)
    raster = grid.rasters(tile_row, tile_col)
    shift = np.where(tile_row < grid.N_ROWS // 2, FALSE_NORTHING, 0) if of.both else 0
    top = np.rint((of.top - (raster.origin_y - shift)) / PIXEL).astype(np.int64)
    left = np.rint((raster.origin_x - of.west) / PIXEL).astype(np.int64)
    bottom, right = top + raster.height, left + raster.width
    # A map of the blocks that any tile can touch; one more row and column, of nothing, stands for the rest.
    row, col = blocks["row"].to_numpy(), blocks["col"].to_numpy()
    shape = (int(row.max(initial=-1)) + 2, int(col.max(initial=-1)) + 2)
    embedded = np.zeros(shape, np.bool_)
    embedded[row, col] = blocks["embedded"].to_numpy(zero_copy_only=False)
    refused = np.zeros(shape, np.float64)
    refused[row, col] = blocks["refused_px"].cast(pa.float64()).fill_null(np.nan).to_numpy()
    found = np.zeros(len(cell), np.bool_)
    pixels = np.zeros(len(cell), np.float64)
    first_row, first_col = top // of.side, left // of.side
    for down in range(int(((bottom - 1) // of.side - first_row).max(initial=-1)) + 1):
        for across in range(int(((right - 1) // of.side - first_col).max(initial=-1)) + 1):
            r, c = first_row + down, first_col + across
            high = np.minimum(bottom, (r + 1) * of.side) - np.maximum(top, r * of.side)
            wide = np.minimum(right, (c + 1) * of.side) - np.maximum(left, c * of.side)
            overlap = np.maximum(high, 0) * np.maximum(wide, 0)
            known = (overlap > 0) & (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
            at = np.where(known, r, -1), np.where(known, c, -1)
            found |= embedded[at]
            pixels += np.minimum(refused[at], overlap)
    share = np.ceil(pixels / (raster.height * raster.width) * 10_000 - 1e-9) / 10_000
    return cell[found], share[found]
