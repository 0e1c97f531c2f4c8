"""The STAC client: the response of each endpoint, as bytes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attr
import orjson
from stac_fastapi.types.core import AsyncBaseCoreClient
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.catalogue.snapshot import Snapshot
from api.catalogue.store import Store
from api.endpoints.browse import tree_link
from api.endpoints.conformance import CONFORMANCE
from api.http.links import (
    COVERAGE_JSON,
    GEOJSON,
    HTML,
    JSON,
    OPENAPI,
    QUERYABLES_REL,
    SCHEMA,
    SORTABLES_REL,
    Link,
    link,
    paging_links,
)
from api.http.responses import Caching, dumps
from api.http.work.pool import Work
from api.readers.door import Door
from api.readers.marks import marked
from api.request.fields import Fields
from api.request.hrefs import sign
from api.request.view import Shown, View, item_behind_view, parse_view, show_collection, show_links
from api.search import collections, parameters
from api.search.computed import zone_assets
from api.search.map_links import WEB_MAP_LINKS, collection_links
from api.search.query import Query, from_json, from_text, text_parameters
from api.settings import Settings
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.selection import Count
from catalog_builder.item.item import PROJECTION
from catalog_builder.item.stored import XARRAY
from catalog_builder.storage.headers import MEDIA_ZARR_3
from catalog_builder.storage.s3.presign import Period, period

T = TypeVar("T")

LARGE_ITEM = 40_000
"""Bytes of a large item: pages that are short even so are not measured."""
INLINE_BYTES = 20_000
"""A longer body is read in a thread."""


@attr.s(auto_attribs=True, kw_only=True)
class TesseraClient(AsyncBaseCoreClient):
    """Implements the endpoints of the STAC API; subclasses define how items are found."""

    store: Store
    settings: Settings
    work: Work
    door: Door | None = None
    """The check of credentials; None if everything is public."""

    # ------------------------------------------------------------------------------- documents

    def conformance_classes(self) -> list[str]:
        """Return the conformance classes of the server."""
        return list(CONFORMANCE)

    async def landing_page(self, **kwargs: Any) -> Any:
        """Respond to ``GET /``."""
        return self._document(kwargs["request"], "landing", self._landing, JSON)

    def _landing(self, snapshot: Snapshot, root: str, view: View) -> Any:
        page: Any = self._landing_page(
            base_url=f"{root}/", conformance_classes=self.conformance_classes(), extension_schemas=[]
        )
        page["links"] += [
            link("service-desc", f"{root}/api", OPENAPI, "OpenAPI service description"),
            link("service-doc", f"{root}/api.html", HTML, "OpenAPI service documentation"),
            *_asking_links(root),
            *store_links(snapshot.collections.values(), root),
            link("children", f"{root}/children", JSON, "Collections, whole"),
            link("alternate", f"{root}/browser/", HTML, "This catalogue in STAC Browser"),
            link("related", f"{root}/coverage", HTML, "Map of the tiles and their years"),
            # No child links: see api.endpoints.browse.
            tree_link(f"{root}/browse"),
        ]
        if self.door is not None:
            page = marked(page, self.door.schemes, root)
        return show_links(page, view, "search")

    async def conformance(self, **kwargs: Any) -> Any:
        """Respond to ``GET /conformance``."""
        return self._document(
            kwargs["request"], "conformance", lambda *_: {"conformsTo": self.conformance_classes()}, JSON
        )

    async def all_collections(self, **kwargs: Any) -> Any:
        """Respond to ``GET /collections``: all, or those that match a search."""
        request: Request = kwargs["request"]
        snapshot = self.store.current()
        root: str = request.scope["tessera.root"]
        asked = collections.parse(request.scope["query_string"], self.settings)
        caching = Caching(request, snapshot, self.settings)
        if (unchanged := caching.not_modified()) is not None:
            return unchanged
        view = asked.query.view
        shown = [show_collection(self.collection(snapshot, cid, root), view) for cid in snapshot.documents]
        page, tokens, matched = collections.find(shown, asked)
        links = paging_links(f"{root}/collections", "GET", {}, asked.query.texts, tokens, JSON)
        document = {
            "collections": page,
            "links": [link("root", f"{root}/"), *links],
            "numberMatched": matched,
            "numberReturned": len(page),
        }
        return caching.respond(dumps(document), JSON)

    async def get_collection(self, *_: Any, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}``."""
        request: Request = kwargs["request"]
        cid = self._known_collection(request)
        return self._document(
            request,
            ("collection", cid),
            lambda snapshot, root, view: show_collection(self.collection(snapshot, cid, root), view),
            JSON,
        )

    # ------------------------------------------------------------------------------------ items

    async def get_item(self, *_: Any, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}/items/{item_id}``."""
        request: Request = kwargs["request"]
        view = self._view(request)
        return await self._item(
            request, self._known_collection(request), request.path_params["item_id"], view
        )

    async def item_collection(self, *_: Any, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}/items``."""
        request: Request = kwargs["request"]
        cid = self._known_collection(request)
        if (asked := item_behind_view(request.scope["query_string"])) is not None:
            item_id, rest = asked
            return await self._item(request, cid, item_id, self._view_in(rest))
        query = from_text(request.scope["query_string"], parameters.ITEMS, self.settings, cid)
        return await self._search(request, query, f"/collections/{cid}/items")

    async def get_search(self, *_: Any, **kwargs: Any) -> Any:
        """Respond to ``GET /search``."""
        request: Request = kwargs["request"]
        query = from_text(request.scope["query_string"], parameters.SEARCH, self.settings)
        return await self._search(request, query, "/search")

    async def post_search(self, *_: Any, **kwargs: Any) -> Any:
        """Respond to ``POST /search``."""
        request: Request = kwargs["request"]
        if (elsewhere := await self._elsewhere_if_large(request)) is not None:
            return elsewhere
        more = text_parameters(request.scope["query_string"], parameters.VIEW, self.settings)
        query = await self._posted(request, parameters.SEARCH, more)
        return await self._search(request, query, "/search")

    async def _elsewhere_if_large(self, request: Request) -> Response | None:
        """Return what has a large body read by another process, if there is one."""
        is_large = len(await request.body()) > INLINE_BYTES
        return await self.work.searches.elsewhere(request, waits=2) if is_large else None

    async def _posted(
        self, request: Request, known: Sequence[str], more: Mapping[str, Any] | None = None
    ) -> Query:
        """Parse a request body; a large one in a thread, because its geometries take a second."""
        body = await request.body()
        if len(body) <= INLINE_BYTES:
            return from_json(body, known, self.settings, more)
        return await self.work.searches.run(
            lambda _: from_json(body, known, self.settings, more), request.receive
        )

    @abstractmethod
    async def _item(self, request: Request, cid: str, item_id: str, view: View) -> Response:
        """Return the response for one item of a known collection."""

    @abstractmethod
    async def _search(self, request: Request, query: Query, path: str) -> Response:
        """Return the response to a search; ``path`` is that of the endpoint, for links to other pages."""

    # ------------------------------------------------------------------------------------ parts

    def _view(self, request: Request) -> View:
        """Return the view selected in a document's query string, which may contain nothing else."""
        return self._view_in(request.scope["query_string"])

    def _view_in(self, query_string: bytes) -> View:
        given = text_parameters(query_string, parameters.VIEW, self.settings)
        return parse_view(given, may_sign=self.settings.presign)

    def _addressed(self, view: View) -> View:
        """Return a view with the default form of hrefs, if it selects none."""
        if self.settings.hrefs == "https" or (view is not None and view.hrefs is not None):
            return view
        return Shown(view.bands if view is not None else None, self.settings.hrefs)

    def _period(self, view: View) -> Period | None:
        """Return how long a response in a view is valid; None if it does not expire."""
        signs = view is not None and view.hrefs == "presigned"
        return period(self.settings.presign_seconds) if signs else None

    def _signed(self, items: list[str], view: View) -> list[str]:
        when = self._period(view)
        return items if when is None else sign(items, when)

    def collection(self, snapshot: Snapshot, cid: str, root: str) -> dict[str, Any]:
        """Return a collection's document with the service's links, and the credentials that it needs."""
        document = collection(snapshot, cid, root)
        if self.door is None or not self.door.privacy.hides(cid):
            return document
        return marked(document, self.door.schemes, root)

    def _marked(self, items: list[str], root: str, fields: Fields | None = None) -> list[str]:
        """Return items with the credentials that they need, if they are of private collections."""
        door = self.door
        if door is None:
            return items

        def text(item: str) -> str:
            document = orjson.loads(item)
            if not door.privacy.hides(document.get("collection", "*")):
                return item
            document = marked(document, door.schemes, root)
            return dumps(document if fields is None else fields.prune(document)).decode()

        return [text(item) for item in items]

    def _known_collection(self, request: Request) -> str:
        cid: str = request.path_params["collection_id"]
        if cid not in self.store.current().documents:
            raise NotFoundError(f"no collection '{cid[:80]}'")
        return cid

    def _document(
        self, request: Request, name: object, make: Callable[[Snapshot, str, View], Any], kind: str
    ) -> Response:
        """Return a document that depends only on the view, rendered once per root URL of the service."""
        view = self._view(request)
        snapshot = self.store.current()
        caching = Caching(request, snapshot, self.settings)
        root: str = request.scope["tessera.root"]
        return caching.not_modified() or caching.respond(
            snapshot.remember((name, root, view), lambda: dumps(make(snapshot, root, view))), kind
        )


