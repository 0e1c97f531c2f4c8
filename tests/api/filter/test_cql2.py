"""Filters against the ``cql2`` package's own evaluation of every item, one by one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cql2
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.settings import Settings
from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve
from tests.support.paging import ids_of, ok, walk

few = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build two datasets over two hemispheres and several zones, small enough to test item by item."""
    home = tmp_path_factory.mktemp("cql2")
    for year, tiles in (
        (2020, [*patch(0, 52, 3, 3), *patch(5, -1, 3, 2)]),
        (2021, [*patch(0, 52, 2, 3), *patch(178, 60, 2, 2)]),
        (2023, [*patch(0, 52, 4, 3), *patch(5, -1, 1, 2), *patch(-180, 60, 2, 2)]),
    ):
        write_manifest(home / "v1", year, tiles)
    write_manifest(home / "v2", 2021, patch(0, 52, 3, 2))
    out = home / "catalog"
    build_from(out, *sorted((home / "v1").iterdir()))
    build_from(out, *(home / "v2").iterdir(), dataset="v1.1-cam")
    return out


@pytest.fixture(scope="module")
def api(small: Path, serve_on: Serve) -> Iterator[httpx.Client]:
    with serve_on(small) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def items(api: httpx.Client) -> list[dict[str, Any]]:
    wanted = "id,collection,geometry,properties"
    found: list[dict[str, Any]] = ok(api.get(f"/search?limit=1000&fields={wanted}"))["features"]
    assert len(found) > 40
    return found


def key(item: dict[str, Any]) -> tuple[str, str]:
    return item["collection"], item["id"]


