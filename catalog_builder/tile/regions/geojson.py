"""GeoJSON as a layer: of RFC 7946, or of 2008 with its ``crs``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import shapely

from catalog_builder.errors import VectorFileError
from catalog_builder.tile.regions.crs import CRS84
from catalog_builder.tile.regions.layer import Layer

MOST_COLUMNS = 10_000
"""Properties of all features together: each becomes a column of all rows."""
_GEOMETRIES = {
    "Point",
    "MultiPoint",
    "LineString",
    "MultiLineString",
    "Polygon",
    "MultiPolygon",
    "GeometryCollection",
}


def geojson_features(name: str, data: bytes) -> tuple[list[Any], str]:
    """Return the features of a GeoJSON text, which need not be features yet, and what it says of its CRS.

    Raises
    ------
    VectorFileError
        If it is no JSON, or another object.
    """
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise VectorFileError(f"{name}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise VectorFileError(f"{name}: expected a GeoJSON object, found {type(document).__name__}")
    kind = document.get("type")
    if kind == "FeatureCollection":
        found = document.get("features")
        if not isinstance(found, list):
            raise VectorFileError(f"{name}: a FeatureCollection needs a list of features")
    elif kind == "Feature":
        found = [document]
    elif kind in _GEOMETRIES:
        found = [{"type": "Feature", "properties": None, "geometry": document}]
    else:
        raise VectorFileError(
            f"{name}: expected a FeatureCollection, a Feature or a geometry, found '{str(kind)[:40]}'"
        )
    return found, _crs_of(name, document.get("crs"))


def geojson_layer(
    name: str, features: Sequence[Any], crs: str = CRS84, most_columns: int = MOST_COLUMNS
) -> Layer:
    """Return features as a layer; a feature without geometry is a row with none.

    Raises
    ------
    VectorFileError
        If one is no feature, or its geometry none; the message names the row. Or if they have more
            properties than ``most_columns``.
    """
    geometry, properties = [], []
    for i, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise VectorFileError(f"{name}, row {i + 1}: expected a Feature")
        geometry.append(_wkb(name, feature.get("geometry"), i))
        found = feature.get("properties")
        said = {"id": feature["id"]} if isinstance(feature.get("id"), str | int) else {}
        properties.append(said | (found if isinstance(found, dict) else {}))
    return Layer(name, _columns(name, properties, most_columns), crs, pa.array(geometry, pa.binary()))


def _crs_of(name: str, said: Any) -> str:
    """Return the CRS of an old ``crs`` member; CRS84 without one."""
    if said is None:
        return CRS84
    try:
        about = said["properties"]
        return f"EPSG:{about['code']}" if said["type"] == "EPSG" else str(about["name"])
    except (KeyError, TypeError):
        raise VectorFileError(f"{name}: its crs has no name: found {str(said)[:80]}") from None


def _wkb(name: str, geometry: Any, i: int) -> bytes | None:
    if geometry is None:
        return None
    try:
        found = shapely.from_geojson(orjson.dumps(geometry))
    except (shapely.errors.ShapelyError, ValueError, TypeError) as error:
        kind = geometry.get("type") if isinstance(geometry, dict) else geometry
        reason = " ".join(str(error).split())[:120]
        raise VectorFileError(
            f"{name}, row {i + 1}: not a GeoJSON geometry ('{str(kind)[:40]}'): {reason}"
        ) from error
    wkb: bytes | None = None if found is None else shapely.to_wkb(found)
    return wkb


def _columns(path: str, properties: list[dict[str, Any]], most: int) -> pa.Table:
    """Return properties as columns; those of several types as JSON."""
    names = list(dict.fromkeys(name for each in properties for name in each))
    if len(names) > most:
        raise VectorFileError(f"{path}: has {len(names)} columns, expected at most {most}")
    arrays = []
    for name in names:
        values = [each.get(name) for each in properties]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, OverflowError):
            arrays.append(pa.array([None if v is None else json.dumps(v) for v in values], pa.string()))
    if not names:  # a table without columns has no rows
        return pa.table({"row": np.arange(1, len(properties) + 1)})
    return pa.table(arrays, names=names)