def collection(snapshot: Snapshot, cid: str, root: str) -> dict[str, Any]:
    """Return a collection's document with the service's links."""
    document: dict[str, Any] = orjson.loads(snapshot.documents[cid].replace("{root}", root))
    here = f"{root}/collections/{cid}"
    record = snapshot.collections.get(cid)
    links: list[Link] = [
        link("self", here, JSON, document.get("title")),
        link("root", f"{root}/", JSON, "Landing page"),
        link("parent", f"{root}/", JSON, "Landing page"),
        link("items", f"{here}/items", GEOJSON, "Items"),
        *_asking_links(here),
        *((tree_link(f"{here}/browse"), *collection_links(record, root)) if record is not None else ()),
        *((*_vector_links(here), *store_links([record], root)) if record is not None else ()),
    ]
    document["links"] = links + document.get("links", [])
    extensions = [*document.get("stac_extensions", []), WEB_MAP_LINKS]
    if record is not None and (zones := zone_assets(record, root)):
        document["assets"] = {**document.get("assets", {}), **zones}
        extensions = list(dict.fromkeys([*extensions, PROJECTION, XARRAY]))
    document["stac_extensions"] = extensions
    return document


def feature_collection(items: Sequence[str], links: Sequence[Link], matched: Count | None) -> bytes:
    """Return items, as JSON texts, in a FeatureCollection; without ``numberMatched`` where it is None."""
    return b"".join(feature_parts((items,) if items else (), links, matched, len(items)))


