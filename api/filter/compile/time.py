"""The temporal functions of CQL2 over closed intervals, as SQL on nanoseconds since 1970.

The relations are those of OGC 21-065r2, table 7 (Allen's interval algebra); an instant is an
interval of no length, and an open end lies infinitely far away.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from api.request.times import NS, parse_instant
from catalog_builder.errors import QueryError

MIN_NS, MAX_NS = -(1 << 63), (1 << 63) - 1
"""Open ends; also what is further away than 64 bits of nanoseconds (the years 1677 and 2262)."""
_DAY = 86400 * NS
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

# a and b are (start, end) in SQL.
RELATIONS: dict[str, str] = {
    "t_after": "{a0} > {b1}",
    "t_before": "{a1} < {b0}",
    "t_contains": "{a0} < {b0} AND {a1} > {b1}",
    "t_disjoint": "({a1} < {b0} OR {a0} > {b1})",
    "t_during": "{a0} > {b0} AND {a1} < {b1}",
    "t_equals": "{a0} = {b0} AND {a1} = {b1}",
    "t_finishedby": "{a0} < {b0} AND {a1} = {b1}",
    "t_finishes": "{a0} > {b0} AND {a1} = {b1}",
    "t_intersects": "{a0} <= {b1} AND {a1} >= {b0}",
    "t_meets": "{a1} = {b0}",
    "t_metby": "{a0} = {b1}",
    "t_overlappedby": "{a0} > {b0} AND {a0} < {b1} AND {a1} > {b1}",
    "t_overlaps": "{a0} < {b0} AND {a1} > {b0} AND {a1} < {b1}",
    "t_startedby": "{a0} = {b0} AND {a1} > {b1}",
    "t_starts": "{a0} = {b0} AND {a1} < {b1}",
}
"""Function (lower case) to its condition."""


def instant(text: Any, where: str) -> int:
    """Return a time or date literal as nanoseconds; a date is its first instant, as in cql2."""
    if not isinstance(text, str):
        raise QueryError(f"{where}: expected a time, found {str(text)[:40]!r}")
    if _DATE.fullmatch(text):
        try:
            day = dt.date.fromisoformat(text)
        except ValueError as exc:
            raise QueryError(f"{where}: '{text}' is not a date ({exc})") from None
        return clamp((day.toordinal() - dt.date(1970, 1, 1).toordinal()) * _DAY)
    return clamp(parse_instant(text, where))


def clamp(ns: int) -> int:
    """Return a time that fits SQLite's integers."""
    return min(max(ns, MIN_NS + 1), MAX_NS - 1)
