"""Inputs on which STAC servers differ, with what is right.

Each comes from a thread in a server's or client's issue tracker, or from a trap met while loading the
same items into pgSTAC.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import shapely
from shapely.geometry import mapping, shape

from tests.conformance.peer_answers import (
    Answer,
    Case,
    Item,
    Key,
    follow,
    get,
    items_answer,
    key,
    overlaps,
    post,
    says,
    status,
    touches,
    walk,
    where,
)


def _of(name: str) -> Callable[[Item], Any]:
    return lambda item: item["properties"][name]


YEAR = _of("tessera:year")
BOX = shapely.box(-0.55, 50.25, 0.25, 51.05)
HOLE = shapely.Polygon(
    shapely.box(-0.95, 50.05, 0.95, 51.95).exterior.coords,
    [shapely.box(-0.55, 50.35, 0.55, 51.65).exterior.coords],
)
COAST = shapely.Polygon(
    [
        (
            0.6 * math.cos(t) * (1 + 0.1 * math.sin(97 * t)),
            51 + 0.6 * math.sin(t) * (1 + 0.1 * math.sin(97 * t)),
        )
        for t in (2 * math.pi * i / 10_000 for i in range(10_000))
    ]
)
CROSSING = (shapely.box(179.75, 50.5, 180, 51.5), shapely.box(-180, 50.5, -179.75, 51.5))
_EDGE = "0,50,0.5,50.5"
_COLLECTION = json.loads(
    shapely.to_geojson(
        shapely.GeometryCollection(
            [shapely.Point(0.33, 50.77), shapely.LineString([(-0.5, 50.2), (-0.2, 50.9)])]
        )
    )
)


def _ordered(http: httpx.Client, sortby: str, names: Sequence[str], limit: int) -> Answer:
    """Walk a sorted search; say whether every item came once and in order."""
    page = http.get("/search", params={"sortby": sortby, "limit": limit})
    seen: list[Any] = []
    keys: list[Key] = []
    while True:
        if page.status_code != 200:
            return Answer(str(page.status_code))
        body = page.json()
        for feature in body["features"]:
            seen.append(tuple(feature["properties"][n] for n in names))
            keys.append(key(feature))
        following = [x for x in body["links"] if x["rel"] == "next"]
        if not following or len(keys) > 5000:
            break
        page = follow(http, following[0], None)
    order = "in order" if seen == sorted(seen, reverse=sortby.startswith("-")) else "out of order"
    answer = items_answer(keys)
    return Answer(f"{answer.text}, {order}", answer.keys)


def _all_ordered(items: Sequence[Item]) -> Answer:
    answer = items_answer([key(i) for i in items])
    return Answer(f"{answer.text}, in order", answer.keys)


def _number_matched(http: httpx.Client) -> Answer:
    page = http.get("/search", params={"bbox": "-0.55,50.25,0.25,51.05", "limit": 1}).json()
    n = page.get("numberMatched")
    return Answer("none" if n is None else f"{n}")


def _etag(http: httpx.Client) -> Answer:
    first = http.get("/search", params={"limit": 1})
    tag = first.headers.get("etag")
    if tag is None:
        return Answer("no ETag")
    return Answer(str(http.get("/search", params={"limit": 1}, headers={"if-none-match": tag}).status_code))


def _previous(http: httpx.Client) -> Answer:
    first = http.get("/search", params={"limit": 7}).json()
    pages = [first]
    for rel in ("next", "next", "prev", "prev"):
        links = [x for x in pages[-1]["links"] if x["rel"] in (rel, "previous" if rel == "prev" else rel)]
        if not links:
            return Answer(f"no {rel} link")
        pages.append(follow(http, links[0], None).json())
    same = [key(f) for f in pages[-1]["features"]] == [key(f) for f in first["features"]]
    return Answer("the first page again" if same else "another page")


def _last_page(http: httpx.Client) -> Answer:
    """Ask for pages that the items fill exactly."""
    total = len(http.get("/search", params={"limit": 5000, "collections": "tessera-v1"}).json()["features"])
    page = http.get("/search", params={"limit": total, "collections": "tessera-v1"}).json()
    return Answer("next link" if any(x["rel"] == "next" for x in page["links"]) else "no next link")


def _behind(**headers: str) -> Callable[[httpx.Client], Answer]:
    """Return a question for the address in a page's links behind a proxy that says this."""

    def ask(http: httpx.Client) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        page = http.get("/search", params={"limit": 1}, headers=sent).json()
        href = next(x["href"] for x in page["links"] if x["rel"] == "next")
        return Answer(href.partition("/search")[0])

    return ask


