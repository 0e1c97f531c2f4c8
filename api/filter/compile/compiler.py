"""Compiling CQL2: booleans, from conditions on scalars, geometries and times."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from api.catalogue.snapshot import Snapshot
from api.filter.bounds import EVERYTHING, NOTHING, Bound, complement
from api.filter.compile import space, time
from api.filter.compile.axes import bound_of
from api.filter.compile.conditions import Condition, all_of, make_condition, negation, one_of
from api.filter.compile.scalars import ARITHMETIC, Scalars, Value, exactly, glob_of
from api.filter.compile.space import is_property
from api.filter.ids import item_keys
from api.filter.queryables import queryable
from api.request.area import check_length
from api.settings import Settings
from catalog_builder.catalog.index.keys import ORDINAL_SQL, YEAR_SQL
from catalog_builder.errors import GridError, QueryError
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.grid import TileId

MOST_PATTERN = 1000
"""Characters of a pattern; texts of items have at most a hundred or so."""

_COMPARISONS = {"=", "<>", "<", ">", "<=", ">="}


_EACH: frozenset[str] = frozenset({"tile-year"})
"""What a condition depends on that has to be tested of each tile-year."""


class Compiler:
    """Compiles the filters of one search.

    Conditions are in three-valued logic, as in SQL: an expression over a missing value, or a division by
    zero, is NULL, and neither a comparison of it nor the comparison's negation holds.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self._scalars = Scalars(snapshot, _known())
        self._settings = settings
        self._ordinals = frozenset(r.ordinal for r in snapshot.collections.values())
        self._years = frozenset(snapshot.years)
        self._literals: dict[int, space.Literal] = {}
        """The filter's geometries, by the ``id`` of their nodes."""
        self._degrees = 0.0
        """What geometries have cost beyond what was foreseen."""
        self.cell_sets: list[Runs] = []
        """What ``in_cells(i, t.key)`` in the SQL refers to."""

    def compile(self, node: Any) -> Condition:
        """Compile a filter.

        Raises
        ------
        QueryError
            Naming the property, function or kinds that do not fit.
        """
        self._literals.update(space.read_literals(node, self._settings.max_vertices))
        return self._condition(node)

    # -- booleans

    def _condition(self, node: Any) -> Condition:
        """Compile a boolean expression."""
        if isinstance(node, bool):
            return self._certain("1" if node else "0", (), EVERYTHING if node else NOTHING, frozenset())
        if isinstance(node, dict) and "property" in node:
            entry = queryable(str(node["property"]), "filter")
            raise QueryError(
                f"filter: '{entry.name}' alone is not a condition; compare it, such as with = true"
            )
        if not isinstance(node, dict) or not isinstance(node.get("op"), str):
            raise QueryError(f"filter: expected a condition, found {str(node)[:60]}")
        op, args = node["op"].lower(), node.get("args")
        if not isinstance(args, list):
            raise QueryError(f"filter: '{op[:40]}' needs an array 'args'")
        if op in _COMPARISONS:
            return self._comparison(op, args)
        if op in space.FUNCTIONS:
            return self._spatial(op, args)
        if op in time.RELATIONS:
            return self._temporal(op, args)
        handler = _OPERATORS.get(op)
        if handler is None:
            raise QueryError(
                f"filter: unknown function or operator '{node['op'][:40]}'; expected one of: {_known()}"
            )
        return handler(self, args)

    def _and(self, args: list[Any]) -> Condition:
        return all_of([self._condition(a) for a in _some(args, "and")])

    def _or(self, args: list[Any]) -> Condition:
        return one_of([self._condition(a) for a in _some(args, "or")])

    def _not(self, args: list[Any]) -> Condition:
        (arg,) = exactly(args, 1, "not")
        return negation(self._condition(arg))

    def _comparison(self, op: str, args: list[Any]) -> Condition:
        left, right = exactly(args, 2, op)
        a, b = self._scalars.alike(self._scalars.value(left), self._scalars.value(right), op)
        if a.kind == "boolean" and op not in ("=", "<>"):
            raise QueryError(f"filter: {a.text} {op} {b.text}: booleans can be compared with = and <> only")
        if op == "=":
            for x, y in ((a, b), (b, a)):
                bound = self._by_name(x, [y])
                if bound is not None:
                    return self._certain(f"({a.sql} = {b.sql})", a.values + b.values, bound)
        return self._scalar(f"({a.sql} {op} {b.sql})", (a, b))

    def _between(self, args: list[Any]) -> Condition:
        x, lo, hi = (self._scalars.value(arg) for arg in exactly(args, 3, "between"))
        x, lo = self._scalars.alike(x, lo, "between")
        x, hi = self._scalars.alike(x, hi, "between")
        if x.kind not in ("number", "instant", "text"):
            raise QueryError(f"filter: between takes numbers, times and strings, found {x.text} ({x.kind})")
        return self._scalar(f"({x.sql} BETWEEN {lo.sql} AND {hi.sql})", (x, lo, hi))

    def _in(self, args: list[Any]) -> Condition:
        item, options = exactly(args, 2, "in")
        if not isinstance(options, list) or not options:
            raise QueryError("filter: in needs a list with at least one value")
        x = self._scalars.value(item)
        others = [self._scalars.alike(x, self._scalars.value(o), "in")[1] for o in options]
        sql = f"({x.sql} IN ({', '.join(o.sql for o in others)}))"
        bound = self._by_name(x, others)
        if bound is not None:
            return self._certain(sql, x.values + sum((o.values for o in others), ()), bound)
        return self._scalar(sql, (x, *others))

    def _like(self, args: list[Any]) -> Condition:
        x, pattern = (self._scalars.value(arg) for arg in exactly(args, 2, "like"))
        if x.kind != "text" or not isinstance(pattern.literal, str):
            raise QueryError(f"filter: like takes a string and a pattern, found {x.text} and {pattern.text}")
        if len(pattern.literal) > MOST_PATTERN:
            raise QueryError(f"filter: a pattern of like has at most {MOST_PATTERN} characters")
        glob = Value("?", (glob_of(pattern.literal),), "text", frozenset(), pattern.text)
        return self._scalar(f"({x.sql} GLOB ?)", (x, glob))

    def _is_null(self, args: list[Any]) -> Condition:
        (arg,) = exactly(args, 1, "isNull")
        if is_property(arg) and queryable(str(arg["property"]), "filter").kind == "geometry":
            return self._condition(False)
        x = self._scalars.value(arg)
        return self._scalar(f"({x.sql} IS NULL)", (x,))

    def _spatial(self, op: str, args: list[Any]) -> Condition:
        a, b = exactly(args, 2, op)
        if not is_property(a) and not is_property(b):
            return self._condition(space.constant(op, a, b, self._settings.max_vertices))
        if is_property(a) and is_property(b):
            raise QueryError(f"filter: {op} takes 'geometry' and a literal geometry, found two properties")
        swapped = is_property(b)
        prop, literal = (b, a) if swapped else (a, b)
        entry = queryable(str(prop["property"]), "filter")
        if entry.kind != "geometry":
            raise QueryError(f"filter: {op} takes 'geometry', found '{entry.name}' ({entry.kind})")
        cells, degrees = space.relate(op, self._literals[id(literal)], reversed_arguments=swapped)
        self._degrees += degrees
        check_length(self._degrees, "filter")
        self.cell_sets.append(cells)
        return self._certain(f"in_cells({len(self.cell_sets) - 1}, t.key)", (), Bound(cells=cells))

    def _temporal(self, op: str, args: list[Any]) -> Condition:
        a, b = (self._scalars.interval(arg, op) for arg in exactly(args, 2, op))
        ends = {f"{name}{i}": end for name, pair in (("a", a), ("b", b)) for i, end in enumerate(pair)}
        # Each mention in the relation binds its values once more, in the order of the text.
        names = re.findall(r"\{([ab][01])\}", time.RELATIONS[op])
        sql = time.RELATIONS[op].format(**{n: e.sql for n, e in ends.items()})
        return self._scalar(f"({sql})", [ends[n] for n in names])

    def any_of(self, bounds: Sequence[Bound]) -> Condition:
        """Return the condition of lying in one of some exact bounds."""
        parts = [self._member(b) for b in bounds] or [self._condition(False)]
        return one_of(parts)

    def _member(self, bound: Bound) -> Condition:
        tests = ["1"]
        for sql, chosen in (
            (ORDINAL_SQL, bound.ordinals),
            (YEAR_SQL, bound.years),
            ("t.key", bound.keys),
        ):
            if chosen is not None:
                tests.append(f"{sql} IN ({', '.join(map(str, sorted(chosen)))})")
        if bound.cells is not None:
            self.cell_sets.append(bound.cells)
            tests.append(f"in_cells({len(self.cell_sets) - 1}, t.key)")
        return self._certain(f"({' AND '.join(tests)})", (), bound)

    def _certain(
        self, sql: str, values: tuple[Any, ...], bound: Bound, axes: frozenset[str] = _EACH
    ) -> Condition:
        """Return a condition that is never NULL: it is false wherever it is not true."""
        return make_condition(
            sql, values, bound, lambda: complement(bound, self._ordinals, self._years), axes
        )

    def _scalar(self, sql: str, parts: Sequence[Value]) -> Condition:
        """Return a condition on scalars, with its bound if they lie on one axis."""
        values: tuple[Any, ...] = sum((p.values for p in parts), ())
        axes = frozenset().union(*(p.axes for p in parts))

        def where(test: str) -> Bound:
            return bound_of(test, values, axes, self._ordinals, self._years)

        return make_condition(sql, values, where(sql), lambda: where(f"NOT {sql}"), axes)

    def _by_name(self, x: Value, options: Sequence[Value]) -> Bound | None:
        """Return the rows that a list of ids or tile names stands for, if this is a list of those."""
        if x.entry is None or not all(isinstance(o.literal, str) for o in options):
            return None
        if x.entry.name == "id":
            return Bound(keys=frozenset(k for o in options for k in item_keys(o.literal, self._ordinals)))
        if x.entry.name == "tessera:tile":
            tiles = []
            for option in options:
                try:
                    tiles.append(TileId.from_name(option.literal))
                except GridError:
                    continue
            places = sorted({(t.row, t.col) for t in tiles})
            row, col = (np.array([p[i] for p in places], np.int32) for i in (0, 1))
            return Bound(cells=Runs(row, col, col))
        return None


_OPERATORS: dict[str, Callable[[Compiler, list[Any]], Condition]] = {
    "and": Compiler._and,
    "or": Compiler._or,
    "not": Compiler._not,
    "between": Compiler._between,
    "in": Compiler._in,
    "like": Compiler._like,
    "isnull": Compiler._is_null,
}


def _some(args: list[Any], op: str) -> list[Any]:
    if not args:
        raise QueryError(f"filter: '{op}' needs at least one argument")
    return args


def _known() -> str:
    return ", ".join(
        [*sorted(_COMPARISONS), *ARITHMETIC, *_OPERATORS, "casei", "accenti",
         *space.FUNCTIONS, *time.RELATIONS]
    )  # fmt: skip
