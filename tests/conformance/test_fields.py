"""The rules of the fields extension 1.0.0 that stac-api-validator cannot or does not check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from api.app import create_app
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve

DEFAULT = {
    "type",
    "stac_version",
    "stac_extensions",
    "id",
    "collection",
    "geometry",
    "bbox",
    "links",
    "assets",
}
TIMES = {"datetime", "start_datetime", "end_datetime"}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("fields")
    build_from(home / "c", write_manifest(home / "m", 2024, patch(0, 52, 2, 2)))
    with serve(create_app(home / "c")) as server, httpx.Client(base_url=server.url) as client:
        yield client


def _items(http: httpx.Client, fields: Any) -> list[dict[str, Any]]:
    response = (
        http.get("/search", params={"fields": fields})
        if isinstance(fields, str)
        else http.post("/search", json={"fields": fields})
    )
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["features"]
    assert len(found) == 4
    return found


@pytest.mark.parametrize(
    "fields", ["", {}, {"include": [], "exclude": []}, {"include": None, "exclude": None}]
)
def test_nothing_said_is_the_default_set(http: httpx.Client, fields: Any) -> None:
    for item in _items(http, fields):
        assert item.keys() == DEFAULT | {"properties"}
        assert item["properties"].keys() == TIMES


@pytest.mark.parametrize("fields", ["type", "+type", {"include": ["type"]}, "type,stac_version"])
def test_constants_only(http: httpx.Client, fields: Any) -> None:
    assert all(item["type"] == "Feature" and len(item) <= 2 for item in _items(http, fields))


def test_only_exclude_in_a_body_is_all_the_rest(http: httpx.Client) -> None:
    """Rule 3: of POST alone, where ``include`` can be left unsaid."""
    for item in _items(http, {"exclude": ["geometry"]}):
        assert item.keys() == (DEFAULT | {"properties"}) - {"geometry"}
        assert item["properties"]["tessera:year"] == 2024


@pytest.mark.parametrize("include", [[], None])
@pytest.mark.parametrize(
    ("exclude", "left", "times"),
    [
        ("geometry", DEFAULT - {"geometry"}, TIMES),
        ("properties", DEFAULT, set()),
        ("properties.datetime", DEFAULT, TIMES - {"datetime"}),
        ("datetime", DEFAULT, TIMES - {"datetime"}),
    ],
)
def test_exclude_with_an_empty_include(
    http: httpx.Client, include: list[str] | None, exclude: str, left: set[str], times: set[str]
) -> None:
    """Rule 4, of which a GET with exclusions only is a case."""
    posted = _items(http, {"include": include, "exclude": [exclude]})
    assert _items(http, f"-{exclude}") == posted
    for item in posted:
        assert item.keys() - {"properties"} == left
        assert item.get("properties", {}).keys() == times


def test_nested(http: httpx.Client) -> None:
    for fields in ("-properties,+properties.tessera:year", {"include": ["properties.tessera:year"]}):
        assert [i["properties"] for i in _items(http, fields)] == [{"tessera:year": 2024}] * 4
    for item in _items(http, "id,properties,-properties.datetime"):
        assert item.keys() == {"id", "properties"}
        assert "datetime" not in item["properties"]
        assert item["properties"]["tessera:year"] == 2024
    assert all(item.keys() == {"geometry"} for item in _items(http, "+geometry,-geometry"))