def _preflight(http: httpx.Client) -> Answer:
    headers = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    answer = http.options("/search", headers=headers)
    return Answer("allowed" if answer.status_code < 300 else str(answer.status_code))


def _limit(n: int) -> Callable[[httpx.Client], Answer]:
    return status("GET", "/search", params={"limit": n})


def _filter(text: str, test: Callable[[Item], bool], why: str = "") -> Case:
    return Case(
        "filter", f"filter={text}", get(**{"filter": text, "filter-lang": "cql2-text"}), where(test), why
    )


CASES: tuple[Case, ...] = (
    # ------------------------------------------------------------------------------------------- space
    Case(
        "bbox",
        "bbox=179.75,50.5,-179.75,51.5",
        get(bbox="179.75,50.5,-179.75,51.5"),
        where(touches(*CROSSING)),
        "across the antimeridian (pgstac#428)",
    ),
    Case(
        "bbox",
        "POST bbox=[179.75,50.5,-179.75,51.5]",
        post(bbox=[179.75, 50.5, -179.75, 51.5]),
        where(touches(*CROSSING)),
        "the same with POST",
    ),
    Case(
        "bbox",
        "bbox=-0.55,50.25,0,0.25,51.05,100",
        get(bbox="-0.55,50.25,0,0.25,51.05,100"),
        where(touches(BOX)),
        "six numbers, with heights",
    ),
    Case(
        "bbox",
        f"bbox={_EDGE}",
        get(bbox=_EDGE),
        where(touches(shapely.box(0, 50, 0.5, 50.5))),
        "on the edges of tiles: touching counts as intersecting",
    ),
    Case("bbox", "bbox=0,50,0,50", get(bbox="0,50,0,50"), where(touches(shapely.Point(0, 50))), "a point"),
    Case(
        "bbox",
        "bbox=0,51,1,50",
        status("GET", "/search", params={"bbox": "0,51,1,50"}),
        says("400"),
        "south above north",
    ),
    Case(
        "bbox",
        "bbox=0,50,400,51",
        status("GET", "/search", params={"bbox": "0,50,400,51"}),
        says("400"),
        "off the globe",
    ),
    Case("intersects", "Polygon with a hole", post(intersects=mapping(HOLE)), where(touches(HOLE))),
    Case(
        "intersects",
        "Polygon of 10,000 vertices",
        post(intersects=mapping(COAST)),
        where(touches(COAST)),
        "pgstac#71",
    ),
    Case(
        "intersects",
        "GeometryCollection",
        post(intersects=_COLLECTION),
        where(touches(shape(_COLLECTION))),
        "stac-fastapi#187",
    ),
    Case(
        "intersects",
        "MultiPolygon on both sides of 180",
        post(intersects=mapping(shapely.MultiPolygon(CROSSING))),
        where(touches(*CROSSING)),
    ),
    Case(
        "intersects",
        "Point with a height",
        post(intersects={"type": "Point", "coordinates": [0.33, 50.77, 12.0]}),
        where(touches(shapely.Point(0.33, 50.77))),
    ),
    Case(
        "intersects",
        "GET intersects=<Polygon>",
        get(intersects=json.dumps(mapping(BOX))),
        where(touches(BOX)),
        "stac-fastapi#468",
    ),
    Case(
        "intersects",
        "touching tiles only along an edge",
        post(intersects={"type": "LineString", "coordinates": [[0.0, 50.42], [0.0, 50.58]]}),
        where(touches(shapely.LineString([(0, 50.42), (0, 50.58)]))),
    ),
    Case(
        "intersects",
        "with bbox",
        status("POST", "/search", json={"bbox": [0, 50, 1, 51], "intersects": mapping(BOX)}),
        says("400"),
        "STAC API: not both",
    ),
    # -------------------------------------------------------------------------------------------- time
    Case(
        "datetime",
        "2021-06-01T00:00:00Z",
        get(datetime="2021-06-01T00:00:00Z"),
        where(overlaps("2021-06-01T00:00:00+00:00", "2021-06-01T00:00:00+00:00")),
        "an instant within the year",
    ),
    Case(
        "datetime",
        "/2020-06-01T00:00:00Z",
        get(datetime="/2020-06-01T00:00:00Z"),
        where(overlaps(None, "2020-06-01T00:00:00+00:00")),
        "open start (stac-fastapi#464)",
    ),
    Case(
        "datetime",
        "2021-12-31T23:59:59Z/..",
        get(datetime="2021-12-31T23:59:59Z/.."),
        where(overlaps("2021-12-31T23:59:59+00:00", None)),
        "open end, at the last second of an item",
    ),
    Case(
        "datetime",
        "POST 2020-01-01T00:00:00+01:00/2020-12-31T23:00:00-01:00",
        post(datetime="2020-01-01T00:00:00+01:00/2020-12-31T23:00:00-01:00"),
        where(overlaps("2020-01-01T00:00:00+01:00", "2020-12-31T23:00:00-01:00")),
        "time zones other than UTC",
    ),
    Case(
        "datetime",
        "GET 2019",
        status("GET", "/search", params={"datetime": "2019"}),
        says("400"),
        "not RFC 3339",
    ),
    Case(
        "datetime",
        "POST 2019",
        status("POST", "/search", json={"datetime": "2019"}),
        says("400"),
        "not RFC 3339",
    ),
    Case(
        "datetime",
        "2021-01-01T00:00:00Z/2020-01-01T00:00:00Z",
        status("GET", "/search", params={"datetime": "2021-01-01T00:00:00Z/2020-01-01T00:00:00Z"}),
        says("400"),
        "ends before it starts",
    ),
    # ------------------------------------------------------------------------------------------ paging
    Case(
        "paging",
        "limit=17, two collections that share ids",
        get(limit=17),
        where(lambda _: True),
        "pgstac#392",
    ),
    Case("paging", "the same with POST, limit=23", post(limit=23), where(lambda _: True), "pgstac#392"),
    Case(
        "paging",
        "/collections/tessera-v1/items?limit=13",
        lambda http: walk(http, "GET", {"limit": 13}, "/collections/tessera-v1/items"),
        where(lambda i: i["collection"] == "tessera-v1"),
    ),
    Case(
        "paging",
        "sortby=tessera:coverage&limit=19",
        lambda h: _ordered(h, "properties.tessera:coverage", ["tessera:coverage"], 19),
        _all_ordered,
        "a sort with many ties",
    ),
    Case(
        "paging",
        "sortby=-tessera:year&limit=31",
        lambda h: _ordered(h, "-properties.tessera:year", ["tessera:year"], 31),
        _all_ordered,
        "descending, with ties",
    ),
    Case("paging", "next, next, prev, prev", _previous, says("the first page again")),
    Case("paging", "limit = number of items", _last_page, says("no next link"), "no empty page at the end"),
    Case("paging", "token=next:zzzz", status("GET", "/search", params={"token": "next:zzzz"}), says("400")),
    Case("paging", "limit=20000", _limit(20_000), says("200"), "reduced to the maximum, as OGC requires"),
    Case("paging", "limit=0", _limit(0), says("400")),
    Case(
        "paging",
        "numberMatched",
        _number_matched,
        lambda items: Answer(str(sum(map(touches(BOX), items)))),
        "stac-fastapi-pgstac#295; theirs is a setting",
    ),
    # ------------------------------------------------------------------------------ filters, sort, names
    _filter(
        '"tessera:year" = 2021 AND "tessera:coverage" = \'full\'',
        lambda i: YEAR(i) == 2021 and i["properties"]["tessera:coverage"] == "full",
    ),
    _filter('"tessera:year" BETWEEN 2020 AND 2021', lambda i: 2020 <= YEAR(i) <= 2021),
    _filter("id LIKE 'grid_-0.%'", lambda i: i["id"].startswith("grid_-0.")),
    _filter('"tessera:utm_zone" IN (1, 60)', lambda i: i["properties"]["tessera:utm_zone"] in (1, 60)),
    _filter(
        "NOT (\"tessera:year\" < 2021 OR collection = 'tessera-v1')",
        lambda i: not (YEAR(i) < 2021 or i["collection"] == "tessera-v1"),
    ),
    _filter(
        "S_INTERSECTS(geometry, POLYGON((-0.55 50.25, 0.25 50.25, 0.25 51.05, -0.55 51.05, -0.55 50.25)))",
        touches(BOX),
    ),
    _filter(
        "S_WITHIN(geometry, POLYGON((-0.55 50.25, 0.25 50.25, 0.25 51.05, -0.55 51.05, -0.55 50.25)))",
        lambda i: shapely.within(shape(i["geometry"]), BOX),
    ),
    _filter(
        "T_INTERSECTS(datetime, INTERVAL('2020-01-01T00:00:00Z', '2020-12-31T00:00:00Z'))",
        lambda i: YEAR(i) == 2020,
    ),
    Case(
        "filter",
        "POST cql2-text",
        post(**{"filter": '"tessera:year" = 2021', "filter-lang": "cql2-text"}),
        where(lambda i: YEAR(i) == 2021),
    ),
    Case(
        "filter",
        "with query",
        post(
            **{
                "query": {"tessera:year": {"gte": 2021}},
                "filter-lang": "cql2-json",
                "filter": {"op": "=", "args": [{"property": "collection"}, "tessera-v1"]},
            }
        ),
        where(lambda i: YEAR(i) >= 2021 and i["collection"] == "tessera-v1"),
        "both at once",
    ),
    Case(
        "filter",
        "filter=no_such = 1",
        status("GET", "/search", params={"filter": "no_such = 1"}),
        says("400"),
        "otherwise a misspelt property matches nothing",
    ),
    Case(
        "filter",
        "filter=\"tessera:year\" = 'x'",
        status("GET", "/search", params={"filter": "\"tessera:year\" = 'x'"}),
        says("400"),
        "a type that cannot match",
    ),
    Case(
        "sort",
        "sortby=no_such",
        status("GET", "/search", params={"sortby": "no_such"}),
        says("400"),
        "otherwise ignored",
    ),
    Case(
        "names",
        "?bboxx=0,50,1,51",
        status("GET", "/search", params={"bboxx": "0,50,1,51"}),
        says("400"),
        "OGC API Features: unknown parameters are 400; otherwise everything is returned",
    ),
    Case(
        "names",
        'POST {"bboxx": …}',
        status("POST", "/search", json={"bboxx": [0, 50, 1, 51]}),
        says("400"),
        "the same with POST",
    ),
    Case(
        "names",
        "ids of both collections, collections=tessera-v1",
        get(ids="grid_-0.95_50.05_2021", collections="tessera-v1"),
        where(lambda i: i["id"] == "grid_-0.95_50.05_2021" and i["collection"] == "tessera-v1"),
    ),
    Case("names", "/collections/no_such/items", status("GET", "/collections/no_such/items"), says("404")),
    # -------------------------------------------------------------------------------------------- HTTP
    Case("HTTP", "HEAD /search", status("HEAD", "/search"), says("200")),
    Case("HTTP", "If-None-Match with the ETag sent", _etag, says("304"), "stac-fastapi#377"),
    Case(
        "HTTP",
        "X-Forwarded-Proto, X-Forwarded-Host",
        _behind(x_forwarded_proto="https", x_forwarded_host="stac.example.org"),
        says("https://stac.example.org"),
        "stac-fastapi#581",
    ),
    Case(
        "HTTP",
        "Forwarded: proto=https;host=stac.example.org",
        _behind(forwarded="proto=https;host=stac.example.org"),
        says("https://stac.example.org"),
        "RFC 7239",
    ),
    Case(
        "HTTP",
        "X-Forwarded-Prefix: /stac",
        _behind(x_forwarded_prefix="/stac", x_forwarded_proto="https", x_forwarded_host="example.org"),
        says("https://example.org/stac"),
        "a prefix that the proxy strips; theirs is a setting",
    ),
    Case("HTTP", "preflight asking for authorization", _preflight, says("allowed"), "theirs is a setting"),
)
"""In the order of the table."""
