"""Scalars of a filter as SQL: numbers, strings, times, booleans, properties, and expressions of them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from api.catalogue.snapshot import Snapshot
from api.filter.compile import time
from api.filter.queryables import Queryable, ValueKind, queryable
from catalog_builder.errors import QueryError

ARITHMETIC: dict[str, str] = {
    "+": "({} + {})",
    "-": "({} - {})",
    "*": "({} * {})",
    "/": "(1.0 * {} / {})",
    "div": "CAST({} / {} AS INTEGER)",
    "%": "mod({}, {})",
    # Beyond a double there is no power, as of zero to a negative one: pow() says infinity.
    "^": "nullif(nullif(pow({}, {}), 9e999), -9e999)",
}
"""NULL where there is no result, such as of a division by zero."""


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar."""

    sql: str
    values: tuple[Any, ...]
    kind: ValueKind
    axes: frozenset[str]
    text: str
    """As a message shows it."""
    literal: Any = None
    """If it is one."""
    entry: Queryable | None = None
    """If it is a property."""


class Scalars:
    """Compiles the scalar expressions of one search.

    Parameters
    ----------
    snapshot
        What properties of collections and years are.
    known
        Operators and functions, as messages list them.
    """

    def __init__(self, snapshot: Snapshot, known: str) -> None:
        self._snapshot = snapshot
        self._known = known

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
            case {"op": str(op), "args": list(args)} if op in ARITHMETIC:
                return self._arithmetic(op, args)
            case {"op": str(op), "args": list(args)} if op.lower() in ("casei", "accenti"):
                return self._folded(op.lower(), args)
            case {"op": str(op)}:
                raise QueryError(f"filter: unknown function '{op[:40]}'; expected one of: {self._known}")
        raise QueryError(f"filter: expected a property or a value, found {str(node)[:60]}")

    def _arithmetic(self, op: str, args: list[Any]) -> Value:
        if op == "-" and len(args) == 1:
            args = [0, *args]
        parts = [self.value(arg) for arg in exactly(args, 2, op)]
        for part in parts:
            if part.kind != "number":
                raise QueryError(f"filter: '{op}' takes numbers, found {part.text} ({part.kind})")
        a, b = parts
        sql = ARITHMETIC[op].format(a.sql, b.sql)
        return Value(sql, a.values + b.values, "number", a.axes | b.axes, f"{a.text} {op} {b.text}")

    def _folded(self, op: str, args: list[Any]) -> Value:
        (x,) = (self.value(arg) for arg in exactly(args, 1, op))
        if x.kind != "text":
            raise QueryError(f"filter: {op} takes a string, found {x.text} ({x.kind})")
        if isinstance(x.literal, str):
            return self.value(x.literal.lower() if op == "casei" else _unaccented(x.literal))
        # Texts of items are ASCII: they have no accents, and lower() suffices.
        sql = f"lower({x.sql})" if op == "casei" else x.sql
        return Value(sql, x.values, "text", x.axes, f"{op}({x.text})")

    def alike(self, a: Value, b: Value, op: str) -> tuple[Value, Value]:
        """Return two values of one kind; a text beside a time is read as a time."""
        if a.kind == "instant" and isinstance(b.literal, str):
            b = self.value({"timestamp": b.literal})
        if b.kind == "instant" and isinstance(a.literal, str):
            a = self.value({"timestamp": a.literal})
        if a.kind != b.kind:
            raise QueryError(f"filter: '{op}' cannot compare {a.text} ({a.kind}) with {b.text} ({b.kind})")
        return a, b

    def interval(self, node: Any, op: str) -> tuple[Value, Value]:
        """Return the two ends of a time or an interval."""
        match node:
            case {"interval": [start, end]}:
                ends = (self._end(start, time.MIN_NS, op), self._end(end, time.MAX_NS, op))
                lo, hi = (e.values[0] if e.sql == "?" else None for e in ends)
                if lo is not None and hi is not None and lo > hi:
                    raise QueryError(f"filter: {op}: the interval ends before it starts")
                return ends
            case {"interval": _}:
                raise QueryError(f"filter: {op}: an interval needs a start and an end")
        at = self._end(node, 0, op)
        return at, at

    def _end(self, node: Any, is_open: int, op: str) -> Value:
        if node in ("..", ""):
            return Value("?", (is_open,), "instant", frozenset(), "..")
        found = self.value({"timestamp": node} if isinstance(node, str) else node)
        if found.kind != "instant":
            raise QueryError(f"filter: {op} takes times, found {found.text} ({found.kind})")
        return found


def glob_of(pattern: str) -> str:
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


def exactly(args: list[Any], n: int, op: str) -> list[Any]:
    """Return the arguments of an operator if there are as many as it takes."""
    if len(args) != n:
        raise QueryError(f"filter: '{op}' takes {n} arguments, found {len(args)}")
    return args
