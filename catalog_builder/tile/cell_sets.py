"""Set operations on cells of the grid: unions, intersections, complements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs, cover_box

_ROW = 1 << 12
"""Cells are numbered row x 4096 + column here: a gap separates the rows, so runs never join across them."""
EVERYWHERE = cover_box(grid.Bounds(-180.0, -90.0, 180.0, 90.0))
"""All cells."""


def at_least(sets: Sequence[Runs], n: int) -> Runs:
    """Return the cells that lie in at least ``n`` of some sets: 1 is their union, all their intersection."""
    if len(sets) == 1 and n == 1:
        return sets[0]
    firsts = [s.row.astype(np.int64) * _ROW + s.first_col for s in sets]
    lasts = [s.row.astype(np.int64) * _ROW + s.last_col for s in sets]
    # Sweep over the starts (+1) and the cells after the ends (-1).
    at = np.concatenate([*firsts, *(last + 1 for last in lasts)])
    n_starts = sum(map(len, firsts))
    step = np.ones(len(at), np.int64)
    step[n_starts:] = -1
    order = np.lexsort((-step, at))  # starts first: adjacent runs are joined
    at, depth = at[order], np.cumsum(step[order])
    before = np.concatenate([[0], depth[:-1]])
    opens = at[(before < n) & (depth >= n)]
    closes = at[(before >= n) & (depth < n)] - 1
    filled = opens <= closes  # at equal cells a start and an end leave nothing between
    return _from_spans(opens[filled], closes[filled])


def complement(cells: Runs) -> Runs:
    """Return the cells that are not in a set."""
    firsts = cells.row.astype(np.int64) * _ROW + cells.first_col
    lasts = cells.row.astype(np.int64) * _ROW + cells.last_col
    rows = np.arange(grid.N_ROWS, dtype=np.int64) * _ROW
    # Between neighbours, and from and to the edges of every row.
    starts = np.sort(np.concatenate([rows, lasts + 1]))
    ends = np.sort(np.concatenate([rows + grid.N_COLS - 1, firsts - 1]))
    filled = starts <= ends
    return _from_spans(starts[filled], ends[filled])


def from_mask(rows: npt.NDArray[np.bool_], cols: npt.NDArray[np.bool_]) -> Runs:
    """Return the cells in the selected rows (mask of 1800) and columns (mask of 3600)."""
    edges = np.diff(cols.astype(np.int8), prepend=0, append=0)
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    row = np.flatnonzero(rows)
    return Runs(
        np.repeat(row, len(first)).astype(np.int32),
        np.tile(first, len(row)).astype(np.int32),
        np.tile(last, len(row)).astype(np.int32),
    )


def from_cells(cells: grid.Cells) -> Runs:
    """Return distinct cells (row * 3600 + column, in any order) as runs."""
    row, col = grid.rows_cols(np.unique(cells).astype(np.int64))
    number = row * _ROW + col
    starts = np.flatnonzero(np.diff(number, prepend=-2) > 1)
    ends = np.append(starts[1:], len(number)) - 1
    return _from_spans(number[starts], number[ends]) if len(number) else _from_spans(number, number)


def _from_spans(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Runs:
    return Runs(
        (first // _ROW).astype(np.int32), (first % _ROW).astype(np.int32), (last % _ROW).astype(np.int32)
    )
