"""CQL2 in plain Python: three-valued logic over rows that are read from manifests, and none of our code.

A value that is missing is None, and so is what has no result, such as a division by zero. Whatever depends on
None is None; AND and OR are Kleene's.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import shapely

Row = Mapping[str, Any]
"""Properties of an item by name, and ``box``: its cell."""
Node = Any
"""CQL2 in JSON form."""

_LINE = re.compile(r"^(\d{4})/grid_(-?\d+\.\d\d)_(-?\d+\.\d\d)/grid_\2_\3\.npy ", re.MULTILINE)


def rows_of(
    collection: str, texts: Iterable[Path], valid: Mapping[str, float], **properties: Any
) -> list[Row]:
    """Return the items of manifests, in the order of the index: by year, latitude and longitude.

    ``valid`` has the share of valid pixels of converted items by id; ``properties`` are what the whole
    collection has in common.
    """
    found = {
        (int(year), float(lat), float(lon))
        for path in texts
        for year, lon, lat in _LINE.findall(path.read_text())
    }
    years: dict[tuple[float, float], set[int]] = {}
    for year, *place in found:
        years.setdefault((place[0], place[1]), set()).add(year)
    all_years = {year for year, *_ in found}
    rows = []
    for year, lat, lon in sorted(found):
        tile = f"grid_{lon:.2f}_{lat:.2f}"
        zone = math.floor((lon + 180) / 6) + 1
        mine = years[lat, lon]
        alone = "latest" if mine == {max(all_years)} else "partial"
        west, south = round(lon - 0.05, 1), round(lat - 0.05, 1)
        rows.append(
            {
                "id": f"{tile}_{year}",
                "collection": collection,
                "tessera:tile": tile,
                "tessera:year": year,
                "tessera:utm_zone": zone,
                "proj:code": f"EPSG:{(32700 if lat < 0 else 32600) + zone}",
                "tessera:coverage": "full" if mine == all_years else alone,
                "tessera:cog": f"{tile}_{year}" in valid,
                "tessera:valid_fraction": valid.get(f"{tile}_{year}"),
                "datetime": dt.datetime(year, 1, 1, tzinfo=dt.UTC),
                "start_datetime": dt.datetime(year, 1, 1, tzinfo=dt.UTC),
                "end_datetime": dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
                "gsd": 10,
                "box": shapely.box(west, south, round(west + 0.1, 1), round(south + 0.1, 1)),
                **properties,
            }
        )
    return rows


def holds(node: Node, row: Row) -> bool | None:
    """Return whether a condition holds of a row; None where it is neither true nor false."""
    if isinstance(node, bool):
        return node
    op, args = node["op"].lower(), node["args"]
    match op:
        case "and":
            return _all(holds(a, row) for a in args)
        case "or":
            return _not(_all(_not(holds(a, row)) for a in args))
        case "not":
            return _not(holds(args[0], row))
        case "isnull":
            return value(args[0], row) is None
        case "between":
            x, lo, hi = (value(a, row) for a in args)
            return _all((_known(operator.ge, x, lo), _known(operator.le, x, hi)))
        case "in":
            x = value(args[0], row)
            return _not(_all(_not(_known(operator.eq, x, value(o, row))) for o in args[1]))
        case "like":
            return _known(_like, *(value(a, row) for a in args))
        case _ if op in _COMPARISONS:
            return _known(_COMPARISONS[op], *(value(a, row) for a in args))
        case _ if op in _TIMES:
            (a0, a1), (b0, b1) = (_interval(a, row) for a in args)
            return _TIMES[op](a0, a1, b0, b1)
    shape = shapely.geometry.shape(args[1])
    return bool(_SPATIAL[op](row["box"], shape))


def value(node: Node, row: Row) -> Any:
    """Return what an expression is of a row; None where it is missing, or has no result."""
    match node:
        case {"property": name}:
            return row[name]
        case {"timestamp": text}:
            return dt.datetime.fromisoformat(text)
        case {"date": text}:
            return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
        case {"op": "casei", "args": [x]}:
            return _known(str.lower, value(x, row))
        case {"op": "-", "args": [x]}:
            return _known(operator.neg, value(x, row))
        case {"op": str(op), "args": [x, y]}:
            return _known(_ARITHMETIC[op], value(x, row), value(y, row))
    return node


def _known(function: Callable[..., Any], *values: Any) -> Any:
    return None if any(v is None for v in values) else function(*values)


def _not(x: bool | None) -> bool | None:
    return None if x is None else not x


def _all(values: Iterable[bool | None]) -> bool | None:
    def both(x: bool | None, y: bool | None) -> bool | None:
        if x is False or y is False:
            return False
        return None if x is None or y is None else True

    return reduce(both, values)


def _like(text: str, pattern: str) -> bool:
    parts = (".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _power(x: float, y: float) -> float | None:
    try:
        return math.pow(x, y)
    except (ValueError, OverflowError):
        return None


def _interval(node: Node, row: Row) -> Sequence[Any]:
    ends = node["interval"] if isinstance(node, Mapping) and "interval" in node else [node, node]
    return [value(e if isinstance(e, Mapping) else {"timestamp": e}, row) for e in ends]


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda x, y: x / y if y else None,
    "div": lambda x, y: math.trunc(x / y) if y else None,
    "%": lambda x, y: math.fmod(x, y) if y else None,
    "^": _power,
}
_TIMES: Mapping[str, Callable[..., bool]] = {
    "t_after": lambda a0, a1, b0, b1: a0 > b1,
    "t_before": lambda a0, a1, b0, b1: a1 < b0,
    "t_during": lambda a0, a1, b0, b1: a0 > b0 and a1 < b1,
    "t_intersects": lambda a0, a1, b0, b1: a0 <= b1 and a1 >= b0,
}
_SPATIAL: Mapping[str, Callable[[Any, Any], bool]] = {
    "s_intersects": shapely.intersects,
    "s_disjoint": shapely.disjoint,
    "s_within": shapely.within,
    "s_touches": shapely.touches,
    "s_overlaps": shapely.overlaps,
    "s_crosses": shapely.crosses,
}
