"""Vectors at points and in polygons that a client sends.

::

    POST /collections/{c}/points    GeoJSON, CSV, Arrow or Parquet; the same in return
    POST /collections/{c}/zonal     polygons
    GET  /collections/{c}/position  OGC API - Environmental Data Retrieval: a point, or several, as WKT
    GET  /collections/{c}/area      a polygon

Everything is read by a thread of a pool of its own, within limits and a deadline, and only then is the first
byte sent: a response that begins is complete. Beyond a limit the response is 413 and names the verb that has
none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.catalogue.snapshot import AnySnapshot
from api.catalogue.store import Store
from api.http.links import JSON
from api.http.responses import ERRORS
from api.http.work.pool import Pool
from api.http.work.waiting import Deadline
from api.search.query import text_parameters
from api.settings import Settings
from api.vectors.asked import AREA, POINTS, POSITION, ZONAL, Parameter
from api.vectors.edr import Queried, read_area, read_position
from api.vectors.formats import BODIES, EDR_RESPONSES, RESPONSES, body_format, response_format
from api.vectors.reading import Posted, read_points, read_zonal
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import QueryError, QueryTimeoutError, TooLargeError

_FLAG = re.compile(r"--(crs|layer|lon|lat)\b ?")
"""Options of the command line in messages, which are parameters here."""


def add_vectors(app: FastAPI, store: Store, settings: Settings, pool: Pool) -> None:
    """Add the routes."""
    pages = _Pages(store, settings, pool)
    for route in (
        _Route("points", "POST", pages.points, POINTS, "Vectors at points", "", RESPONSES),
        _Route("zonal", "POST", pages.zonal, ZONAL, "Statistics of the vectors in polygons", "", RESPONSES),
        _Route(
            "position", "GET", pages.position, POSITION, "EDR: vectors at a position", _SERIES, EDR_RESPONSES
        ),
        _Route("area", "GET", pages.area, AREA, "EDR: vectors in an area", _GRIDS, EDR_RESPONSES),
    ):
        app.add_api_route(
            f"/collections/{{collection_id}}/{route.name}",
            route.endpoint,
            methods=[route.method],
            name=route.summary,
            summary=route.summary,
            description=route.description
            or f"{route.summary} that are sent, year by year: a row for each, with its status.",
            operation_id=f"{route.method.lower()}_{route.name}",
            tags=["Vectors"],
            responses=_responses(route.formats.values()),
            openapi_extra=_extra(route),
            response_class=Response,
        )


_SERIES = (
    "Vectors at a point or several, over years: a CoverageJSON PointSeries or MultiPointSeries, or GeoJSON."
)
_GRIDS = (
    "Vectors of the pixels whose centre is in an area: a CoverageJSON Grid over years, as stored in its UTM"
    " zone, or a collection of one for each zone; or GeoJSON."
)


@dataclass(frozen=True, slots=True)
class _Route:
    """A route of a collection."""

    name: str
    method: str
    endpoint: Callable[[Request], Awaitable[Response]]
    parameters: Mapping[str, Parameter]
    summary: str
    description: str
    formats: Mapping[Any, str]
    """Media types of responses."""


def _extra(route: _Route) -> dict[str, Any]:
    path = {"name": "collection_id", "in": "path", "required": True, "schema": {"type": "string"}}
    parameters = [
        {
            "name": name,
            "in": "query",
            "required": p.required,
            "description": p.description,
            "schema": p.schema,
        }
        for name, p in route.parameters.items()
    ]
    found: dict[str, Any] = {"parameters": [path, *parameters]}
    if route.method == "POST":
        found["requestBody"] = {"required": True, "content": _content(BODIES)}
    return found


def _content(kinds: Iterable[str]) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    return {media: {"schema": {"type": "object"} if "json" in media else binary} for media in kinds}


def _responses(kinds: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "The vectors, and for each place and year a status that says why there is none.",
            "content": _content(kinds),
        }
    }
    schema = {"type": "object", "required": ["code", "description"]}
    for status in (400, 404, 413, 503):
        found[status] = {"description": ERRORS[status][1], "content": {JSON: {"schema": schema}}}
    return found


class _Pages:
    """The endpoints."""

    def __init__(self, store: Store, settings: Settings, pool: Pool) -> None:
        self._store = store
        self._settings = settings
        self._pool = pool
        self._encoding: anyio.CapacityLimiter | None = None

    async def points(self, request: Request) -> Response:
        """Return vectors at points."""
        return await self._posted(request, POINTS, read_points, "points")

    async def zonal(self, request: Request) -> Response:
        """Return statistics in polygons."""
        return await self._posted(request, ZONAL, read_zonal, "zonal")

    async def position(self, request: Request) -> Response:
        """Return vectors at a position."""
        return await self._queried(request, POSITION, read_position, "points")

    async def area(self, request: Request) -> Response:
        """Return vectors in an area."""
        return await self._queried(request, AREA, read_area, "get")

    async def _posted(
        self,
        request: Request,
        known: Mapping[str, Parameter],
        read: Callable[[Posted, Settings, Deadline], Iterator[bytes]],
        verb: str,
    ) -> Response:
        asked = self._asked(request, known)
        wanted = response_format(asked[3].get("f"), request.headers.get("accept"), RESPONSES)
        kind = body_format(request.headers.get("content-type"))
        if (elsewhere := await self._pool.elsewhere(request)) is not None:
            return elsewhere
        posted = Posted(*asked, await request.body(), kind, wanted)
        return await self._read(
            request, lambda until: read(posted, self._settings, until), verb, RESPONSES[wanted]
        )

    async def _queried(
        self,
        request: Request,
        known: Mapping[str, Parameter],
        read: Callable[[Queried, Settings, Deadline], Iterator[bytes]],
        verb: str,
    ) -> Response:
        asked = self._asked(request, known)
        wanted = response_format(asked[3].get("f"), request.headers.get("accept"), EDR_RESPONSES)
        if (elsewhere := await self._pool.elsewhere(request)) is not None:
            return elsewhere
        queried = Queried(*asked, wanted)
        return await self._read(
            request, lambda until: read(queried, self._settings, until), verb, EDR_RESPONSES[wanted]
        )

    def _asked(
        self, request: Request, known: Mapping[str, Parameter]
    ) -> tuple[AnySnapshot, str, CollectionRecord, dict[str, str]]:
        """Return the catalogue, where it is, the collection, and the parameters."""
        snapshot, cid = self._store.current(), request.path_params["collection_id"]
        record = snapshot.collections.get(cid)
        if record is None:
            raise NotFoundError(f"no collection '{cid[:80]}'")
        texts = text_parameters(request.scope["query_string"], tuple(known), self._settings)
        return snapshot, self._store.home, record, texts

    async def _read(
        self, request: Request, read: Callable[[Deadline], Iterator[bytes]], verb: str, media: str
    ) -> Response:
        parts = await run_within(self._pool, request, read, self._settings, verb)
        return StreamingResponse(self._sent(parts), media_type=media, headers={"cache-control": "no-store"})

    async def _sent(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the parts of a response, each encoded when the client has taken the one before."""
        if self._encoding is None:
            self._encoding = anyio.CapacityLimiter(self._settings.vector_threads)
        while (part := await anyio.to_thread.run_sync(next, parts, None, limiter=self._encoding)) is not None:
            if part:
                yield part


async def run_within[T](
    pool: Pool, request: Request, work: Callable[[Deadline], T], settings: Settings, verb: str
) -> T:
    """Return the result of work in a pool; beyond a limit say which verb has none.

    Raises
    ------
    TooLargeError
        If a limit is passed, that of time too.
    QueryError, BusyError, ClientGoneError, QueryTimeoutError
        As the work and the pool.
    """
    begun = False

    def noted(until: Deadline) -> T:
        nonlocal begun
        begun = True
        return work(until)

    instead = f"; 'tessera-stac {verb}' has no such limit"
    try:
        return await pool.run(noted, request.receive)
    except TooLargeError as error:
        raise TooLargeError(f"{error}{instead}") from error
    except QueryError as error:
        raise QueryError(_FLAG.sub(lambda m: f"{m[1]}=" if m[0][-1] == " " else m[1], str(error))) from error
    except QueryTimeoutError as error:
        if not begun:
            raise
        raise TooLargeError(f"reading takes longer than {settings.vector_seconds:g} s{instead}") from error
