"""Keys of tile-years: ``collection | year | row | column`` in one integer, and ranges of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import orjson

from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs

_COL_BITS, _ROW_BITS, _YEAR_BITS = 12, 11, 12
_CELL_BITS = _ROW_BITS + _COL_BITS
_COL, _ROW, _YEAR, _CELL = ((1 << bits) - 1 for bits in (_COL_BITS, _ROW_BITS, _YEAR_BITS, _CELL_BITS))
IntArray = npt.NDArray[np.integer]
Keys = npt.NDArray[np.int64]

# The parts of ``t.key`` in SQL.
ORDINAL_SQL = f"(t.key >> {_CELL_BITS + _YEAR_BITS})"
YEAR_SQL = f"((t.key >> {_CELL_BITS}) & {_YEAR})"
ROW_SQL = f"((t.key >> {_COL_BITS}) & {_ROW})"
COL_SQL = f"(t.key & {_COL})"
LON_I_SQL = f"({COL_SQL} * {grid.STEP} + {grid.FIRST_LON_I})"
LAT_I_SQL = f"({ROW_SQL} * {grid.STEP} + {grid.FIRST_LAT_I})"
"""Centres in hundredths of a degree."""
LANDMASK_KEY_SQL = f"(t.key >> {_CELL_BITS + _YEAR_BITS} << {_CELL_BITS + _YEAR_BITS}) | (t.key & {_CELL})"
"""Key of a tile-year's landmask, which has no year."""


def make_key(ordinal: int, year: int, row: int, col: int) -> int:
    """Return the key of a tile-year.

    >>> split_key(make_key(1, 2024, 1420, 1801))
    (1, 2024, 1420, 1801)
    """
    return ((ordinal << _YEAR_BITS | year) << _CELL_BITS) | row << _COL_BITS | col


def split_key(key: int) -> tuple[int, int, int, int]:
    """Return (collection ordinal, year, row, column) of a key."""
    high = key >> _CELL_BITS
    return high >> _YEAR_BITS, high & _YEAR, (key >> _COL_BITS) & _ROW, key & _COL


def is_key(key: int) -> bool:
    """Return whether a number can be the key of a tile-year.

    >>> is_key(make_key(1, 2024, 1420, 1801)), is_key(-1), is_key(_CELL)
    (True, False, False)
    """
    _, _, row, col = split_key(key)
    return 0 <= key < 1 << 62 and row < grid.N_ROWS and col < grid.N_COLS


def ordinal_of(key: int) -> int:
    """Return the collection ordinal of a key."""
    return key >> (_CELL_BITS + _YEAR_BITS)


def make_keys(ordinal: int, year: int, row: IntArray, col: IntArray) -> Keys:
    """Return the keys of a year's cells, or of its blocks, whose keys have the same form; (n,)."""
    keys: Keys = make_key(ordinal, year, 0, 0) + (row.astype(np.int64) << _COL_BITS | col)
    return keys


def ordinals_years(keys: Keys) -> tuple[Keys, Keys]:
    """Return collection ordinals and years of keys."""
    high = keys >> _CELL_BITS
    return high >> _YEAR_BITS, high & _YEAR


def rows_cols(keys: Keys) -> tuple[Keys, Keys]:
    """Return rows and columns of keys."""
    return (keys >> _COL_BITS) & _ROW, keys & _COL


def year_span(ordinal: int, year: int) -> tuple[int, int]:
    """Return the first and the last key that a collection's year can have, for ``BETWEEN``."""
    base = make_key(ordinal, year, 0, 0)
    return base, base + _CELL


def collection_span(ordinal: int) -> tuple[int, int]:
    """Return the first and the last key that a collection can have, for ``BETWEEN``."""
    return make_key(ordinal, 0, 0, 0), make_key(ordinal + 1, 0, 0, 0) - 1


def cell_tester(sets: Sequence[tuple[list[int], list[int]]]) -> Callable[[int, int], bool]:
    """Return a function of (number of a set, key) that returns whether the key's cell is in the set.

    Parameters
    ----------
    sets
        :func:`key_spans` of each set as lists; read in every call.
    """

    def in_cells(number: int, key: int) -> bool:
        lo, hi = sets[number]
        cell = key & _CELL
        at = bisect_right(lo, cell) - 1
        return at >= 0 and cell <= hi[at]

    return in_cells


def in_spans(keys: Keys, spans: tuple[Keys, Keys]) -> npt.NDArray[np.bool_]:
    """Return which keys' cells are in :func:`key_spans`, (n,)."""
    lo, hi = spans
    if not len(lo):
        return np.zeros(len(keys), np.bool_)
    cell = keys & _CELL
    at = np.searchsorted(lo, cell, side="right") - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (cell <= hi[at])
    return found


def key_spans(runs: Runs) -> tuple[Keys, Keys]:
    """Return first and last cell keys of each run; whole rows that follow each other are merged."""
    lo, hi = make_keys(0, 0, runs.row, runs.first_col), make_keys(0, 0, runs.row, runs.last_col)
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
    """Return the part of ascending ranges beyond a key."""
    if backwards:
        ranges = ranges[ranges[:, 0] < after]
        return np.column_stack([ranges[:, 0], np.minimum(ranges[:, 1], after - 1)])
    ranges = ranges[ranges[:, 1] > after]
    return np.column_stack([np.maximum(ranges[:, 0], after + 1), ranges[:, 1]])


def ranges_json(ranges: Keys) -> str:
    """Encode key ranges (n, 2) for :data:`RANGES_SQL`."""
    return orjson.dumps(np.ascontiguousarray(ranges), option=orjson.OPT_SERIALIZE_NUMPY).decode()
