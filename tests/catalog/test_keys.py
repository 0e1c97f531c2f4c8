"""Keys of the index: arrays, SQL and single keys say the same, and a cell lies in what it lies in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.catalog.index import keys as k
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.grid import N_COLS, N_ROWS, TileId

Parts = tuple[int, int, int, int]
parts = st.tuples(
    st.integers(0, 500), st.integers(2000, 2100), st.integers(0, N_ROWS - 1), st.integers(0, N_COLS - 1)
)
corners = [(0, 0), (0, N_COLS - 1), (N_ROWS - 1, 0), (N_ROWS - 1, N_COLS - 1)]


@given(st.lists(parts, min_size=2, max_size=20))
def test_the_order_of_keys_is_the_order_of_their_parts(found: list[Parts]) -> None:
    made = [k.make_key(*of) for of in found]
    assert [k.split_key(key) for key in sorted(made)] == sorted(found)
    assert [k.ordinal_of(key) for key in made] == [of[0] for of in found]


@given(st.lists(parts, min_size=1, max_size=20))
def test_arrays_as_single_keys(found: list[Parts]) -> None:
    made = np.array([k.make_key(*of) for of in found])
    parts_of = (*k.ordinals_years(made), *k.rows_cols(made))
    assert list(zip(*(part.tolist() for part in parts_of), strict=True)) == found


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint16])
def test_keys_of_narrow_columns_do_not_overflow(dtype: type[np.integer]) -> None:
    row, col = np.array(corners, dtype).T
    assert k.make_keys(3, 2024, row, col).tolist() == [k.make_key(3, 2024, *at) for at in corners]


@settings(max_examples=30)
@given(parts)
def test_sql_as_python(of: Parts) -> None:
    ordinal, _, row, col = of
    tile = TileId.from_row_col(row, col)
    sql = (k.ORDINAL_SQL, k.YEAR_SQL, k.ROW_SQL, k.COL_SQL, k.LAT_I_SQL, k.LON_I_SQL, k.LANDMASK_KEY_SQL)
    query = f"SELECT {', '.join(sql)} FROM (SELECT ? AS key) t"
    (found,) = sqlite3.connect(":memory:").execute(query, (k.make_key(*of),)).fetchall()
    assert found == (*of, tile.lat_i, tile.lon_i, k.make_key(ordinal, 0, row, col))


def test_spans_hold_their_own_and_no_others() -> None:
    lo, hi = k.year_span(2, 2020)
    assert lo == k.make_key(2, 2020, 0, 0)
    assert k.make_key(2, 2020, N_ROWS - 1, N_COLS - 1) <= hi < k.make_key(2, 2021, 0, 0)
    lo, hi = k.collection_span(2)
    assert k.make_key(1, 2100, N_ROWS - 1, N_COLS - 1) < lo <= k.make_key(2, 0, 0, 0)
    assert k.make_key(2, 2100, N_ROWS - 1, N_COLS - 1) <= hi < k.make_key(3, 0, 0, 0)


runs = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 3)), max_size=4, unique_by=lambda r: r[0]
).map(lambda found: Runs(*np.array([(r, c, c + n) for r, c, n in sorted(found)], np.int32).reshape(-1, 3).T))


@settings(max_examples=50)
@given(runs)
def test_a_cell_is_in_a_set_of_runs_or_not(some: Runs) -> None:
    cells = set(some.cells().tolist())
    places = [(row, col) for row in range(6) for col in range(13)]
    keys = [k.make_key(7, 2017, *at) for at in places]
    expected = [row * N_COLS + col in cells for row, col in places]
    spans = k.key_spans(some)
    assert k.in_spans(np.array(keys), spans).tolist() == expected
    sets: list[tuple[list[int], list[int]]] = []
    in_cells: Callable[[int, int], bool] = k.cell_tester(sets)
    sets[:] = [([], []), (spans[0].tolist(), spans[1].tolist())]  # the list may change after the function
    assert [in_cells(1, key) for key in keys] == expected
    assert not any(in_cells(0, key) for key in keys)
