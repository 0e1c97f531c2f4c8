"""Counts of tile-years in blocks of 1 x 1 degree, with which searches skip the sea and count quickly.

A collection's year is 180 x 360 counts. With their sums along the rows of blocks, whether a run of
cells may contain any, and how many tile-years are in whole blocks, are differences of two numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs

BLOCK_CELLS = 10
"""Cells of a side of a block: 1 degree."""
N_BLOCK_ROWS = grid.N_ROWS // BLOCK_CELLS
N_BLOCK_COLS = grid.N_COLS // BLOCK_CELLS
_WORTH_SPLITTING = 5000
"""Cells below which counting them costs less than splitting off whole blocks."""

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


class Blocks:
    """Tile-years per block of one collection and year."""

    def __init__(self, counts: npt.NDArray[np.int32]) -> None:
        """Take counts by band (from the south) and block column (from the west), (180, 360)."""
        self.counts = counts
        self._before = np.zeros((N_BLOCK_ROWS, N_BLOCK_COLS + 1), np.int32)
        np.cumsum(counts, axis=1, out=self._before[:, 1:])

    @property
    def total(self) -> int:
        """Tile-years of the year."""
        return int(self._before[:, -1].sum())

    def may_hold(self, runs: Runs) -> Bools:
        """Return for each run of cells whether a block that it enters has any tile-year."""
        band = runs.row // BLOCK_CELLS
        found: Bools = (
            self._before[band, runs.last_col // BLOCK_CELLS + 1]
            > self._before[band, runs.first_col // BLOCK_CELLS]
        )
        return found

    def count(self, blocks: Runs) -> int:
        """Return the tile-years in runs of whole blocks (rows are bands, columns block columns)."""
        row = blocks.row
        return int((self._before[row, blocks.last_col + 1] - self._before[row, blocks.first_col]).sum())


def split_blocks(runs: Runs) -> tuple[Runs, Runs]:
    """Split cells into whole blocks (as runs of blocks) and the remaining cells."""
    none = Runs(*(np.empty(0, np.int32) for _ in range(3)))
    if int((runs.last_col - runs.first_col + 1).sum()) < _WORTH_SPLITTING:
        return none, runs
    # Within the columns that are used, counted from the edge of a block.
    west = int(runs.first_col.min()) // BLOCK_CELLS * BLOCK_CELLS
    n_blocks = (int(runs.last_col.max()) - west) // BLOCK_CELLS + 1
    runs = Runs(runs.row, runs.first_col - west, runs.last_col - west)
    inner, rim = _split(runs, n_blocks)
    return (
        Runs(inner.row, inner.first_col + west // BLOCK_CELLS, inner.last_col + west // BLOCK_CELLS),
        Runs(rim.row, rim.first_col + west, rim.last_col + west),
    )


def _split(runs: Runs, n_blocks: int) -> tuple[Runs, Runs]:
    none = Runs(*(np.empty(0, np.int32) for _ in range(3)))
    band = runs.row // BLOCK_CELLS
    # The whole blocks of each run, as steps up and down along the band; ten runs make a full block.
    first = -(-runs.first_col // BLOCK_CELLS)
    stop = (runs.last_col + 1) // BLOCK_CELLS
    wide = stop > first
    if not wide.any():
        return none, runs
    bands, position = np.unique(band, return_inverse=True)
    steps = np.zeros((len(bands), n_blocks + 1), dtype=np.int32)
    np.add.at(steps, (position[wide], first[wide]), 1)
    np.add.at(steps, (position[wide], stop[wide]), -1)
    full = np.cumsum(steps, axis=1)[:, :-1] == BLOCK_CELLS
    if not full.any():
        return none, runs
    # What remains of each run, cell by cell, only in bands that have a full block.
    touched = full.any(axis=1)[position]
    rim_rows = np.unique(runs.row[touched])
    where = np.searchsorted(rim_rows, runs.row[touched])
    cell_steps = np.zeros((len(rim_rows), n_blocks * BLOCK_CELLS + 1), dtype=np.int32)
    np.add.at(cell_steps, (where, runs.first_col[touched]), 1)
    np.add.at(cell_steps, (where, runs.last_col[touched] + 1), -1)
    covered = np.cumsum(cell_steps, axis=1)[:, :-1] > 0
    whole = np.repeat(full[np.searchsorted(bands, rim_rows // BLOCK_CELLS)], BLOCK_CELLS, axis=1)
    rim = _runs_of(rim_rows, covered & ~whole)
    merged = Runs(*(np.concatenate([a, b[~touched]]) for a, b in zip(rim, runs, strict=True)))
    order = np.lexsort((merged.first_col, merged.row))
    return _runs_of(bands, full), Runs(*(v[order] for v in merged))


def _runs_of(rows: Ints, covered: Bools) -> Runs:
    """Return the runs of true columns, row by row."""
    edges = np.diff(covered.astype(np.int8), axis=1, prepend=0, append=0)
    at, first = np.nonzero(edges == 1)
    _, stop = np.nonzero(edges == -1)
    return Runs(rows[at].astype(np.int32), first.astype(np.int32), (stop - 1).astype(np.int32))
