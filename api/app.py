"""The application: our STAC client in stac-fastapi's framework.

stac-fastapi provides the client's interface, the route names and the core of the landing page; requests
are parsed by :mod:`api.search.query`, because stac-fastapi validates GET and POST differently and lets
unknown parameters pass. Its request models would parse everything a second time, so they are not used.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

# stac-fastapi builds its settings, and warns of defaults that we replace, when it is imported.
logging.getLogger("stac_fastapi.types.config").setLevel(logging.ERROR)

import anyio.to_thread  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.exceptions import RequestValidationError  # noqa: E402
from stac_fastapi.api.app import StacApi  # noqa: E402
from stac_fastapi.types.config import ApiSettings  # noqa: E402
from stac_fastapi.types.errors import NotFoundError  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse, Response  # noqa: E402
from starlette.types import ASGIApp, Receive, Scope, Send  # noqa: E402

from api.catalogue.open import make_store  # noqa: E402
from api.catalogue.snapshot import AnySnapshot  # noqa: E402
from api.catalogue.store import Store  # noqa: E402
from api.catalogue.visible import VisibleStore  # noqa: E402
from api.endpoints.extended import ExtendedClient  # noqa: E402
from api.endpoints.indexed import IndexClient  # noqa: E402
from api.endpoints.openapi import OPERATIONS  # noqa: E402
from api.files.bucket import BucketFiles  # noqa: E402
from api.files.catalogue import CatalogueFiles  # noqa: E402
from api.files.direct.app import DirectAccess  # noqa: E402
from api.files.direct.converted import find_cogs, find_export, find_pixels  # noqa: E402
from api.files.direct.paths import SourceRoot  # noqa: E402
from api.files.folder import RangedFiles, immutable_where  # noqa: E402
from api.http.front import ACCESS, Front  # noqa: E402
from api.http.links import JSON  # noqa: E402
from api.http.methods import Methods  # noqa: E402
from api.http.metrics import MEDIA_TYPE, Metrics  # noqa: E402
from api.http.responses import dumps, error  # noqa: E402
from api.http.work.pool import Pool, Work  # noqa: E402
from api.http.work.waiting import ERROR_KEY, ClientGoneError  # noqa: E402
from api.pages.browser import add_browser  # noqa: E402
from api.pages.coverage import add_coverage  # noqa: E402
from api.pages.document import add_document  # noqa: E402
from api.pages.frame import add_icon  # noqa: E402
from api.pictures.routes import add_pictures  # noqa: E402
from api.readers.door import Door, has_readers  # noqa: E402
from api.readers.reader import ASKING  # noqa: E402
from api.settings import Settings  # noqa: E402
from api.vectors.routes import add_vectors  # noqa: E402
from api.zarr.app import ZarrView  # noqa: E402
from catalog_builder import __version__  # noqa: E402
from catalog_builder.catalog.folder import COGS  # noqa: E402
from catalog_builder.catalog.index.keys import make_key  # noqa: E402
from catalog_builder.errors import (  # noqa: E402
    CatalogError,
    QueryError,
    QueryTimeoutError,
    TesseraError,
    TooLargeError,
    UnavailableError,
    UnreadableError,
)
from catalog_builder.extras import install_line  # noqa: E402
from catalog_builder.storage import published_address, scheme  # noqa: E402
from catalog_builder.storage.headers import REVALIDATE  # noqa: E402
from catalog_builder.stores.connections import CONNECTIONS  # noqa: E402
from catalog_builder.tile.files import LEDGER  # noqa: E402
from catalog_builder.tile.grid import TileId  # noqa: E402


def create_app(
    catalog: Path | str | None = None, settings: Settings | None = None, *, relays: bool = False
) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    catalog
        The catalogue, a folder or an s3 URL; None takes it from the settings.
    settings
        None: read from the environment.
    relays
        Whether what takes long is answered by processes of its own, where the settings allow it: they read
        their settings from the environment.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version.
    """
    settings = settings or Settings()
    place = catalog or settings.catalog
    folder = None if place is None else str(place)
    metrics = Metrics()
    work = Work(settings, relays=relays and settings.processes and settings.backend == "index")
    CONNECTIONS.allow(settings.store_connections)
    door = Door(settings) if has_readers(settings) else None
    methods = Methods()
    store, client = _backend(folder, settings, metrics, work, door)

    async def health() -> dict[str, Any]:
        return await _health(store)

    api = TesseraApi(
        client=client,
        settings=ApiSettings(
            stac_fastapi_title=settings.title,
            stac_fastapi_description=settings.description,
            stac_fastapi_version=__version__,
            stac_fastapi_landing_id=settings.landing_id,
            docs_url="",  # its page loads scripts from elsewhere: see api.pages.document
            _env_file=None,  # type: ignore[call-arg]
        ),
        stac_version="1.1.0",
        middlewares=[
            Middleware(
                Front,
                settings=settings,
                metrics=metrics,
                explain=partial(_explain, store),
                door=door,
                methods=methods,
            )
        ],
        health_check=health,
    )
    app: FastAPI = api.app
    app.state.store = store
    store.attach(app)
    if folder is not None:
        app.mount("/data", CatalogueFiles(_files(folder, settings), store, is_open=door is None), name="data")
    app.mount("/source", _Source(store, settings, work.drawings), name="source")
    app.mount("/zarr", ZarrView(store, settings, work.chunks), name="zarr")
    has_browser = add_browser(app, settings)
    add_coverage(app, store, settings, work.drawings, browser=has_browser)
    add_document(app)
    add_icon(app)
    add_pictures(app, store, settings, work.drawings)
    add_vectors(app, store, settings, work.vectors)
    _add_readiness(app, store)
    _add_login(app, store, door)
    _add_metrics(app, store, metrics, settings)
    _add_error_handlers(app, methods)
    methods.learn(app)
    if settings.access_log:
        _log_to_stdout()
    return app


