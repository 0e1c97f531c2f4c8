"""The spatial functions of CQL2: the cells that have a relation to a geometry.

An item's geometry is its cell, so a function of ``geometry`` and a literal is a set of cells, found
once. Intersection is :func:`catalog_builder.tile.cover.cover`; for the other relations shapely tests the
cells that a polygon's outline touches, and of other geometries all that intersect. A cell inside a polygon
is within it, and has no other relation to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from api.request.area import Area, check_length, parse_bbox, parse_geometry
from catalog_builder.errors import QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import at_least, complement
from catalog_builder.tile.cover import Runs, cover

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
_TESTING = 3
"""Finding and testing the cells on an outline costs so much more than finding those that it encloses."""
FUNCTIONS = ("s_intersects", "s_disjoint", *_RELATIONS)
"""Names of the functions, in lower case."""

_EDGE_LON, _EDGE_LAT = np.array(grid.LON_EDGES), np.array(grid.LAT_EDGES)


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal geometry of a filter."""

    area: Area
    shape: BaseGeometry


def read_literals(node: Any, max_vertices: int) -> dict[int, Literal]:
    """Read every geometry that a filter compares items with, by the ``id`` of its node.

    All are read before the cells of any are found, so a filter of too many is refused at once.

    Raises
    ------
    QueryError
        If one is not a geometry, or the cells on their outlines would take too long to find and test.
    """
    found: dict[int, Literal] = {}
    degrees = 0.0
    todo = [node]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += reversed(node)
        if not isinstance(node, dict) or not isinstance(args := node.get("args"), list):
            continue
        todo += reversed(args)
        function = str(node.get("op")).lower()
        if function not in FUNCTIONS or sum(map(is_property, args)) != 1:
            continue
        for arg in args:
            if not is_property(arg):
                literal = found[id(arg)] = _read(arg, function, max_vertices)
                degrees += literal.area.degrees * (_TESTING if function in _RELATIONS else 1)
                check_length(degrees, "filter")
    return found


def relate(function: str, literal: Literal, *, reversed_arguments: bool) -> tuple[Runs, float]:
    """Return the cells for which ``function(geometry, literal)`` holds, and what that cost.

    The cost is in degrees of outline, see :func:`api.request.area.check_length`; it does not include what
    :func:`read_literals` has foreseen.

    Parameters
    ----------
    function
        One of :data:`FUNCTIONS`.
    literal
        From :func:`read_literals`.
    reversed_arguments
        Whether the literal comes first.

    Raises
    ------
    QueryError
        If the literal would need too many cells to be tested.
    """
    shape, touched = literal.shape, literal.area.cells()
    if function == "s_intersects":
        return touched, 0.0
    if function == "s_disjoint":
        return complement(touched), 0.0
    if not shape.is_empty and (shape.bounds[0] < -180 or shape.bounds[2] > 180):
        raise QueryError(
            f"filter: {function} takes longitudes from -180 to 180; split the geometry at the antimeridian"
        )
    _few_vertices(shape, MOST_TESTED_VERTICES, function)
    name = _INVERSE.get(function, function) if reversed_arguments else function
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        outline = cover(shapely.boundary(shape))
        inside = at_least([touched, complement(outline)], 2)
        held = _tested(name, shape, outline, function)
        return at_least([held, inside], 1) if name == "s_within" else held, 0.0
    return _tested(name, shape, touched, function), touched.n_cells / 10


def _tested(name: str, shape: BaseGeometry, runs: Runs, function: str) -> Runs:
    """Return those of some cells that have a relation to a geometry, found one by one."""
    if runs.n_cells > MOST_TESTED:
        raise QueryError(
            f"filter: {function} with this geometry would test {runs.n_cells} cells; at most {MOST_TESTED}"
            " are tested; make the geometry smaller, or use s_intersects"
        )
    cells = runs.cells()
    row, col = grid.rows_cols(cells)
    boxes = shapely.box(_EDGE_LON[col], _EDGE_LAT[row], _EDGE_LON[col + 1], _EDGE_LAT[row + 1])
    shapely.prepare(shape)
    try:
        held = cells[_RELATIONS[name](shape, boxes)]
    except shapely.errors.GEOSException as exc:
        raise QueryError(f"filter: {function} cannot be evaluated for this geometry ({exc})") from None
    row, col = (part.astype(np.int32) for part in grid.rows_cols(held))
    return Runs(row, col, col)


def constant(function: str, a: Any, b: Any, max_vertices: int) -> bool:
    """Return the value of a function of two literals."""
    one, other = (_read(literal, function, max_vertices).shape for literal in (a, b))
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


def literal_shape(literal: Any, function: str) -> BaseGeometry:
    """Return a literal geometry, which was accepted before."""
    return _read(literal, function, 1 << 30).shape


def is_property(node: Any) -> bool:
    """Return whether an argument is a property, and no literal."""
    return isinstance(node, dict) and "property" in node


def _read(literal: Any, function: str, max_vertices: int) -> Literal:
    if isinstance(literal, dict) and "op" in literal:
        raise QueryError(
            f"filter: {function} takes 'geometry' and a literal geometry, found the function"
            f" '{str(literal['op'])[:40]}', which is not known here"
        )
    if not isinstance(literal, dict) or "bbox" not in literal:
        area = parse_geometry(literal, f"filter: {function}", max_vertices)
        return Literal(area, shapely.from_wkb(area.wkb))
    area = parse_bbox(literal["bbox"], f"filter: {function}")
    parts = [shapely.box(*b) for b in area.boxes]
    return Literal(area, parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts))
