"""Answers queries from the index: what a query selects, its page, its count, its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from api.paging import Cursor, decode, encode
from api.search import Query
from api.settings import Settings
from api.store import Snapshot
from api.times import year_span
from api.view import View
from catalog_builder.bands_view import bands_template, readable_flags
from catalog_builder.errors import GridError, QueryTimeoutError
from catalog_builder.grid import TileId
from catalog_builder.index import CELL_BITS, YEAR_BITS, Count, Selection, make_key, tile_rows
from catalog_builder.items import item_columns, item_template
from catalog_builder.template import JsonRenderer

Row = tuple[Any, ...]
"""As :meth:`catalog_builder.index.Index.page` gives it; the key is first."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of results."""

    rows: Sequence[Row]
    next: str | None
    """Token of the page after, if there is one."""
    prev: str | None
    matched: Count


def select(snapshot: Snapshot, query: Query) -> Selection:
    """Return what a query asks of the index."""
    wanted = query.collections
    ordinals = [r.ordinal for r in snapshot.collections.values() if wanted is None or r.id in wanted]
    years = None
    if query.interval is not None:
        years = [y for y in snapshot.years if query.interval.overlaps(*year_span(y))]
    return Selection(
        ordinals=ordinals,
        years=years,
        runs=query.area.cells() if query.area else None,
        keys=_keys(query.ids, ordinals) if query.ids is not None else None,
    )


def _keys(ids: Sequence[str], ordinals: Sequence[int]) -> list[int]:
    """Return the keys that ids have in some collections; what is not an id of ours has none."""
    keys = []
    for item_id in ids:
        place = parse_item_id(item_id)
        if place is not None:
            tile, year = place
            keys += [make_key(o, year, tile.row, tile.col) for o in ordinals]
    return keys


def parse_item_id(item_id: str) -> tuple[TileId, int] | None:
    """Return the tile and year of an item id; None if it is not one."""
    name, _, year = item_id.rpartition("_")
    if len(year) != 4 or not (year.isascii() and year.isdigit()):
        return None
    try:
        return TileId.from_name(name), int(year)
    except GridError:
        return None


def find_page(snapshot: Snapshot, query: Query, settings: Settings, seconds: float) -> Page:
    """Return the page that a query asks for.

    Raises
    ------
    QueryError
        If its token is not one of this search.
    QueryTimeoutError
        If it takes longer than ``seconds``.
    """
    seal = f"{query.fingerprint} {' '.join(snapshot.collections)}"
    cursor = decode(query.token, seal) if query.token is not None else None
    selection = select(snapshot, query)
    backwards = cursor is not None and cursor.backwards
    rows = snapshot.index.page(
        selection, query.limit + 1, cursor.key if cursor else None, backwards=backwards, seconds=seconds
    )
    more = len(rows) > query.limit  # in the direction of reading
    if more:
        rows = rows[1:] if backwards else rows[: query.limit]
    has_next = backwards or more
    has_prev = more if backwards else cursor is not None
    matched = _count(snapshot, query, selection, settings, seconds)
    return Page(
        rows,
        encode(Cursor(rows[-1][0]), seal) if rows and has_next else None,
        encode(Cursor(rows[0][0], backwards=True), seal) if rows and has_prev else None,
        matched,
    )


def _count(
    snapshot: Snapshot, query: Query, selection: Selection, settings: Settings, seconds: float
) -> Count:
    """Return the number of matches; remembered, because every page of a search says it."""

    def count() -> Count:
        found = snapshot.index.count(selection, min(seconds, settings.count_seconds))
        if not found.exact and seconds < settings.count_seconds:
            raise QueryTimeoutError("counting takes longer than this attempt may")
        return found

    return snapshot.once(("count", query.fingerprint), count)


def find_item(snapshot: Snapshot, collection_id: str, item_id: str) -> Row | None:
    """Return the row of an item; None if there is no such item."""
    record = snapshot.collections.get(collection_id)
    place = parse_item_id(item_id)
    if record is None or place is None:
        return None
    tile, year = place
    key = make_key(record.ordinal, year, tile.row, tile.col)
    rows = snapshot.index.page(Selection([record.ordinal], keys=[key]), 1)
    return rows[0] if rows else None


def render(snapshot: Snapshot, rows: Sequence[Row], root: str, view: View = None) -> list[str]:
    """Return rows as the JSON texts of their items, in order."""
    if not rows:
        return []
    ordinals = [row[0] >> (CELL_BITS + YEAR_BITS) for row in rows]
    first = ordinals[0]
    if ordinals.count(first) == len(ordinals):
        return _render_collection(snapshot, first, rows, root, view)
    texts = [""] * len(rows)
    for ordinal in set(ordinals):
        places = [i for i, o in enumerate(ordinals) if o == ordinal]
        found = _render_collection(snapshot, ordinal, [rows[i] for i in places], root, view)
        for i, text in zip(places, found, strict=True):
            texts[i] = text
    return texts


def _render_collection(
    snapshot: Snapshot, ordinal: int, rows: Sequence[Row], root: str, view: View
) -> list[str]:
    record = snapshot.index.by_ordinal[ordinal]
    of = (record.dataset, record.addresses, root, record.grid)
    renderer = snapshot.once(
        ("renderer", ordinal, root, view),
        lambda: JsonRenderer(item_template(*of) if view is None else bands_template(*of, view.bands)),
    )
    tiles = tile_rows(rows)
    columns = item_columns(tiles, record.years, record.grid)
    lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in columns.items()}
    flags = tiles.has if view is None else readable_flags(tiles.has)
    return renderer.render(lists, flags.tolist())
