"""Bounds on the rows of a condition in the index: a product of collections, years, cells and keys.

A bound never excludes a row that meets the condition. If it is exact, it contains nothing else
either, and the condition need not be tested row by row. This is how ``tessera:year = 2024 AND
s_intersects(geometry, …)`` becomes key ranges, in whatever form it is written.

A condition that is NULL is not met, and neither is its negation: each of the two has a bound of its own
(:mod:`api.filter.compile.conditions`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from catalog_builder.tile import cell_sets
from catalog_builder.tile.cover import Runs


@dataclass(frozen=True, slots=True)
class Bound:
    """A part of the index; None in a dimension is all of it."""

    ordinals: frozenset[int] | None = None
    """Collections."""
    years: frozenset[int] | None = None
    cells: Runs | None = None
    keys: frozenset[int] | None = None
    """Tile-years."""
    exact: bool = True
    """Whether every row in it meets the condition."""

    @property
    def limited(self) -> tuple[str, ...]:
        """Names of the dimensions that are not all."""
        return tuple(n for n in _DIMENSIONS if getattr(self, n) is not None)

    @property
    def is_empty(self) -> bool:
        """Whether it is empty."""
        return any(_size(getattr(self, n)) == 0 for n in self.limited)

    def inexact(self) -> Self:
        """Return it as an inexact bound."""
        return replace(self, exact=False)


EVERYTHING = Bound()
NOTHING = Bound(keys=frozenset())
_DIMENSIONS = tuple(f.name for f in fields(Bound) if f.name != "exact")


def both(a: Bound, b: Bound) -> Bound:
    """Return the bound of ``a AND b``."""
    merged = {n: _merge(getattr(a, n), getattr(b, n), _intersect) for n in _DIMENSIONS}
    return Bound(**merged, exact=a.exact and b.exact)


def either(a: Bound, b: Bound) -> Bound:
    """Return the bound of ``a OR b``: exact only if it is still a product."""
    if a.is_empty:
        return b
    if b.is_empty:
        return a
    for whole in (a, b):
        if not whole.limited and whole.exact:
            return whole
    union: dict[str, Any] = {}
    differing = 0
    for name in _DIMENSIONS:
        x, y = getattr(a, name), getattr(b, name)
        union[name] = None if x is None or y is None else _unite(x, y)
        differing += not _same(x, y)
    return Bound(**union, exact=a.exact and b.exact and differing <= 1)


def complement(a: Bound, ordinals: frozenset[int], years: frozenset[int]) -> Bound:
    """Return the bound of all other rows, given all collections and years.

    That is where a condition does not hold, not where it is false: they differ where it can be NULL.
    """
    if not a.exact:
        return EVERYTHING.inexact()
    if a.is_empty:
        return EVERYTHING
    match a.limited:
        case ():
            return NOTHING
        case ("ordinals",) if a.ordinals is not None:
            return Bound(ordinals=ordinals - a.ordinals)
        case ("years",) if a.years is not None:
            return Bound(years=years - a.years)
        case ("cells",) if a.cells is not None:
            return Bound(cells=cell_sets.complement(a.cells))
    return EVERYTHING.inexact()


def _merge(x: Any, y: Any, combine: Callable[[Any, Any], Any]) -> Any:
    if x is None or y is None:
        return y if x is None else x
    return combine(x, y)


def _intersect(x: Any, y: Any) -> Any:
    return cell_sets.at_least([x, y], 2) if isinstance(x, Runs) else x & y


def _unite(x: Any, y: Any) -> Any:
    return cell_sets.at_least([x, y], 1) if isinstance(x, Runs) else x | y


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Runs) and isinstance(y, Runs):
        return len(x.row) == len(y.row) and all((p == q).all() for p, q in zip(x, y, strict=True))
    return bool(x is None and y is None) or (type(x) is type(y) and bool(x == y))


def _size(x: Any) -> int:
    return len(x.row) if isinstance(x, Runs) else len(x)
