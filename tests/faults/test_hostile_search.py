"""JSON and CQL2 made to hurt: each is answered 200, 400, 413 or 415, and the server goes on.

Every case runs against one server in a process of its own: one that crashes it fails all that follow.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.server import Served, serving
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.paging import ok

GEOMETRY, ID, TITLE, YEAR = ({"property": p} for p in ("geometry", "id", "title", "tessera:year"))
TILES = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("hostile")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 5, 4)))
    with serving(folder / "catalog") as running:
        yield running


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
        yield client


def _is_up(http: httpx.Client) -> None:
    assert ok(http.get("/search?limit=1"))["numberMatched"] == TILES


def _post(http: httpx.Client, body: Any, **headers: str) -> httpx.Response:
    """Send a body; whatever it is, the answer is one of these and says why."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.post("/search", content=data, headers={"content-type": "application/json", **headers})
    assert answer.status_code in (200, 400, 413, 415, 503), (answer.status_code, answer.text[:300])
    if answer.status_code != 200:
        assert answer.json()["description"]
        assert len(answer.content) < 2000, "a reason is short, whatever was sent"
    return answer


DEEP = 100_000
BODIES: dict[str, tuple[bytes, int, str]] = {
    "arrays": (b"[" * DEEP, 400, "depth limit"),
    "closed arrays": (b'{"filter":' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "depth limit"),
    "objects": (b'{"a":' * DEEP, 400, "depth limit"),
    "a thousand levels": (b'{"filter":' + b"[" * 1000 + b"]" * 1000 + b"}", 400, "nested deeper"),
    "levels below coordinates": (
        b'{"filter":{"op":"=","args":[{"coordinates":' + b"[" * 900 + b"]" * 900 + b"},1]}}",
        400,
        "nested deeper",
    ),
    "levels in arguments": (
        b'{"filter":{"op":"=","args":[' + b"[" * 300 + b"]" * 300 + b",1]}}",
        400,
        "deeper",
    ),
    "a huge number": (b'{"limit":' + b"9" * DEEP + b"}", 400, "infinity"),
    "too large an exponent": (b'{"limit":1e999}', 400, "infinity"),
    "a large negative limit": (b'{"limit":-1e308}', 400, "at least 1"),
    "NaN": (b'{"bbox":[NaN,0,1,1]}', 400, "not JSON"),
    "Infinity": (b'{"bbox":[0,0,Infinity,1]}', 400, "not JSON"),
    "a lone surrogate": (b'{"ids":["\\ud800"]}', 400, "surrogate"),
    "not UTF-8": (b'{"ids":["\xff\xfe"]}', 400, "UTF-8"),
    "a NUL": (b'{"ids":["\\u0000"]}', 200, ""),
    "a key twice": (b'{"limit":1,"limit":2}', 200, ""),  # the last counts, as in JavaScript
    "too long": (b" " * 4_000_001, 413, "at most 4000000"),
    "not JSON": (os.urandom(1000), 400, "not JSON"),
}


@pytest.mark.parametrize("name", BODIES)
def test_json_bodies(http: httpx.Client, name: str) -> None:
    body, status, said = BODIES[name]
    answer = _post(http, body)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text[:300]
    _is_up(http)


def test_a_body_without_a_length_is_counted(http: httpx.Client) -> None:
    parts = (b" " * 100_000 for _ in range(50))
    assert http.post("/search", content=parts).status_code == 413
    _is_up(http)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
def test_compressed_bodies_are_not_unpacked(http: httpx.Client, encoding: str) -> None:
    """A bomb: 30 kB that would be 30 MB."""
    answer = _post(http, gzip.compress(bytes(30_000_000)), **{"content-encoding": encoding})
    assert answer.status_code == 415
    assert "compressed" in answer.json()["description"]


def _ring(n: int, west: float, south: float, east: float, north: float) -> list[list[float]]:
    """Return a ring that jumps about: about n * n / 8 crossings."""
    rng = random.Random(n)
    ring = [[round(rng.uniform(west, east), 3), round(rng.uniform(south, north), 3)] for _ in range(n)]
    return [*ring, ring[0]]


def _polygon(n: int, *box: float) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [_ring(n, *box)]}


