"""Execution of queries on the index: selection, page, count and rendered bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.catalogue.snapshot import IndexSnapshot, Snapshot
from api.filter.bounds import Bound, both
from api.filter.compile.compiler import Compiler
from api.filter.compile.conditions import all_of
from api.filter.free_text import bounds_of
from api.filter.ids import item_keys
from api.request.times import year_span
from api.request.token import decode, encode
from api.search.order import Order
from api.search.query import Query
from api.settings import Settings
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.catalog.index.search.selection import Count, Selection
from catalog_builder.errors import QueryTimeoutError


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results."""

    rows: Sequence[Row]
    next: str | None
    """Token of the next page, if there is one."""
    prev: str | None
    matched: Count


def select(snapshot: Snapshot, query: Query, settings: Settings) -> Selection:
    """Return the selection of a query.

    Raises
    ------
    QueryError
        If its filter does not fit the items.
    """
    return select_on(snapshot, query, settings)[0]


def select_on(snapshot: Snapshot, query: Query, settings: Settings) -> tuple[Selection, frozenset[str]]:
    """Return the selection of a query, and what its SQL depends on (:data:`api.filter.queryables.Axis`).

    Raises
    ------
    QueryError
        If its filter does not fit the items.
    """
    wanted = query.collections
    ordinals = frozenset(r.ordinal for r in snapshot.collections.values() if wanted is None or r.id in wanted)
    bound = Bound(ordinals=ordinals)
    if query.interval is not None:
        years = (y for y in snapshot.years if query.interval.overlaps(*year_span(y)))
        bound = both(bound, Bound(years=frozenset(years)))
    if query.ids is not None:
        keys = (key for item_id in query.ids for key in item_keys(item_id, ordinals))
        bound = both(bound, Bound(keys=frozenset(keys)))
    if query.area is not None:
        bound = both(bound, Bound(cells=query.area.cells()))
    compiler = Compiler(snapshot, settings)
    conditions = [compiler.compile(f) for f in (query.filter, query.query) if f is not None]
    if query.terms is not None:
        conditions.append(compiler.any_of(bounds_of(query.terms, snapshot)))
    where, values, axes = "", (), frozenset[str]()
    if conditions:
        whole = all_of(conditions)
        bound, where, values = both(bound, whole.bound), whole.rest, whole.rest_values
        axes = whole.rest_axes
    selection = Selection(
        ordinals=sorted(bound.ordinals or ()),
        years=None if bound.years is None else sorted(bound.years),
        runs=bound.cells,
        keys=None if bound.keys is None else sorted(bound.keys),
        where=where,
        values=values,
        cell_sets=tuple(compiler.cell_sets) if where else (),
    )
    return selection, axes


def find_page(
    snapshot: IndexSnapshot,
    query: Query,
    settings: Settings,
    seconds: float,
    fitting: Callable[[Sequence[Row], bool], Sequence[Row]] = lambda rows, _: rows,
) -> Page:
    """Return the page requested by a query.

    Parameters
    ----------
    fitting
        From rows, and whether they were read backwards, to those of them that a page may hold; the others
        are those of the next page in that direction.

    Raises
    ------
    QueryError
        If its token is not one of this search, its filter does not fit the items, or it asks to sort
        too many of them.
    QueryTimeoutError
        If it takes longer than ``seconds``.
    """
    deadline = time.monotonic() + seconds
    seal = f"{query.fingerprint} {' '.join(snapshot.collections)}"
    cursor = decode(query.token, seal) if query.token is not None else None
    selection = select(snapshot, query, settings)
    order = Order(snapshot, query.sortby, selection, settings)
    backwards = cursor is not None and cursor.backwards
    rows = order.page(query.limit + 1, cursor, deadline)
    more = len(rows) > query.limit  # in the direction of reading
    if more:
        rows = rows[1:] if backwards else rows[: query.limit]
    fit = fitting(rows, backwards)
    more, rows = more or len(fit) < len(rows), list(fit)
    has_next = backwards or more
    has_prev = more if backwards else cursor is not None
    matched = _count(snapshot, query, selection, settings, deadline - time.monotonic())
    return Page(
        rows,
        encode(order.cursor(rows[-1], backwards=False), seal) if rows and has_next else None,
        encode(order.cursor(rows[0], backwards=True), seal) if rows and has_prev else None,
        matched,
    )


def _count(
    snapshot: IndexSnapshot, query: Query, selection: Selection, settings: Settings, seconds: float
) -> Count:
    """Return the number of matches; cached, because every page of a search states it."""

    def count() -> Count:
        found = snapshot.index.count(selection, max(min(seconds, settings.count_seconds), 0))
        if not found.exact and seconds < settings.count_seconds:
            raise QueryTimeoutError("counting takes longer than this attempt may")
        return found

    return snapshot.remember(("count", query.matching), count)
