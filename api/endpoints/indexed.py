"""The client of a catalogue with an index: items are found, rendered and counted here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import attr
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.catalogue.snapshot import IndexSnapshot
from api.catalogue.store import IndexStore
from api.catalogue.visible import VisibleStore
from api.endpoints.core import LARGE_ITEM, feature_collection, feature_parts
from api.endpoints.extended import ExtendedClient, aggregation_document
from api.http.links import GEOJSON, JSON, link, paging_links
from api.http.responses import Caching
from api.http.work.waiting import Deadline
from api.request.view import View
from api.search.aggregation import aggregate, named
from api.search.page import find_page, select
from api.search.query import Query
from api.search.render import find_item, fitting, portions, render, sizes
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.errors import QueryTimeoutError

INLINE_SECONDS = 0.005
"""How long a search that is expected to be short runs on the event loop before it moves elsewhere.

That costs a millisecond, and most searches take less; but one that scans must not hold up the others."""
INLINE_ITEMS = 1000
"""A page with more items is rendered elsewhere."""
LONG_PAGE = 2_000_000
"""Bytes from which on a page is sent in parts, each rendered when the one before has been read."""
ROW_BYTES = 4000
"""Memory of a row of a page, with the statistics of a converted tile."""


@attr.s(auto_attribs=True, kw_only=True)
class IndexClient(ExtendedClient):
    """Implements every endpoint with a catalogue's index."""

    store: IndexStore | VisibleStore[IndexSnapshot]

    async def _item(self, request: Request, cid: str, item_id: str, view: View) -> Response:
        snapshot = self.store.current()
        view = self._addressed(view)
        caching = Caching(request, snapshot, self.settings, self._period(view))
        row = find_item(snapshot, cid, item_id)
        if row is None:
            raise NotFoundError(f"no item '{item_id[:80]}' in collection '{cid}'")
        if (unchanged := caching.not_modified()) is not None:
            return unchanged
        root: str = request.scope["tessera.root"]
        texts = self._marked(self._signed(render(snapshot, [row], root, view), view), root)
        return caching.respond(texts[0].encode(), GEOJSON)

    async def _search(self, request: Request, query: Query, path: str) -> Response:
        snapshot = self.store.current()
        view = self._addressed(query.view)
        caching = Caching(request, snapshot, self.settings, self._period(view))
        if (unchanged := caching.not_modified()) is not None:
            return unchanged
        root: str = request.scope["tessera.root"]

        def answer(seconds: float) -> bytes | Response:
            lengths: list[int] = []

            def fits(rows: Sequence[Row], backwards: bool) -> Sequence[Row]:
                if len(rows) * LARGE_ITEM < min(LONG_PAGE, self.settings.page_bytes):
                    return rows
                lengths[:] = sizes(snapshot, rows, root, view, query.fields)
                fit = fitting(rows, lengths, self.settings.page_bytes, backwards=backwards)
                lengths[:] = lengths[-len(fit) :] if backwards else lengths[: len(fit)]
                return fit

            page = find_page(snapshot, query, self.settings, seconds, fits)
            tokens = {rel: t for rel, t in (("next", page.next), ("prev", page.prev)) if t}
            links = [
                link("root", f"{root}/"),
                *paging_links(root + path, request.method, query.given, query.texts, tokens),
            ]

            def items(rows: Sequence[Row]) -> list[str]:
                texts = self._signed(render(snapshot, rows, root, view, query.fields), view)
                return self._marked(texts, root, query.fields)

            if sum(lengths) < LONG_PAGE:
                return feature_collection(items(page.rows), links, page.matched)
            made = map(items, portions(page.rows, lengths))
            parts = feature_parts(made, links, page.matched, len(page.rows))
            return caching.respond_in_parts(parts, len(page.rows) * ROW_BYTES, GEOJSON)

        # presigning the URLs of an item takes as long as rendering several
        items_here = INLINE_ITEMS if self._period(view) is None else INLINE_ITEMS // 10
        if query.is_light and query.limit <= items_here:
            with contextlib.suppress(QueryTimeoutError):
                body = answer(min(INLINE_SECONDS, self.settings.search_seconds))
                return caching.respond(body, GEOJSON) if isinstance(body, bytes) else body
        pool = self.work.searches if query.limit <= INLINE_ITEMS else self.work.pages
        if (elsewhere := await pool.elsewhere(request)) is not None:
            return elsewhere
        body = await pool.run(lambda until: answer(max(until.left, 0.01)), request.receive)
        return caching.respond(body, GEOJSON) if isinstance(body, bytes) else body

    async def _aggregate(self, request: Request, query: Query, within: str | None) -> Response:
        snapshot = self.store.current()
        wanted = named(query.aggregations)
        caching = Caching(request, snapshot, self.settings)
        if (unchanged := caching.not_modified()) is not None:
            return unchanged
        if (elsewhere := await self.work.searches.elsewhere(request)) is not None:
            return elsewhere
        root: str = request.scope["tessera.root"]

        def answer(until: Deadline) -> bytes:
            def make() -> list[dict[str, Any]]:
                return aggregate(
                    snapshot, select(snapshot, query, self.settings), wanted, max(until.left, 0.01)
                )

            names = tuple(a.name for a in wanted)
            found = snapshot.remember(("aggregate", query.matching, names), make)
            return aggregation_document(found, root, within)

        return caching.respond(await self.work.searches.run(answer, request.receive), JSON)
