"""The endpoints beyond stac-fastapi's core: queryables, sortables, aggregation, children, browsing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import attr
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.endpoints import browse
from api.endpoints.core import TesseraClient
from api.filter.queryables import QUERYABLES, schema
from api.http.links import JSON, SCHEMA, link
from api.http.responses import dumps
from api.request.view import show_collection
from api.search import collections, parameters
from api.search.aggregation import listing
from api.search.query import Query, from_text, text_parameters


@attr.s(auto_attribs=True, kw_only=True)
class ExtendedClient(TesseraClient):
    """Implements every endpoint; subclasses define how items are found and counted."""

    async def queryables(self, **kwargs: Any) -> Any:
        """Respond to ``GET /queryables`` and ``GET /collections/{collection_id}/queryables``."""
        return self._schema(kwargs["request"], "queryables", "Queryables", None)

    async def sortables(self, **kwargs: Any) -> Any:
        """Respond to ``GET /sortables`` and ``GET /collections/{collection_id}/sortables``."""
        names = {name: q for name, q in QUERYABLES.items() if q.sortable}
        return self._schema(kwargs["request"], "sortables", "Sortables", names)

    async def collections_queryables(self, **kwargs: Any) -> Any:
        """Respond to ``GET /collections-queryables``."""

        def make(_snapshot: Any, root: str, _view: Any) -> Any:
            address = f"{root}/collections-queryables"
            return collections.schema(address, "Properties that collections can be filtered and sorted by")

        return self._document(kwargs["request"], "collections queryables", make, SCHEMA)

    def _schema(self, request: Request, name: str, title: str, names: Mapping[str, Any] | None) -> Response:
        within = self._collection_of(request)
        place = f"/collections/{within}/{name}" if within else f"/{name}"
        return self._document(
            request,
            place,
            lambda _snapshot, root, _view: schema(
                f"{root}{place}", f"{title} of {within or 'all items'}", names
            ),
            SCHEMA,
        )

    async def aggregations(self, **kwargs: Any) -> Any:
        """Respond to ``GET /aggregations``, also of a collection."""
        request: Request = kwargs["request"]
        within = self._collection_of(request)
        here = f"/collections/{within}" if within else ""
        return self._document(
            request,
            f"{here}/aggregations",
            lambda _snapshot, root, _view: listing(
                [
                    link("self", f"{root}{here}/aggregations"),
                    link("root", f"{root}/"),
                    link("aggregate", f"{root}{here}/aggregate"),
                ]
            ),
            JSON,
        )

    async def get_aggregate(self, **kwargs: Any) -> Any:
        """Respond to ``GET /aggregate``, also of a collection."""
        request: Request = kwargs["request"]
        within = self._collection_of(request)
        query = from_text(request.scope["query_string"], parameters.AGGREGATE, self.settings, within)
        return await self._aggregate(request, query, within)

    async def post_aggregate(self, **kwargs: Any) -> Any:
        """Respond to ``POST /aggregate``, also of a collection."""
        request: Request = kwargs["request"]
        within = self._collection_of(request)
        if (elsewhere := await self._elsewhere_if_large(request)) is not None:
            return elsewhere
        text_parameters(request.scope["query_string"], (), self.settings)
        query = await self._posted(request, parameters.AGGREGATE)
        return await self._aggregate(request, query if within is None else query.within(within), within)

    @abstractmethod
    async def _aggregate(self, request: Request, query: Query, within: str | None) -> Response:
        """Return counts of the items of a search, of all collections or within one."""

    async def children(self, **kwargs: Any) -> Any:
        """Respond to ``GET /children``."""
        return self._document(
            kwargs["request"],
            "children",
            lambda snapshot, root, view: {
                "children": [
                    show_collection(self.collection(snapshot, cid, root), view) for cid in snapshot.documents
                ],
                "links": [link("self", f"{root}/children"), link("root", f"{root}/")],
            },
            JSON,
        )

    async def browse_root(self, **kwargs: Any) -> Any:
        """Respond to ``GET /browse``."""
        return self._document(
            kwargs["request"],
            "browse",
            lambda snapshot, root, _view: browse.root_catalog(snapshot, root),
            JSON,
        )

    async def browse_collection(self, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}/browse``."""
        request: Request = kwargs["request"]
        cid = self._known_collection(request)
        return self._document(
            request,
            ("browse", cid),
            lambda snapshot, root, _view: browse.collection_catalog(snapshot, cid, root),
            JSON,
        )

    async def browse_year(self, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}/browse/{year}``."""
        request: Request = kwargs["request"]
        cid, year = self._known_collection(request), _year(request)
        return self._document(
            request,
            ("browse", cid, year),
            lambda snapshot, root, _view: browse.year_catalog(snapshot, cid, year, root),
            JSON,
        )

    async def browse_area(self, **kwargs: Any) -> Any:
        """Respond to ``GET /collections/{collection_id}/browse/{year}/{area}``."""
        request: Request = kwargs["request"]
        cid, year = self._known_collection(request), _year(request)
        area: str = request.path_params["area"]
        return self._document(
            request,
            ("browse", cid, year, area),
            lambda snapshot, root, _view: browse.area_catalog(snapshot, cid, year, area, root),
            JSON,
        )

    def _collection_of(self, request: Request) -> str | None:
        return self._known_collection(request) if "collection_id" in request.path_params else None


def aggregation_document(found: Sequence[Mapping[str, Any]], root: str, within: str | None) -> bytes:
    """Return the response of ``/aggregate``, for everything or within a collection."""
    here = f"{root}/collections/{within}" if within else root
    links = [
        link("self", f"{here}/aggregate"),
        link("root", f"{root}/"),
        link("aggregations", f"{here}/aggregations"),
    ]
    return dumps({"type": "AggregationCollection", "aggregations": found, "links": links})


def _year(request: Request) -> int:
    text: str = request.path_params["year"]
    if not (text.isascii() and text.isdigit() and len(text) == 4):
        raise NotFoundError(f"no year '{text[:40]}'")
    return int(text)
