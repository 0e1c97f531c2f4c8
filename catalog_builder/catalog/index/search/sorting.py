"""Pages of a selection in an order other than the index's own.

The matches are computed, sorted by expressions and cut to a page by SQLite, so the cost is that of
all matches: the caller counts them first. The key is always the last term, so the order is total
and a page's edge (its sort values and key) is a position in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from catalog_builder.catalog.index.keys import ranges_json
from catalog_builder.catalog.index.search.connection import Connections
from catalog_builder.catalog.index.search.pages import PAGE_SQL, RANGES_SQL, Row, where_sql
from catalog_builder.catalog.index.search.ranges import Ranges
from catalog_builder.catalog.index.search.selection import Selection


@dataclass(frozen=True, slots=True)
class Term:
    """One term of an order."""

    sql: str
    """An expression over ``t`` (tile) composed of known fragments."""
    descending: bool = False
    nullable: bool = True
    """Whether the expression may be NULL."""


def sorted_page(
    connections: Connections,
    key_ranges: Ranges,
    selection: Selection,
    order: Sequence[Term],
    limit: int,
    after: tuple[Sequence[Any], int] | None = None,
    *,
    backwards: bool = False,
    seconds: float | None = None,
) -> list[Row]:
    """Return up to ``limit`` rows in an order, past the position ``after`` (sort values and key).

    ``backwards`` returns the rows before the position, still in forward order. Missing values come
    first, whatever the direction.

    Raises
    ------
    QueryTimeoutError
        If it takes longer than ``seconds``.
    """
    # A missing value sorts as if it were smaller than any, and in front in both directions: the
    # first part of each term says so, and makes its comparison with a bound value two-valued.
    terms: list[tuple[str, bool]] = []
    for term in order:
        if term.nullable:
            terms.append((f"({term.sql} IS NOT NULL)", False))
        terms.append((f"coalesce({term.sql}, 0)" if term.nullable else term.sql, term.descending))
    terms.append(("t.key", False))
    found = list(key_ranges.of(selection))
    ranges = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    place, bound = "", list[Any]()
    if after is not None:
        values, key = after
        edge = [
            x
            for term, v in zip(order, values, strict=True)
            for x in ((int(v is not None), 0 if v is None else v) if term.nullable else (v,))
        ]
        place, bound = _beyond(terms, [*edge, key], backwards)
    by = ", ".join(f"{e} {'DESC' if down != backwards else 'ASC'}" for e, down in terms)
    chosen = f"SELECT t.* FROM {RANGES_SQL}{where_sql(selection.where, place)} ORDER BY {by} LIMIT ?"
    sql = PAGE_SQL.format(tiles=f"({chosen}) t") + f" ORDER BY {by}"
    with connections.lend(seconds, selection) as db:
        rows = db.execute(sql, (ranges_json(ranges), *selection.values, *bound, limit)).fetchall()
    return rows[::-1] if backwards else rows


def values_of(connections: Connections, key: int, order: Sequence[Term]) -> list[Any]:
    """Return the sort values of a row, which with its key are its position in the order."""
    if not order:
        return []
    sql = f"SELECT {', '.join(t.sql for t in order)} FROM tile t WHERE t.key = ?"
    with connections.lend(None, Selection(())) as db:
        found = db.execute(sql, (key,)).fetchone()
    return list(found)


def _beyond(terms: Sequence[tuple[str, bool]], edge: Sequence[Any], backwards: bool) -> tuple[str, list[Any]]:
    """Return the condition for rows after a position, with its values."""
    alternatives, bound = list[str](), list[Any]()
    for i, (expression, descending) in enumerate(terms):
        before = " AND ".join(f"{e} = ?" for e, _ in terms[:i])
        beyond = f"{expression} {'<' if descending != backwards else '>'} ?"
        alternatives.append(f"({before} AND {beyond})" if before else f"({beyond})")
        bound += [*edge[:i], edge[i]]
    return f"({' OR '.join(alternatives)})", bound
