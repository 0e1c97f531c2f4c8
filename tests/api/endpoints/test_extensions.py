"""Queryables, aggregation, collection search, children and browsing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.paging import ids_of, link_of, ok


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("extensions")
    one = write_manifest(home / "v1", 2020, [*patch(0, 52, 12, 3), *patch(5, -1, 3, 2)])
    two = write_manifest(home / "v1", 2021, [*patch(0, 52, 4, 3), *patch(-180, 60, 2, 2)])
    build_from(home / "catalog", one, two)
    other = write_manifest(home / "v2", 2021, patch(20, 40, 3, 2))
    build_from(home / "catalog", other, dataset="v1.1-cam")
    return home / "catalog"


@pytest.fixture(scope="module")
def api(catalog: Path, serve_on: Serve) -> Iterator[httpx.Client]:
    with serve_on(catalog) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


@pytest.fixture(scope="module")
def items(api: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ok(api.get("/search?limit=1000"))["features"]
    return found


@pytest.mark.parametrize("path", ["/queryables", "/collections/tessera-v1/queryables"])
def test_queryables_are_true(api: httpx.Client, items: list[dict[str, Any]], path: str) -> None:
    document = ok(api.get(path))
    assert document["$id"] == str(api.base_url).rstrip("/") + path
    Draft202012Validator.check_schema(document)
    assert document["additionalProperties"] is False
    item = items[0]
    for name, schema in document["properties"].items():
        if name == "geometry":
            continue
        if name in ("tessera:valid_fraction", "tessera:refused_fraction"):  # of converted tiles, of a store
            assert ok(api.get(f"/search?filter={name} IS NULL"))["numberMatched"] == len(items)
            continue
        value = item[name] if name in ("id", "collection") else item["properties"][name]
        Draft202012Validator(schema).validate(value)
        literal = f"'{value}'" if isinstance(value, str) else str(value).lower()
        found = ok(api.get("/search", params={"filter": f'"{name}" = {literal}', "limit": 1}))
        assert found["numberMatched"] >= 1, name


@pytest.mark.parametrize("path", ["/sortables", "/collections/tessera-v1/sortables"])
def test_sortables_are_true(api: httpx.Client, path: str) -> None:
    names = ok(api.get(path))["properties"]
    assert "geometry" not in names
    for name in names:
        ok(api.get("/search", params={"sortby": f"-{name}", "limit": 1}))
    refused = api.get("/search?sortby=geometry")
    assert refused.status_code == 400
    assert "geometry" in refused.json()["description"]
    assert "expected one of" in api.get("/search?sortby=-nope").json()["description"]


def buckets(api: httpx.Client, name: str, **params: Any) -> dict[Any, int]:
    document = ok(api.get("/aggregate", params={"aggregations": name, **params}))
    (aggregation,) = document["aggregations"]
    assert aggregation["name"] == name
    return {bucket["key"]: bucket["frequency"] for bucket in aggregation["buckets"]}


@pytest.mark.parametrize(
    "params", [{}, {"bbox": "0.15,52.05,0.35,52.15"}, {"filter": "tessera:year = 2021"}, {"q": "cambridge"},
               {"datetime": "2020-05-01T00:00:00Z"}, {"filter": "id LIKE '%_52.05_%'"}],
)  # fmt: skip
def test_aggregations_equal_counting(api: httpx.Client, params: dict[str, Any]) -> None:
    found = ok(api.get("/search", params={"limit": 1000, **params}))["features"]
    assert found

    def by(name: str) -> dict[Any, int]:
        return dict(Counter(f["properties"][name] for f in found))

    total = ok(api.get("/aggregate", params={"aggregations": "total_count", **params}))
    assert total["aggregations"] == [{"name": "total_count", "data_type": "integer", "value": len(found)}]
    assert buckets(api, "year_frequency", **params) == by("tessera:year")
    assert buckets(api, "datetime_frequency", **params) == by("datetime")
    assert buckets(api, "coverage_frequency", **params) == by("tessera:coverage")
    assert buckets(api, "utm_zone_frequency", **params) == by("tessera:utm_zone")
    assert buckets(api, "cog_frequency", **params) == {False: len(found)}
    assert buckets(api, "collection_frequency", **params) == dict(Counter(f["collection"] for f in found))
    squares = Counter(f"{f['bbox'][0] // 1:.0f},{f['bbox'][1] // 1:.0f}" for f in found)
    assert buckets(api, "grid_degree_frequency", **params) == dict(squares)


def test_aggregations_of_a_collection_and_by_post(api: httpx.Client) -> None:
    names = [a["name"] for a in ok(api.get("/aggregations"))["aggregations"]]
    body = {"aggregations": names, "bbox": [0, 52, 1, 53]}
    posted = ok(api.post("/aggregate", json=body))
    got = ok(api.get("/aggregate", params={"aggregations": ",".join(names), "bbox": "0,52,1,53"}))
    assert posted["aggregations"] == got["aggregations"]
    assert [a["name"] for a in got["aggregations"]] == names
    within = ok(api.get("/collections/tessera-v1.1-cam/aggregate"))
    assert within["aggregations"][0]["value"] == 6
    assert ok(api.post("/collections/tessera-v1.1-cam/aggregate", json={}))["aggregations"][0]["value"] == 6
    assert ok(api.get("/collections/tessera-v1/aggregations"))["aggregations"]
    refused = api.get("/aggregate?aggregations=nope")
    assert refused.status_code == 400
    assert "total_count" in refused.json()["description"]
    assert api.get("/collections/nope/aggregate").status_code == 404


def collections(api: httpx.Client, **params: Any) -> list[str]:
    return [c["id"] for c in ok(api.get("/collections", params=params))["collections"]]


def test_collection_search(api: httpx.Client) -> None:
    v1, cam = "tessera-v1", "tessera-v1.1-cam"
    assert collections(api) == [v1, cam]
    assert collections(api, bbox="20,40,20.1,40.1") == [cam]
    assert collections(api, bbox="100,-80,120,-70") == []
    assert collections(api, datetime="2020-06-01T00:00:00Z") == [v1]
    assert collections(api, datetime="2020-06-01T00:00:00Z/..") == [v1, cam]
    assert collections(api, q="cambridge test run") == [cam]
    assert collections(api, q="nothing,EMBEDDINGS") == [v1, cam]
    assert collections(api, sortby="-id") == [cam, v1]
    assert collections(api, filter="tessera:variant = 'vultr'") == [v1]
    assert collections(api, filter="title LIKE '%Cambridge%' OR id = 'x'") == [cam]
    (one,) = ok(api.get("/collections?limit=1&fields=id,title"))["collections"]
    assert set(one) == {"id", "title"}
    wrongs = ("filter=foo=1", "filter=id=3", "sortby=foo", "limit=0", "bbox=1", "foo=1", "datetime=x")
    for wrong in wrongs:
        assert api.get(f"/collections?{wrong}").status_code == 400, wrong
    page = ok(api.get("/collections?limit=1&sortby=-id"))
    assert page["numberMatched"] == 2
    following = link_of(page, "next")
    assert following is not None
    second = ok(api.get(following["href"]))
    assert [c["id"] for c in second["collections"]] == [v1]
    assert link_of(second, "next") is None
    before = link_of(second, "prev")
    assert before is not None
    assert [c["id"] for c in ok(api.get(before["href"]))["collections"]] == [cam]


def test_children_are_the_collections(api: httpx.Client) -> None:
    children = ok(api.get("/children"))["children"]
    assert children == ok(api.get("/collections"))["collections"]
    assert {link_of(child, "parent")["href"] for child in children} == {f"{api.base_url}/"}  # type: ignore[index]


def test_every_item_is_reached_by_links(api: httpx.Client, items: list[dict[str, Any]]) -> None:
    seen: list[str] = []
    todo = ["/browse"]
    while todo:
        document = ok(api.get(todo.pop()))
        assert document["type"] == "Catalog"
        links = document["links"]
        todo += [link["href"] for link in links if link["rel"] == "child"]
        for link in links:
            if link["rel"] == "item":
                item = ok(api.get(link["href"]))
                seen.append(f"{item['collection']}/{item['id']}")
    assert sorted(seen) == sorted(f"{i['collection']}/{i['id']}" for i in items)
    assert len(set(seen)) == len(seen)


def test_browsing_where_nothing_is(api: httpx.Client) -> None:
    here = "/collections/tessera-v1/browse"
    for area in ("3,3,3", "0,50,11", "50,0,10", "1000,0,1", "x"):
        assert api.get(f"{here}/2020/{area}").status_code == 404, area
    for path in (f"{here}/1999", f"{here}/x", "/collections/nope/browse", "/collections/nope/browse/2020"):
        assert api.get(path).status_code == 404, path


def test_one_id_in_two_collections(api: httpx.Client) -> None:
    """Paging by key does not confuse them."""
    first = ok(api.get("/search?limit=1&filter=tessera:year=2021&sortby=id"))
    assert ids_of(first)
    assert first["numberMatched"] == 22
