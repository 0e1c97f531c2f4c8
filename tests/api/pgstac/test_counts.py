"""numberMatched where the database has no time to count: exact from what was loaded, near, or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from api.pgstac.counting import presentable
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.search.selection import Count
from catalog_builder.publish.pgstac.load import load_pgstac
from tests.conformance.postgres import psql
from tests.support.backends import EXPORTED_AT, PGSTAC_GROUP, Serve, dsn_of, load, new_database, pgstac_client
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.oracle import Oracle
from tests.support.paging import follow, ids_of, link_of, ok

Mask = npt.NDArray[np.bool_]
BOX = "-10,40,30,60.5"


@pytest.fixture(scope="module")
def hasty(catalog: Path, serve_on: Serve, backend: str) -> Iterator[httpx.Client]:
    """Serve all tiles, and leave the database a millisecond to count; the index may take its time."""
    with (
        serve_on(catalog, search_seconds=60, count_seconds=0.001 if backend == "pgstac" else 60) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield client


EXACT: dict[str, Callable[[Oracle], Mask]] = {
    '"tessera:year" = 2024': lambda o: o.year == 2024,
    '"tessera:year" <> 2024 AND "tessera:utm_zone" IN (30, 31)': lambda o: (
        (o.year != 2024) & np.isin(o.zone(o.all), [30, 31])
    ),
    '"tessera:utm_zone" = 31': lambda o: o.zone(o.all) == 31,
    "\"proj:code\" = 'EPSG:32731'": lambda o: (o.zone(o.all) == 31) & (o.lat_i < 0),
    "\"tessera:coverage\" = 'full'": lambda o: o.coverage(o.all) == "full",
    "NOT \"tessera:coverage\" = 'latest'": lambda o: o.coverage(o.all) != "latest",
    '"tessera:coverage" = \'partial\' AND ("tessera:year" = 2019 OR "tessera:utm_zone" = 31)': lambda o: (
        (o.coverage(o.all) == "partial") & ((o.year == 2019) | (o.zone(o.all) == 31))
    ),
    'NOT (10/("tessera:year" - 2020) > 0)': lambda o: o.year < 2020,
    "collection = 'tessera-v1'": lambda o: np.ones(len(o), np.bool_),
    "collection = 'nothing'": lambda o: np.zeros(len(o), np.bool_),
    "datetime < DATE('2019-01-01')": lambda o: o.year < 2019,
}


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("box", [None, BOX])
def test_known_exactly(hasty: httpx.Client, oracle: Oracle, text: str, box: str | None) -> None:
    met = EXACT[text](oracle)
    if box is not None:
        inside = np.zeros(len(oracle), np.bool_)
        inside[oracle.in_box(*map(float, box.split(",")))] = True
        met &= inside
    given = {"filter": text, "limit": 2, **({} if box is None else {"bbox": box})}
    page = ok(hasty.get("/search", params=given))
    assert page["numberMatched"] == np.count_nonzero(met)
    assert "tessera:matched_exact" not in page
    if (following := link_of(page, "next")) is not None:
        assert follow(hasty, following)["numberMatched"] == page["numberMatched"]


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ('"tessera:cog" = true', lambda o: np.zeros(len(o), np.bool_)),
        ("title LIKE '%12.05%'", lambda o: (np.abs(o.lon_i) % 10_000 == 1205) | (np.abs(o.lat_i) == 1205)),
        ("id LIKE '%' AND \"tessera:year\" = 2024", lambda o: o.year == 2024),
    ],
)
def test_near_or_not_there(
    hasty: httpx.Client, oracle: Oracle, backend: str, text: str, met: Callable[[Oracle], Mask]
) -> None:
    """Of what only the rows say, the planner would say a two hundredth."""
    page = ok(hasty.get("/search", params={"filter": text, "limit": 2}))
    truth = int(np.count_nonzero(met(oracle)))
    found = page["numberMatched"] if backend == "index" else page.get("numberMatched", truth)
    assert truth / 2 <= found <= truth * 2
    assert found == truth or (page["tessera:matched_exact"] is False and backend == "pgstac")


@pytest.mark.parametrize(
    ("found", "at_least", "at_most", "filtered", "shown"),
    [
        (Count(7), 3, 9, True, 7),
        (Count(700, exact=False), 11, 15, True, 15),
        (Count(1, exact=False), 11, 15, True, 11),
        (Count(13, exact=False), 11, 15, True, 13),
        (Count(13, exact=False), 11, 150_000, True, None),
        (Count(5000, exact=False), 11, 150_000, True, None),
        (Count(5000, exact=False), 11, None, True, None),
        (Count(5000, exact=False), 11, None, False, 5000),
        (Count(5, exact=False), 11, None, False, 11),
        (Count(5000, exact=False), 11, 4000, False, 4000),
    ],
)
def test_what_is_shown(
    found: Count, at_least: int, at_most: int | None, filtered: bool, shown: int | None
) -> None:
    said = presentable(found, at_least, at_most, is_filtered=filtered)
    assert (None if said is None else said.n) == shown
    assert said is None or said.exact == found.exact


@PGSTAC_GROUP
def test_a_part_of_a_catalogue(postgres: Mapping[str, str], tmp_path: Path) -> None:
    """Its items say which years the whole has: the loaded years alone do not tell."""
    for year, tiles in ((2022, patch(0, 52, 2, 2)), (2023, patch(0, 52, 4, 3))):
        write_manifest(tmp_path / "m", year, tiles)
    build_from(tmp_path / "catalog", tmp_path / "m")
    database = new_database(postgres)
    dsn = dsn_of(postgres, database)
    index = CatalogFolder(tmp_path / "catalog").open_index()
    load_pgstac(dsn, extracts(index, url=EXPORTED_AT, years=[2023]))

    def matched(http: httpx.Client, coverage: str) -> tuple[int, int]:
        page: Any = ok(http.get(f"/search?limit=50&filter=\"tessera:coverage\" = '{coverage}'"))
        return page["numberMatched"], len(ids_of(page))

    with pgstac_client(dsn, None, refresh_seconds=0.1) as http:
        assert [matched(http, c) for c in ("full", "latest", "partial")] == [(4, 4), (8, 8), (0, 0)]
    assert load(tmp_path / "catalog", dsn).loaded == 4
    with pgstac_client(dsn, None) as http:
        assert [matched(http, c) for c in ("full", "latest", "partial")] == [(8, 8), (8, 8), (0, 0)]


@PGSTAC_GROUP
def test_a_load_ends_with_statistics(postgres: Mapping[str, str], tmp_path: Path) -> None:
    write_manifest(tmp_path / "m", 2022, patch(0, 52, 20, 20))
    build_from(tmp_path / "catalog", tmp_path / "m")
    database = new_database(postgres)
    load(tmp_path / "catalog", dsn_of(postgres, database))
    sql = "SELECT sum(reltuples) FROM pg_class WHERE relname LIKE '\\_items\\_%' AND relkind = 'r'"
    assert float(psql(postgres, sql, database)) == 400
