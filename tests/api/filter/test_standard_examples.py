"""The examples of OGC 21-065r2 (CQL2), with properties that our items have, on both backends.

Expected is what shapely and three-valued logic in plain Python say of every item. Examples of functions that
we do not have, and of arrays, which no item has, are refused with the reason:
:mod:`tests.api.filter.test_cql2`.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

import cql2
import httpx
import numpy as np
import pytest
import shapely
from shapely.geometry import mapping

from tests.support.oracle import Oracle
from tests.support.paging import ok
from tests.support.three_valued import holds

SCALARS = [
    '"tessera:year" - 150.0 > 0',
    "datetime >= DATE('1970-01-01')",
    "geometry IS NOT NULL",
    '"tessera:year" BETWEEN 2018.0 AND 2020.0',
    '"tessera:utm_zone" NOT IN (1, 2, 30, 31)',
    '"tessera:year" = 2018 OR "tessera:year" = 2020',
    '("tessera:utm_zone" > 5 AND "tessera:year" = 2024) OR "tessera:cog" = true',
    'NOT ("tessera:utm_zone" < 5) OR "tessera:cog" = true',
    "T_BEFORE(datetime, DATE('2019-01-01'))",
    "T_AFTER(datetime, DATE('2019-01-01'))",
    "T_DURING(INTERVAL(start_datetime, end_datetime),"
    " INTERVAL('2017-06-10T07:30:00Z', '2021-06-11T10:30:00Z'))",
    "T_INTERSECTS(INTERVAL(start_datetime, end_datetime), INTERVAL('1991-10-07T08:21:06.393262Z',"
    " '2018-02-10T05:29:20.073225Z'))",
    '"tessera:valid_fraction" IS NULL',
    '"tessera:year" > ("tessera:utm_zone" + 1990)',
    '"tessera:year" <> (22.1 * "tessera:utm_zone")',
    '"tessera:utm_zone" = (62 / 2)',
    '"tessera:year" <= (2 ^ "tessera:utm_zone")',
    '0 = ("tessera:utm_zone" % 2)',
    '1010 = ("tessera:year" div 2)',
    '"tessera:year" = - gsd * 2.0 + 2044',
]


def _matched(http: httpx.Client, text: str) -> int:
    counted = ok(http.get("/aggregate", params={"filter": text, "aggregations": "total_count"}))
    return int(counted["aggregations"][0]["value"])


@pytest.mark.parametrize("text", SCALARS)
def test_scalars(http: httpx.Client, oracle: Oracle, text: str) -> None:
    condition = cql2.parse_text(text).to_json()
    year, zone = oracle.year.tolist(), oracle.zone(oracle.all).tolist()
    pairs = list(zip(year, zone, strict=True))
    met = {pair: holds(condition, _row(*pair)) is True for pair in set(pairs)}
    assert _matched(http, text) == sum(met[pair] for pair in pairs)


def _row(year: int, zone: int) -> dict[str, Any]:
    first, last = dt.datetime(year, 1, 1, tzinfo=dt.UTC), dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    return {
        "tessera:year": year, "tessera:utm_zone": zone, "gsd": 10, "geometry": "there", "tessera:cog": False,
        "tessera:valid_fraction": None, "datetime": first, "start_datetime": first, "end_datetime": last,
    }  # fmt: skip


SHAPES: list[tuple[str, str, str, bool]] = [
    # example, function, literal, whether the literal comes first
    ("23", "s_within", "BBOX(-118, 33.8, -117.9, 34)", False),
    ("24", "s_intersects", "POLYGON((-10.0 -10.0,10.0 -10.0,10.0 10.0,-10.0 -10.0))", False),
    ("45", "s_intersects", "BBOX(-128.098193, -1.1, -99999.0, 180.0, 90.0, 100000.0)", False),
    (
        "47",
        "s_disjoint",
        "MULTIPOLYGON (((144.022387 45.176126, -1.1 0.0, 180.0 47.808086, 144.022387 45.176126)))",
        False,
    ),
    (
        "48",
        "s_touches",
        "MULTILINESTRING ((-1.9 -0.99999, 75.292574 1.5, -0.5 -4.016458, -31.708594 -74.743801,"
        " 179.0 -90.0),(-1.9 -1.1, 1.5 8.547371))",
        False,
    ),
    ("50", "s_overlaps", "BBOX(-179.912109, 1.9, 180.0, 16.897016)", False),
    ("50, inside", "s_within", "BBOX(-179.912109, 1.9, 180.0, 56.897016)", False),
    ("50, reversed", "s_contains", "BBOX(-179.912109, 1.9, 180.0, 56.897016)", True),
    ("50, the world", "s_overlaps", "BBOX(-180, -90, 180, 90)", False),
    ("50, round", "s_overlaps", shapely.Point(5, 48).buffer(30).wkt, False),
    (
        "50, with a hole",
        "s_within",
        shapely.Point(5, 48).buffer(30).difference(shapely.Point(5, 48).buffer(9)).wkt,
        False,
    ),
    (
        "51",
        "s_crosses",
        "LINESTRING (172.03086 1.5, 1.1 -90.0, -159.757695 0.99999, -180.0 0.5, -12.111235 81.336403,"
        " -0.5 64.43958, 0.0 81.991815, -155.93831 90.0)",
        False,
    ),
    ("52", "s_contains", "POINT (-3.508362 51.754181)", False),
]


@pytest.mark.parametrize(
    ("function", "literal", "first"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES]
)
def test_geometries(http: httpx.Client, oracle: Oracle, function: str, literal: str, first: bool) -> None:
    found = cql2.parse_text(f"S_INTERSECTS(geometry, {literal})").to_json()["args"][1]
    if "bbox" in found:
        west, south, *_ = found["bbox"]
        east, north = found["bbox"][-2:] if len(found["bbox"]) == 4 else found["bbox"][3:5]
        shape = shapely.box(west, south, east, north)
    else:
        shape = shapely.from_wkt(literal)
    lon, lat = oracle.lon_i, oracle.lat_i
    cells = shapely.box((lon - 5) / 100, (lat - 5) / 100, (lon + 5) / 100, (lat + 5) / 100)
    relation = getattr(shapely, function.removeprefix("s_"))
    held = relation(shape, cells) if first else relation(cells, shape)
    args = f"{literal}, geometry" if first else f"geometry, {literal}"
    assert _matched(http, f"{function}({args})") == np.count_nonzero(held)


def test_too_many_polygons_are_refused_at_once(http: httpx.Client, backend: str) -> None:
    """Before the cells of any are found, which took seconds of a processor."""

    def polygon(i: int) -> dict[str, Any]:
        return json.loads(json.dumps(mapping(shapely.box(-180, -90, 180, 89 - i / 10).segmentize(5))))

    for function in ("s_intersects", "s_within"):
        args = [{"op": function, "args": [{"property": "geometry"}, polygon(i)]} for i in range(60)]
        body = {"filter": {"op": "or", "args": args}}
        http.post("/search", json={"limit": 1})
        began = time.process_time()  # the server runs in this process
        refused = http.post("/search", json=body)
        took = time.process_time() - began
        assert refused.status_code == 400
        assert "outline" in refused.json()["description"]
        assert took < 0.1
