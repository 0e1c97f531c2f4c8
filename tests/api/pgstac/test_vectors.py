"""Vectors of a catalogue whose items are in a database: the same bytes as over its index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import shapely

from api.app import create_app
from api.settings import Settings
from tests.support.backends import PGSTAC_GROUP, dsn_of, load, new_database, serve_pgstac_backend
from tests.support.converted import COLLECTION, converted
from tests.support.http_server import Server, serve
from tests.vectors.test_points import LAT, LON

pytestmark = [PGSTAC_GROUP, pytest.mark.service]
HERE = f"/collections/{COLLECTION}"
FIELD = shapely.Polygon([(15.69, 78.25), (15.71, 78.25), (15.71, 78.253)])
CSV = "lon,lat\n" + "\n".join(f"{x!r},{y!r}" for x, y in zip(LON.tolist(), LAT.tolist(), strict=True))
POSITIONS = f"MULTIPOINT({','.join(f'({x} {y})' for x, y in zip(LON, LAT, strict=True))})"
GEOJSON = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(FIELD)}
CASES: dict[str, dict[str, Any]] = {
    "points?f=arrow": {"method": "POST", "content": CSV, "headers": {"content-type": "text/csv"}},
    "points?f=csv&nearest=50&datetime=2024-01-01T00:00:00Z": {
        "method": "POST", "content": CSV, "headers": {"content-type": "text/csv"},
    },
    "zonal?f=geojson&stat=mean,count": {"method": "POST", "json": GEOJSON},
    "position": {"method": "GET", "params": {"coords": POSITIONS}},
    "position?f=GeoJSON": {"method": "GET", "params": {"coords": POSITIONS, "f": "GeoJSON"}},
    "area": {"method": "GET", "params": {"coords": FIELD.wkt}},
    "position of none": {"method": "GET", "params": {"coords": "POINT(15.6 95)"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def servers(postgres: Mapping[str, str]) -> Iterator[tuple[Server, Server]]:
    catalog = converted().catalog
    dsn = dsn_of(postgres, new_database(postgres))
    load(catalog, dsn)
    with serve(create_app(catalog, Settings())) as index, serve_pgstac_backend(dsn, catalog) as database:
        yield index, database


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_those_of_the_index(servers: tuple[Server, Server], case: str) -> None:
    index, database = (
        httpx.request(url=f"{server.url}{HERE}/{case.removesuffix(' of none')}", timeout=60, **CASES[case])
        for server in servers
    )
    assert index.status_code == (400 if "none" in case else 200)
    assert (database.status_code, database.content) == (index.status_code, index.content)
    assert database.headers["content-type"] == index.headers["content-type"]
