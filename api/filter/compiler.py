"""CQL2 filters: parsed by the ``cql2`` package, checked and compiled to SQL by us.

Every operator, function and property comes from a white list, values are bound, and the kinds of
both sides must agree. Each condition becomes three things: SQL over a row, a :class:`Bound` on where
its rows can lie, and what remains to be tested there.

``cql2``'s own ``validate()`` is not called: it takes 0.2 s for ``a = 1`` and grows with the square of
the nesting (version 0.6), and everything it would refuse is refused here.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from api.catalogue.snapshot import Snapshot
from api.filter import space, time
from api.filter.bounds import EVERYTHING, NOTHING, Bound, both, either, negation
from api.filter.ids import item_keys
from api.filter.queryables import Kind, Queryable, queryable
from api.request.area import check_length
from api.settings import Settings
from catalog_builder.catalog.index.keys import ORDINAL_SQL, YEAR_SQL, make_key, ordinal_of, split_key
from catalog_builder.errors import GridError, QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import from_mask
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.grid import TileId

MOST_PATTERN = 1000
"""Characters of a pattern; texts of items have at most a hundred or so."""

_COMPARISONS = {"=", "<>", "<", ">", "<=", ">="}
_ARITHMETIC: dict[str, str] = {
    "+": "({} + {})",
    "-": "({} - {})",
    "*": "({} * {})",
    "/": "(1.0 * {} / {})",
    "div": "CAST({} / {} AS INTEGER)",
    "%": "mod({}, {})",
    "^": "pow({}, {})",
}


# ------------------------------------------------------------------------------------- parsing


# ----------------------------------------------------------------------------------- compiling


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar."""

    sql: str
    values: tuple[Any, ...]
    kind: Kind
    axes: frozenset[str]
    text: str
    """As a message shows it."""
    literal: Any = None
    """If it is one."""
    entry: Queryable | None = None
    """If it is a property."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A boolean."""

    sql: str
    values: tuple[Any, ...]
    bound: Bound
    rest: str
    """What remains to be tested within the bound; empty if it is exact."""
    rest_values: tuple[Any, ...]


def _condition(sql: str, values: tuple[Any, ...], bound: Bound) -> Condition:
    return Condition(sql, values, bound, *(("", ()) if bound.exact else (sql, values)))