def expected(condition: Any, items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [key(i) for i in items if cql2.parse_json(json.dumps(condition)).matches(i)]


# ------------------------------------------------------------------------------------- drawing

NUMBERS = {"tessera:year": [2019, 2020, 2021, 2022, 2023], "tessera:utm_zone": [1, 31, 60], "gsd": [10, 20]}
TEXTS = {
    "id": ["grid_0.05_52.05_2020", "grid_5.05_-0.95_2023", "grid_0.15_52.05_1999", "x"],
    "collection": ["tessera-v1", "tessera-v1.1-cam"],
    "proj:code": ["EPSG:32631", "EPSG:32731", "EPSG:32601"],
    "tessera:tile": ["grid_0.15_52.15", "grid_178.05_60.05"],
    "tessera:coverage": ["full", "latest", "partial"],
    "tessera:variant": ["vultr", "cambridge"],
    "tessera:dataset_version": ["1.0", "1.1"],
    "title": ["TESSERA v1 embeddings, 0.05 52.05, 2020"],
}
TIMES = ["2020-01-01T00:00:00Z", "2021-06-01T00:00:00Z", "2021-12-31T23:59:59Z", "2023-01-01T00:00:00Z"]
SHAPES: list[Any] = [
    {"type": "Point", "coordinates": [0.12, 52.12]},
    {"type": "Point", "coordinates": [0.1, 52.1]},
    {"type": "LineString", "coordinates": [[-1, 51], [1, 53]]},
    {"type": "LineString", "coordinates": [[0.1, 52.0], [0.1, 52.3]]},
    {"type": "Polygon", "coordinates": [[[0.05, 52.05], [0.25, 52.05], [0.25, 52.25], [0.05, 52.05]]]},
    {"type": "Polygon", "coordinates": [[[0, 52], [0.2, 52], [0.2, 52.2], [0, 52.2], [0, 52]]]},
    {"type": "Polygon", "coordinates": [[[0.1, 52.1], [0.2, 52.1], [0.2, 52.2], [0.1, 52.2], [0.1, 52.1]]]},
    {"type": "Polygon", "coordinates": [[[-10, -10], [10, -10], [10, 10], [-10, 10], [-10, -10]]]},
    {"type": "MultiPoint", "coordinates": [[0.15, 52.15], [5.05, -0.95]]},
]
SPATIAL = ["s_intersects", "s_disjoint", "s_within", "s_contains", "s_touches", "s_equals", "s_overlaps",
           "s_crosses"]  # fmt: skip
RELATIONS = ["t_intersects", "t_disjoint", "t_after", "t_before", "t_during", "t_contains"]
COMPARISONS = ["=", "<>", "<", ">", "<=", ">="]


def prop(name: str) -> dict[str, str]:
    return {"property": name}


@st.composite
def numbers(draw: st.DrawFn) -> Any:
    name = draw(st.sampled_from(list(NUMBERS)))
    plain = prop(name)
    if draw(st.booleans()):
        return plain
    op = draw(st.sampled_from(["+", "-", "*", "/", "%"]))
    return {"op": op, "args": [plain, draw(st.sampled_from([1, 2, 4, 7]))]}


@st.composite
def leaves(draw: st.DrawFn) -> Any:
    kind = draw(
        st.sampled_from(["number", "text", "time", "between", "in", "like", "space", "relation", "casei"])
    )
    if kind == "number":
        name = draw(st.sampled_from(list(NUMBERS)))
        value = draw(st.sampled_from(NUMBERS[name]))
        left = draw(numbers()) if draw(st.booleans()) else prop(name)
        args = [left, value] if draw(st.booleans()) else [value, left]
        return {"op": draw(st.sampled_from(COMPARISONS)), "args": args}
    name = draw(st.sampled_from(list(TEXTS)))
    text = draw(st.sampled_from(TEXTS[name]))
    if kind == "text":
        return {"op": draw(st.sampled_from(COMPARISONS)), "args": [prop(name), text]}
    if kind == "casei":
        return {
            "op": "=",
            "args": [{"op": "casei", "args": [prop(name)]}, {"op": "casei", "args": [text.upper()]}],
        }
    if kind == "like":
        start, end = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
        pattern = (
            text[:start]
            + draw(st.sampled_from(["%", "_", ""]))
            + text[end:]
            + draw(st.sampled_from(["%", ""]))
        )
        return {"op": "like", "args": [prop(name), pattern]}
    if kind == "in":
        return {"op": "in", "args": [prop(name), draw(st.lists(st.sampled_from(TEXTS[name]), min_size=1))]}
    if kind == "between":
        lo, hi = sorted(draw(st.tuples(*[st.sampled_from(NUMBERS["tessera:year"])] * 2)))
        return {"op": "between", "args": [prop("tessera:year"), lo, hi]}
    if kind == "time":
        field = draw(st.sampled_from(["datetime", "start_datetime", "end_datetime"]))
        return {
            "op": draw(st.sampled_from(COMPARISONS)),
            "args": [prop(field), {"timestamp": draw(st.sampled_from(TIMES))}],
        }
    if kind == "space":
        op = draw(st.sampled_from(SPATIAL))
        return {"op": op, "args": [prop("geometry"), draw(st.sampled_from(SHAPES))]}
    a, b = sorted(draw(st.lists(st.sampled_from(TIMES), min_size=2, max_size=2, unique=True)))
    op = draw(st.sampled_from(RELATIONS))
    whole = {"interval": [prop("start_datetime"), prop("end_datetime")]}
    return {"op": op, "args": [whole, {"interval": [a, b]}]}


conditions = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(lambda a: {"op": "not", "args": [a]}, inner),
        st.builds(
            lambda op, args: {"op": op, "args": args},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=6,
)


@few
@given(condition=conditions)
def test_filters_equal_cql2(api: httpx.Client, items: list[dict[str, Any]], condition: Any) -> None:
    found = ok(api.post("/search", json={"filter": condition, "limit": 1000}))
    assert [key(i) for i in found["features"]] == expected(condition, items)
    assert found["numberMatched"] == len(found["features"])


@few
@given(condition=conditions)
def test_text_and_json_are_the_same(api: httpx.Client, condition: Any) -> None:
    text = cql2.parse_json(json.dumps(condition)).to_text()
    by_json = ok(api.post("/search", json={"filter": condition, "limit": 1000, "filter-lang": "cql2-json"}))
    for answer in (
        api.get("/search", params={"filter": text, "limit": 1000}),
        api.get(
            "/search", params={"filter": json.dumps(condition), "filter-lang": "cql2-json", "limit": 1000}
        ),
        api.post("/search", json={"filter": text, "filter-lang": "cql2-text", "limit": 1000}),
    ):
        assert ids_of(ok(answer)) == ids_of(by_json)


@settings(few, max_examples=40)
@given(condition=conditions, limit=st.integers(1, 20))
def test_filtered_pages(api: httpx.Client, items: list[dict[str, Any]], condition: Any, limit: int) -> None:
    pages = walk(api, ok(api.post("/search", json={"filter": condition, "limit": limit})))
    assert [i for page in pages for i in page] == [i for _, i in expected(condition, items)]


# ------------------------------------------------------------------------------------- sorting

SORTABLES = ["id", "collection", "datetime", "end_datetime", "tessera:year", "tessera:utm_zone", "proj:code",
             "tessera:coverage", "tessera:tile", "title", "gsd", "tessera:cog"]  # fmt: skip


def sort_value(item: dict[str, Any], name: str) -> Any:
    return item[name] if name in ("id", "collection") else item["properties"][name]


@settings(few, max_examples=60)
@given(
    terms=st.lists(
        st.tuples(st.sampled_from(SORTABLES), st.booleans()), min_size=1, max_size=3, unique_by=lambda t: t[0]
    ),
    limit=st.integers(1, 30),
    condition=st.none() | conditions,
    get=st.booleans(),
)
def test_any_order_is_stable_over_pages(
    api: httpx.Client, items: list[dict[str, Any]], terms: Any, limit: int, condition: Any, get: bool
) -> None:
    """Sorted in Python by each term from the last to the first; ties in the order of the index."""
    good = (
        items
        if condition is None
        else [i for i in items if cql2.parse_json(json.dumps(condition)).matches(i)]
    )
    for name, descending in reversed(terms):
        good = sorted(good, key=lambda item: sort_value(item, name), reverse=descending)
    if get and condition is None:
        text = ",".join(f"{'-' if down else '+'}{name}" for name, down in terms)
        first = ok(api.get("/search", params={"sortby": text, "limit": limit}))
    else:
        sortby = [{"field": f"properties.{n}" if i % 2 and n not in ("id", "collection") else n,
                   "direction": "desc" if d else "asc"} for i, (n, d) in enumerate(terms)]  # fmt: skip
        body = {"sortby": sortby, "limit": limit, **({"filter": condition} if condition is not None else {})}
        first = ok(api.post("/search", json=body))
    pages = walk(api, first)
    assert list(itertools.chain(*pages)) == [i["id"] for i in good]


@pytest.mark.service
def test_sorting_too_many_is_refused_with_advice(small: Path) -> None:
    app = create_app(small, Settings(max_sorted=10))
    with serve(app) as server, httpx.Client(base_url=server.url) as http:
        refused = http.get("/search?sortby=tessera:tile")
        assert refused.status_code == 400
        assert "at most 10" in refused.json()["description"]
        ok(http.get("/search?sortby=-datetime"))
        ok(http.get("/search?sortby=tessera:tile&bbox=0.11,52.01,0.12,52.02"))
        ok(http.get("/search?sortby=-id&ids=grid_0.05_52.05_2020"))


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foo = 1", "unknown property 'foo'"),
        ("tessera:year = 'x'", "cannot compare"),
        ("id = 3", "cannot compare"),
        ("id + 1 = 3", "takes numbers"),
        ("upper(id) = 'X'", "unknown function 'upper'"),
        ("avg(gsd)", "unknown function or operator 'avg'"),
        ("avg(gsd) < 4", "unknown function 'avg'"),
        ("Foo(geometry) = TRUE", "unknown function 'Foo'"),
        ("S_WITHIN(geometry, Buffer(geometry, 10, 'm'))", "found the function 'Buffer'"),
        ("S_INTERSECTS(Buffer(POINT(1 2), 3), geometry)", "found the function 'Buffer'"),
        ("A_CONTAINS(tessera:year, ('a', 'b'))", "unknown function or operator"),
        ("(foo + 1) IS NULL", "unknown property 'foo'"),
        ("(geometry + 1) IS NULL", "spatial functions only"),
        ("foo(id) IS NULL", "unknown function 'foo'"),
        ("foo(id)", "unknown function"),
        ("geometry = 3", "spatial functions only"),
        ("s_intersects(id, POINT(1 2))", "found 'id'"),
        ("s_intersects(geometry, POINT(1 95))", "off the globe"),
        ("t_after(id, TIMESTAMP('2020-01-01T00:00:00Z'))", "takes times"),
        ("t_after(datetime, TIMESTAMP('2020-13-01T00:00:00Z'))", "not a time"),
        ("datetime > '2020'", "not a time"),
        ("tessera:cog", "alone is not a condition"),
        ("tessera:cog > true", "= and <> only"),
        ("id LIKE title", "a pattern"),
        ("a = ", "not cql2-text"),
        ("", "not cql2-text"),
        ("(" * 200 + "1=1" + ")" * 200, "nested deeper"),
        ("(" * 20000 + "1=1" + ")" * 20000, "nested deeper"),
        ("NOT " * 5000 + "1=1", "nested deeper"),
        ("-" * 5000 + "1=1", "nested deeper"),
        (" AND ".join(["1=1"] * 3000), "simplify"),
        ("tessera:year = 1e300", "out of range"),
        ("1 / 0 = 1 AND foo = 2", "foo"),
        ("id IN ()", "filter"),
        ("collection BETWEEN 1 AND 'a'", "cannot compare"),
    ],
)
def test_a_filter_that_does_not_fit_is_400(api: httpx.Client, text: str, said: str) -> None:
    response = api.post("/search", json={"filter": text, "filter-lang": "cql2-text"})
    assert response.status_code == 400, response.text
    assert response.json()["description"].startswith("filter")
    assert said in response.json()["description"]


