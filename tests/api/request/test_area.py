"""Sets of cells against masks of the whole globe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.filter.bounds import EVERYTHING, NOTHING, Bound, both, either
from api.filter.bounds import complement as others
from catalog_builder.tile.cell_sets import at_least, complement, from_mask
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.grid import N_COLS, N_ROWS

ROWS = [0, 1, 2, 899, 900, N_ROWS - 1]
EDGES = [0, 1, 2, 9, 10, 60, 1800, N_COLS - 2, N_COLS - 1]

spans = st.tuples(st.sampled_from(ROWS), st.sampled_from(EDGES), st.sampled_from(EDGES)).map(
    lambda s: (s[0], min(s[1:]), max(s[1:]))
)


def as_mask(cells: Runs) -> np.ndarray:
    mask = np.zeros((N_ROWS, N_COLS), bool)
    for row, first, last in zip(*cells, strict=True):
        assert not mask[row, first : last + 1].any(), "runs overlap"
        mask[row, first : last + 1] = True
    return mask


def as_runs(chosen: list[tuple[int, int, int]]) -> Runs:
    """Disjoint, sorted runs of some spans."""
    mask = np.zeros((N_ROWS, N_COLS), np.int8)
    for row, first, last in chosen:
        mask[row, first : last + 1] = 1
    edges = np.diff(mask, axis=1, prepend=0, append=0)
    row, first = np.nonzero(edges == 1)
    _, stop = np.nonzero(edges == -1)
    return Runs(row.astype(np.int32), first.astype(np.int32), (stop - 1).astype(np.int32))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(sets=st.lists(st.lists(spans, max_size=6), min_size=2, max_size=3))
def test_unions_intersections_and_complements(sets: list[list[tuple[int, int, int]]]) -> None:
    runs = [as_runs(s) for s in sets]
    masks = [as_mask(r) for r in runs]
    assert (as_mask(at_least(runs, 1)) == np.any(masks, axis=0)).all()
    assert (as_mask(at_least(runs, len(runs))) == np.all(masks, axis=0)).all()
    outside = complement(runs[0])
    assert (as_mask(outside) == ~masks[0]).all()
    keys = outside.row.astype(np.int64) * 4096 + outside.first_col
    assert (np.diff(keys) > 0).all()


def test_rows_and_columns() -> None:
    rows, cols = np.zeros(N_ROWS, bool), np.zeros(N_COLS, bool)
    rows[[3, 4, N_ROWS - 1]] = True
    cols[[0, 1, 7, N_COLS - 1]] = True
    assert (as_mask(from_mask(rows, cols)) == rows[:, None] & cols).all()
    everything = from_mask(np.ones(N_ROWS, bool), np.ones(N_COLS, bool))
    assert as_mask(everything).all()
    assert not len(complement(everything).row)


A, B = Bound(years=frozenset([2020])), Bound(ordinals=frozenset([1]))


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        (both(A, B), Bound(ordinals=frozenset([1]), years=frozenset([2020]))),
        (both(A, NOTHING), Bound(years=frozenset([2020]), keys=frozenset())),
        (either(A, A), A),
        (either(A, NOTHING), A),
        (either(A, EVERYTHING), EVERYTHING),
        (either(A, B), Bound(exact=False)),
        (either(A, Bound(years=frozenset([2021]))), Bound(years=frozenset([2020, 2021]))),
        (others(A, frozenset([1]), frozenset([2020, 2021])), Bound(years=frozenset([2021]))),
        (others(both(A, B), frozenset([1]), frozenset([2020])), Bound(exact=False)),
        (others(A.inexact(), frozenset(), frozenset()), Bound(exact=False)),
        (others(NOTHING, frozenset(), frozenset()), EVERYTHING),
        (others(EVERYTHING, frozenset(), frozenset()), NOTHING),
    ],
)
def test_bounds(bound: Bound, wanted: Bound) -> None:
    assert bound == wanted
