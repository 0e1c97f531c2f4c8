"""Renders rows of the index as the JSON of items, for the whole API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import orjson

from api.access import Hrefs
from api.catalogue.snapshot import AnySnapshot, IndexSnapshot, Snapshot, StoredSnapshot
from api.filter.ids import item_keys
from api.http.responses import PART_BYTES
from api.request.fields import Fields
from api.request.hrefs import shown
from api.request.view import View
from api.search.computed import with_computed
from api.search.map_links import MAP_SLOTS, with_map_links
from catalog_builder.catalog.index.keys import ordinal_of
from catalog_builder.catalog.index.search.item_rows import item_texts
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.item.bands_view import bands_template, readable_flags
from catalog_builder.item.item import item_template
from catalog_builder.item.template import JsonRenderer


def find_item(snapshot: IndexSnapshot, collection_id: str, item_id: str) -> Row | None:
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
    return any(snapshot.tiles.has_tile(key) for key in keys)


def item_documents(
    snapshot: AnySnapshot, collection_id: str, ids: Sequence[str], root: str, view: View = None
) -> list[dict[str, Any]]:
    """Return tile-years' items; missing ones are omitted.

    Call it from a thread: a database may be asked.
    """
    if isinstance(snapshot, StoredSnapshot):
        return snapshot.items(collection_id, ids, root)
    found = (find_item(snapshot, collection_id, item_id) for item_id in ids)
    return [orjson.loads(text) for text in render(snapshot, [row for row in found if row], root, view)]


def render(
    snapshot: IndexSnapshot, rows: Sequence[Row], root: str, view: View = None, fields: Fields | None = None
) -> list[str]:
    """Return rows as the JSON texts of their items, in order, in a view and with some fields."""
    if not rows:
        return []
    ordinals = [ordinal_of(row[0]) for row in rows]
    texts = [""] * len(rows)
    for ordinal in set(ordinals):
        places = [i for i, o in enumerate(ordinals) if o == ordinal]
        found = item_texts(
            rows if len(places) == len(rows) else [rows[i] for i in places],
            snapshot.tiles.by_ordinal[ordinal],
            _renderer(snapshot, ordinal, root, view, fields),
            flags=None if view is None or view.bands is None else readable_flags,
            constants=MAP_SLOTS,
        )
        for i, text in zip(places, found, strict=True):
            texts[i] = text
    return texts


def sizes(
    snapshot: IndexSnapshot, rows: Sequence[Row], root: str, view: View = None, fields: Fields | None = None
) -> list[int]:
    """Return about how long the rows' items are in bytes: those of the same kind are of the same length."""
    kinds = [(ordinal_of(row[0]), row[2]) for row in rows]
    known = {
        kind: len(render(snapshot, [row], root, view, fields)[0])
        for kind, row in dict(zip(kinds, rows, strict=True)).items()
    }
    return [known[kind] for kind in kinds]


def fitting(rows: Sequence[Row], lengths: Sequence[int], most: int, *, backwards: bool) -> Sequence[Row]:
    """Return as many rows as fit into ``most`` bytes, at least one: the first, or the last ones."""
    ordered = reversed(lengths) if backwards else lengths
    n = max(sum(total <= most for total in accumulate(ordered)), 1)
    return rows[-n:] if backwards else rows[:n]


def portions(rows: Sequence[Row], lengths: Sequence[int]) -> Iterator[Sequence[Row]]:
    """Yield rows in order, about :data:`~api.http.responses.PART_BYTES` of items at a time."""
    start = total = 0
    for at, length in enumerate(lengths):
        total += length
        if total >= PART_BYTES:
            yield rows[start : at + 1]
            start, total = at + 1, 0
    if start < len(rows):
        yield rows[start:]


def _renderer(snapshot: Snapshot, ordinal: int, root: str, view: View, fields: Fields | None) -> JsonRenderer:
    def make() -> JsonRenderer:
        record = snapshot.tiles.by_ordinal[ordinal]
        hrefs: Hrefs = (view.hrefs if view is not None else None) or "https"
        addresses = shown(record.addresses, hrefs, snapshot.home, snapshot.access)
        of = (record.dataset, addresses, root, record.grid)
        if view is not None and view.bands is not None:
            template = bands_template(*of, view.bands)
        else:
            template = with_map_links(with_computed(item_template(*of), record, root), record, root)
        return JsonRenderer(template if fields is None else fields.prune(template))

    return snapshot.remember(("renderer", ordinal, root, view, fields), make)
