"""Conditions on rows: SQL, bounds on where the rows lie, and what remains to be tested there.

A condition is true, false or, where it depends on a value that is missing, NULL: neither it nor its negation
holds then. So there are two bounds, of where it is true and of where it is false, and NOT exchanges them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from api.filter.bounds import Bound, both, either


@dataclass(frozen=True, slots=True)
class Condition:
    """A boolean of three-valued logic."""

    sql: str
    values: tuple[Any, ...]
    bound: Bound
    """Where it is true."""
    refuted: Callable[[], Bound]
    """Where it is false; only a negation asks."""
    axes: frozenset[str]
    """What it depends on, see :data:`api.filter.queryables.Axis`."""
    rest: str
    """What remains to be tested within the bound; empty if it is exact."""
    rest_values: tuple[Any, ...]
    rest_axes: frozenset[str]


def make_condition(
    sql: str, values: tuple[Any, ...], bound: Bound, refuted: Callable[[], Bound], axes: frozenset[str]
) -> Condition:
    """Return a condition that is tested by its SQL unless its bound is exact."""
    rest = ("", (), frozenset[str]()) if bound.exact else (sql, values, axes)
    return Condition(sql, values, bound, refuted, axes, *rest)


def negation(part: Condition) -> Condition:
    """Return what holds where a condition is false."""
    return make_condition(f"(NOT {part.sql})", part.values, part.refuted(), lambda: part.bound, part.axes)


def all_of(parts: Sequence[Condition]) -> Condition:
    """Return the conjunction of some conditions: false where one of them is false."""
    rests = [p for p in parts if p.rest]
    return Condition(
        f"({' AND '.join(p.sql for p in parts)})",
        _values_of(parts),
        reduce(both, (p.bound for p in parts)),
        lambda: reduce(either, (p.refuted() for p in parts)),
        _axes_of(parts),
        " AND ".join(f"({p.rest})" for p in rests),
        sum((p.rest_values for p in rests), ()),
        frozenset().union(*(p.rest_axes for p in rests)),
    )


def one_of(parts: Sequence[Condition]) -> Condition:
    """Return the disjunction of some conditions: false where all of them are false."""
    return make_condition(
        f"({' OR '.join(p.sql for p in parts)})",
        _values_of(parts),
        reduce(either, (p.bound for p in parts)),
        lambda: reduce(both, (p.refuted() for p in parts)),
        _axes_of(parts),
    )


def _values_of(parts: Sequence[Condition]) -> tuple[Any, ...]:
    return sum((p.values for p in parts), ())


def _axes_of(parts: Sequence[Condition]) -> frozenset[str]:
    return frozenset().union(*(p.axes for p in parts))
