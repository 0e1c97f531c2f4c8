"""Images of items and map tiles of a collection, with the extra ``tiles`` (titiler).

::

    /collections/{c}/items/{i}/preview.png                             ?bands=&rescale=&max_size=
    /collections/{c}/items/{i}/tiles/WebMercatorQuad/{z}/{x}/{y}.png   ?bands=&rescale=
    /collections/{c}/items/{i}/WebMercatorQuad/tilejson.json           ?bands=&rescale=
    /collections/{c}/tiles/WebMercatorQuad/{z}/{x}/{y}.png             ?year=
    /collections/{c}/WebMercatorQuad/tilejson.json                     ?year=

Without ``bands`` an image is the dataset's false colour. titiler's own endpoints are not mounted: they
open any URL that a client gives, compute expressions, and have no limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI
from stac_fastapi.types.errors import NotFoundError
from starlette.requests import Request
from starlette.responses import Response

from api.catalogue.snapshot import Snapshot
from api.catalogue.store import Store
from api.http.front import LOG
from api.http.links import JSON, with_query
from api.http.responses import Caching, dumps
from api.http.work.pool import Pool
from api.http.work.waiting import Deadline
from api.pictures.style import style_of
from api.search.map_links import ITEM_ZOOM, MAX_ZOOM, MOSAIC_ZOOM, TMS, can_draw
from api.search.render import has_item
from api.settings import Settings
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import QueryError, TesseraError, UnavailableError, UnreadableError
from catalog_builder.pixels.whole import gdal_reason
from catalog_builder.storage.headers import MEDIA_PNG
from catalog_builder.tile.cover import cover_box
from catalog_builder.tile.grid import Bounds, TileId

NOT_INSTALLED = "this server does not render images: it was installed without the extra 'tiles'"

if TYPE_CHECKING:
    from api.pictures.sources import Pictures

MAX_SIZE = 1024
DEFAULT_SIZE = 512
MOSAIC_ITEMS = 150
"""Maximum number of tile-years in one map tile: at zoom 9 there are 100 near the poles."""
_SIZES = range(16, MAX_SIZE + 1)
_ITEM_ZOOMS = range(MAX_ZOOM + 4)


def add_pictures(app: FastAPI, store: Store, settings: Settings, pool: Pool) -> None:
    """Add the routes; without the extra they respond with what to install."""
    pages = _Pages(store, settings, pool)
    item, tiles = "/collections/{collection_id}/items/{item_id}", f"tiles/{TMS}/{{z}}/{{x}}/{{y}}.png"
    for path, endpoint in (
        (f"{item}/preview.png", pages.preview),
        (f"{item}/{tiles}", pages.tile),
        (f"{item}/{TMS}/tilejson.json", pages.tilejson),
        (f"/collections/{{collection_id}}/{tiles}", pages.mosaic),
        (f"/collections/{{collection_id}}/{TMS}/tilejson.json", pages.mosaic_tilejson),
    ):
        app.add_api_route(path, endpoint, include_in_schema=False)


class _Pages:
    """The endpoints."""

    def __init__(self, store: Store, settings: Settings, pool: Pool) -> None:
        self._store = store
        self._settings = settings
        self._home = store.home
        self._installed = can_draw()
        self._pool = pool

    async def preview(self, request: Request) -> Response:
        """Return a small image of an item."""
        given = _parameters(request, ("bands", "rescale", "max_size"))
        cid, item_id = request.path_params["collection_id"], request.path_params["item_id"]
        size = _whole("max_size", given.get("max_size", str(DEFAULT_SIZE)), _SIZES)
        style = style_of(request)
        return await self._draw(request, lambda p, until: p.preview(cid, item_id, style, size, until))

    async def tile(self, request: Request) -> Response:
        """Return a map tile of an item."""
        _parameters(request, ("bands", "rescale"))
        cid, item_id = request.path_params["collection_id"], request.path_params["item_id"]
        z, x, y = _address(request, _ITEM_ZOOMS)
        style = style_of(request)

        def draw(pictures: Pictures, until: Deadline) -> bytes:
            from api.pictures.map_tile import MapTile

            return pictures.tile(cid, item_id, style, MapTile(z, x, y), until)

        return await self._draw(request, draw)

    async def tilejson(self, request: Request) -> Response:
        """Return the TileJSON of an item."""
        given = _parameters(request, ("bands", "rescale"))
        style_of(request)
        cid, item_id = request.path_params["collection_id"], request.path_params["item_id"]
        snapshot = self._store.current()
        _record(snapshot, cid)
        name, _, _ = item_id.rpartition("_")
        if not has_item(snapshot, cid, item_id):
            raise NotFoundError(f"no item '{item_id[:80]}' in collection '{cid}'")
        here = f"{request.scope['tessera.root']}/collections/{cid}/items/{quote(item_id)}"
        address = with_query(f"{here}/tiles/{TMS}/{{z}}/{{x}}/{{y}}.png", dict(given))
        return self._tilejson(request, item_id, address, TileId.from_name(name).bounds, ITEM_ZOOM, MAX_ZOOM)

    async def mosaic(self, request: Request) -> Response:
        """Return a map tile of a collection and year."""
        given = _parameters(request, ("year",))
        snapshot = self._store.current()
        record = _record(snapshot, request.path_params["collection_id"])
        year = _year(record, given.get("year"))
        z, x, y = _address(request, range(MOSAIC_ZOOM, _ITEM_ZOOMS.stop))

        def draw(pictures: Pictures, until: Deadline) -> bytes:
            from api.pictures.map_tile import MapTile

            runs = cover_box(tile_bounds(z, x, y))
            tiles = snapshot.tiles.first_tiles(record.ordinal, MOSAIC_ITEMS, year=year, runs=runs)
            ids = [f"{tile.name}_{year}" for _, tile in tiles]
            return pictures.mosaic(record.id, ids, MapTile(z, x, y), until)

        return await self._draw(request, draw)

    async def mosaic_tilejson(self, request: Request) -> Response:
        """Return the TileJSON of a collection."""
        given = _parameters(request, ("year",))
        snapshot = self._store.current()
        record = _record(snapshot, request.path_params["collection_id"])
        year = _year(record, given.get("year"))
        here = f"{request.scope['tessera.root']}/collections/{record.id}"
        address = f"{here}/tiles/{TMS}/{{z}}/{{x}}/{{y}}.png?year={year}"
        bounds = snapshot.once(("extent", record.ordinal), lambda: _extent(snapshot, record))
        title = f"{record.dataset.title}, {year}"
        return self._tilejson(request, title, address, bounds, MOSAIC_ZOOM, MAX_ZOOM)

    # ------------------------------------------------------------------------------------ parts

    async def _draw(self, request: Request, draw: Callable[[Pictures, Deadline], bytes]) -> Response:
        """Return a PNG that is rendered in a thread, unless the client already has it."""
        if not self._installed:
            raise NotFoundError(NOT_INSTALLED)
        if (elsewhere := await self._pool.elsewhere(request)) is not None:
            return elsewhere
        snapshot = self._store.current()
        caching = Caching(request, snapshot, self._settings)
        if (unchanged := caching.not_modified()) is not None:
            return unchanged

        def work(until: Deadline) -> bytes:
            from rasterio.errors import RasterioError

            from api.pictures.sources import Pictures

            try:
                return draw(snapshot.once("pictures", lambda: Pictures(snapshot, self._home)), until)
            except RasterioError as error:  # names a path of the server's: for its log
                LOG.warning("an image cannot be rendered: %s", error)
                raise _unreadable(gdal_reason(error)) from error

        return caching.respond(await self._pool.run(work, request.receive), MEDIA_PNG)

    def _tilejson(
        self, request: Request, name: str, address: str, bounds: Bounds, low: int, high: int
    ) -> Response:
        if not self._installed:
            raise NotFoundError(NOT_INSTALLED)
        caching = Caching(request, self._store.current(), self._settings)
        west, south, east, north = bounds
        document = {
            "tilejson": "3.0.0",
            "name": name,
            "scheme": "xyz",
            "tiles": [address],
            "minzoom": low,
            "maxzoom": high,
            "bounds": [west, max(south, -85.0), east, min(north, 85.0)],
            "center": [(west + east) / 2, (south + north) / 2, max(low, 11)],
        }
        return caching.not_modified() or caching.respond(dumps(document), JSON)


def _unreadable(reason: str) -> TesseraError:
    """Return the error for a COG that GDAL cannot read, without the folders of the server."""
    said = f"the item's file cannot be read: {_FOLDERS.sub('', reason)}"
    return UnavailableError(said) if _OF_NETWORK.search(reason) else UnreadableError(said)


_FOLDERS = re.compile(r"(?:/[^/\s'\":,]+)+/")
_OF_NETWORK = re.compile(r"HTTP|CURL|timed out|Could not resolve", re.IGNORECASE)
"""What GDAL says where a file in S3 could not be asked for: it may be as it should be."""


def tile_bounds(z: int, x: int, y: int) -> Bounds:
    """Return a Web Mercator map tile in degrees."""

    def latitude(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / (1 << z)))))

    n = 1 << z
    return Bounds(x / n * 360 - 180, latitude(y + 1), (x + 1) / n * 360 - 180, latitude(y))


def _extent(snapshot: Snapshot, record: CollectionRecord) -> Bounds:
    document = orjson.loads(snapshot.documents[record.id])
    return Bounds(*document["extent"]["spatial"]["bbox"][0])


def _record(snapshot: Snapshot, cid: str) -> CollectionRecord:
    found = snapshot.collections.get(cid)
    if found is None:
        raise NotFoundError(f"no collection '{cid[:80]}'")
    return found


def _parameters(request: Request, known: Collection[str]) -> dict[str, Any]:
    """Return the query's parameters; unknown or repeated ones are rejected."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise QueryError(f"unknown parameter '{name[:40]}': expected {', '.join(known)}")
        if name in given:
            raise QueryError(f"{name} is given twice")
        given[name] = value
    return given


def _whole(name: str, text: str, allowed: range) -> int:
    """Parse an integer within a range."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) in allowed):
        raise QueryError(
            f"{name} must be an integer {allowed.start}..{allowed.stop - 1}, found '{text[:20]}'"
        )
    return int(text)


def _address(request: Request, zooms: range) -> tuple[int, int, int]:
    path = request.path_params
    z = _whole("zoom", path["z"], zooms)
    x, y = (_whole(name, path[name], range(1 << z)) for name in ("x", "y"))
    return z, x, y


def _year(record: CollectionRecord, text: str | None) -> int:
    if text is None:
        return record.years[-1]
    if text not in map(str, record.years):
        raise QueryError(f"year must be one of {', '.join(map(str, record.years))}, found '{text[:20]}'")
    return int(text)
