"""region_from(): what people write on a command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.tile.cover import cover
from catalog_builder.tile.regions.region import region_from

SQUARE = {"type": "Polygon", "coordinates": [[[0, 50], [1, 50], [1, 51], [0, 51], [0, 50]]]}
OTHER = {"type": "Polygon", "coordinates": [[[1, 50], [2, 50], [2, 51], [1, 51], [1, 50]]]}
POINT_Z = {"type": "Point", "coordinates": [0.1, 52.2, 17.0]}


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
    assert region_from(text).equals(expected)
    assert region_from(text).is_valid
    assert cover(region_from(text)).n_cells == cover(expected).n_cells


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
        region_from(text)
    assert f"bbox '{text}'" in str(error.value)


@pytest.mark.parametrize(
    ("document", "area"),
    [
        (SQUARE, 1),
        (feature(SQUARE), 1),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), feature(None), feature(OTHER)]}, 2),
        ({"type": "FeatureCollection", "features": [feature(SQUARE), feature(SQUARE)]}, 1),
        ({"type": "GeometryCollection", "geometries": [SQUARE, POINT_Z]}, 1),
        (POINT_Z, 0),
        (SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}, 1),
        (SQUARE | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::4326"}}}, 1),
    ],
)
def test_geojson(tmp_path: Path, document: Any, area: float) -> None:
    region = region_from(written(tmp_path, document))
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
        ({"type": "FeatureCollection", "features": [feature(SQUARE), SQUARE]}, "feature 2: expected"),
        (feature("here"), "not a GeoJSON geometry"),
        (feature(None), "no geometry"),
        ({"type": "Point", "coordinates": []}, "no geometry"),
        ({"type": "Point", "coordinates": [300000, 5700000]}, "not degrees"),
        (SQUARE | {"crs": {"type": "name", "properties": {"name": "EPSG:27700"}}}, "EPSG:27700"),
        (
            {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]},
            r"invalid geometry: Self-intersection\[0.5 0.5\]",
        ),
    ],
)
def test_bad_file_says_why(tmp_path: Path, document: Any, reason: str) -> None:
    path = written(tmp_path, document)
    with pytest.raises(StorageError, match=reason) as error:
        region_from(str(path))
    assert str(path) in str(error.value)


def test_neither_bbox_nor_file() -> None:
    with pytest.raises(StorageError, match="neither a bbox"):
        region_from("nowhere.geojson")