class Compiler:
    """Compiles the filters of one search."""

    def __init__(self, snapshot: Snapshot, settings: Settings) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._ordinals = frozenset(r.ordinal for r in snapshot.collections.values())
        self._years = frozenset(snapshot.years)
        self._degrees = 0.0
        """Of the outlines of all geometries."""
        self.cell_sets: list[Runs] = []
        """What ``in_cells(i, t.key)`` in the SQL refers to."""

    # -- booleans

    def condition(self, node: Any) -> Condition:
        """Compile a boolean expression.

        Raises
        ------
        QueryError
            Naming the property, function or kinds that do not fit.
        """
        if isinstance(node, bool):
            return _condition("1" if node else "0", (), EVERYTHING if node else NOTHING)
        if isinstance(node, dict) and "property" in node:
            entry = queryable(str(node["property"]), "filter")
            raise QueryError(f"filter: '{entry.name}' alone is not a condition; compare it, as = true")
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
                f"filter: unknown function or operator '{node['op'][:40]}'; known are: {_known()}"
            )
        return handler(self, args)

    def _and(self, args: list[Any]) -> Condition:
        return self.all_of([self.condition(a) for a in _some(args, "and")])

    @staticmethod
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

    def _or(self, args: list[Any]) -> Condition:
        return self._join_or([self.condition(a) for a in _some(args, "or")])

    @staticmethod
    def _join_or(parts: Sequence[Condition]) -> Condition:
        bound = parts[0].bound
        for part in parts[1:]:
            bound = either(bound, part.bound)
        sql = f"({' OR '.join(p.sql for p in parts)})"
        return _condition(sql, sum((p.values for p in parts), ()), bound)

    def _not(self, args: list[Any]) -> Condition:
        (arg,) = _exactly(args, 1, "not")
        part = self.condition(arg)
        return _condition(f"(NOT {part.sql})", part.values, negation(part.bound, self._ordinals, self._years))

    def _comparison(self, op: str, args: list[Any]) -> Condition:
        left, right = _exactly(args, 2, op)
        a, b = self._alike(self.value(left), self.value(right), op)
        if a.kind == "boolean" and op not in ("=", "<>"):
            raise QueryError(f"filter: {a.text} {op} {b.text}: booleans can be compared by = and <> only")
        if op == "=":
            for x, y in ((a, b), (b, a)):
                bound = self._by_name(x, [y])
                if bound is not None:
                    return _condition(f"({a.sql} = {b.sql})", a.values + b.values, bound)
        return self._scalar(f"({a.sql} {op} {b.sql})", (a, b))

    def _between(self, args: list[Any]) -> Condition:
        x, lo, hi = (self.value(arg) for arg in _exactly(args, 3, "between"))
        x, lo = self._alike(x, lo, "between")
        x, hi = self._alike(x, hi, "between")
        if x.kind not in ("number", "instant", "text"):
            raise QueryError(f"filter: between takes numbers, times and texts, found {x.text} ({x.kind})")
        return self._scalar(f"({x.sql} BETWEEN {lo.sql} AND {hi.sql})", (x, lo, hi))

    def _in(self, args: list[Any]) -> Condition:
        item, options = _exactly(args, 2, "in")
        if not isinstance(options, list) or not options:
            raise QueryError("filter: in needs a list with at least one value")
        x = self.value(item)
        others = [self._alike(x, self.value(o), "in")[1] for o in options]
        sql = f"({x.sql} IN ({', '.join(o.sql for o in others)}))"
        bound = self._by_name(x, others)
        if bound is not None:
            return _condition(sql, x.values + sum((o.values for o in others), ()), bound)
        return self._scalar(sql, (x, *others))

    def _like(self, args: list[Any]) -> Condition:
        x, pattern = (self.value(arg) for arg in _exactly(args, 2, "like"))
        if x.kind != "text" or not isinstance(pattern.literal, str):
            raise QueryError(f"filter: like takes a text and a pattern, found {x.text} and {pattern.text}")
        if len(pattern.literal) > MOST_PATTERN:
            raise QueryError(f"filter: a pattern of like has at most {MOST_PATTERN} characters")
        glob = Value("?", (_glob(pattern.literal),), "text", frozenset(), pattern.text)
        return self._scalar(f"({x.sql} GLOB ?)", (x, glob))

    def _is_null(self, args: list[Any]) -> Condition:
        (arg,) = _exactly(args, 1, "isNull")
        if isinstance(arg, dict) and queryable(str(arg.get("property")), "filter").kind == "geometry":
            return _condition("0", (), NOTHING)
        x = self.value(arg)
        return self._scalar(f"({x.sql} IS NULL)", (x,))

    def _spatial(self, op: str, args: list[Any]) -> Condition:
        a, b = _exactly(args, 2, op)
        most = self._settings.max_vertices
        if not _is_property(a) and not _is_property(b):
            return self.condition(space.constant(op, a, b, most))
        if _is_property(a) and _is_property(b):
            raise QueryError(f"filter: {op} takes 'geometry' and a literal geometry, found two properties")
        swapped = _is_property(b)
        prop, literal = (b, a) if swapped else (a, b)
        entry = queryable(str(prop["property"]), "filter")
        if entry.kind != "geometry":
            raise QueryError(f"filter: {op} takes 'geometry', found '{entry.name}' ({entry.kind})")
        cells, degrees = space.relate(op, literal, reversed_arguments=swapped, max_vertices=most)
        self._degrees += degrees
        check_length(self._degrees, "filter")
        self.cell_sets.append(cells)
        return _condition(f"in_cells({len(self.cell_sets) - 1}, t.key)", (), Bound(cells=cells))

    def _temporal(self, op: str, args: list[Any]) -> Condition:
        a, b = (self._interval(arg, op) for arg in _exactly(args, 2, op))
        ends = {f"{name}{i}": end for name, pair in (("a", a), ("b", b)) for i, end in enumerate(pair)}
        # Each mention in the relation binds its values once more, in the order of the text.
        names = re.findall(r"\{([ab][01])\}", time.RELATIONS[op])
        sql = time.RELATIONS[op].format(**{n: e.sql for n, e in ends.items()})
        return self._scalar(f"({sql})", [ends[n] for n in names])

    def any_of(self, bounds: Sequence[Bound]) -> Condition:
        """Return the condition of lying in one of some exact bounds."""
        parts = [self._member(b) for b in bounds] or [self.condition(False)]
        return self._join_or(parts)

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
        return _condition(f"({' AND '.join(tests)})", (), bound)

    def _scalar(self, sql: str, parts: Sequence[Value]) -> Condition:
        """Return a condition on scalars, with its bound if they lie on one axis."""
        values: tuple[Any, ...] = sum((p.values for p in parts), ())
        axes = frozenset().union(*(p.axes for p in parts))
        return _condition(sql, values, self._bound(sql, values, axes))

    # -- bounds

    def _bound(self, sql: str, values: tuple[Any, ...], axes: frozenset[str]) -> Bound:
        """Ask SQLite about every element of the one axis that a condition depends on."""
        if not axes:
            return EVERYTHING if self._holding(sql, values, [0]) else NOTHING
        if len(axes) > 1 or "tile-year" in axes:
            return EVERYTHING.inexact()
        (axis,) = axes
        if axis == "collection":
            held = self._holding(sql, values, [make_key(o, 0, 0, 0) for o in sorted(self._ordinals)])
            return Bound(ordinals=frozenset(map(ordinal_of, held)))
        if axis == "year":
            held = self._holding(sql, values, [make_key(0, y, 0, 0) for y in sorted(self._years)])
            return Bound(years=frozenset(split_key(key)[1] for key in held))
        return Bound(cells=_zones(self._holding(sql, values, _ZONE_KEYS)))

    @staticmethod
    def _holding(sql: str, values: tuple[Any, ...], keys: list[int]) -> list[int]:
        query = f"WITH t(key) AS (SELECT value FROM json_each(?)) SELECT key FROM t WHERE {sql}"
        try:
            found = _memory().execute(query, (orjson.dumps(keys).decode(), *values))
            return [key for (key,) in found]
        except (sqlite3.Error, OverflowError) as exc:
            raise QueryError(f"filter: cannot be computed ({exc})") from None

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

    # -- scalars

    def value(self, node: Any) -> Value:
        """Compile a scalar expression."""
        nothing: frozenset[str] = frozenset()
        match node:
            case bool():
                return Value("?", (int(node),), "boolean", nothing, str(node).lower(), node)
            case int() | float():
                if abs(node) > 1e15:
                    raise QueryError(f"filter: number {node:g} is out of range")
                return Value("?", (node,), "number", nothing, f"{node:g}", node)
            case str():
                return Value("?", (node,), "text", nothing, repr(node[:60]), node)
            case {"timestamp": text} | {"date": text}:
                at = time.instant(text, "filter")
                return Value("?", (at,), "instant", nothing, repr(text))
            case {"property": str(name)}:
                entry = queryable(name, "filter")
                if entry.kind == "geometry":
                    raise QueryError("filter: 'geometry' can be used in spatial functions only")
                sql = entry.sql(self._snapshot)
                return Value(sql, (), entry.kind, frozenset([entry.axis]), f"'{entry.name}'", None, entry)
            case {"op": str(op), "args": list(args)} if op in _ARITHMETIC:
                return self._arithmetic(op, args)
            case {"op": str(op), "args": list(args)} if op.lower() in ("casei", "accenti"):
                return self._folded(op.lower(), args)
            case {"op": str(op)}:
                raise QueryError(f"filter: unknown function '{op[:40]}'; known are: {_known()}")
        raise QueryError(f"filter: expected a property or a value, found {str(node)[:60]}")

    def _arithmetic(self, op: str, args: list[Any]) -> Value:
        if op == "-" and len(args) == 1:
            args = [0, *args]
        parts = [self.value(arg) for arg in _exactly(args, 2, op)]
        for part in parts:
            if part.kind != "number":
                raise QueryError(f"filter: '{op}' takes numbers, found {part.text} ({part.kind})")
        a, b = parts
        sql = _ARITHMETIC[op].format(a.sql, b.sql)
        return Value(sql, a.values + b.values, "number", a.axes | b.axes, f"{a.text} {op} {b.text}")

    def _folded(self, op: str, args: list[Any]) -> Value:
        (x,) = (self.value(arg) for arg in _exactly(args, 1, op))
        if x.kind != "text":
            raise QueryError(f"filter: {op} takes a text, found {x.text} ({x.kind})")
        if isinstance(x.literal, str):
            return self.value(x.literal.lower() if op == "casei" else _unaccented(x.literal))
        # Texts of items are ASCII: they have no accents, and lower() suffices.
        sql = f"lower({x.sql})" if op == "casei" else x.sql
        return Value(sql, x.values, "text", x.axes, f"{op}({x.text})")

    def _alike(self, a: Value, b: Value, op: str) -> tuple[Value, Value]:
        """Return two values of one kind; a text beside a time is read as a time."""
        if a.kind == "instant" and isinstance(b.literal, str):
            b = self.value({"timestamp": b.literal})
        if b.kind == "instant" and isinstance(a.literal, str):
            a = self.value({"timestamp": a.literal})
        if a.kind != b.kind:
            raise QueryError(f"filter: '{op}' cannot compare {a.text} ({a.kind}) with {b.text} ({b.kind})")
        return a, b

    def _interval(self, node: Any, op: str) -> tuple[Value, Value]:
        match node:
            case {"interval": [start, end]}:
                ends = (self._end(start, time.MIN_NS, op), self._end(end, time.MAX_NS, op))
                lo, hi = (e.values[0] if e.sql == "?" else None for e in ends)
                if lo is not None and hi is not None and lo > hi:
                    raise QueryError(f"filter: {op}: the interval ends before it starts")
                return ends
            case {"interval": _}:
                raise QueryError(f"filter: {op}: an interval has a start and an end")
        at = self._end(node, 0, op)
        return at, at

    def _end(self, node: Any, is_open: int, op: str) -> Value:
        if node in ("..", ""):
            return Value("?", (is_open,), "instant", frozenset(), "..")
        found = self.value({"timestamp": node} if isinstance(node, str) else node)
        if found.kind != "instant":
            raise QueryError(f"filter: {op} takes times, found {found.text} ({found.kind})")
        return found


