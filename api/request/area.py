"""The area of a search: a bbox or a GeoJSON geometry, as cells of the grid.

An item's geometry is its cell, so a search area becomes the cells it touches, once and exactly, and
nothing has to be tested again per item. Cells are :class:`catalog_builder.tile.cover.Runs`; the set
operations on them are here as well.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import shapely
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import GridError, QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import at_least
from catalog_builder.tile.cover import Runs, cover, cover_box
from catalog_builder.tile.regions.bbox import describe, read_bbox

_DEPTH = {
    "Point": 0,
    "MultiPoint": 1,
    "LineString": 1,
    "MultiLineString": 2,
    "Polygon": 2,
    "MultiPolygon": 3,
}
"""GeoJSON type to the nesting depth of its positions."""
_MAX_NESTING = 8
"""Maximum nesting depth of GeometryCollections."""
MOST_DEGREES = 50_000
"""Longest outline of a request's geometries: about half a million cells, a second of work.

All borders and coasts of the world, at the grid's resolution, are a fifth of it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A bbox or a geometry of a request, validated."""

    key: bytes
    """Fingerprint, equal for equal areas."""
    boxes: tuple[grid.Bounds, ...]
    """Of a bbox: two if it crosses the antimeridian. Empty for a geometry."""
    wkb: bytes
    """Of a geometry, two dimensional. Empty for a bbox."""
    degrees: float = 0.0
    """Length of a geometry's outline, which determines the cost of finding its cells."""

    @property
    def is_box(self) -> bool:
        """Whether its cells can be found without geometry operations."""
        return not self.wkb

    def cells(self) -> Runs:
        """Return the cells it touches."""
        if self.is_box:
            return at_least([cover_box(b) for b in self.boxes], 1)
        return _cover_wkb(self.wkb)


def parse_bbox(value: object, name: str = "bbox") -> Area:
    """Return the area of ``[west, south, east, north]`` or ``[west, south, low, east, north, high]``.

    West may be greater than east: the box crosses the antimeridian.

    Raises
    ------
    QueryError
        If it is not such a list, or out of range.
    """
    if not isinstance(value, list | tuple):
        raise QueryError(f"{name}: expected an array of 4 or 6 numbers, found {describe(value)}")
    try:
        bounds, boxes = read_bbox(value)
    except GridError as exc:
        raise QueryError(f"{name}: {exc}") from None
    return Area(np.array(bounds).tobytes(), boxes, b"")


def parse_geometry(value: object, name: str, max_vertices: int) -> Area:
    """Return the area of a GeoJSON geometry of any type; a third coordinate is ignored.

    Longitudes from -360 to 360 are accepted, so a polygon may cross the antimeridian without being split.

    Raises
    ------
    QueryError
        If it is not a valid GeoJSON geometry, or has too many vertices.
    """
    if isinstance(value, dict) and value.get("type") == "Feature":
        raise QueryError(f"{name}: expected a GeoJSON geometry, found a Feature; send its 'geometry'")
    count = _check_geometry(value, name, 0)
    assert isinstance(value, dict)  # noqa: S101 - checked above, said to the type checker
    if count > max_vertices:
        raise QueryError(f"{name}: {count} vertices, but at most {max_vertices} are accepted; simplify it")
    try:
        shape = shapely.force_2d(shapely.geometry.shape(value))
    except (shapely.errors.GEOSException, ValueError, TypeError, IndexError) as exc:
        raise QueryError(f"{name}: not a valid GeoJSON geometry ({exc})") from None
    wkb, degrees = shapely.to_wkb(shape), float(shapely.length(shape))
    check_length(degrees, name)
    return Area(hashlib.blake2b(wkb, digest_size=16).digest(), (), wkb, degrees)


def check_length(degrees: float, name: str) -> None:
    """Reject outlines whose cells would take too long to find.

    Raises
    ------
    QueryError
        If they are longer than :data:`MOST_DEGREES`.
    """
    if degrees > MOST_DEGREES:
        raise QueryError(
            f"{name}: an outline of {degrees:.0f} degrees; at most {MOST_DEGREES} are accepted: simplify it"
        )