@pytest.mark.parametrize(
    "value",
    [5, [], "{", {"op": "="}, {"op": "=", "args": 5}, {"op": "=", "args": []}, {"op": 5, "args": []},
     {"op": "nope", "args": [1]}, {"args": []}, {"property": 5}, {"op": "and", "args": []},
     {"op": "in", "args": [{"property": "id"}, 5]},
     {"op": "s_intersects", "args": [{"property": "geometry"}, {}]},
     {"op": "t_after", "args": [{"property": "datetime"}, {"interval": [1, 2, 3]}]},
     {"op": "=", "args": [{"property": "id"}, {"timestamp": 5}]},
     {"op": "not", "args": [{"op": "not", "args": [1]}]}, {"op": "isNull", "args": [5, 6]}],
)  # fmt: skip
def test_json_that_is_no_filter_is_400(api: httpx.Client, value: Any) -> None:
    response = api.post("/search", json={"filter": value})
    assert response.status_code == 400, response.text
    assert "filter" in response.json()["description"]


def test_a_deeply_nested_json_filter(api: httpx.Client) -> None:
    condition: Any = {"op": "=", "args": [1, 1]}
    for _ in range(500):
        condition = {"op": "not", "args": [condition]}
    response = api.post("/search", json={"filter": condition})
    assert response.status_code == 400
    assert "nested" in response.json()["description"]


