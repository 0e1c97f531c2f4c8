"""Polygons of a layer, in degrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from catalog_builder.errors import TooLargeError, VectorFileError
from catalog_builder.tile.regions.crs import Geometries, degrees, moved
from catalog_builder.tile.regions.layer import Layer, kind_of

MOST_VERTICES = 50_000_000
"""A polygon of coordinates that are no metres would fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons with their attributes."""

    geometry: Geometries
    """Shapely polygons and multipolygons, OGC:CRS84, two dimensional and valid, (n,)."""
    columns: pa.Table
    """The attributes, n rows."""


def polygons_of(found: Layer, crs: Any = None, most: int = MOST_VERTICES) -> Polygons:
    """Return the polygons of a layer.

    Parameters
    ----------
    found, crs
        The layer, and its CRS if that does not say.
    most
        Vertices of all polygons, with those that are added because edges are curves on other maps.

    Raises
    ------
    TooLargeError
        If there are more.
    VectorFileError
        If a row has no polygon, one that is empty, of coordinates that are no numbers, or not on the globe;
        or if there is no CRS, or none that PROJ knows: the message names the rows.
    """
    if found.wkb is None:
        raise VectorFileError(f"{found.path}: has no geometries, only columns: expected polygons")
    geometry = shapely.force_2d(found.geometries())
    found.refuse(shapely.is_missing(geometry), lambda i: "has no geometry")
    kinds = shapely.get_type_id(geometry)
    found.refuse(~np.isin(kinds, (3, 6)), lambda i: f"is no polygon: {kind_of(geometry[i])}")
    found.refuse(shapely.is_empty(geometry), lambda i: "is an empty polygon")
    invalid = ~shapely.is_valid(geometry)
    if invalid.any():
        geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure")
    return Polygons(in_degrees(found, geometry, crs, most, along_parallels=True), found.columns)


def in_degrees(
    layer: Layer, geometry: Geometries, crs: Any, most: int = MOST_VERTICES, *, along_parallels: bool = False
) -> Geometries:
    """Return polygons of a layer in degrees, OGC:CRS84, with vertices where edges are curves.

    Parameters
    ----------
    layer
        Where they are from; its CRS counts if ``crs`` is None.
    geometry
        Valid polygons, (n,); empty ones remain.
    crs
        Anything pyproj takes.
    most
        Vertices of all of them.
    along_parallels
        Add vertices also where they are in degrees already, so that they can be moved to other CRS.

    Raises
    ------
    TooLargeError, VectorFileError
        As :func:`polygons_of`.
    """
    move, edge = degrees(layer.path, crs or layer.crs)
    filled = ~shapely.is_empty(geometry)
    finite = np.isfinite(shapely.bounds(geometry)).all(axis=1)
    layer.refuse(filled & ~finite, lambda i: "has coordinates that are no numbers")
    if move is not None or along_parallels:
        with np.errstate(over="ignore"):
            added = min(float(shapely.length(geometry).sum()) / edge, 1e15)
        vertices = int(shapely.get_num_coordinates(geometry).sum() + added)
        if vertices > most:
            raise TooLargeError(
                f"{layer.path}: its polygons have {vertices:,} vertices, one for each {edge:g} of their edges"
                f" included: expected at most {most:,}"
            )
        geometry = shapely.segmentize(geometry, edge)
    if move is not None:
        geometry = moved(geometry, move)
    bounds = shapely.bounds(geometry)
    off = ~(np.isfinite(bounds).all(axis=1) & (np.abs(bounds) <= (180, 90, 180, 90)).all(axis=1))
    layer.refuse(
        filled & off,
        lambda i: (
            f"is not on the globe: its bounds are {bounds[i].round(6).tolist()}, which are not degrees"
            " within 180 and 90"
        ),
    )
    return geometry
