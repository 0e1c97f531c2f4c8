"""The client on pgSTAC, through stac-fastapi-pgstac's client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attr
from pydantic import BaseModel, ConfigDict
from stac_fastapi.pgstac.core import CoreCrudClient
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.catalogue.visible import VisibleStore
from api.endpoints.core import LARGE_ITEM, feature_collection
from api.endpoints.extended import ExtendedClient, aggregation_document
from api.http.links import GEOJSON, JSON, link, paging_links
from api.http.responses import ContentCaching
from api.pgstac.aggregation import count_by
from api.pgstac.counting import Known, count_items, known_matches, presentable
from api.pgstac.database import Database
from api.pgstac.items import show
from api.pgstac.snapshot import PgstacSnapshot
from api.pgstac.store import PgstacStore
from api.pgstac.translate import search_body
from api.request.hrefs import readdress
from api.request.token import foreign, seal, unseal
from api.request.view import View
from api.search.aggregation import Aggregation, from_years, named
from api.search.order import build_of, changing, check_build
from api.search.page import select
from api.search.query import Query
from catalog_builder.catalog.index.search.selection import Count

Json = dict[str, Any]


class Body(BaseModel):
    """A search as stac-fastapi-pgstac passes it on; :class:`api.search.query.Query` has validated it."""

    model_config = ConfigDict(extra="allow")

    conf: Json | None = None
    datetime: str | None = None


@attr.s(auto_attribs=True, kw_only=True)
class PgstacClient(ExtendedClient):
    """Implements every endpoint; searches and items come from the database."""

    store: PgstacStore | VisibleStore[PgstacSnapshot]
    database: Database
    core: CoreCrudClient = attr.Factory(CoreCrudClient)

    async def _search(self, request: Request, query: Query, path: str) -> Response:
        snapshot, root = self.store.current(), request.scope["tessera.root"]
        prepared = await self._prepared(request, snapshot, query)
        view = self._addressed(query.view)
        caching = ContentCaching(request, self.settings, self._period(view))
        items: list[str] = []
        tokens: dict[str, str] = {}
        matched: Count | None = Count(0)
        if prepared is not None:
            items, tokens, matched = await self._items(request, snapshot, query, prepared, view)
        sealed = _seal_of(query)
        tokens = {
            rel: seal([token, *build_of(query.sortby, snapshot)], sealed) for rel, token in tokens.items()
        }
        links = [
            link("root", f"{root}/"),
            *paging_links(root + path, request.method, query.given, query.texts, tokens),
        ]
        return caching.respond(feature_collection(items, links, matched), GEOJSON)

    async def _items(
        self, request: Request, snapshot: PgstacSnapshot, query: Query, prepared: Json, view: View
    ) -> tuple[list[str], dict[str, str], Count | None]:
        """Return a page's items, the tokens of the pages around it, and the number of matches.

        A long page is asked for and rendered in portions: stored items are trees of Python objects, which
        take ten times their text.
        """
        root, most = request.scope["tessera.root"], self.settings.page_bytes
        backwards = str(prepared.get("token", "")).startswith("prev")
        onward = "prev" if backwards else "next"
        portion = max(min(query.limit, _PORTION, most // LARGE_ITEM), 1)
        page, matched = await self._page(request, snapshot, query, {**prepared, "limit": portion})
        tokens = _tokens(page)
        items: list[str] = []
        while True:
            features = page["features"]

            def render(features: list[Json] = features) -> list[str]:
                shown = self._shown(show(snapshot, features, root, view, query.fields), view)
                return self._marked(shown, root, query.fields)

            many = len(features) > _INLINE_ITEMS
            found = await self.work.searches.run(lambda _: render(), request.receive) if many else render()
            items = found + items if backwards else items + found
            size = sum(map(len, items))
            fitting = (most - size) * len(items) // max(size, 1)
            portion = min(query.limit - len(items), _PORTION, fitting)
            if onward not in tokens or portion < 1:
                return items, tokens, matched
            page = await self._found(request, {**prepared, "limit": portion, "token": tokens.pop(onward)})
            tokens |= {rel: token for rel, token in _tokens(page).items() if rel == onward}

    async def _prepared(self, request: Request, snapshot: PgstacSnapshot, query: Query) -> Json | None:
        """Return what to ask; in a thread if a geometry or a filter is large."""

        def prepare() -> Json | None:
            body = search_body(snapshot, query, self.settings)
            if body is not None and query.token is not None:
                body["token"] = _position(snapshot, query)
            return body

        if query.is_light:
            return prepare()
        return await self.work.searches.run(lambda _: prepare(), request.receive)

    async def _page(
        self, request: Request, snapshot: PgstacSnapshot, query: Query, body: Json
    ) -> tuple[Json, Count | None]:
        """Ask for a page, and beside it for the number of matches unless that is known."""
        seconds, database = self.settings.search_seconds, self.database
        known = await self._known(request, snapshot, query)
        if known.n is not None:
            return await self._found(request, body), Count(known.n)
        limit = min(self.settings.count_seconds, seconds)
        page, counted = await asyncio.gather(
            self._found(request, body), count_items(database, body, limit, seconds)
        )
        if not page["links"]:
            return page, Count(len(page["features"]))  # the first page is the last one
        at_least = len(page["features"]) + len(page["links"])  # before it, after it, or both
        filtered = (query.filter, query.query, query.terms)
        is_filtered = any(part is not None for part in filtered)
        return page, presentable(counted, at_least, known.at_most, is_filtered=is_filtered)

    async def _known(self, request: Request, snapshot: PgstacSnapshot, query: Query) -> Known:
        """Return what is known of the number of matches; it is the same for every page."""

        def know() -> Known:
            return snapshot.remember(
                ("known", query.matching), lambda: known_matches(snapshot, query, self.settings)
            )

        if all(part is None for part in (query.area, query.filter, query.query, query.terms)):
            return know()
        return await self.work.searches.run(lambda _: know(), request.receive)

    async def _found(self, request: Request, body: Json) -> Json:
        """Ask for a page."""

        async def find() -> Json:
            # stac-fastapi-pgstac writes into what it is given
            asked = Body.model_validate({**body, "conf": dict(_CONF)})
            found: Any = await self.core._search_base(asked, _plain(request))
            return dict(found)

        return _with_tokens(await self.database.within(self.settings.search_seconds, find))

    async def _item(self, request: Request, cid: str, item_id: str, view: View) -> Response:
        snapshot, root = self.store.current(), request.scope["tessera.root"]

        async def find() -> list[Json]:
            # As a search of one: it keeps nulls, which pgSTAC's own form of an item loses.
            asked = Body.model_validate(
                {"ids": [item_id], "collections": [cid], "limit": 1, "conf": dict(_CONF)}
            )
            found: Any = await self.core._search_base(asked, _plain(request))
            return list(found["features"])

        found = await self.database.within(self.settings.search_seconds, find)
        if not found:
            raise NotFoundError(f"no item '{item_id[:80]}' in collection '{cid}'")
        view = self._addressed(view)
        (text,) = self._marked(self._shown(show(snapshot, found, root, view), view), root)
        caching = ContentCaching(request, self.settings, self._period(view))
        return caching.respond(text.encode(), GEOJSON)

    def _shown(self, items: list[str], view: View) -> list[str]:
        """Return stored items with hrefs in the requested form."""
        hrefs = view.hrefs if view is not None and view.hrefs is not None else "https"
        return self._signed(readdress(items, hrefs), view)

    async def _aggregate(self, request: Request, query: Query, within: str | None) -> Response:
        snapshot, root = self.store.current(), request.scope["tessera.root"]
        wanted = named(query.aggregations)
        prepared = await self._prepared(request, snapshot, query)
        if prepared is None:
            counts: Sequence[Json] = [a.document({}) for a in wanted]
        elif _count_of_all(snapshot, query) is not None and all(a.from_block for a in wanted):
            counts = await self.work.searches.run(
                lambda _: self._from_blocks(snapshot, query, wanted), request.receive
            )
        else:
            counts = await count_by(self.database, prepared, wanted, self.settings.search_seconds)
        document = aggregation_document(counts, root, within)
        return ContentCaching(request, self.settings).respond(document, JSON)

    def _from_blocks(
        self, snapshot: PgstacSnapshot, query: Query, wanted: Sequence[Aggregation]
    ) -> list[Json]:
        selection = select(snapshot, query, self.settings)
        return [a.document(from_years(snapshot, selection, a) or {}) for a in wanted]


_CONF = {"context": "off"}
"""Settings of a search: matches are counted beside it."""
_INLINE_ITEMS = 200
"""A page with more items is rendered in a thread."""
_PORTION = 500
"""Items that the database is asked for at a time."""


def _plain(request: Request) -> Request:
    """Return a request without body and parameters, of which stac-fastapi-pgstac makes its links.

    It would read a body again for them, and fail where there is none; our links replace them anyway.
    """
    return Request({**request.scope, "method": "GET", "query_string": b""})


def _with_tokens(page: Json) -> Json:
    """Extract the token of each paging link: stac-fastapi-pgstac writes it into a URL."""
    links = []
    for one in page["links"]:
        rel, href = one.get("rel"), str(one.get("href", ""))
        (token,) = parse_qs(urlsplit(href).query).get("token", [""])
        if token:
            links.append({"rel": "prev" if rel == "previous" else rel, "token": token})
    return {**page, "links": links}


def _tokens(page: Json) -> dict[str, str]:
    """Return the tokens of the pages around a page, by relation."""
    return {one["rel"]: one["token"] for one in page["links"] if one["rel"] in ("next", "prev")}


def _seal_of(query: Query) -> str:
    return f"pgstac {query.fingerprint}"


def _position(snapshot: PgstacSnapshot, query: Query) -> str:
    """Return pgSTAC's own token in ours.

    Raises
    ------
    QueryError
        If it is none: the name of an item in one of the collections that are served.
    """
    token = query.token or ""
    match unseal(token, _seal_of(query)):
        case [str(position), *build]:
            if changing(query.sortby):
                check_build(query.sortby, build[0] if build else None, snapshot)
        case _:
            raise foreign(token)
    match = _POSITION.fullmatch(position)
    try:
        cid, item = (bytes.fromhex(part).decode() for part in match.groups()) if match else ("", "")
    except UnicodeDecodeError:
        cid = item = ""
    if cid not in snapshot.documents or not item or "\0" in item:
        raise foreign(token)
    return position


_POSITION = re.compile(r"(?:next|prev):((?:[0-9a-f]{2})+):((?:[0-9a-f]{2})+)")
"""pgSTAC's token: a direction, and collection and id in hexadecimal."""


def _count_of_all(snapshot: PgstacSnapshot, query: Query) -> Count | None:
    """Return how many items whole collections have; None if a search asks for less, or for others."""
    narrowed = (query.ids, query.area, query.interval, query.filter, query.query, query.terms)
    chosen = snapshot.documents if query.collections is None else dict.fromkeys(query.collections)
    known = [cid for cid in chosen if cid in snapshot.documents]
    if any(part is not None for part in narrowed) or any(c not in snapshot.collections for c in known):
        return None
    return Count(sum(snapshot.collections[cid].n_items for cid in known))
