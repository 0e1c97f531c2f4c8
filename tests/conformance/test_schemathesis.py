"""The OpenAPI document tells the truth: thousands of drawn requests, no fault, no undocumented answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.app import create_app
from api.endpoints.openapi import OPERATIONS, Operation
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION, converted

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
"""Not those that want every drawn value accepted: a schema cannot say what CQL2 or a token is."""


@pytest.fixture(scope="session")
def web_api(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.openapi.OpenApiSchema:
    home: Path = tmp_path_factory.mktemp("schemathesis")
    one = write_manifest(home / "m", 2020, [*patch(0, 52, 12, 3), *patch(5, -1, 3, 2)])
    two = write_manifest(home / "m", 2021, patch(0, 52, 4, 3))
    build_from(home / "catalog", one, two)
    return schemathesis.openapi.from_asgi("/api", create_app(home / "catalog"))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda m: m.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.method} {o.path}")
def test_every_operation(
    web_api: schemathesis.openapi.OpenApiSchema, operation: Operation, mode: GenerationMode
) -> None:
    drawn = web_api[operation.path][operation.method].as_strategy(generation_mode=mode)

    @settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=drawn)
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    check()


@pytest.fixture(scope="session")
def with_pixels() -> schemathesis.openapi.OpenApiSchema:
    return schemathesis.openapi.from_asgi("/api", create_app(converted().catalog))


def numbers(centre: float, by: float) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(centre - by, centre + by), st.floats(), st.integers(-400, 400).map(float))


POSITIONS = st.lists(st.tuples(numbers(15.7, 0.1), numbers(78.25, 0.05)), max_size=6)
"""In the tiles, and anywhere and nowhere else."""


@st.composite
def shapes(draw: st.DrawFn) -> str:
    """Draw WKT of the kinds that are accepted, of others, and what is nearly WKT."""
    kind = draw(st.sampled_from(["POINT", "MULTIPOINT", "POLYGON", "MULTIPOLYGON", "LINESTRING"]))
    places = ",".join(f"{x} {y}" for x, y in draw(POSITIONS))
    depth = {"POLYGON": 2, "MULTIPOLYGON": 3}.get(kind, 1) + draw(st.sampled_from([0, 0, 0, -1, 1]))
    return kind + "(" * depth + places + ")" * depth


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda m: m.value)
@pytest.mark.parametrize("verb", ["points", "zonal", "position", "area"])
def test_every_request_for_vectors(
    with_pixels: schemathesis.openapi.OpenApiSchema, verb: str, mode: GenerationMode
) -> None:
    """Of a collection that is there, with bodies and geometries that are nearly right."""
    path = f"/collections/{{collection_id}}/{verb}"
    is_query = verb in ("position", "area")
    drawn = with_pixels[path]["GET" if is_query else "POST"].as_strategy(generation_mode=mode)

    @settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=drawn, wkt=shapes() | st.none())
    def check(case: schemathesis.Case, wkt: str | None) -> None:
        case.path_parameters = {"collection_id": COLLECTION}
        if wkt is not None and is_query:
            case.query = {**(case.query or {}), "coords": wkt}
        elif wkt is not None and case.media_type and "json" in case.media_type:
            case.body = {"type": "Feature", "properties": {}, "geometry": _geojson(wkt)}
        case.call_and_validate(checks=CHECKS)

    check()


def _geojson(wkt: str) -> object:
    try:
        return shapely.geometry.mapping(shapely.from_wkt(wkt))
    except (shapely.errors.ShapelyError, ValueError):
        return wkt
