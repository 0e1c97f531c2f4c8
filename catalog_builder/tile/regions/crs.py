"""Coordinates of files in any CRS, as longitude and latitude."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import VectorFileError

CRS84 = "OGC:CRS84"
MAX_EDGE = 0.01
"""Degrees between vertices before a region is projected: a straight line on one map is a curve on another."""
MAX_EDGE_METRES = 1000.0
"""The same in projected coordinates."""
_DEGREES = re.compile(r"(CRS:?:?84|EPSG:?:?4326)$", re.IGNORECASE)

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]
Move = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""Returns longitude and latitude of x and y."""


def degrees(path: str, crs: Any) -> tuple[Move | None, float]:
    """Return what moves coordinates to OGC:CRS84, None if they are in it, and the longest edge in their unit.

    Parameters
    ----------
    path
        The file, in messages.
    crs
        Anything pyproj takes; None: the file does not say.

    Raises
    ------
    VectorFileError
        If there is no CRS, or one that PROJ does not know or cannot transform.
    """
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    if crs is None:
        raise VectorFileError(f"{path}: does not say its CRS: give it, such as --crs EPSG:27700")
    if isinstance(crs, str) and _DEGREES.search(crs):
        return None, MAX_EDGE
    try:
        found = CRS.from_user_input(crs)
    except CRSError:
        raise VectorFileError(
            f"{path}: '{str(crs)[:100]}' is not a CRS: expected one such as EPSG:27700"
        ) from None
    # geometries and columns are x, y whatever a geographic CRS says of its axes
    if found.is_geographic and (found.equals(CRS84, ignore_axis_order=True) or found.to_epsg() == 4326):
        return None, MAX_EDGE
    try:
        transformer = Transformer.from_crs(found, CRS84, always_xy=True)
    except ProjError as error:
        raise VectorFileError(f"{path}: its CRS {found.name} cannot be transformed: {error}") from error

    def move(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        lon, lat = transformer.transform(x, y)
        return np.asarray(lon), np.asarray(lat)

    if found.is_geographic:
        return move, MAX_EDGE
    unit = found.axis_info[0].unit_conversion_factor if found.axis_info else 1.0
    return move, MAX_EDGE_METRES / (unit or 1.0)


def moved(geometry: Geometries, move: Move) -> Geometries:
    """Return geometries with every vertex moved."""
    points = shapely.get_coordinates(geometry)
    found: Geometries = shapely.set_coordinates(geometry, np.column_stack(move(points[:, 0], points[:, 1])))
    return found


def project(region: BaseGeometry, transformer: Any) -> BaseGeometry:
    """Return a geometry with every vertex transformed by a pyproj transformer."""

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(region, move)
