"""Conditions on rows: SQL, a bound on where the rows lie, and what remains to be tested there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.filter.bounds import Bound, both, either


@dataclass(frozen=True, slots=True)
class Condition:
    """A boolean."""

    sql: str
    values: tuple[Any, ...]
    bound: Bound
    rest: str
    """What remains to be tested within the bound; empty if it is exact."""
    rest_values: tuple[Any, ...]


def make_condition(sql: str, values: tuple[Any, ...], bound: Bound) -> Condition:
    """Return a condition that is tested by its SQL unless its bound is exact."""
    return Condition(sql, values, bound, *(("", ()) if bound.exact else (sql, values)))


def all_of(parts: Sequence[Condition]) -> Condition:
    """Return the conjunction of some conditions."""
    bound = parts[0].bound
    for part in parts[1:]:
        bound = both(bound, part.bound)
    rests = [p for p in parts if p.rest]
    return Condition(
        f"({' AND '.join(p.sql for p in parts)})",
        sum((p.values for p in parts), ()),
        bound,
        " AND ".join(f"({p.rest})" for p in rests),
        sum((p.rest_values for p in rests), ()),
    )


def one_of(parts: Sequence[Condition]) -> Condition:
    """Return the disjunction of some conditions."""
    bound = parts[0].bound
    for part in parts[1:]:
        bound = either(bound, part.bound)
    sql = f"({' OR '.join(p.sql for p in parts)})"
    return make_condition(sql, sum((p.values for p in parts), ()), bound)
