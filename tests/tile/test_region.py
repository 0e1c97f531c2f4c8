"""region_of(): boxes, and GeoJSON as people write it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import shapely

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.tile.cover import cover
from catalog_builder.tile.regions.region import RegionWarning, region_of

SQUARE = {"type": "Polygon", "coordinates": [[[0, 50], [1, 50], [1, 51], [0, 51], [0, 50]]]}
OTHER = {"type": "Polygon", "coordinates": [[[1, 50], [2, 50], [2, 51], [1, 51], [1, 50]]]}
SQUARE_Z = {
    "type": "Polygon",
    "coordinates": [[[0, 50, 1], [1, 50, 2], [1, 51, 3], [0, 51, 4], [0, 50, 1]]],
}
TOUCHING = {  # its ring touches itself: invalid, and still clear which area is meant
    "type": "Polygon",
    "coordinates": [[[0, 50], [2, 50], [2, 52], [1, 52], [1, 51], [2, 51], [1, 51], [0, 51], [0, 50]]],
}
POINT_Z = {"type": "Point", "coordinates": [0.1, 52.2, 17.0]}
METRES = {
    "type": "Polygon",
    "coordinates": [[[540000, 250000], [550000, 250000], [550000, 260000], [540000, 250000]]],
}


def feature(geometry: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": None, "geometry": geometry}


def written(folder: Path, document: Any) -> Path:
    path = folder / "region.geojson"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5.5,49.9,1.8,55.8", shapely.box(-5.5, 49.9, 1.8, 55.8)),
        (" -5.5, 49.9, 1.8 ,55.8", shapely.box(-5.5, 49.9, 1.8, 55.8)),
        ("0,50,-10,1,51,900", shapely.box(0, 50, 1, 51)),
        ("1e1,50,11,51", shapely.box(10, 50, 11, 51)),
        ("0.1,52,0.1,52", shapely.Point(0.1, 52)),
        ("0.1,52,0.2,52", shapely.LineString([(0.1, 52), (0.2, 52)])),
        (
            "170,-20,-170,-10",
            shapely.MultiPolygon([shapely.box(170, -20, 180, -10), shapely.box(-180, -20, -170, -10)]),
        ),
    ],
)
def test_bbox(text: str, expected: shapely.Geometry) -> None:
    assert region_of(text).equals(expected)
    assert region_of(text).is_valid
    assert cover(region_of(text)).n_cells == cover(expected).n_cells


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2,3", "found 3"),
        ("1,2,3,4,5", "found 5"),
        ("1,2,,4", "expected four numbers"),
        ("1,2,3,4e", "expected four numbers"),
        ("0,51,1,50", "south 51.0 is north of"),
        ("0,51,1,1e999", "expected four numbers"),
        ("0,51,1,٥2", "expected four numbers"),
        ("0,50,181,51", "-180..180"),
        ("0,-91,1,51", "-90..90"),
    ],
)
def test_bad_bbox_says_why(text: str, reason: str) -> None:
    with pytest.raises(QueryError, match=reason) as error:
        region_of(text)
    assert f"bbox '{text}'" in str(error.value)


@pytest.mark.parametrize(
    ("document", "area"),
    [
        (SQUARE, 1),
        (feature(SQUARE), 1),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), feature(None), feature(OTHER)]}, 2),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), feature(SQUARE)]}, 1),
        ({"type": "GeometryCollection", "geometries": [SQUARE, OTHER]}, 2),
        (SQUARE_Z, 1),
        (TOUCHING, 3),
        (SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}, 1),
        (SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::4326"}}}, 1),
    ],
)
def test_geojson(tmp_path: Path, document: Any, area: float) -> None:
    region = region_of(written(tmp_path, document))
    assert region.area == pytest.approx(area)
    assert not region.has_z


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "expected a GeoJSON object"),
        ({"type": "Circle", "coordinates": [0, 0]}, "'Circle'"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "not a GeoJSON geometry"),
        ({"type": "FeatureCollection"}, "list of features"),
        ({"type": "FeatureCollection", "features": []}, "no geometry"),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), SQUARE]}, "row 2: expected"),
        (POINT_Z, "row 1: is a point: a region is given by polygons"),
        ({"type": "GeometryCollection", "geometries": [SQUARE, POINT_Z]}, "a geometrycollection"),
        ({"type": "LineString", "coordinates": [[0, 50], [1, 51]]}, "is a linestring"),
        (feature("here"), "not a GeoJSON geometry"),
        (feature(None), "no geometry"),
        ({"type": "Polygon", "coordinates": []}, "no geometry"),
        (METRES, "not degrees"),
        (METRES | {"crs": {"type": "name", "properties": {"name": "EPSG:1"}}}, "'EPSG:1' is not a CRS"),
        (METRES | {"crs": {"type": "link", "properties": {"href": "x.prj"}}}, "its crs has no name"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]},
            r"row 1: is an invalid polygon: Self-intersection\[0.5 0.5\]",
        ),
    ],
)
def test_bad_file_says_why(tmp_path: Path, document: Any, reason: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(StorageError, match=reason) as error:
        region_of(str(path))
    assert str(path) in str(error.value)


def test_neither_bbox_nor_file() -> None:
    with pytest.raises(StorageError, match="neither a bbox"):
        region_of("nowhere.geojson")


@pytest.mark.parametrize(
    ("ring", "is_uncut"),
    [
        ([[179, -17], [-179, -17], [-179, -16], [179, -16]], True),
        ([[-180, -60], [180, -60], [180, 60], [-180, 60]], False),
        ([[-180, -60], [-180, 60], [180, 60], [180, -60]], False),
        ([[-90, 0], [90, 0], [90, 10], [-90, 10]], False),
    ],
)
def test_a_polygon_over_the_antimeridian_that_is_not_cut_is_warned_of(
    tmp_path: Path, ring: list[list[float]], is_uncut: bool
) -> None:
    path = written(tmp_path, {"type": "Polygon", "coordinates": [[*ring, ring[0]]]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        region_of(path)
    said = [str(each.message) for each in caught if issubclass(each.category, RegionWarning)]
    assert len(said) == is_uncut
    assert all(str(path) in text and "row 1" in text and "antimeridian" in text for text in said)


def test_a_region_that_is_cut_is_not_warned_of(tmp_path: Path) -> None:
    """Parts on both sides of it are far from each other."""
    path = written(tmp_path, shapely.geometry.mapping(region_of("170,-20,-170,-10")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert region_of(path).equals(region_of("170,-20,-170,-10"))


def test_a_region_over_the_antimeridian_in_a_projection_is_warned_of(tmp_path: Path) -> None:
    """In EPSG:3832, whose middle is 150 degrees east, nothing shows that it is there."""
    ring = [[3.2e6, -1.9e6], [3.6e6, -1.9e6], [3.6e6, -1.7e6], [3.2e6, -1.7e6], [3.2e6, -1.9e6]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3832"}}
    path = written(tmp_path, {"type": "Polygon", "coordinates": [ring], "crs": crs})
    with pytest.warns(RegionWarning, match="antimeridian"):
        region_of(path)
