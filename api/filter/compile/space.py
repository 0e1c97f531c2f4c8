"""The spatial functions of CQL2: the cells that have a relation to a geometry.

An item's geometry is its cell, so a function of ``geometry`` and a literal is a set of cells, found
once. Intersection is :func:`catalog_builder.tile.cover.cover`; the other relations test the cells that
intersect, with shapely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from api.request.area import Area, parse_bbox, parse_geometry
from catalog_builder.errors import QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import complement
from catalog_builder.tile.cover import Runs

MOST_TESTED = 500_000
"""Cells that are tested one by one; shapely does about a million a second."""

MOST_TESTED_VERTICES = 20_000
"""Of a geometry that cells are tested against: near a cell each of its edges may count."""
MOST_CONSTANT_VERTICES = 2_000
"""Of a function of two literals: their edges may all cross each other, and GEOS keeps every crossing."""

Cells = npt.NDArray[np.object_]
Relation = Callable[[BaseGeometry, Cells], npt.NDArray[np.bool_]]

# By (geometry of the request, cells): the prepared geometry comes first.
_RELATIONS: dict[str, Relation] = {
    "s_within": shapely.contains,
    "s_contains": shapely.within,
    "s_equals": lambda shape, cells: shapely.equals(cells, shape),
    "s_touches": shapely.touches,
    "s_overlaps": shapely.overlaps,
    "s_crosses": lambda shape, cells: shapely.crosses(cells, shape),
}
_INVERSE = {"s_within": "s_contains", "s_contains": "s_within"}
FUNCTIONS = ("s_intersects", "s_disjoint", *_RELATIONS)
"""Names of the functions, in lower case."""

_EDGE_LON, _EDGE_LAT = np.array(grid.LON_EDGES), np.array(grid.LAT_EDGES)


def relate(function: str, literal: Any, *, reversed_arguments: bool, max_vertices: int) -> tuple[Runs, float]:
    """Return the cells for which ``function(geometry, literal)`` holds, and what that cost.

    The cost is in degrees of outline, see :func:`api.request.area.check_length`.

    Parameters
    ----------
    function
        One of :data:`FUNCTIONS`.
    literal
        GeoJSON, or ``{"bbox": [...]}``.
    reversed_arguments
        Whether the literal comes first.

    Raises
    ------
    QueryError
        If the literal is not a geometry, or would need too many cells to be tested.
    """
    area, shape = _read(literal, function, max_vertices)
    touched = area.cells()
    if function == "s_intersects":
        return touched, area.degrees
    if function == "s_disjoint":
        return complement(touched), area.degrees
    if not shape.is_empty and (shape.bounds[0] < -180 or shape.bounds[2] > 180):
        raise QueryError(
            f"filter: {function} takes longitudes from -180 to 180; split the geometry at the antimeridian"
        )
    if touched.n_cells > MOST_TESTED:
        raise QueryError(
            f"filter: {function} with this geometry would test {touched.n_cells} cells; at most {MOST_TESTED}"
            " are tested; make the geometry smaller, or use s_intersects"
        )
    _few_vertices(shape, MOST_TESTED_VERTICES, function)
    name = _INVERSE.get(function, function) if reversed_arguments else function
    cells = touched.cells()
    row, col = grid.rows_cols(cells)
    boxes = shapely.box(_EDGE_LON[col], _EDGE_LAT[row], _EDGE_LON[col + 1], _EDGE_LAT[row + 1])
    shapely.prepare(shape)
    try:
        held = cells[_RELATIONS[name](shape, boxes)]
    except shapely.errors.GEOSException as exc:
        raise QueryError(f"filter: {function} cannot be evaluated for this geometry ({exc})") from None
    row, col = (part.astype(np.int32) for part in grid.rows_cols(held))
    return Runs(row, col, col), area.degrees + touched.n_cells / 10


def constant(function: str, a: Any, b: Any, max_vertices: int) -> bool:
    """Return the value of a function of two literals."""
    (_, one), (_, other) = (_read(literal, function, max_vertices) for literal in (a, b))
    for shape in (one, other):
        _few_vertices(shape, MOST_CONSTANT_VERTICES, f"{function} of two literals")
    try:
        return bool(getattr(shapely, function.removeprefix("s_"))(one, other))
    except shapely.errors.GEOSException as exc:
        raise QueryError(f"filter: {function} cannot be evaluated for these geometries ({exc})") from None


def _few_vertices(shape: BaseGeometry, most: int, function: str) -> None:
    n = shapely.get_num_coordinates(shape)
    if n > most:
        raise QueryError(
            f"filter: {function} takes at most {most} vertices, found {n}; simplify the geometry"
        )


def literal_wkb(literal: Any, function: str) -> bytes:
    """Return a literal geometry, which was accepted before, as WKB."""
    _, shape = _read(literal, function, 1 << 30)
    return bytes(shapely.to_wkb(shape))


def _read(literal: Any, function: str, max_vertices: int) -> tuple[Area, BaseGeometry]:
    if not isinstance(literal, dict) or "bbox" not in literal:
        area = parse_geometry(literal, f"filter: {function}", max_vertices)
        return area, shapely.from_wkb(area.wkb)
    area = parse_bbox(literal["bbox"], f"filter: {function}")
    parts = [shapely.box(*b) for b in area.boxes]
    return area, parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