def _circle(n: int, radius: float = 3) -> dict[str, Any]:
    angles = [2 * math.pi * i / n for i in range(n)]
    ring = [[5 + radius * math.cos(a), 55 + radius * math.sin(a)] for a in angles]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def _comb(n: int, *, upright: bool) -> dict[str, Any]:
    """Return a line that runs to and fro n times; an upright and a lying one cross n * n times."""
    points = [[i / n, float(i % 2)] for i in range(n)]
    line = [[x, 50 + y] if upright else [y, 50 + x] for x, y in points]
    return {"type": "LineString", "coordinates": line}


def _nested(depth: int) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(depth):
        shape = {"type": "GeometryCollection", "geometries": [shape]}
    return shape


GEOMETRIES: dict[str, tuple[dict[str, Any], int, str]] = {
    "collections in each other": (_nested(200), 400, "nested"),
    "many points": (
        {"type": "MultiPoint", "coordinates": [[i % 360 - 180, i % 180 - 90] for i in range(190_000)]},
        200,
        "",
    ),
    "too many points": ({"type": "MultiPoint", "coordinates": [[1, 1]] * 300_000}, 400, "300000 vertices"),
    "a large circle": (_circle(90_000), 200, ""),
    "crosses itself a million times": (_polygon(3000, 0, 50, 1, 51), 200, ""),
    "crosses itself far too often": (_polygon(100_000, 0, 50, 0.2, 50.2), 200, ""),
    "crosses half the globe": (_polygon(5000, -170, -80, 170, 80), 400, "outline"),
    "no rings": ({"type": "Polygon", "coordinates": []}, 200, ""),
    "an empty ring": ({"type": "Polygon", "coordinates": [[]]}, 400, "ring"),
    "a ring of one point": ({"type": "Polygon", "coordinates": [[[1, 50]] * 4]}, 200, ""),
    "no geometries": ({"type": "GeometryCollection", "geometries": []}, 200, ""),
    "not a number": ({"type": "Point", "coordinates": [0, "0"]}, 400, "position"),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(http: httpx.Client, name: str) -> None:
    geometry, status, said = GEOMETRIES[name]
    answer = _post(http, {"intersects": geometry, "limit": 1})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text[:300]
    _is_up(http)


RELATIONS = (
    "s_intersects",
    "s_disjoint",
    "s_within",
    "s_contains",
    "s_equals",
    "s_touches",
    "s_overlaps",
    "s_crosses",
)


@pytest.mark.parametrize("relation", RELATIONS)
def test_spatial_relations(http: httpx.Client, relation: str) -> None:
    """Large literals, literals that cross themselves, and two literals whose edges all cross: bounded."""
    simple = relation in ("s_intersects", "s_disjoint")

    def ask(*literals: Any) -> httpx.Response:
        args = list(literals) if len(literals) == 2 else [GEOMETRY, *literals]
        return _post(http, {"filter": {"op": relation, "args": args}, "limit": 1})

    assert ask(_circle(50_000)).status_code == (200 if simple else 400)
    ask(_polygon(1000, 0, 50, 1, 51))
    ask({"type": "GeometryCollection", "geometries": []})
    assert ask(_circle(500), _circle(600)).status_code == 200
    refused = ask(_comb(20_000, upright=True), _comb(20_000, upright=False))
    assert refused.status_code == 400
    assert "two literals takes at most" in refused.json()["description"]
    _is_up(http)


def _chain(op: str, n: int, value: Any, start: Any) -> Any:
    node = start
    for _ in range(n):
        node = {"op": op, "args": [node, value]}
    return node


FILTERS: dict[str, Any] = {
    "1,900 ids": {"op": "in", "args": [ID, [f"x{i}" for i in range(1900)]]},
    "100,000 ids": {"op": "in", "args": [ID, [f"x{i}" for i in range(100_000)]]},
    "1,900 conditions": {"op": "and", "args": [True] * 1900},
    "90 levels of and": _chain("and", 90, {"op": "<", "args": [YEAR, 3000]}, True),
    "90 levels of +": {"op": "=", "args": [_chain("+", 90, 1, YEAR), 2100]},
    "90 levels of ^": {"op": "=", "args": [_chain("^", 90, 9, YEAR), 1]},
    "90 levels of casei": {"op": "=", "args": [_chain("casei", 0, 0, ID), "x"]},
    "overflow": {"op": "=", "args": [_chain("*", 40, 1e15, YEAR), 1]},
    "integer overflow": {"op": "=", "args": [{"op": "*", "args": [999_999_999_999_999] * 2}, 1]},
    "out of range": {"op": "=", "args": [{"op": "*", "args": [1e308, 10]}, 1]},
    "not a number": {"op": "=", "args": [_chain("-", 1, {"op": "^", "args": [1e15, 1e15]}, YEAR), 1]},
    "by zero": {"op": "=", "args": [{"op": "/", "args": [YEAR, 0]}, 1]},
    "whole by zero": {"op": "=", "args": [{"op": "div", "args": [YEAR, 0]}, 1]},
    "rest of zero": {"op": "=", "args": [{"op": "%", "args": [YEAR, 0]}, 1]},
    "a pattern of 60,000": {"op": "like", "args": [ID, "%" * 60_000]},
    "a pattern of 900": {"op": "like", "args": [ID, "%_" * 450]},
    "a pattern that goes back": {"op": "like", "args": [ID, "%1%2%5%_" * 20 + "x"]},
    "a pattern of a title": {"op": "like", "args": [TITLE, "%a" * 30_000]},
    "brackets": {"op": "like", "args": [ID, "[[[^*?" * 100]},
    "a long casei": {
        "op": "=",
        "args": [{"op": "casei", "args": [ID]}, {"op": "casei", "args": ["İ" * 500_000]}],
    },
    "a long accenti": {
        "op": "=",
        "args": [{"op": "accenti", "args": [ID]}, {"op": "accenti", "args": ["ǖ" * 500_000]}],
    },
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(http: httpx.Client, name: str) -> None:
    _post(http, {"filter": FILTERS[name], "limit": 1})
    _is_up(http)


INJECTIONS = (
    "x' OR 1=1 --",
    "'; DROP TABLE tile;--",
    'x" OR 1=1',
    "\\'",
    "?1",
    "$x",
    ":a",
    "{}",
    "{0}",
    "%s",
    "\0",
    "ﾡ' OR 1=1",
    "ʼ OR 1=1--",
    "1)) UNION SELECT 1--",
    "t.key",
    "rowid",
)


@pytest.mark.parametrize("text", INJECTIONS)
def test_sql_in_every_place_of_a_text(http: httpx.Client, text: str) -> None:
    """It is looked for as it stands, and found nowhere, or it names nothing that there is."""
    for body in (
        {"filter": {"op": "=", "args": [ID, text]}},
        {"filter": {"op": "like", "args": [ID, text]}},
        {"filter": {"op": "in", "args": [ID, [text]]}},
        {"filter": {"op": "=", "args": [{"op": "casei", "args": [ID]}, {"op": "casei", "args": [text]}]}},
        {"filter": {"op": "=", "args": [ID, text.replace("'", "''")]}},
        {"ids": [text]},
        {"collections": [text]},
        {"query": {"id": {"eq": text}}},
    ):
        assert ok(_post(http, {**body, "limit": 1}))["numberMatched"] == 0, body
    for body in (
        {"filter": {"op": text, "args": [ID, 1]}},
        {"filter": {"op": "=", "args": [{"property": text}, 1]}},
        {"sortby": [{"field": text, "direction": "asc"}]},
        {"sortby": [{"field": "id", "direction": text}]},
        {"query": {text: {"eq": 1}}},
        {"datetime": text},
        {"token": text},
        {text: 1},
    ):
        assert _post(http, body).status_code == 400, body
    quoted = text.replace("'", "''")
    answer = http.get("/search", params={"filter": f"id = '{quoted}'"})
    assert answer.status_code in (200, 400)
    assert answer.status_code == 400 or answer.json()["numberMatched"] == 0
    _is_up(http)


TEXTS = {
    "a chain of comparisons": "1<" * 15_000 + "1",
    "a chain of sums": "1+" * 15_000 + "1 = 1",
    "a chain of powers": "2^" * 15_000 + "2 = 1",
    "a chain of likes": "id LIKE " * 5000 + "'x'",
    "minus": "- " * 15_000 + "1 = 1",
    "not": "NOT " * 10_000 + "TRUE",
    "open parentheses": "(" * 25 + "1",
    "open lists": "id IN (" * 20 + "1",
    "a mistake within parentheses": "(" * 25 + "1 1" + ")" * 25,
    "lists in lists": "A_OVERLAPS((" * 30,
    "open polygons": "POLYGON(( div BETWEEN " * 30,
    "functions": "f(" * 5000,
    "quotes": "'" * 5001,
    "a quote that is open": "id = 'a''" + "(" * 5000,
    "brackets": "[" * 20_000,
    "words": "a" * 60_000,
    "conditions": "id = 'x' OR " * 5000 + "TRUE",
    "NUL": "id = '\0'",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_would_end_or_hold_the_parser(http: httpx.Client, name: str) -> None:
    answer = _post(http, {"filter": TEXTS[name], "filter-lang": "cql2-text", "limit": 1})
    assert answer.status_code == 400 or name == "NUL", answer.text[:300]
    assert answer.status_code != 400 or answer.json()["description"].startswith("filter")
    _is_up(http)


_WORDS = [
    "(",
    ")",
    "((",
    "id",
    "1",
    "'x'",
    ",",
    " AND ",
    " OR ",
    " NOT ",
    "-",
    "+",
    "^",
    "<",
    "=",
    " IN (",
    " LIKE ",
    " BETWEEN ",
    " IS NULL",
    "casei(",
    "S_INTERSECTS(geometry,",
    "POINT(1 1)",
    "POLYGON((0 0,1 1,1 0,0 0))",
    "POLYGON((",
    "BBOX(1,2,3,4)",
    "TIMESTAMP('2020-01-01T00:00:00Z')",
    "INTERVAL(",
    "'..'",
    "[",
    "{",
    "'",
    '"',
    "GEOMETRYCOLLECTION(",
    "true",
    " div ",
    "é",
    "\0",
]
_texts = st.builds(
    lambda words, times, end: "".join(words) * times + end,
    st.lists(st.sampled_from(_WORDS), min_size=1, max_size=6),
    st.sampled_from([1, 2, 5, 12, 20, 60, 2000]),
    st.sampled_from(["", "1", "1 1", ")"]),
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        [GEOMETRY, ID, YEAR, {"date": "2020-01-01"}, {"timestamp": "x"}, {"interval": ["..", ".."]}]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.fixed_dictionaries(
            {
                "op": st.sampled_from(
                    [
                        "and",
                        "or",
                        "not",
                        "=",
                        "<",
                        "in",
                        "like",
                        "between",
                        "isNull",
                        "casei",
                        "+",
                        "/",
                        "^",
                        "t_after",
                        *RELATIONS,
                    ]
                ),
                "args": st.lists(inner, max_size=4),
            }
        )
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["Point", "Polygon", "GeometryCollection"]), "coordinates": inner}
        )
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=30,
)
_names = st.sampled_from(
    [
        "filter",
        "query",
        "ids",
        "bbox",
        "intersects",
        "datetime",
        "limit",
        "token",
        "sortby",
        "fields",
        "collections",
        "q",
        "view",
        "bands",
        "filter-lang",
        "filter-crs",
    ]
)
_few = settings(
    max_examples=int(os.environ.get("FAULT_ROUNDS", "5")) * 30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_few
@given(text=_texts)
def test_any_text_as_a_filter(http: httpx.Client, text: str) -> None:
    _post(http, {"filter": text, "filter-lang": "cql2-text", "limit": 1})


@_few
@given(body=st.dictionaries(_names, _json, max_size=3))
def test_any_json_as_a_search(http: httpx.Client, body: Any) -> None:
    _post(http, json.dumps(body).encode())


@_few
@given(body=st.binary(max_size=300), query=st.binary(max_size=100))
def test_any_bytes(http: httpx.Client, body: bytes, query: bytes) -> None:
    _post(http, body)
    text = "".join(f"%{b:02x}" for b in query)
    answer = http.get(f"/search?filter={text}&limit=1")
    assert answer.status_code in (200, 400)
    assert http.get(f"/collections/tessera-v1/items/{text}").status_code in (200, 307, 400, 404)
    assert http.get(f"/search?{text}").status_code in (200, 400)


def test_others_are_answered_while_a_large_geometry_is_read(http: httpx.Client, served: Served) -> None:
    geometry, _, _ = GEOMETRIES["many points"]
    done = threading.Event()

    def ask() -> None:
        httpx.post(f"{served.url}/search", json={"intersects": geometry}, timeout=60, trust_env=False)
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    answered = 0
    while not done.is_set():
        _is_up(http)
        answered += not done.is_set()
    thread.join()
    assert answered > 3


def test_memory_is_bounded_after_all_this(served: Served) -> None:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(f"peak {peak / 1e6:.0f} MB")
    assert peak < 1_500_000_000, peak
