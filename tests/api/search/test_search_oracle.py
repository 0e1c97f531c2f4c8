"""Search equals brute force: ids and order, for drawn boxes, geometries, times, limits and pages."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import mapping

from tests.support.oracle import Oracle
from tests.support.paging import follow, ids_of, link_of, ok, walk, walk_back

few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Where the tiles are dense (Britain), sparse (the sea around it), and around the edges of cells.
lons = st.one_of(st.floats(-11, 3), st.integers(-110, 30).map(lambda i: i / 10))
lats = st.one_of(st.floats(49, 60), st.integers(490, 600).map(lambda i: i / 10))
sizes = st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0, 2.5])
years = st.integers(2016, 2025)


@st.composite
def boxes(draw: st.DrawFn) -> list[float]:
    west, south = draw(lons), draw(lats)
    return [west, south, min(west + draw(sizes), 180), min(south + draw(sizes), 90)]


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """GeoJSON of every type, small enough to count; half of them on the edges of cells."""
    kind = draw(
        st.sampled_from(
            ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "hole", "MultiPolygon",
             "GeometryCollection"]
        )
    )  # fmt: skip
    point = st.tuples(lons, lats)

    def blob() -> list[list[list[float]]]:
        x, y, n = draw(lons), draw(lats), draw(st.integers(3, 9))
        radius = draw(st.sampled_from([0.04, 0.2, 0.9]))
        ring = [
            [x + radius * math.cos(2 * math.pi * i / n), y + radius * math.sin(2 * math.pi * i / n)]
            for i in range(n)
        ]
        return [[*ring, ring[0]]]

    if kind == "Point":
        return {"type": kind, "coordinates": list(draw(point))}
    if kind in ("MultiPoint", "LineString"):
        near = draw(point)
        more = draw(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=4))
        return {"type": kind, "coordinates": [[near[0] + dx, near[1] + dy] for dx, dy in more]}
    if kind == "MultiLineString":
        a, b = draw(point), draw(point)
        return {"type": kind, "coordinates": [[list(a), [a[0] + 0.3, a[1]]], [list(b), [b[0], b[1] + 0.3]]]}
    if kind == "Polygon":
        return {"type": kind, "coordinates": blob()}
    if kind == "hole":
        x, y = draw(lons), draw(lats)
        outer, inner = shapely.box(x, y, x + 1, y + 1), shapely.box(x + 0.2, y + 0.2, x + 0.8, y + 0.8)
        shape: dict[str, Any] = mapping(outer.difference(inner))
        return json.loads(json.dumps(shape))
    if kind == "MultiPolygon":
        return {"type": kind, "coordinates": [blob(), blob()]}
    parts = [{"type": "Point", "coordinates": list(draw(point))}, {"type": "Polygon", "coordinates": blob()}]
    return {"type": kind, "geometries": [*parts, {"type": "GeometryCollection", "geometries": parts[:1]}]}


@st.composite
def times(draw: st.DrawFn) -> tuple[str, dt.datetime | None, dt.datetime | None]:
    """Draw a datetime parameter and the interval that it means; many lie at the turn of a year."""

    def instant() -> dt.datetime:
        near = dt.datetime(draw(years), 1, 1, tzinfo=dt.UTC)
        return near + dt.timedelta(
            seconds=draw(st.sampled_from([-1, 0, 1, -86400, 15_000_000])),
            hours=draw(st.sampled_from([0, 0, 13])),
        )

    def text(at: dt.datetime) -> str:
        zone = dt.timezone(dt.timedelta(minutes=draw(st.sampled_from([0, 60, -330, 840]))))
        form = at.astimezone(zone).isoformat()
        if draw(st.booleans()) and form.endswith("+00:00"):
            form = form[:-6] + draw(st.sampled_from(["Z", "z", ".000Z", ".0000000000Z"]))
        return form.replace("T", draw(st.sampled_from(["T", "t"])))

    kind = draw(st.sampled_from(["instant", "closed", "from", "until"]))
    a, b = sorted([instant(), instant()])
    is_open = draw(st.sampled_from(["..", ""]))
    if kind == "instant":
        return text(a), a, a
    if kind == "closed":
        return f"{text(a)}/{text(b)}", a, b
    if kind == "from":
        return f"{text(a)}/{is_open}", a, None
    return f"{is_open}/{text(b)}", None, b


@few
@given(box=boxes(), when=st.none() | times(), height=st.booleans())
def test_box_and_time(http: httpx.Client, oracle: Oracle, box: list[float], when: Any, height: bool) -> None:
    wanted = oracle.in_box(*box)
    body: dict[str, Any] = {"bbox": [*box[:2], -5, *box[2:], 9.5] if height else box, "limit": 10_000}
    if when is not None:
        body["datetime"] = when[0]
        wanted = oracle.in_time(wanted, *when[1:])
    found = ok(http.post("/search", json=body))
    assert ids_of(found) == oracle.ids(wanted)
    assert found["numberMatched"] == len(wanted)
    texts = {**body, "bbox": ",".join(map(repr, body["bbox"]))}
    assert ids_of(ok(http.get("/search", params=texts))) == ids_of(found)


@few
@given(shape=geometries(), year=years)
def test_any_geometry(http: httpx.Client, oracle: Oracle, shape: dict[str, Any], year: int) -> None:
    wanted = oracle.touching(shapely.geometry.shape(shape))
    wanted = wanted[oracle.year[wanted] == year]
    body = {"intersects": shape, "datetime": f"{year}-07-01T00:00:00Z", "limit": 10_000}
    found = ok(http.post("/search", json=body))
    assert ids_of(found) == oracle.ids(wanted)
    assert found["numberMatched"] == len(wanted)
    assert ids_of(ok(http.get("/search", params={**body, "intersects": json.dumps(shape)}))) == ids_of(found)


@settings(few, max_examples=25)
@given(box=boxes(), limit=st.integers(5, 120), get=st.booleans())
def test_pages_are_complete_and_go_back(
    http: httpx.Client, oracle: Oracle, box: list[float], limit: int, get: bool
) -> None:
    wanted = oracle.ids(oracle.in_box(*box))
    if get:
        first = ok(http.get("/search", params={"bbox": ",".join(map(repr, box)), "limit": limit}))
    else:
        first = ok(http.post("/search", json={"bbox": box, "limit": limit}))
    pages = walk(http, first)
    assert [i for page in pages for i in page] == wanted
    assert all(len(page) == limit for page in pages[:-1])
    assert first["numberMatched"] == len(wanted)
    last = first
    while (following := link_of(last, "next")) is not None:
        last = follow(http, following)
    back = walk_back(http, last)
    assert [i for page in back for i in page] == wanted


@few
@given(data=st.data())
def test_ids_with_and_without_a_box(http: httpx.Client, oracle: Oracle, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(oracle) - 1), min_size=1, max_size=20))
    rows = np.unique(places)
    ids = [*oracle.ids(np.array(places)), "grid_0.15_52.05_1999", "nonsense", "grid_0.1_52.05_2024"]
    assert ids_of(ok(http.post("/search", json={"ids": ids, "limit": 50}))) == oracle.ids(rows)
    box = data.draw(boxes())
    wanted = np.intersect1d(rows, oracle.in_box(*box))
    found = ok(
        http.get("/search", params={"ids": ",".join(ids), "bbox": ",".join(map(repr, box)), "limit": 50})
    )
    assert ids_of(found) == oracle.ids(wanted)
    assert found["numberMatched"] == len(wanted)


@pytest.mark.parametrize(
    "box",
    [
        [179.0, 50.0, -179.0, 70.0],
        [170.0, -90.0, -170.0, 90.0],
        [180.0, -20.0, -180.0, 70.0],
        [10.0, 59.9, 9.0, 60.0],  # nearly all around
        [-180.0, 64.0, -179.9, 72.0],
        [-180.0, -90.0, 180.0, -60.0],
    ],
)
def test_antimeridian_boxes(http: httpx.Client, oracle: Oracle, box: list[float]) -> None:
    wanted = oracle.in_box(*box)
    found = ok(http.get("/search", params={"bbox": ",".join(map(str, box)), "limit": 10_000}))
    assert ids_of(found) == oracle.ids(wanted[:10_000])
    assert found["numberMatched"] == len(wanted)


@pytest.mark.parametrize("shift", [0, 360, -360])
def test_a_polygon_over_the_antimeridian(http: httpx.Client, oracle: Oracle, shift: int) -> None:
    """Uncut, with longitudes beyond 180; and cut, as RFC 7946 asks."""
    uncut = shapely.Polygon([(176, 60), (186, 62), (184, 71), (174, 68)])
    west = affinity.translate(uncut.intersection(shapely.box(180, -90, 360, 90)), -360)
    cut = shapely.MultiPolygon([uncut.intersection(shapely.box(-180, -90, 180, 90)), west])
    wanted = oracle.touching(cut)
    sent = affinity.translate(uncut, shift) if shift != 360 else cut
    found = ok(http.post("/search", json={"intersects": mapping(sent), "limit": 10_000}))
    assert ids_of(found) == oracle.ids(wanted)


def test_touching_only_at_an_edge_or_a_corner(http: httpx.Client, oracle: Oracle) -> None:
    """A region aligned with the grid touches the cells around it."""
    aligned = shapely.box(0.1, 52.0, 0.3, 52.2)
    rows = oracle.touching(aligned)
    wanted = oracle.ids(rows[oracle.year[rows] == 2024])
    when = "2024-01-01T00:00:00Z"
    found = ok(http.post("/search", json={"intersects": mapping(aligned), "datetime": when, "limit": 100}))
    assert ids_of(found) == wanted
    assert len(wanted) == 16
    corner = ok(http.post("/search", json={"bbox": [0.1, 52.0, 0.1, 52.0], "datetime": when}))
    assert len(ids_of(corner)) == 4


def test_three_dimensional_coordinates(http: httpx.Client) -> None:
    flat = {"type": "Polygon", "coordinates": [[[0, 52], [1, 52], [1, 52.5], [0, 52]]]}
    high = {"type": "Polygon", "coordinates": [[[*p, 77.5] for p in flat["coordinates"][0]]]}  # type: ignore[index]
    answers = [ids_of(ok(http.post("/search", json={"intersects": g, "limit": 500}))) for g in (flat, high)]
    assert answers[0] == answers[1] != []


def test_a_multipolygon_of_10_000_vertices(http: httpx.Client, oracle: Oracle) -> None:
    rng = np.random.default_rng(7)
    parts = []
    for x, y in zip(rng.uniform(-8, 25, 50), rng.uniform(38, 58, 50), strict=True):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 200))
        radius = rng.uniform(0.05, 0.6, 200)
        parts.append(
            shapely.Polygon(np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)]))
        )
    shape = shapely.MultiPolygon(parts)
    wanted = np.unique(np.concatenate([oracle.touching(part) for part in parts]))
    body = {"intersects": mapping(shape), "limit": 10_000}
    found = ok(http.post("/search", json=body))
    assert shapely.get_num_coordinates(shape) >= 10_000
    assert ids_of(found) == oracle.ids(wanted[:10_000])
    assert found["numberMatched"] == len(wanted)


def test_the_whole_world_is_counted(http: httpx.Client, oracle: Oracle) -> None:
    found = ok(http.get("/search", params={"limit": 1}))
    assert found["numberMatched"] == len(oracle)
    assert ids_of(found) == oracle.ids(oracle.all[:1])
