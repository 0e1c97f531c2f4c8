"""CQL2 as pgSTAC understands it, from CQL2 that :class:`api.filter.compile.compiler.Compiler` has accepted.

pgSTAC's interpretation differs from the standard in several places, all of which are fixed here:

- arithmetic has no parentheses, ``%``, ``div`` and ``^`` are not known, and a division by zero is an
  error: our operators, which the loader puts beside pgSTAC's (:mod:`catalog_builder.publish.pgstac.state`);
- temporal functions read ``datetime`` as the item's whole interval: written out as comparisons;
- spatial functions take no GeometryCollection, no heights, and the literal on the right only;
- a number beside an expression is read as text, unless the comparison is the whole filter;
- a constant is no condition.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import cql2
import shapely
from shapely.geometry.base import BaseGeometry

from api.filter.compile import space, time
from api.filter.compile.space import is_property
from api.request.area import wrapped
from catalog_builder.errors import QueryError

Node = Any
"""CQL2 in JSON form."""

TRUE: Node = {"op": "=", "args": ["1", "1"]}
FALSE: Node = {"op": "=", "args": ["1", "0"]}

_ARITHMETIC = {
    "+": "exact_add",
    "-": "exact_subtract",
    "*": "exact_multiply",
    "/": "exact_divide",
    "div": "exact_div",
    "%": "exact_modulo",
    "^": "exact_power",
    "casei": "exact_casei",
    "accenti": "exact_accenti",
}
_CONVERSE = {"s_within": "s_contains", "s_contains": "s_within"}
_COLUMNS = {"start_datetime": "datetime"}
"""Properties that pgSTAC keeps in a column of another name."""
_FIRST, _LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


def translate(node: Node) -> Node:
    """Translate a condition for pgSTAC.

    Raises
    ------
    QueryError
        If pgSTAC cannot evaluate it.
    """
    if isinstance(node, bool):
        return TRUE if node else FALSE
    op, args = node["op"].lower(), node["args"]
    if op in ("and", "or", "not"):
        return {"op": op, "args": [translate(a) for a in args]}
    if op in space.FUNCTIONS:
        return _spatial(op, *args)
    if op in time.RELATIONS:
        return _temporal(op, *args)
    if op == "isnull":
        return _is_null(args[0])
    if op == "in":
        return {"op": "in", "args": [_scalar(args[0]), [_scalar(a) for a in args[1]]]}
    if op == "like" and _open_escape(args[1]):
        raise QueryError("filter: like: the pattern ends with an escape character")
    return {"op": op, "args": [_scalar(a) for a in args]}


def both(*conditions: Node) -> Node:
    """Return the conjunction of translated conditions."""
    return conditions[0] if len(conditions) == 1 else {"op": "and", "args": list(conditions)}


def either(*conditions: Node) -> Node:
    """Return the disjunction of translated conditions, of none at all what never holds."""
    if not conditions:
        return FALSE
    return conditions[0] if len(conditions) == 1 else {"op": "or", "args": list(conditions)}


def time_text(ns: int, *, up: bool = False) -> str:
    """Return nanoseconds since 1970 as RFC 3339, in the microseconds that PostgreSQL keeps.

    Parameters
    ----------
    up
        Round up: the start of an interval must not become earlier.
    """
    micros = -(-ns // 1000) if up else ns // 1000
    try:
        at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    except OverflowError:
        return _FIRST if ns < 0 else _LAST
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _open_escape(pattern: Node) -> bool:
    return isinstance(pattern, str) and (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


# ----------------------------------------------------------------------------------- scalars


def _scalar(node: Node) -> Node:
    if isinstance(node, int | float) and not isinstance(node, bool):
        return {"op": "exact_number", "args": [node]}
    if not isinstance(node, Mapping):
        return node
    if "property" in node:
        name = str(node["property"]).removeprefix("properties.")
        return {"property": _COLUMNS.get(name, name)}
    if "timestamp" in node or "date" in node:
        return _timestamp(time.instant(node.get("timestamp", node.get("date")), "filter"))
    op, args = node["op"].lower(), node["args"]
    if op == "-" and len(args) == 1:
        args = [0, *args]
    return {"op": _ARITHMETIC[op], "args": [_scalar(a) for a in args]}


def _timestamp(ns: int) -> Node:
    return {"timestamp": time_text(ns)}


def _is_null(node: Node) -> Node:
    if isinstance(node, Mapping) and node.get("property") == "geometry":
        return FALSE  # an item always has one
    return {"op": "exact_is_null", "args": [_scalar(node)]}


# ------------------------------------------------------------------------------------- times


def _temporal(op: str, a: Node, b: Node) -> Node:
    """Write a temporal function out as comparisons of the intervals' ends."""
    ends = dict(zip(("a0", "a1", "b0", "b1"), (*_interval(a), *_interval(b)), strict=True))
    relation = time.RELATIONS[op].format(**{name: name for name in ends})
    return _replaced(cql2.parse_text(relation).to_json(), ends)


def _interval(node: Node) -> tuple[Node, Node]:
    if isinstance(node, Mapping) and "interval" in node:
        start, end = node["interval"]
        return _end(start, _FIRST), _end(end, _LAST)
    return (_end(node, _FIRST),) * 2


def _end(node: Node, is_open: str) -> Node:
    if node in ("..", ""):
        return {"timestamp": is_open}
    if isinstance(node, str):
        return _timestamp(time.instant(node, "filter"))
    return _scalar(node)


def _replaced(node: Node, ends: Mapping[str, Node]) -> Node:
    if isinstance(node, Mapping) and "property" in node:
        return ends[node["property"]]
    return {"op": node["op"], "args": [_replaced(a, ends) for a in node["args"]]}


# ------------------------------------------------------------------------------------- space


def _spatial(op: str, a: Node, b: Node) -> Node:
    if not is_property(a) and not is_property(b):
        return translate(space.constant(op, a, b, 1 << 30))
    literal = a if is_property(b) else b
    name = _CONVERSE.get(op, op) if is_property(b) else op
    shape = space.literal_shape(literal, op)
    if op == "s_disjoint":
        return {"op": "not", "args": [_touching(shape)]}
    if op == "s_intersects":
        return _touching(shape)
    if shape.geom_type == "GeometryCollection":
        raise QueryError(f"filter: {op} of a GeometryCollection is not supported by this server (pgSTAC)")
    return of_geometry(name, shape)


def _touching(shape: BaseGeometry) -> Node:
    return either(*(of_geometry("s_intersects", part) for part in simple_parts(shape)))


def of_geometry(op: str, shape: BaseGeometry) -> Node:
    """Return a spatial function of an item's geometry and another."""
    return {"op": op, "args": [{"property": "geometry"}, shapely.geometry.mapping(shape)]}


def simple_parts(shape: BaseGeometry) -> list[BaseGeometry]:
    """Return what a geometry is made of as PostGIS can test it: on the globe, valid, no collections.

    A polygon that crosses itself, and parts of a MultiPolygon that overlap, are not valid there.
    """
    found: list[BaseGeometry] = []
    for copy in wrapped(shapely.force_2d(shape)):
        if copy.geom_type == "GeometryCollection":
            for part in shapely.get_parts(copy):
                found += simple_parts(part)
        elif copy.is_empty:
            continue
        elif shapely.is_valid(copy):
            found.append(copy)
        elif copy.geom_type == "MultiPolygon":
            for part in shapely.get_parts(copy):
                found += simple_parts(part)
        else:
            found.append(shapely.make_valid(copy, method="structure", keep_collapsed=True))
    return found