_OPERATORS: dict[str, Callable[[Compiler, list[Any]], Condition]] = {
    "and": Compiler._and,
    "or": Compiler._or,
    "not": Compiler._not,
    "between": Compiler._between,
    "in": Compiler._in,
    "like": Compiler._like,
    "isnull": Compiler._is_null,
}


_HEMISPHERES = (0, grid.N_ROWS // 2)
"""Their first rows."""
_ZONES = range(0, grid.N_COLS, grid.COLS_PER_ZONE)
"""First columns of UTM zones."""
_ZONE_KEYS = [make_key(0, 0, row, col) for row in _HEMISPHERES for col in _ZONES]
"""One key per hemisphere and UTM zone."""


def _zones(keys: list[int]) -> Runs:
    """Return the cells of the hemispheres and zones that some keys stand for."""
    held = set(keys)
    parts: list[Runs] = []
    for hemisphere in _HEMISPHERES:
        cols = np.repeat([make_key(0, 0, hemisphere, col) in held for col in _ZONES], grid.COLS_PER_ZONE)
        rows = np.zeros(grid.N_ROWS, np.bool_)
        rows[hemisphere : hemisphere + grid.N_ROWS // 2] = True
        parts.append(from_mask(rows, cols))
    return Runs(*(np.concatenate(values) for values in zip(*parts, strict=True)))


_LOCAL = threading.local()


def _memory() -> sqlite3.Connection:
    """Return the thread's empty database, to compute in."""
    db: sqlite3.Connection | None = getattr(_LOCAL, "db", None)
    if db is None:
        db = _LOCAL.db = sqlite3.connect(":memory:")
    return db


def _glob(pattern: str) -> str:
    """Turn a LIKE pattern (``%``, ``_``, escaped by a backslash) into SQLite's case-sensitive GLOB."""
    out, escaped = [], False
    for c in pattern:
        if escaped or c not in "%_\\":
            out.append(f"[{c}]" if c in "*?[" else c)
            escaped = False
        elif c == "\\":
            escaped = True
        else:
            out.append("*" if c == "%" else "?")
    return "".join(out)


def _unaccented(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _is_property(node: Any) -> bool:
    return isinstance(node, dict) and "property" in node


def _exactly(args: list[Any], n: int, op: str) -> list[Any]:
    if len(args) != n:
        raise QueryError(f"filter: '{op}' takes {n} arguments, found {len(args)}")
    return args


def _some(args: list[Any], op: str) -> list[Any]:
    if not args:
        raise QueryError(f"filter: '{op}' needs at least one argument")
    return args


def _known() -> str:
    return ", ".join(
        [*sorted(_COMPARISONS), *_ARITHMETIC, *_OPERATORS, "casei", "accenti",
         *space.FUNCTIONS, *time.RELATIONS]
    )  # fmt: skip
