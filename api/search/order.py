"""The order of results, and the position of a row in it.

Terms that depend on the collection or the year alone (datetime, tessera:year, collection, …) only
change the order in which years are walked, so they cost nothing at any size. From the first other
term on, the matches of each group of equal years are sorted by SQLite, which is refused beyond
``max_sorted`` of them. The index key is the last term of every order.

A position in an order that another build may have changed, such as by ``tessera:coverage``, holds in the
build that it was found in: in another one, items would be missed or repeated without a word.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from api.catalogue.snapshot import IndexSnapshot, Snapshot
from api.filter.queryables import QUERYABLES
from api.request.token import Cursor
from api.search.parameters import Sort
from api.settings import Settings
from catalog_builder.catalog.index.keys import is_key, make_key, split_key
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.catalog.index.search.sorting import Term
from catalog_builder.errors import QueryError

Pair = tuple[int, int]
"""Collection ordinal and year."""


def changing(sortby: Sequence[Sort]) -> list[str]:
    """Return the terms of an order by which another build may order the same items otherwise."""
    return [s.name for s in sortby if QUERYABLES[s.name].changes]


def build_of(sortby: Sequence[Sort], snapshot: Snapshot) -> tuple[str, ...]:
    """Return what a position says of its build: something only where another one may have another order."""
    return (snapshot.generation[:16],) if changing(sortby) else ()


def check_build(sortby: Sequence[Sort], began: object, snapshot: Snapshot) -> None:
    """Reject a position in an order that may have changed since.

    Raises
    ------
    QueryError
        If the build in which the walk began is not the one in service.
    """
    if (began,) != build_of(sortby, snapshot):
        raise QueryError(
            "token: the catalogue has been rebuilt since this walk began, which may have changed the order by"
            f" {', '.join(changing(sortby))}; start again without a token"
        )


class Order:
    """The order of one search's results."""

    def __init__(
        self, snapshot: IndexSnapshot, sortby: Sequence[Sort], selection: Selection, settings: Settings
    ) -> None:
        self._index = snapshot.index
        self._selection = selection
        self._most = settings.max_sorted
        self._sortby = sortby
        self._snapshot = snapshot
        self._build = build_of(sortby, snapshot)
        """Behind a row's sort values in positions, where these may differ in another build."""
        self._groups: list[list[Pair]] | None = None
        """Years by equal values of the leading terms, in order; None: as the index has them."""
        walked = 0
        if selection.keys is None:  # a list of ids is short: it is sorted as it is
            while walked < len(sortby) and QUERYABLES[sortby[walked].name].axis in ("collection", "year"):
                walked += 1
        terms = [s for s in sortby[walked:] if s.name in QUERYABLES]
        self._kinds = [QUERYABLES[s.name].kind for s in terms]
        """Of the terms that SQLite sorts by."""
        self._sorted = [
            Term(QUERYABLES[s.name].order(snapshot), s.descending, QUERYABLES[s.name].rank is None)
            for s in terms
        ]
        if walked:
            self._groups = self._grouped(snapshot, sortby[:walked])

    def _grouped(self, snapshot: IndexSnapshot, terms: Sequence[Sort]) -> list[list[Pair]]:
        pairs = [(o, y) for o in self._selection.ordinals for y in self._index.by_ordinal[o].years]
        selected = self._selection.years
        pairs = [p for p in pairs if selected is None or p[1] in selected]
        values = _axis_values(snapshot, terms, pairs)
        # Sort by the last term first: Python's sort is stable, so each earlier one overrules it.
        for i in reversed(range(len(terms))):
            pairs.sort(key=lambda pair: values[pair][i], reverse=terms[i].descending)
        return [sorted(group) for _, group in groupby(pairs, key=lambda pair: values[pair])]

    def page(self, limit: int, cursor: Cursor | None, deadline: float) -> list[Row]:
        """Return up to ``limit`` rows beyond a position.

        Raises
        ------
        QueryError
            If too many items would have to be sorted, or the position is none of this order, or of another
            build whose order may differ.
        QueryTimeoutError
            If it is not done by the deadline.
        """
        if cursor is not None and self._build:
            *values, began = cursor.values or (None,)
            check_build(self._sortby, began, self._snapshot)
            cursor = replace(cursor, values=tuple(values))
        if cursor is not None and not self._has(cursor):
            raise QueryError("token: it is no position in these results; follow the next links")
        backwards = cursor is not None and cursor.backwards
        if not self._sorted:
            selection = self._selection
            if self._groups is not None:
                if cursor is not None:
                    self._group_of(cursor)
                selection = replace(selection, order=[pair for group in self._groups for pair in group])
            key = cursor.key if cursor else None
            seconds = max(deadline - time.monotonic(), 0)
            return self._index.page(selection, limit, key, backwards=backwards, seconds=seconds)
        groups: list[list[Pair] | None] = [None] if self._groups is None else list(self._groups)
        if backwards:
            groups.reverse()
        after = cursor
        if cursor is not None and self._groups is not None:
            at = self._group_of(cursor)
            groups = groups[len(groups) - 1 - at :] if backwards else groups[at:]
        rows: list[Row] = []
        for group in groups:
            found = self._sorted_group(group, limit - len(rows), after, backwards, deadline)
            rows = found + rows if backwards else rows + found
            if len(rows) >= limit:
                break
            after = None
        return rows

    def _has(self, cursor: Cursor) -> bool:
        """Return whether a cursor's key can be one, and its values are of the terms' kinds."""
        return (
            is_key(cursor.key)
            and len(cursor.values) == len(self._sorted)
            and all(
                term.nullable if value is None else isinstance(value, str) == (kind == "text")
                for value, term, kind in zip(cursor.values, self._sorted, self._kinds, strict=True)
            )
        )

    def _group_of(self, cursor: Cursor) -> int:
        """Return the number of the group that holds a cursor's row."""
        pair = split_key(cursor.key)[:2]
        for i, group in enumerate(self._groups or []):
            if pair in group:
                return i
        raise QueryError("token: the catalogue has been rebuilt; start again without it")

    def _sorted_group(
        self, group: list[Pair] | None, limit: int, after: Cursor | None, backwards: bool, deadline: float
    ) -> list[Row]:
        selection = self._selection if group is None else replace(self._selection, order=group)
        if selection.keys is None:
            n = self._index.count(replace(selection, where="", values=(), cell_sets=())).n
            if n > self._most:
                raise QueryError(
                    f"sortby: {n} items would have to be sorted for this order, at most {self._most} are;"
                    " narrow it by area, time or ids, or sort by datetime, tessera:year or collection, which"
                    " is possible for any number"
                )
        return self._index.sorted_page(
            selection,
            self._sorted,
            limit,
            (after.values, after.key) if after is not None else None,
            backwards=backwards,
            seconds=max(deadline - time.monotonic(), 0),
        )

    def cursor(self, row: Row, *, backwards: bool) -> Cursor:
        """Return a row's position in the order."""
        values = self._index.sort_values(row[0], self._sorted)
        return Cursor(row[0], backwards, (*values, *self._build))


def _axis_values(
    snapshot: IndexSnapshot, terms: Sequence[Sort], pairs: Sequence[Pair]
) -> dict[Pair, tuple[Any, ...]]:
    """Return the values that terms have in collections and years."""
    keys = {pair: make_key(*pair, 0, 0) for pair in pairs}
    columns = ", ".join(QUERYABLES[t.name].sql(snapshot) for t in terms)
    with snapshot.index.lend(None, Selection(())) as db:
        sql = f"SELECT {columns} FROM (SELECT ? AS key) t"
        return {pair: db.execute(sql, (key,)).fetchone() for pair, key in keys.items()}
