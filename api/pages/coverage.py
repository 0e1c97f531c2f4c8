"""The coverage page: the years of each tile, rendered by the server as map tiles.

``/coverage`` is the page, ``/coverage/tiles/{collection}/{z}/{x}/{y}.png?year=`` its map tiles, and
``/coverage/at?collection=&lon=&lat=`` returns the tile at a point. Nothing is precomputed: a collection's
masks are read from the index when the page is first requested, 26 MB that are kept as long as the build.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Callable
from functools import cached_property

from fastapi import FastAPI
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.catalogue.snapshot import Renewable, Snapshot
from api.catalogue.store import Store
from api.http.links import HTML, JSON
from api.http.responses import Caching, dumps
from api.http.work.pool import Pool
from api.pages.frame import UNFRAMED
from api.settings import Settings
from catalog_builder.catalog.coverage.page import POLICY, coverage_page, coverage_policy, layer
from catalog_builder.catalog.coverage.tiles import CoverageGrid
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import GridError, QueryError
from catalog_builder.storage.headers import IMMUTABLE, MEDIA_PNG
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.regions.bbox import read_number
from catalog_builder.tile.years import COVERAGE_NAMES, coverage_codes, years_of


class _Lazy(Renewable):
    """The grid of a collection, read once for any number of concurrent map tile requests."""

    def __init__(self, snapshot: Snapshot, record: CollectionRecord) -> None:
        self._snapshot = snapshot
        self._record = record
        self._lock = threading.Lock()

    @cached_property
    def _grid(self) -> CoverageGrid:
        return CoverageGrid(*self._snapshot.tiles.coverage(self._record.ordinal), self._record.years)

    def get(self) -> CoverageGrid:
        """Return the grid; call it from a thread."""
        with self._lock:
            return self._grid

    def renew(self, snapshot: Snapshot) -> None:
        """Read the grid of the same collection in another build, if it exists there."""
        record = snapshot.collections.get(self._record.id)
        if record is not None:
            _grid(snapshot, record)


def add_coverage(app: FastAPI, store: Store, settings: Settings, pool: Pool, *, browser: bool) -> None:
    """Add the page, its map tiles and its look-up.

    Parameters
    ----------
    pool
        Where they are computed.
    browser
        Whether STAC Browser is installed to show items; otherwise they are shown as JSON.
    """
    pages = _Coverage(store, settings, pool, browser)
    for path, endpoint in (
        ("/coverage", pages.page),
        ("/coverage/at", pages.at),
        ("/coverage/tiles/{collection_id}/{z}/{x}/{y}.png", pages.tile),
    ):
        app.add_api_route(path, endpoint, include_in_schema=False)


class _Coverage:
    """The endpoints."""

    def __init__(self, store: Store, settings: Settings, pool: Pool, browser: bool) -> None:
        self._store = store
        self._settings = settings
        self._pool = pool
        self._browser = browser

    async def page(self, request: Request) -> Response:
        """Return the coverage page."""
        root: str = request.scope["tessera.root"]

        def make(snapshot: Snapshot) -> bytes:
            # Real data first: it is what visitors look for.
            records = sorted(snapshot.collections.values(), key=lambda r: r.dataset.is_synthetic)
            layers = [
                {
                    **layer(record.id, record.dataset.title, _grid(snapshot, record)),
                    # Relative to the page: correct behind any prefix.
                    "tiles": f"coverage/tiles/{record.id}/{{z}}/{{x}}/{{y}}.png?v={snapshot.generation}",
                    "at": f"coverage/at?collection={record.id}",
                }
                for record in records
            ]
            links = (("browser/", "STAC Browser"), ("api.html", "API document"))
            texts = [f'<a href="{html.escape(f"{root}/{path}")}">{name}</a>' for path, name in links]
            return coverage_page(layers, f"<p>{' · '.join(texts)}</p>").encode()

        found = await self._answer(request, make, f"{HTML}; charset=utf-8")
        found.headers[POLICY] = f"{coverage_policy()}; {UNFRAMED}"
        return found

    async def tile(self, request: Request) -> Response:
        """Return a map tile."""
        path, asked = request.path_params, request.query_params.get("year")
        z, x, y = (_number(name, path[name]) for name in ("z", "x", "y"))
        year = None if asked is None else _number("year", asked)

        def make(snapshot: Snapshot) -> bytes:
            return _grid(snapshot, _record(snapshot, path["collection_id"])).tile_png(z, x, y, year)

        found = await self._answer(request, make, MEDIA_PNG)
        if request.query_params.get("v") == self._store.current().generation:
            # The URL contains the build: its content never changes.
            found.headers["cache-control"] = IMMUTABLE
        return found

    async def at(self, request: Request) -> Response:
        """Return the tile at a point."""
        given = request.query_params
        try:
            tile = TileId.containing(*(_degrees(name, given.get(name)) for name in ("lon", "lat")))
        except GridError as error:
            raise QueryError(str(error)) from error
        root: str = request.scope["tessera.root"]

        def make(snapshot: Snapshot) -> bytes:
            record = _record(snapshot, given.get("collection", next(iter(snapshot.collections), "")))
            mask = _grid(snapshot, record).masks[tile.row, tile.col]
            items = []
            for year in years_of(int(mask)):
                path = f"collections/{record.id}/items/{tile.name}_{year}"
                shown = {"browser": f"{root}/browser/#/{path}"} if self._browser else {}
                items.append({"year": year, "href": f"{root}/{path}", **shown})
            code = coverage_codes(mask.reshape(1), record.years)[0]
            return dumps(
                {
                    "collection": record.id,
                    "tile": tile.name,
                    "bounds": list(tile.bounds),
                    "coverage": COVERAGE_NAMES[code] if items else None,
                    "items": items,
                }
            )

        return await self._answer(request, make, JSON)

    async def _answer(self, request: Request, make: Callable[[Snapshot], bytes], kind: str) -> Response:
        """Return the result of a function that runs in a thread, unless the client already has it."""
        snapshot = self._store.current()
        caching = Caching(request, snapshot, self._settings)
        if (unchanged := caching.not_modified()) is not None:
            return unchanged
        return caching.respond(await self._pool.run(lambda _: make(snapshot), request.receive), kind)


def _record(snapshot: Snapshot, cid: str) -> CollectionRecord:
    """Return an existing collection."""
    found = snapshot.collections.get(cid)
    if found is None:
        raise NotFoundError(f"no collection '{cid[:80]}'")
    return found


def _grid(snapshot: Snapshot, record: CollectionRecord) -> CoverageGrid:
    """Return the grid of a collection; the first call reads it from the index."""
    return snapshot.once(("coverage", record.ordinal), lambda: _Lazy(snapshot, record)).get()


def _number(name: str, text: str) -> int:
    """Parse an integer parameter."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise QueryError(f"{name} must be an integer, found '{text[:20]}'")
    return int(text)


def _degrees(name: str, text: str | None) -> float:
    """Parse a parameter in degrees."""
    try:
        return read_number(text or "")
    except ValueError:
        raise QueryError(f"{name} must be degrees, found '{(text or '')[:20]}'") from None
