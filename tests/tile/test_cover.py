"""cover(): the cells a geometry touches, against shapely asked about every cell."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import QueryError
from catalog_builder.tile.cover import Runs, cover, cover_box
from catalog_builder.tile.grid import LAT_EDGES, LON_EDGES, N_COLS, N_ROWS, Bounds

unhurried = settings(deadline=None)  # the machine may be busy

LON, LAT = np.array(LON_EDGES), np.array(LAT_EDGES)


def brute(geometry: BaseGeometry) -> np.ndarray:
    """Ask shapely about every cell of the bounding box and two rings of cells around it."""
    if geometry.is_empty:
        return np.empty(0, np.int32)
    west, south, east, north = geometry.bounds
    rows = np.arange(
        max(int(np.floor((south + 90) * 10)) - 2, 0), min(int(np.ceil((north + 90) * 10)) + 2, N_ROWS)
    )
    cols = np.arange(
        max(int(np.floor((west + 180) * 10)) - 2, 0), min(int(np.ceil((east + 180) * 10)) + 2, N_COLS)
    )
    row, col = (a.ravel() for a in np.meshgrid(rows, cols, indexing="ij"))
    polygons = shapely.box(LON[col], LAT[row], LON[col + 1], LAT[row + 1])
    return (row * N_COLS + col)[shapely.intersects(geometry, polygons)]


def check_form(runs: Runs) -> None:
    """Sorted by row then column, with a gap between the runs of a row."""
    assert [a.dtype for a in runs] == [np.int32] * 3
    assert (runs.first_col <= runs.last_col).all()
    same_row = runs.row[1:] == runs.row[:-1]
    assert (runs.row[1:] >= runs.row[:-1]).all()
    assert (runs.first_col[1:] > runs.last_col[:-1] + 1)[same_row].all()
    assert runs.n_cells == len(runs.cells())


def check(geometry: BaseGeometry) -> None:
    runs = cover(geometry)
    check_form(runs)
    np.testing.assert_array_equal(runs.cells(), brute(geometry))


# Coordinates that like the grid's own edges: in a window around the origin, and in the corners of the
# world. A geometry lies in one window, for the oracle asks about every cell of its bounding box.
near = st.one_of(st.integers(-9, 9).map(lambda i: i / 10), st.floats(-0.875, 0.875, width=32))
from_edge = st.one_of(st.integers(0, 9).map(lambda i: i / 10), st.floats(0, 0.875, width=32))
windows = [
    st.tuples(near, near),
    st.tuples(from_edge.map(lambda v: 180 - v), from_edge.map(lambda v: v - 90)),
    st.tuples(from_edge.map(lambda v: v - 180), from_edge.map(lambda v: 90 - v)),
]
points = st.one_of(windows)
rings = st.one_of([st.lists(window, min_size=3, max_size=9) for window in windows])
polygons = rings.map(shapely.Polygon)
valid = polygons.map(shapely.make_valid)
lines = st.one_of([st.lists(window, min_size=2, max_size=6) for window in windows]).map(shapely.LineString)
boxes = st.tuples(near, near, near, near).map(
    lambda b: shapely.box(min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
simple = st.one_of(points.map(shapely.Point), lines, valid, boxes)
in_one_window = st.one_of(
    st.tuples(near, near).map(shapely.Point),
    st.lists(windows[0], min_size=2, max_size=6).map(shapely.LineString),
    st.lists(windows[0], min_size=3, max_size=9).map(shapely.Polygon).map(shapely.make_valid),
    boxes,
)
collections = st.lists(in_one_window, min_size=1, max_size=4).map(shapely.GeometryCollection)
# Most holes lie inside this; one of its corners is on the grid, the opposite one is not.
holed = in_one_window.map(
    lambda hole: shapely.box(-0.5, -0.6, 0.72, 0.63).difference(shapely.make_valid(hole))
)


@unhurried
@given(st.one_of(simple, holed, collections))
def test_equals_brute_force(geometry: BaseGeometry) -> None:
    check(geometry)


@unhurried
@given(points)
def test_point(lonlat: tuple[float, float]) -> None:
    check(shapely.Point(lonlat))


@unhurried
@given(lines)
def test_line(line: shapely.LineString) -> None:
    check(line)


@unhurried
@given(st.lists(polygons, min_size=1, max_size=3))
def test_invalid_polygons_are_read_as_geos_reads_them(parts: list[shapely.Polygon]) -> None:
    # Prepared, as cover does it: without that GEOS takes some folded outlines for a rectangle.
    shapely.prepare(parts)
    expected = np.unique(np.concatenate([brute(p) for p in parts]))
    runs = cover(shapely.MultiPolygon(parts))
    check_form(runs)
    np.testing.assert_array_equal(runs.cells(), expected)


@pytest.mark.parametrize(
    "wkt",
    [
        "POINT (0.1 0.1)",  # a corner: four cells
        "POINT (0.1 0.15)",  # an edge: two
        "POINT (0.15 0.15)",
        "POINT (180 90)",
        "POINT (-180 -90)",
        "MULTIPOINT (0.1 0.1, 5 5, 0.15 0.15)",
        "LINESTRING (0.1 0.1, 0.5 0.1)",  # along an edge of the grid
        "LINESTRING (0.1 0.1, 0.1 0.5, 0.9 0.5)",
        "LINESTRING (0 0, 1 1)",  # through corners
        "LINESTRING (0.05 0.05, 0.05 0.05)",
        "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0), (0.2 0.2, 0.8 0.2, 0.8 0.8, 0.2 0.8, 0.2 0.2))",
        "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0), (0.25 0.25, 0.75 0.25, 0.75 0.75, 0.25 0.75, 0.25 0.25))",
        "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0.5, 0 0))",  # a rectangle of six points
        "POLYGON ((0 0, 1 1, 0.5 0.5, 0 0))",  # without area
        "POLYGON ((0.2 0.2, 0.2 0.2, 0.2 0.2, 0.2 0.2))",
        "POLYGON ((0 0, 1 0, 1 1, 0 0))",
        "POLYGON ((0 0, 2 0, 0 2, 2 2, 0 0))",  # a bow tie
        "POLYGON Z ((0 0 5, 1 0 5, 1.05 1 5, 0 1 5, 0 0 5))",
        "POINT Z (0.1 0.1 7)",
        "GEOMETRYCOLLECTION (POINT (3 3), "
        "GEOMETRYCOLLECTION (LINESTRING (0 0, 0.3 0.2), POLYGON ((1 1, 2 1, 1 2, 1 1))))",
        "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 1, 0 0)), ((1.1 0, 2 0, 2 1, 1.1 1, 1.1 0)))",
        "POLYGON ((-30 -20, 41 -17, 33 28, -28 22, -30 -20), (-10 -10, 12 -10, 12 11, -10 10, -10 -10))",
    ],
)
def test_named_cases(wkt: str) -> None:
    check(shapely.from_wkt(wkt))


def test_beyond_the_world_touches_nothing_more() -> None:
    check(shapely.Polygon([(170, 80), (200, 80), (200, 100), (185, 88)]))
    check(shapely.LineString([(179.5, 0), (185, 3)]))
    # One row of cells, but the line meets the grid only in part of the columns its box touches.
    check(shapely.LineString([(179.55, 89.95), (179.85, 89.99), (179.95, 91)]))
    for outside in (shapely.Point(190, 0), shapely.Point(0, 91), shapely.box(-200, 0, -190, 1)):
        assert cover(outside).n_cells == 0


@pytest.mark.slow
def test_large_polygon_keeps_whole_blocks() -> None:
    angle = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    radius = 6 + np.sin(9 * angle) + 0.3 * np.sin(131 * angle)
    star = shapely.Polygon(np.c_[10 + radius * np.cos(angle), 45 + radius * np.sin(angle)])
    check(star)
    check(shapely.MultiPolygon([star, shapely.box(30, 30, 31, 31)]))


def test_world() -> None:
    world = shapely.box(-180, -90, 180, 90)
    assert cover(world).n_cells == N_ROWS * N_COLS
    rim = shapely.segmentize(world, 1.0)
    hole = shapely.Polygon(rim.exterior, [[(0, 0), (1, 0), (1, 1), (0, 1)]])
    runs = cover(rim)
    check_form(runs)
    assert (len(runs.row), runs.n_cells) == (N_ROWS, N_ROWS * N_COLS)
    # Touching counts: of the 10 x 10 cells in the hole the inner 8 x 8 are missing.
    runs = cover(hole)
    check_form(runs)
    assert runs.n_cells == N_ROWS * N_COLS - 64


@unhurried
@given(near, near, near, near)
def test_box_equals_polygon(a: float, b: float, c: float, d: float) -> None:
    box = Bounds(min(a, c), min(b, d), max(a, c), max(b, d))
    np.testing.assert_array_equal(cover_box(box).cells(), brute(shapely.box(*box)))


def test_box_beside_the_world_is_empty() -> None:
    assert cover_box(Bounds(181, 0, 182, 1)).n_cells == 0
    assert cover_box(Bounds(0, 91, 1, 92)).n_cells == 0


@pytest.mark.parametrize("kind", ["Point", "LineString", "Polygon", "MultiPolygon", "GeometryCollection"])
def test_empty(kind: str) -> None:
    runs = cover(shapely.from_wkt(f"{kind.upper()} EMPTY"))
    assert runs.n_cells == 0
    assert [a.dtype for a in runs] == [np.int32] * 3


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # shapely's, on building them
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(bad: float) -> None:
    for geometry in (
        shapely.Point(bad, 1),
        shapely.LineString([(0, 0), (1, bad), (2, 0)]),
        shapely.Polygon([(0, 0), (bad, 0), (bad, 1), (0, 1)]),
        shapely.MultiPoint([(0, 0), (bad, 1)]),
    ):
        with pytest.raises(QueryError, match="finite"):
            cover(geometry)


def test_the_callers_geometry_is_left_alone() -> None:
    polygon = shapely.Polygon([(0, 0), (5, 1), (3, 4)])
    cover(polygon)
    assert not shapely.is_prepared(polygon)