def _check_geometry(value: object, name: str, nesting: int) -> int:
    """Check the structure of a geometry and return its number of vertices."""
    if not isinstance(value, dict):
        raise QueryError(f"{name}: expected a GeoJSON geometry object, found {describe(value)}")
    kind = value.get("type")
    if kind == "GeometryCollection":
        parts = value.get("geometries")
        if not isinstance(parts, list):
            raise QueryError(f"{name}: a GeometryCollection needs an array 'geometries'")
        if nesting >= _MAX_NESTING:
            raise QueryError(f"{name}: GeometryCollections are nested more than {_MAX_NESTING} deep")
        return sum(_check_geometry(p, name, nesting + 1) for p in parts)
    if not isinstance(kind, str) or kind not in _DEPTH:
        known = ", ".join([*_DEPTH, "GeometryCollection"])
        raise QueryError(f"{name}: unknown geometry type {str(kind)[:40]!r}; expected one of {known}")
    coordinates = value.get("coordinates")
    if not isinstance(coordinates, list):
        raise QueryError(f"{name}: a {kind} needs an array 'coordinates'")
    positions = [coordinates]
    for depth in range(_DEPTH[kind]):
        if kind in ("Polygon", "MultiPolygon") and depth == _DEPTH[kind] - 1:
            _check_rings(positions, name)
        positions = [p for group in positions for p in _array(group, name, kind)]
    if kind == "LineString" and len(positions) < 2:
        raise QueryError(f"{name}: a LineString needs at least 2 positions, found {len(positions)}")
    if kind == "MultiLineString" and any(len(line) < 2 for line in coordinates):
        raise QueryError(f"{name}: each line of a MultiLineString needs at least 2 positions")
    if not _are_on_the_globe(positions):
        for position in positions:
            _check_position(position, name)
    return len(positions)


def _array(value: object, name: str, kind: str) -> list[Any]:
    if not isinstance(value, list):
        raise QueryError(f"{name}: coordinates of a {kind} are not nested deep enough")
    return value


def _check_rings(rings: Sequence[object], name: str) -> None:
    for ring in rings:
        if not isinstance(ring, list) or len(ring) < 4 or ring[0] != ring[-1]:
            raise QueryError(
                f"{name}: a polygon's ring needs at least 4 positions, with the last equal to the first"
            )


def _are_on_the_globe(positions: Sequence[Any]) -> bool:
    """Whether all are positions that :func:`_check_position` accepts; if not, it says of each why."""
    if set(map(type, positions)) != {list} or not set(map(len, positions)) <= {2, 3, 4}:
        return False
    if not set(map(type, chain.from_iterable(positions))) <= {int, float}:
        return False
    others = np.fromiter(chain.from_iterable(p[2:] for p in positions), np.float64)
    lon, lat = (np.fromiter((p[i] for p in positions), np.float64, len(positions)) for i in (0, 1))
    within = (np.abs(lon) <= 360).all() and (np.abs(lat) <= 90).all()  # NaN is not
    return bool(within and np.isfinite(others).all())


def _check_position(position: object, name: str) -> None:
    if not isinstance(position, list) or not 2 <= len(position) <= 4:
        raise QueryError(f"{name}: expected positions of 2 or 3 numbers, found {str(position)[:60]}")
    for v in position:
        if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
            raise QueryError(f"{name}: expected positions of numbers, found {str(position)[:60]}")
    lon, lat = position[:2]
    if not (-360 <= lon <= 360 and -90 <= lat <= 90):
        raise QueryError(
            f"{name}: position {lon:g}, {lat:g} is off the globe;"
            " expected longitude -360..360, latitude -90..90"
        )


@lru_cache(maxsize=64)
def _cover_wkb(wkb: bytes) -> Runs:
    """Return the cells of a geometry; cached, because each page of a search needs them."""
    shape = shapely.from_wkb(wkb)
    return at_least([cover(s) for s in wrapped(shape)], 1)


def wrapped(shape: BaseGeometry) -> list[BaseGeometry]:
    """Return a geometry on the globe: with copies shifted by 360 degrees if it exceeds it."""
    west, _, east, _ = shape.bounds if not shape.is_empty else (0.0, 0.0, 0.0, 0.0)
    copies = [shape]
    if west < -180:
        copies.append(affinity.translate(shape, 360))
    if east > 180:
        copies.append(affinity.translate(shape, -360))
    return copies
