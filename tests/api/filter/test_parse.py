"""Parsing of filters: the parser is not shown the coordinates of long ones, which changes nothing."""

from __future__ import annotations

import json
import math
from typing import Any

import cql2
import pytest

from api.filter.parse import parse_json
from api.request.area import parse_geometry
from api.settings import Settings
from catalog_builder.errors import QueryError

SETTINGS = Settings(catalog="")
RING = [[round(math.cos(n / 99), 6), round(math.sin(n / 99), 6)] for n in range(500)]
RING.append(RING[0])
SHAPES: list[dict[str, Any]] = [
    {"type": "Point", "coordinates": [1, 0]},
    {"type": "Point", "coordinates": [0, 0]},
    {"type": "Polygon", "coordinates": [RING, [[0, 0], [0.1, 0], [0.1, 0.1], [0, 0]]]},
    {"type": "MultiPolygon", "coordinates": [[RING], [RING]]},
    {"type": "MultiPoint", "coordinates": RING},
    {"type": "LineString", "coordinates": RING},
    {"type": "MultiLineString", "coordinates": [RING, RING]},
    {"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [3, 4]}]},
]


def test_long_filters_are_read_as_short_ones_are() -> None:
    spatial = [{"op": "S_INTERSECTS", "args": [{"property": "geometry"}, shape]} for shape in SHAPES]
    year = {"op": "=", "args": [{"property": "tessera:year"}, 2024]}
    listed = {"op": "in", "args": [{"property": "id"}, ["Point", "a"]]}
    condition = {
        "op": "and",
        "args": [{"op": "or", "args": spatial}, {"op": "not", "args": [spatial[2]]}, year, listed],
    }
    assert len(json.dumps(condition)) > 50_000
    assert parse_json(condition, SETTINGS) == cql2.parse_json(json.dumps(condition)).to_json()


@pytest.mark.parametrize(
    "position", [[1], [1, 2, 3, 4, 5], "12", [1, "2"], [True, 2], [361, 0], [0, 91], [1, None], {"a": 1}, 7]
)
def test_a_wrong_position_among_many_is_named(position: Any) -> None:
    ring = [*RING[:50], position, *RING[50:]]
    with pytest.raises(QueryError, match=r"^area: (expected positions|position)") as said:
        parse_geometry({"type": "Polygon", "coordinates": [ring]}, "area", 10_000)
    assert str(position)[:20] in str(said.value) or "off the globe" in str(said.value)
    parse_geometry({"type": "Polygon", "coordinates": [RING]}, "area", 10_000)
