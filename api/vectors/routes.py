"""Vectors at points and in polygons that a client sends.

::

    POST /collections/{c}/points    GeoJSON, CSV, Arrow or Parquet; the same in return
    POST /collections/{c}/zonal     polygons

Everything is read by a thread of a pool of its own, within limits and a deadline, and only then is the first
byte sent: a response that begins is complete. Beyond a limit the response is 413 and names the verb that has
none.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
from fastapi import FastAPI
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.catalogue.store import Store
from api.http.links import JSON
from api.http.responses import ERRORS
from api.http.work import Deadline, Pool
from api.search.query import text_parameters
from api.settings import Settings
from api.vectors.asked import POINTS, ZONAL, Parameter
from api.vectors.formats import BODIES, RESPONSES, body_format, response_format
from api.vectors.reading import Asked, Table, read_points, read_zonal
from catalog_builder.errors import QueryError, QueryTimeoutError, TooLargeError
from catalog_builder.vectors.tables.write import streamed

_FLAG = re.compile(r"--(crs|layer|lon|lat)\b ?")
"""Options of the command line in messages, which are parameters here."""


def add_vectors(app: FastAPI, store: Store, settings: Settings, pool: Pool) -> None:
    """Add the routes."""
    pages = _Pages(store, settings, pool)
    for name, endpoint, known, summary in (
        ("points", pages.points, POINTS, "Vectors at points"),
        ("zonal", pages.zonal, ZONAL, "Statistics of the vectors in polygons"),
    ):
        app.add_api_route(
            f"/collections/{{collection_id}}/{name}",
            endpoint,
            methods=["POST"],
            name=summary,
            summary=summary,
            description=f"{summary} that are sent, year by year: a row for each, with its status.",
            operation_id=f"post_{name}",
            tags=["Vectors"],
            responses=_responses(),
            openapi_extra=_extra(known),
            response_class=Response,
        )


def _extra(known: Mapping[str, Parameter]) -> dict[str, Any]:
    path = {"name": "collection_id", "in": "path", "required": True, "schema": {"type": "string"}}
    parameters = [
        {"name": name, "in": "query", "required": False, "description": p.description, "schema": p.schema}
        for name, p in known.items()
    ]
    content = {media: {"schema": {"type": "object"} if "json" in media else _BINARY} for media in BODIES}
    return {"parameters": [path, *parameters], "requestBody": {"required": True, "content": content}}


_BINARY = {"type": "string", "format": "binary"}


def _responses() -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "A row for each point or polygon and year.",
            "content": {
                media: {"schema": {"type": "object"} if "json" in media else _BINARY}
                for media in RESPONSES.values()
            },
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
        return await self._read(request, POINTS, read_points, "points")

    async def zonal(self, request: Request) -> Response:
        """Return statistics in polygons."""
        return await self._read(request, ZONAL, read_zonal, "zonal")

    async def _read(
        self,
        request: Request,
        known: Mapping[str, Parameter],
        read: Callable[[Asked, Settings, Deadline], Table],
        verb: str,
    ) -> Response:
        snapshot, cid = self._store.current(), request.path_params["collection_id"]
        record = snapshot.collections.get(cid)
        if record is None:
            raise NotFoundError(f"no collection '{cid[:80]}'")
        texts = text_parameters(request.scope["query_string"], tuple(known), self._settings)
        wanted = response_format(texts.get("f"), request.headers.get("accept"))
        kind = body_format(request.headers.get("content-type"))
        asked = Asked(snapshot, self._store.home, record, texts, await request.body(), kind, wanted)
        table = await run_within(
            self._pool, request, lambda until: read(asked, self._settings, until), self._settings, verb
        )
        return StreamingResponse(
            self._sent(streamed(table.make(), table.schema, wanted)),
            media_type=RESPONSES[wanted],
            headers={"cache-control": "no-store"},
        )

    async def _sent(self, parts: Any) -> AsyncIterator[bytes]:
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
