"""Sizes of the blocks (TIFF tiles) of a COG: the defaults, and how they follow from the size of a raster."""

from __future__ import annotations

from typing import Final, Literal

type BlockSize = int | Literal["strips"]
"""Rows and columns of a square block; or ``strips``: 16 rows, as wide as the level."""

BLOCK_SIZE: Final = 64
"""Rows and columns of a block at full resolution, of a tile.

With 48 a pixel takes a quarter less and a window a sixth. But GDAL opens a connection per block, all at
once: for three bands of a tile 1,156 instead of 651, more than the 1,024 files that a process may have open
on most systems, and more than nginx takes as it is installed. It then asks again, or, with
``GDAL_NUM_THREADS``, fails.
"""
OVERVIEW_BLOCK_SIZE: Final = 144
"""The same of overviews. Their pyramid ends where one block holds all, for a tile at 1/8."""


def block_shape(size: BlockSize, cols: int) -> tuple[int, int]:
    """Return (rows, cols) of the blocks of a level with so many columns.

    A strip is wider than its level even where 16 divides that: GDAL's and rio-cogeo's validators call a
    raster not tiled if its blocks are just as wide.

    >>> block_shape("strips", 729), block_shape("strips", 736), block_shape(64, 729)
    ((16, 736), (16, 752), (64, 64))
    """
    return (16, cols // 16 * 16 + 16) if size == "strips" else (size, size)


def block_size_of(rows: int, cols: int) -> int:
    """Return the block size with which one pixel of all bands of a planar int8 raster costs least.

    A reader fetches 4 bytes of offsets per block of every band, and one block of every band: per band
    ``4 * rows * cols / size**2 + size**2`` bytes, least at the fourth root of ``4 * rows * cols``. The
    smallest is :data:`BLOCK_SIZE`, because of connections.

    >>> block_size_of(1139, 729), block_size_of(11_000, 7_000)
    (64, 128)
    """
    best: float = (4 * rows * cols) ** 0.25
    return max(BLOCK_SIZE, 16 * round(best / 16))