def _files(folder: str, settings: Settings) -> ASGIApp:
    """Return what serves all files of a catalogue."""
    cogs = immutable_where(rf"{COGS}/(?!{LEDGER}/).*")  # the ledger grows
    if scheme(folder):
        return BucketFiles(folder.rstrip("/"), settings.s3_access, settings.presign_seconds, cogs)
    return RangedFiles(folder, cogs, listed=rf"{COGS}/[^/]+/[0-9]{{4}}/grid_[^/]+")


def _backend(
    folder: str | None, settings: Settings, metrics: Metrics, work: Work, door: Door | None
) -> tuple[Store, ExtendedClient]:
    """Return the store, as whoever asks may see it, and the client that searches it."""
    about: dict[str, Any] = {
        "settings": settings,
        "landing_page_id": settings.landing_id,
        "work": work,
        "door": door,
    }
    if settings.backend == "pgstac":
        try:
            from api.pgstac.client import PgstacClient
            from api.pgstac.store import PgstacStore
        except ImportError as exc:
            raise CatalogError(
                f"the backend pgstac needs stac-fastapi-pgstac ({exc}): {install_line('pgstac')}"
            ) from exc
        stored = PgstacStore(folder, settings, metrics.refresh_failed)
        seen = stored if door is None else VisibleStore(stored, door.privacy)
        return seen, PgstacClient(store=seen, database=stored.database, **about)
    if folder is None:
        raise CatalogError("no catalogue given: set TESSERA_STAC_CATALOG, or call create_app(catalog)")
    indexed = make_store(folder, settings, metrics.refresh_failed)
    store = indexed if door is None else VisibleStore(indexed, door.privacy)
    return store, IndexClient(store=store, **about)


class TesseraApi(StacApi):
    """stac-fastapi's application with our routes, documentation and parsing."""

    def register_core(self) -> None:
        """Register every endpoint of :data:`api.endpoints.openapi.OPERATIONS`."""
        for operation in OPERATIONS:
            self.router.add_api_route(
                operation.path,
                _endpoint(getattr(self.client, operation.handler)),
                methods=[operation.method],
                name=operation.summary,
                summary=operation.summary,
                description=operation.description,
                operation_id=operation.identifier,
                tags=[operation.tag],
                responses=operation.responses(),
                openapi_extra=operation.extra(),
                response_class=Response,
            )