def test_division_by_zero_matches_nothing(api: httpx.Client) -> None:
    assert ok(api.get("/search", params={"filter": "tessera:year / 0 = 1"}))["numberMatched"] == 0


# ------------------------------------------------------------------------------ other extensions


def test_query_is_a_filter(api: httpx.Client, items: list[dict[str, Any]]) -> None:
    query = {
        "tessera:year": {"gte": 2020, "lt": 2023},
        "tessera:coverage": {"in": ["full", "partial"]},
        "id": {"startsWith": "grid_0", "contains": "52", "endsWith": "1"},
        "tessera:utm_zone": {"neq": 1},
    }
    found = ok(api.post("/search", json={"query": query, "limit": 1000}))
    wanted = [
        key(i)
        for i in items
        if i["properties"]["tessera:year"] == 2021
        and i["properties"]["tessera:coverage"] in ("full", "partial")
        and i["id"].startswith("grid_0")
        and "52" in i["id"]
    ]
    assert [key(i) for i in found["features"]] == wanted
    assert wanted
    both = {"query": query, "filter": {"op": "=", "args": [prop("collection"), "tessera-v1"]}, "limit": 1000}
    assert {i["collection"] for i in ok(api.post("/search", json=both))["features"]} == {"tessera-v1"}
    for wrong in ({"id": {"like": "x"}}, {"foo": {"eq": 1}}, {"id": 5}, [], {"id": {"in": []}}):
        assert api.post("/search", json={"query": wrong}).status_code == 400


