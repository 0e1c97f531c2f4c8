"""The index against a plain list of tile-years: same rows, same order, same counts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.catalog.index.keys import make_key, split_key
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.schema import NO_TIME
from catalog_builder.catalog.index.search.pages import PAGE_SQL, RANGES_SQL
from catalog_builder.catalog.index.search.selection import Count, Selection
from catalog_builder.catalog.index.writer import IndexRows, IndexWriter
from catalog_builder.errors import CatalogError, QueryTimeoutError
from catalog_builder.item.addresses import Addresses
from catalog_builder.item.item import Has
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import N_COLS, Bounds, rows_cols_touching
from catalog_builder.tile.years import year_bits

YEARS = (2019, 2020, 2024)
FIRST_ROW, FIRST_COL, SIDE = 1415, 1790, 37
"""A patch of tiles that block edges cut on all sides."""


def _patch() -> dict[int, np.ndarray]:
    """Cells of each year: a patch with holes, different every year, ascending."""
    rng = np.random.default_rng(7)
    cells = (np.arange(SIDE)[:, None] + FIRST_ROW) * N_COLS + np.arange(SIDE) + FIRST_COL
    return {
        year: np.sort(cells[rng.random(cells.shape) < share])
        for year, share in zip(YEARS, (1, 0.7, 0.1), strict=True)
    }


@pytest.fixture(scope="module")
def tiles() -> dict[int, np.ndarray]:
    return _patch()


@pytest.fixture(scope="module")
def index(tiles: dict[int, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Index:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    with IndexWriter(path) as writer:
        for ordinal, name in ((1, "v1"), (2, "v1.1-cam")):
            ds = dataset(name)
            counts = tuple(len(c) for c in tiles.values())
            record = CollectionRecord(
                ordinal, ds, YEARS, Addresses("s", "l", "n", "d"), "utm", "s", "l", counts, SIDE * SIDE
            )
            writer.collection(record, "{}")
            for year, cell in tiles.items():
                n = len(cell)
                writer.tiles(
                    ordinal,
                    year,
                    IndexRows(
                        cell.astype(np.int32),
                        np.full(n, year_bits(YEARS), np.uint32),
                        np.full(n, int(Has.NPY), np.int32),
                        np.full(n, NO_TIME),
                    ),
                )
    return Index(path)


@pytest.fixture(scope="module")
def all_keys(tiles: dict[int, np.ndarray]) -> list[int]:
    """Every key of both collections, in order."""
    return [
        make_key(ordinal, year, int(c) // N_COLS, int(c) % N_COLS)
        for ordinal in (1, 2)
        for year, cell in tiles.items()
        for c in cell
    ]


def _runs(bounds: Bounds) -> Runs:
    rows, cols = rows_cols_touching(bounds)
    row = np.arange(rows.start, rows.stop)
    return Runs(row, np.full(len(row), cols.start), np.full(len(row), cols.stop - 1))


boxes = st.builds(
    lambda w, s, dx, dy: Bounds(w / 100, s / 100, (w + dx) / 100, (s + dy) / 100),
    st.integers(-200, 250),
    st.integers(5100, 5600),
    st.integers(0, 400),
    st.integers(0, 400),
)
selections = st.fixed_dictionaries(
    {
        "ordinals": st.sampled_from([(1,), (2,), (1, 2)]),
        "years": st.one_of(st.none(), st.lists(st.sampled_from([2018, *YEARS]), unique=True).map(sorted)),
        "bounds": st.one_of(st.none(), boxes, st.just(Bounds(-180, -90, 180, 90))),
    }
)


def _matches(keys: list[int], wanted: dict[str, object]) -> list[int]:
    bounds = wanted["bounds"]
    out = []
    for key in keys:
        ordinal, year, row, col = split_key(key)
        if ordinal not in wanted["ordinals"] or (wanted["years"] is not None and year not in wanted["years"]):
            continue
        if bounds is not None:
            west, south = (col * 10 - 18000) / 100, (row * 10 - 9000) / 100
            east, north = (col * 10 - 17990) / 100, (row * 10 - 8990) / 100
            if west > bounds.east or east < bounds.west or south > bounds.north or north < bounds.south:
                continue
        out.append(key)
    return out


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(wanted=selections, limit=st.integers(1, 1500))
def test_pages_and_counts_equal_brute_force(
    index: Index, all_keys: list[int], wanted: dict, limit: int
) -> None:
    expected = _matches(all_keys, wanted)
    runs = None if wanted["bounds"] is None else _runs(wanted["bounds"])
    selection = Selection(wanted["ordinals"], wanted["years"], runs)
    assert index.count(selection) == Count(len(expected), exact=True)
    forwards, after = [], None
    pages = []
    while page := index.page(selection, limit, after):
        pages.append([row[0] for row in page])
        forwards += pages[-1]
        after = pages[-1][-1]
    assert forwards == expected
    for before, page in pairwise(pages):
        assert [r[0] for r in index.page(selection, limit, page[0], backwards=True)] == before


@settings(max_examples=40, deadline=None)
@given(wanted=selections, picks=st.lists(st.integers(0, 10**6), max_size=20), missing=st.booleans())
def test_keys_narrow_a_selection(
    index: Index, all_keys: list[int], wanted: dict, picks: list[int], missing: bool
) -> None:
    keys = [all_keys[p % len(all_keys)] for p in picks] + ([make_key(1, 2019, 3, 4)] if missing else [])
    expected = sorted(set(_matches(keys, wanted)) & set(all_keys))
    runs = None if wanted["bounds"] is None else _runs(wanted["bounds"])
    selection = Selection(wanted["ordinals"], wanted["years"], runs, keys=keys)
    assert [r[0] for r in index.page(selection, 10_000)] == expected
    assert index.count(selection).n == len(expected)


def test_a_query_stops_at_its_time_limit(index: Index) -> None:
    numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 90000000)"
    slow = f"({numbers} SELECT max(n) FROM c)"
    selection = Selection((1,), where=f"t.key < {slow}")
    with pytest.raises(QueryTimeoutError, match=r"0\.05 s"):
        index.page(selection, 10, seconds=0.05)
    assert not index.count(selection, seconds=0.05).exact
    assert index.page(Selection((1,)), 3), "the connection stays usable"


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "index.sqlite"
    with IndexWriter(path):
        pass
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'schema_version'")
    with pytest.raises(CatalogError, match="schema 0"):
        Index(path)
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CatalogError, match="not a tessera-stac index"):
        Index(path)
    with pytest.raises(CatalogError, match="no such index"):
        Index(tmp_path / "none.sqlite")


def test_the_page_query_walks_keys_and_sorts_nothing(index: Index) -> None:
    """A sort would read every match before the first row."""
    sql = PAGE_SQL.format(tiles=RANGES_SQL) + " LIMIT ?"
    with index.lend(None, Selection([1])) as db:
        plan = " | ".join(r[3] for r in db.execute("EXPLAIN QUERY PLAN " + sql, ("[[0, 1]]", 1)))
    assert "TEMP B-TREE" not in plan
    assert "SCAN t " not in plan
    assert "SEARCH t USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan
