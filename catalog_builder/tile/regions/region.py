"""Regions on the command line: ``west,south,east,north`` or a GeoJSON file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import GridError, QueryError, StorageError
from catalog_builder.storage import exists, read_bytes, scheme
from catalog_builder.tile.grid import Bounds
from catalog_builder.tile.regions.bbox import read_bbox, read_numbers

_NUMBERS = re.compile(r"[\s\d.,+\-eE]*,[\s\d.,+\-eE]*")
"""Text that can only be a bbox: digits and commas."""
_CRS84 = re.compile(r"(CRS:?:?84|EPSG:?:?4326)$", re.IGNORECASE)


def region_from(argument: str | Path) -> BaseGeometry:
    """Parse the region in a command line argument.

    Parameters
    ----------
    argument
        ``west,south,east,north`` in degrees, where west > east crosses the antimeridian (six
        numbers with heights are accepted too), or the path or URL of a GeoJSON file: a geometry,
        a Feature, or a FeatureCollection, whose geometries are united.

    Returns
    -------
    BaseGeometry
        Two dimensional, OGC:CRS84, within 180 and 90 degrees. A bbox across the antimeridian is a
        MultiPolygon; one without width or height a line or a point.

    Raises
    ------
    QueryError
        If a bbox is malformed.
    StorageError
        If a file cannot be read, or is not GeoJSON in degrees with valid geometries.

    Examples
    --------
    >>> region_from("170,-20,-170,-10").bounds
    (-180.0, -20.0, 180.0, -10.0)
    """
    text = str(argument).strip()
    if _NUMBERS.fullmatch(text):
        return _from_bbox(text)
    if not scheme(text) and not exists(text):
        raise StorageError(
            f"'{text}' is neither a bbox (expected west,south,east,north, such as -5.5,49.9,1.8,55.8) "
            "nor a file that exists"
        )
    return from_geojson(text, read_bytes(text))


def box_of(bounds: Bounds) -> BaseGeometry:
    """Return a box as a polygon, or, without width or height, as a line or point."""
    west, south, east, north = bounds
    if west < east and south < north:
        return shapely.box(*bounds)
    if west == east and south == north:
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


def _from_bbox(text: str) -> BaseGeometry:
    try:
        _, parts = read_bbox(read_numbers(text))
    except GridError as error:
        raise QueryError(f"bbox '{text}': {error}") from error
    except ValueError as error:
        raise QueryError(f"bbox '{text}': expected four numbers west,south,east,north") from error
    boxes = [box_of(bounds) for bounds in parts]
    return boxes[0] if len(boxes) == 1 else shapely.union_all(boxes)


def from_geojson(source: str, data: bytes) -> BaseGeometry:
    """Return the region that a GeoJSON text describes, as :func:`region_from` does.

    Raises
    ------
    StorageError
        If it is not GeoJSON in degrees with valid geometries; of another format, naming it.
    """
    if (other := _other_format(data)) is not None:
        what, read = other
        raise StorageError(not_read(source, what, source if read else None))
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise StorageError(f"{source}: not JSON: {error}; {READ}") from error
    if not isinstance(document, dict):
        raise StorageError(f"{source}: expected a GeoJSON object, found {type(document).__name__}")
    _check_crs(source, document)
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise StorageError(f"{source}: a FeatureCollection needs a list of features")
        found = [_feature(f"{source} feature {i}", feature) for i, feature in enumerate(features, 1)]
    elif document.get("type") == "Feature":
        found = [_feature(source, document)]
    else:
        found = [_geometry(source, document)]
    geometries = [geometry for geometry in found if geometry is not None and not geometry.is_empty]
    if not geometries:
        raise StorageError(f"{source}: holds no geometry")
    return geometries[0] if len(geometries) == 1 else shapely.union_all(geometries)


READ = "a region is read from GeoJSON or a shapefile (.shp, or zipped)"


def not_read(source: str, found: str, convertible: str | None) -> str:
    """Return the message about a file that is not read: what it is, what is read, and how to get there.

    Parameters
    ----------
    source
        The file.
    found
        What it is, in words.
    convertible
        What GDAL opens it as; None if it does not.
    """
    message = f"{source}: {found}; {READ}"
    if convertible is None:
        return message
    command = f"ogr2ogr -f GeoJSON -lco RFC7946=YES region.geojson {shlex.quote(convertible)}"
    return f"{message}. To convert it: {command}"


_FORMATS = (
    (b"SQLite format 3\0", "an SQLite database, such as a GeoPackage", True),
    (b"fgb", "a FlatGeobuf", True),
    (b"PAR1", "a Parquet file", True),
    (b"ARROW1", "an Arrow (Feather) file", True),
    (b"\x00\x00\x27\x0a", "a shapefile whose name does not end in .shp", True),
    (b"PK\x03\x04", "a zip archive, such as a KMZ", True),
    (b"\x1f\x8b", "compressed by gzip, unpack it", False),
    (b"\xff\xfe", "text in UTF-16, expected UTF-8", False),
    (b"\xfe\xff", "text in UTF-16, expected UTF-8", False),
)
"""First bytes, what they are the first bytes of, and whether GDAL reads that."""
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?P<html>!doctype html|html)?", re.IGNORECASE)


def _other_format(data: bytes) -> tuple[str, bool] | None:
    """Return what a file is by its first bytes, and whether GDAL reads it; None if it may be JSON."""
    if markup := _MARKUP.match(data[:1000]):
        return ("a web page", False) if markup["html"] else ("XML, such as KML, GML or GPX", True)
    return next(((name, read) for magic, name, read in _FORMATS if data.startswith(magic)), None)


def _check_crs(source: str, document: dict[str, Any]) -> None:
    """Reject the CRS member of old GeoJSON (2008), unless it is the CRS of RFC 7946."""
    crs = document.get("crs")
    if crs is None:
        return
    name = str(crs.get("properties", {}).get("name", crs)) if isinstance(crs, dict) else str(crs)
    if not _CRS84.search(name):
        raise StorageError(f"{source}: its crs is {name}; expected degrees of longitude and latitude (CRS84)")


def _feature(where: str, feature: Any) -> BaseGeometry | None:
    """Return a feature's geometry; null is allowed and means no geometry."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise StorageError(f"{where}: expected a GeoJSON Feature")
    geometry = feature.get("geometry")
    return None if geometry is None else _geometry(where, geometry)


def _geometry(where: str, geometry: Any) -> BaseGeometry:
    kind = geometry.get("type") if isinstance(geometry, dict) else geometry
    try:
        shape = shapely.from_geojson(orjson.dumps(geometry))
    except (shapely.GEOSException, TypeError) as error:
        raise StorageError(f"{where}: not a GeoJSON geometry ('{kind}'): {error}") from error
    if shape is None:
        raise StorageError(f"{where}: not a GeoJSON geometry ('{kind}')")
    shape = shapely.force_2d(shape)
    if shape.is_empty:
        return shape
    west, south, east, north = shape.bounds
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):  # also NaN
        raise StorageError(
            f"{where}: coordinates from ({west:g}, {south:g}) to ({east:g}, {north:g}) are not degrees of "
            "longitude and latitude within 180 and 90"
        )
    if not shape.is_valid:
        # make_valid would silently change the requested region
        raise StorageError(f"{where}: invalid geometry: {shapely.is_valid_reason(shape)}")
    return shape