def _endpoint(handler: Callable[..., Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> Any:
        return await handler(request=request)

    return endpoint


class _Source:
    """Direct access to the published arrays of the current catalogue."""

    def __init__(self, store: Store, settings: Settings, pool: Pool) -> None:
        self._store = store
        self._settings = settings
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            snapshot = self._store.current()
        except UnavailableError as exc:
            await error(503, str(exc), {"retry-after": "5"})(scope, receive, send)
            return
        lane = snapshot.once(
            "direct access", lambda: _direct_access(snapshot, self._store.home, self._settings, self._pool)
        )
        await lane(scope, receive, send)


def _direct_access(snapshot: AnySnapshot, home: str, settings: Settings, pool: Pool) -> DirectAccess:
    ordinals = {r.dataset.directory: r.ordinal for r in snapshot.collections.values()}

    def exists(directory: str, lat_i: int, lon_i: int, year: int) -> bool:
        tile = TileId(lat_i, lon_i)
        return bool(snapshot.tiles.has_tile(make_key(ordinals[directory], year, tile.row, tile.col)))

    roots = [
        SourceRoot(r.dataset, r.source_root, r.landmask_root or None, r.container)
        for r in snapshot.collections.values()
    ]
    in_s3 = {
        root: BucketFiles(root, settings.s3_access, settings.presign_seconds, lambda _: REVALIDATE)
        for source in roots
        for root in (source.root if source.container == "npy" else None, source.landmasks)
        if root is not None and root.startswith("s3://") and published_address(root) is None
    }
    return DirectAccess(
        roots,
        exists,
        partial(find_cogs, snapshot),
        in_s3,
        partial(find_export, snapshot),
        partial(find_pixels, snapshot, home, settings.s3_access),
        pool,
    )


async def _explain(store: Store, fault: Exception) -> Response | None:
    """Return the message for an unexpected error if it comes from a damaged index; otherwise None."""
    damage = await anyio.to_thread.run_sync(store.check)
    if damage is None and isinstance(fault, sqlite3.Error) and _is_damage(fault):
        damage = f"index.sqlite: cannot be read ({fault})"
    return None if damage is None else error(503, damage, {"retry-after": "60"})


def _is_damage(fault: sqlite3.Error) -> bool:
    """Whether SQLite could not read what is in the file, and not what it was asked."""
    # the lower byte of an extended code is its primary code
    return getattr(fault, "sqlite_errorcode", 0) & 0xFF in _DAMAGE or "malformed" in str(fault)


_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FORMAT)


async def _health(store: Store) -> dict[str, Any]:
    """Report whether searches can be served, and of what."""
    said: dict[str, Any] = {"status": "UP"}
    try:
        snapshot = store.current()
        items = sum(r.n_items for r in snapshot.collections.values())
        said |= {"generation": snapshot.generation, "items": items}
        await store.probe()
    except TesseraError as exc:
        said |= {"status": "DOWN", "reason": str(exc)}
    if store.damage is not None:
        said |= {"damage": store.damage}
    if store.refused is not None:
        said |= {"refused": store.refused}
    if found := store.health():
        said |= {"catalogue": found}
    return said


def _add_readiness(app: FastAPI, store: Store) -> None:
    """Report readiness for searches to a load balancer; ``/_mgmt/ping`` reports liveness."""

    async def ready() -> Response:
        try:
            await store.probe()
        except TesseraError as exc:
            return error(503, str(exc), {"retry-after": "5"})
        return Response(b'{"status":"UP"}', media_type=JSON, headers={"cache-control": "no-store"})

    app.add_api_route("/_mgmt/ready", ready, include_in_schema=False)


def _add_login(app: FastAPI, store: Store, door: Door | None) -> None:
    """Add a page that asks a browser for a password: elsewhere what is private is simply not there."""
    if door is None:
        return

    async def login() -> Response:
        reader = ASKING.get()
        if not reader.name:
            raise HTTPException(401, "log in", {"www-authenticate": door.challenge})
        said = {"reader": reader.name, "collections": list(store.current().documents)}
        return Response(dumps(said), media_type=JSON, headers={"cache-control": "no-store"})

    app.add_api_route("/login", login, include_in_schema=False)


def _add_metrics(app: FastAPI, store: Store, metrics: Metrics, settings: Settings) -> None:
    if not settings.metrics:
        return

    async def show() -> Response:
        # reads /proc and the files of all workers: not on the event loop
        text = await anyio.to_thread.run_sync(metrics.text, store)
        text += "".join(f"{line}\n" for line in store.metrics()).encode()
        return PlainTextResponse(text, media_type=MEDIA_TYPE, headers={"cache-control": "no-store"})

    app.add_api_route("/_mgmt/metrics", show, include_in_schema=False)


def _add_error_handlers(app: FastAPI, methods: Methods) -> None:
    """Return every failure as JSON, with its reason; the request says its kind, which is counted."""

    async def bad_query(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "bad_request"
        return error(400, str(exc))

    async def not_found(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "not_found"
        return error(404, str(exc))

    async def too_large(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "too_large"
        return error(413, str(exc))

    async def unreadable(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "unreadable"
        return error(409, str(exc))

    async def timeout(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "search_timeout" if isinstance(exc, QueryTimeoutError) else "unavailable"
        return error(503, str(exc), {"retry-after": "5"})

    async def left(request: Request, exc: Exception) -> Response:
        request.scope[ERROR_KEY] = "client_gone"
        return error(499, str(exc))  # for the log alone, as nginx has it

    async def http_error(request: Request, exc: Exception) -> Response:
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        request.scope[ERROR_KEY] = "not_found" if status == 404 else "bad_request"
        headers = exc.headers if isinstance(exc, HTTPException) else None
        if status == 405:  # the framework names the methods of one route of the path only
            headers = {"allow": ", ".join(methods.of(request.scope["tessera.path"]))}
        reasons = {
            404: f"no such page: {request.url.path[:200]}",
            405: f"{request.method} is not supported here",
        }
        return error(status, reasons.get(status, str(exc)), headers)

    for kind, handler in (
        (QueryError, bad_query),
        (TooLargeError, too_large),
        (RequestValidationError, bad_query),
        (NotFoundError, not_found),
        (UnreadableError, unreadable),
        (QueryTimeoutError, timeout),
        (UnavailableError, timeout),
        (ClientGoneError, left),
        (HTTPException, http_error),
    ):
        app.add_exception_handler(kind, handler)


def _log_to_stdout() -> None:
    if not ACCESS.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        ACCESS.addHandler(handler)
        ACCESS.setLevel(logging.INFO)
        ACCESS.propagate = False