def test_fields(api: httpx.Client) -> None:
    def one(**body: Any) -> dict[str, Any]:
        (item,) = ok(api.post("/search", json={"limit": 1, **body}))["features"]
        return dict(item)

    whole = one()
    assert set(one(fields={"include": ["id"]})) == {"id"}
    picked = one(fields={"include": ["id", "properties.tessera:year", "assets.source_npy.href"]})
    assert picked == {
        "id": whole["id"],
        "properties": {"tessera:year": 2020},
        "assets": {"source_npy": {"href": whole["assets"]["source_npy"]["href"]}},
    }
    without = one(fields={"exclude": ["assets", "properties.title"]})
    assert "assets" not in without
    assert set(whole["properties"]) - set(without["properties"]) == {"title"}
    defaults = one(fields={})
    assert {"type", "id", "bbox", "links", "assets", "geometry"} <= set(defaults)
    assert defaults["properties"]["datetime"] == "2020-01-01T00:00:00Z"
    assert "title" not in defaults["properties"]
    assert one(fields={"include": ["tessera:year", "nothing"]}) == {"properties": {"tessera:year": 2020}}
    got = ok(api.get("/search?limit=1&fields=id,-geometry,properties.datetime"))["features"][0]
    assert set(got) == {"id", "properties"}
    page = ok(api.get("/search?limit=1&fields=id"))
    assert "fields=id" in next(link["href"] for link in page["links"] if link["rel"] == "next")
    for wrong in (None, 5, [], {"only": ["id"]}, {"include": "id"}):
        assert api.post("/search", json={"fields": wrong}).status_code == 400


def test_free_text(api: httpx.Client, items: list[dict[str, Any]]) -> None:
    def found(q: str) -> list[tuple[str, str]]:
        return [key(i) for i in ok(api.get("/search", params={"q": q, "limit": 1000}))["features"]]

    assert found("2021") == [key(i) for i in items if i["properties"]["tessera:year"] == 2021]
    assert found("cambridge TEST run") == [key(i) for i in items if i["collection"] == "tessera-v1.1-cam"]
    assert found("tessera") == [key(i) for i in items]
    assert found("tess") == []
    assert found("52.05,GRID_5.05_-0.95") == [
        key(i) for i in items if "_52.05_" in i["id"] or i["id"].startswith("grid_5.05_-0.95_")
    ]
    assert found("2020,52.15") == [key(i) for i in items if i["id"].endswith("_2020") or "_52.15_" in i["id"]]
    assert api.post("/search", json={"q": [" "]}).status_code == 400