def feature_parts(
    portions: Iterable[Sequence[str]], links: Sequence[Link], matched: Count | None, returned: int
) -> Iterator[bytes]:
    """Yield a FeatureCollection of ``returned`` items, which come in portions, as JSON texts."""
    more: dict[str, Any] = {"numberReturned": returned}
    if matched is not None:
        more = {"numberMatched": max(matched.n, returned), **more}
    if matched is not None and not matched.exact:
        more |= {
            "tessera:matched_exact": False,
            "tessera:matched_at_least": max(matched.at_least, returned),
        }
    before = '{"type":"FeatureCollection","features":['
    for items in portions:
        # Joined once and encoded once: a portion of 100 items is 450 kB.
        yield ",".join([before + items[0], *items[1:]]).encode()
        before = ","
    tail = f"],{dumps({'links': links, **more}).decode()[1:]}"
    yield (tail if returned else before + tail).encode()


def _vector_links(of: str) -> list[Link]:
    """Return where a collection's pixels are asked for, by points and polygons in a body or in the URL."""
    return [
        {**link("points", f"{of}/points", GEOJSON, "Vectors at points"), "method": "POST"},
        {**link("zonal", f"{of}/zonal", GEOJSON, "Statistics of the vectors in polygons"), "method": "POST"},
        link("data", f"{of}/position", COVERAGE_JSON, "Vectors at a position (OGC API - EDR)"),
        link("data", f"{of}/area", COVERAGE_JSON, "Vectors in an area (OGC API - EDR)"),
    ]


def store_links(records: Iterable[CollectionRecord], root: str) -> list[Link]:
    """Return the roots of the arrays of zones, by the relation of the STAC best practices for Zarr."""
    return [
        link(
            "store",
            record.view.address.replace("{root}", root),
            MEDIA_ZARR_3,
            f"{record.dataset.title} as Zarr",
        )
        for record in records
        if record.view is not None
    ]


def _asking_links(of: str) -> list[Link]:
    """Return where to learn what can be asked of the whole catalogue, or of a collection."""
    return [
        link(QUERYABLES_REL, f"{of}/queryables", SCHEMA, "Properties that items can be filtered by"),
        link(SORTABLES_REL, f"{of}/sortables", SCHEMA, "Properties that items can be sorted by"),
        link("aggregate", f"{of}/aggregate", JSON, "Counts of items"),
        link("aggregations", f"{of}/aggregations", JSON, "Available aggregations"),
    ]
