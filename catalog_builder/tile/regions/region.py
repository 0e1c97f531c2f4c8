"""Regions that users name: ``west,south,east,north``, or a file of polygons."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import GridError, QueryError, VectorFileError
from catalog_builder.storage import exists, scheme
from catalog_builder.tile.grid import Bounds
from catalog_builder.tile.regions.bbox import read_bbox, read_numbers
from catalog_builder.tile.regions.crs import CRS84, Geometries
from catalog_builder.tile.regions.files import FORMATS, read_layer
from catalog_builder.tile.regions.layer import Layer, kind_of
from catalog_builder.tile.regions.polygons import in_degrees

_NUMBERS = re.compile(r"[\s\d.,+\-eE]*,[\s\d.,+\-eE]*")
"""Text that can only be a bbox: digits and commas."""
_SAME = 1e-9
"""Part of a polygon's area by which a repair may change it."""


class RegionWarning(UserWarning):
    """A region that is probably not what was meant."""


def region_of(argument: str | Path, layer: str | None = None) -> BaseGeometry:
    """Return the region given by a bbox, or by a file of polygons, which are united.

    Parameters
    ----------
    argument
        ``west,south,east,north`` in degrees, where west > east crosses the antimeridian (six numbers with
        heights are accepted too); or the path or URL of a file that
        :func:`catalog_builder.tile.regions.files.read_layer` reads: GeoJSON, GeoPackage, FlatGeobuf,
        shapefile, KML, GeoParquet, in any CRS, zipped or not. A file that does not say its CRS must be in
        degrees.
    layer
        Of a file with several.

    Returns
    -------
    BaseGeometry
        Two dimensional, OGC:CRS84, within 180 and 90 degrees. A bbox across the antimeridian is a
        MultiPolygon; one without width or height a line or a point.

    Raises
    ------
    QueryError
        If a bbox is malformed.
    VectorFileError
        If a file cannot be read, or has anything but polygons, or one that is invalid or not on the globe;
        the message names the file, and the row.
    StorageError
        If a remote file cannot be fetched, or a package that reads the format is missing.

    Warns
    -----
    RegionWarning
        If a polygon spans the globe, probably because it was not cut at the antimeridian.

    Examples
    --------
    >>> region_of("170,-20,-170,-10").bounds
    (-180.0, -20.0, 180.0, -10.0)
    """
    text = str(argument).strip()
    if _NUMBERS.fullmatch(text):
        if layer is not None:
            raise QueryError(f"layer '{layer}': does nothing without a file, and '{text}' is a box")
        boxes = [box_of(bounds) for bounds in _read(text)[1]]
        return boxes[0] if len(boxes) == 1 else shapely.union_all(boxes)
    if not scheme(text) and not exists(text) and not Path(text).is_dir():
        raise VectorFileError(
            f"'{text}' is neither a bbox (expected west,south,east,north, such as -5.5,49.9,1.8,55.8) "
            f"nor a file that exists (expected {FORMATS})"
        )
    return _united(read_layer(text, layer))


def box_of(bounds: Bounds) -> BaseGeometry:
    """Return a box as a polygon, or, without width or height, as a line or point."""
    west, south, east, north = bounds
    if west < east and south < north:
        return shapely.box(*bounds)
    if west == east and south == north:
        return shapely.Point(west, south)
    return shapely.LineString([(west, south), (east, north)])


def bounds_of(text: str) -> Bounds | None:
    """Return the box that a text is, with west > east if it crosses the antimeridian; None if it is none.

    Raises
    ------
    QueryError
        If it can only be a box, and is malformed.
    """
    text = text.strip()
    return _read(text)[0] if _NUMBERS.fullmatch(text) else None


def _read(text: str) -> tuple[Bounds, tuple[Bounds, ...]]:
    try:
        return read_bbox(read_numbers(text))
    except GridError as error:
        raise QueryError(f"bbox '{text}': {error}") from error
    except ValueError as error:
        raise QueryError(f"bbox '{text}': expected four numbers west,south,east,north") from error


def _united(layer: Layer) -> BaseGeometry:
    """Return the union of a layer's polygons; rows without geometry are left out."""
    if layer.wkb is None:
        raise VectorFileError(f"{layer.path}: has no geometries, only columns; expected {FORMATS}")
    if not len(layer.wkb):
        raise VectorFileError(f"{layer.path}: holds no geometry")
    geometry = shapely.force_2d(layer.geometries())
    shown = ~shapely.is_missing(geometry) & ~shapely.is_empty(geometry)
    if not shown.any():
        raise VectorFileError(f"{layer.path}: holds no geometry")
    geometry = np.array([_polygons(each) for each in geometry], object)
    geometry[~shown] = shapely.Polygon()
    is_polygon = np.isin(shapely.get_type_id(geometry), (3, 6))
    layer.refuse(~is_polygon, lambda i: f"is {kind_of(geometry[i])}: a region is given by polygons")
    if layer.crs is None:
        _check_degrees(layer, geometry)
    found = in_degrees(layer, _repaired(layer, geometry), layer.crs or CRS84)
    _warn_if_uncut(layer, found)
    found = found[shown]
    return found[0] if len(found) == 1 else shapely.union_all(found)


def _polygons(geometry: BaseGeometry | None) -> BaseGeometry | None:
    """Return a collection of polygons alone as one of them, and everything else as it is."""
    if geometry is None or geometry.geom_type != "GeometryCollection":
        return geometry
    parts = shapely.get_parts(geometry).tolist()
    if all(part.geom_type in ("Polygon", "MultiPolygon") for part in parts):
        return shapely.union_all(parts)
    return geometry


def _repaired(layer: Layer, geometry: Geometries) -> Geometries:
    """Return valid polygons, repaired where that does not change the region."""
    invalid = ~shapely.is_valid(geometry)
    valid = geometry.copy()
    valid[invalid] = shapely.make_valid(geometry[invalid], method="structure")
    before, after = shapely.area(geometry), shapely.area(valid)
    changed = invalid & ~(np.abs(after - before) <= _SAME * np.abs(before))  # also NaN
    layer.refuse(changed, lambda i: f"is an invalid polygon: {shapely.is_valid_reason(geometry[i])}")
    return valid


def _check_degrees(layer: Layer, geometry: Geometries) -> None:
    west, south, east, north = shapely.total_bounds(geometry)
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        raise VectorFileError(
            f"{layer.path}: does not say its CRS, and its coordinates from ({west:g}, {south:g}) to"
            f" ({east:g}, {north:g}) are not degrees; a shapefile in another CRS needs its .prj file"
        )


def _warn_if_uncut(layer: Layer, geometry: Geometries) -> None:
    """Warn of edges over more than half of the globe: what is cut has none, but from -180 to 180 degrees."""
    parts, row = shapely.get_parts(geometry, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    lon = points[:, 0]
    far = (np.abs(np.diff(lon)) > 180) & (np.diff(ring) == 0)
    far &= ~((np.abs(lon[1:]) == 180) & (np.abs(lon[:-1]) == 180))
    if far.any():
        first = int(row[part[ring[1:][far][0]]])
        west, _, east, _ = shapely.bounds(geometry[first])
        warnings.warn(
            f"{layer.path}, {layer.row(first)}: spans the globe, {west:g} to {east:g} degrees east:"
            " a polygon over the antimeridian means its opposite unless it is cut there in two (RFC 7946;"
            " ogr2ogr -wrapdateline)",
            RegionWarning,
            stacklevel=4,
        )
