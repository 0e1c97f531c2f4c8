"""Answers queries from the index: what a query selects, its page, its count, its bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson

from api.access import Hrefs
from api.catalogue.store import Snapshot
from api.filter.bounds import Bound, both
from api.filter.compiler import Compiler
from api.filter.free_text import bounds_of
from api.filter.ids import item_keys
from api.map_links import MAP_SLOTS, with_map_links
from api.order import Order, Row
from api.request.fields import Fields
from api.request.hrefs import shown
from api.request.times import year_span
from api.request.token import decode, encode
from api.request.view import View
from api.search import Query
from api.settings import Settings
from catalog_builder.catalog.index.item_rows import tile_rows
from catalog_builder.catalog.index.keys import CELL_BITS, YEAR_BITS
from catalog_builder.catalog.index.selection import Count, Selection
from catalog_builder.errors import QueryTimeoutError
from catalog_builder.item.bands_view import bands_template, readable_flags
from catalog_builder.item.item import item_columns, item_template
from catalog_builder.item.template import JsonRenderer


@runtime_checkable
class StoredItems(Protocol):
    """A snapshot whose items are documents in a database, and not rows of an index."""

    def items(self, collection_id: str, ids: Sequence[str], root: str) -> list[dict[str, Any]]:
        """Return tile-years' items; those that are not there are left out."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results."""

    rows: Sequence[Row]
    next: str | None
    """Token of the page after, if there is one."""
    prev: str | None
    matched: Count


def select(snapshot: Snapshot, query: Query, settings: Settings) -> Selection:
    """Return what a query asks of the index.

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
    conditions = [compiler.condition(f) for f in (query.filter, query.query) if f is not None]
    if query.terms is not None:
        conditions.append(compiler.any_of(bounds_of(query.terms, snapshot)))
    where, values = "", ()
    if conditions:
        whole = compiler.all_of(conditions)
        bound, where, values = both(bound, whole.bound), whole.rest, whole.rest_values
    return Selection(
        ordinals=sorted(bound.ordinals or ()),
        years=None if bound.years is None else sorted(bound.years),
        runs=bound.cells,
        keys=None if bound.keys is None else sorted(bound.keys),
        where=where,
        values=values,
        cell_sets=tuple(compiler.cell_sets) if where else (),
    )


def find_page(snapshot: Snapshot, query: Query, settings: Settings, seconds: float) -> Page:
    """Return the page that a query asks for.

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
    snapshot: Snapshot, query: Query, selection: Selection, settings: Settings, seconds: float
) -> Count:
    """Return the number of matches; remembered, because every page of a search says it."""

    def count() -> Count:
        found = snapshot.index.count(selection, max(min(seconds, settings.count_seconds), 0))
        if not found.exact and seconds < settings.count_seconds:
            raise QueryTimeoutError("counting takes longer than this attempt may")
        return found

    return snapshot.remember(("count", query.matching), count)


def find_item(snapshot: Snapshot, collection_id: str, item_id: str) -> Row | None:
    """Return the row of an item; None if there is no such item."""
    record = snapshot.collections.get(collection_id)
    if record is None:
        return None
    keys = item_keys(item_id, frozenset([record.ordinal]))
    rows = snapshot.index.page(Selection([record.ordinal], keys=keys), 1) if keys else []
    return rows[0] if rows else None


def has_item(snapshot: Snapshot, collection_id: str, item_id: str) -> bool:
    """Whether there is such a tile-year."""
    record = snapshot.collections.get(collection_id)
    keys = item_keys(item_id, frozenset([record.ordinal])) if record is not None else []
    return any(snapshot.index.has_tile(key) for key in keys)


def item_documents(
    snapshot: Snapshot, collection_id: str, ids: Sequence[str], root: str, view: View = None
) -> list[dict[str, Any]]:
    """Return tile-years' items; those that are not there are left out.

    Call it from a thread: a database may be asked.
    """
    if isinstance(snapshot, StoredItems):
        return snapshot.items(collection_id, ids, root)
    found = (find_item(snapshot, collection_id, item_id) for item_id in ids)
    return [orjson.loads(text) for text in render(snapshot, [row for row in found if row], root, view)]


def render(
    snapshot: Snapshot, rows: Sequence[Row], root: str, view: View = None, fields: Fields | None = None
) -> list[str]:
    """Return rows as the JSON texts of their items, in order, in a view and with some fields."""
    if not rows:
        return []
    ordinals = [row[0] >> (CELL_BITS + YEAR_BITS) for row in rows]
    texts = [""] * len(rows)
    for ordinal in set(ordinals):
        places = [i for i, o in enumerate(ordinals) if o == ordinal]
        tiles = tile_rows(rows if len(places) == len(rows) else [rows[i] for i in places])
        record = snapshot.index.by_ordinal[ordinal]
        columns = item_columns(tiles, record.years, record.grid)
        lists = {k: _texts(v) for k, v in columns.items()}
        lists |= {slot: [text] * len(tiles.has) for slot, text in MAP_SLOTS.items()}
        flags = tiles.has if view is None or view.bands is None else readable_flags(tiles.has)
        found = _renderer(snapshot, ordinal, root, view, fields).render(lists, flags.tolist())
        for i, text in zip(places, found, strict=True):
            texts[i] = text
    return texts


def _texts(column: Any) -> Any:
    """Return a column as a list; floats as text, because most stand in several places of an item."""
    if not isinstance(column, np.ndarray):
        return column
    return list(map(repr, column.tolist())) if column.dtype.kind == "f" else column.tolist()


def _renderer(snapshot: Snapshot, ordinal: int, root: str, view: View, fields: Fields | None) -> JsonRenderer:
    def make() -> JsonRenderer:
        record = snapshot.index.by_ordinal[ordinal]
        hrefs: Hrefs = (view.hrefs if view is not None else None) or "https"
        addresses = shown(record.addresses, hrefs, snapshot.home, snapshot.access)
        of = (record.dataset, addresses, root, record.grid)
        if view is not None and view.bands is not None:
            template = bands_template(*of, view.bands)
        else:
            template = with_map_links(item_template(*of), record, root)
        return JsonRenderer(template if fields is None else fields.prune(template))

    return snapshot.remember(("renderer", ordinal, root, view, fields), make)
