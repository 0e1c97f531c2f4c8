"""Keys of tile-years: ``collection | year | row | column`` in one integer, and ranges of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import orjson

from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs

COL_BITS, ROW_BITS, YEAR_BITS = 12, 11, 12
CELL_BITS = ROW_BITS + COL_BITS
IntArray = npt.NDArray[np.integer]
Keys = npt.NDArray[np.int64]


def make_key(ordinal: int, year: int, row: int, col: int) -> int:
    """Return the key of a tile-year."""
    return ((ordinal << YEAR_BITS | year) << CELL_BITS) | row << COL_BITS | col


def split_key(key: int) -> tuple[int, int, int, int]:
    """Return (collection ordinal, year, row, column) of a key."""
    cell = key & ((1 << CELL_BITS) - 1)
    high = key >> CELL_BITS
    return high >> YEAR_BITS, high & ((1 << YEAR_BITS) - 1), cell >> COL_BITS, cell & ((1 << COL_BITS) - 1)


def key_spans(runs: Runs) -> tuple[Keys, Keys]:
    """Return first and last cell keys of each run; whole rows that follow each other are merged."""
    lo = (runs.row.astype(np.int64) << COL_BITS) | runs.first_col
    hi = (runs.row.astype(np.int64) << COL_BITS) | runs.last_col
    if len(lo) < 2:
        return lo, hi
    # No key lies between the last column of a row and the first of the next.
    joined = (
        (runs.first_col[1:] == 0)
        & (runs.last_col[:-1] == grid.N_COLS - 1)
        & (runs.row[1:] == runs.row[:-1] + 1)
    )
    if not joined.any():
        return lo, hi
    starts = np.concatenate([[True], ~joined])
    return lo[starts], hi[np.concatenate([~joined, [True]])]


def past(ranges: Keys, after: int, backwards: bool) -> Keys:
    """Return what of ascending ranges lies beyond a key."""
    if backwards:
        ranges = ranges[ranges[:, 0] < after]
        return np.column_stack([ranges[:, 0], np.minimum(ranges[:, 1], after - 1)])
    ranges = ranges[ranges[:, 1] > after]
    return np.column_stack([np.maximum(ranges[:, 0], after + 1), ranges[:, 1]])


def ranges_json(ranges: Keys) -> str:
    """Return key ranges (n, 2) as :data:`RANGES_SQL` takes them."""
    return orjson.dumps(np.ascontiguousarray(ranges), option=orjson.OPT_SERIALIZE_NUMPY).decode()
