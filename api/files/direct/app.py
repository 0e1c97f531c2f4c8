"""The app of direct access; see :mod:`api.files.direct`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

import anyio
from starlette.types import Receive, Scope, Send

from api.files.bucket import BucketFiles
from api.files.direct.computed import ComputedArray
from api.files.direct.converted import Cogs, TilePixels
from api.files.direct.documents import codes_offset, document, index, require_pair
from api.files.direct.paths import (
    Asked,
    ServedKind,
    SourceFolder,
    SourceRoot,
    asked,
    exports,
    public_address,
)
from api.files.direct.planes import Planes
from api.files.direct.raster import ComputedRaster
from api.files.folder import RangedFiles, open_below, visible
from api.files.ranges import Content, ContentChangedError, Document
from api.files.respond import respond
from api.files.sending import only_reading, public_path, route_path, send_error, send_not_found, send_redirect
from api.http.work.pool import Pool
from api.http.work.waiting import Deadline
from catalog_builder.errors import ArrayError, CatalogError, GridError, StorageError, TesseraError
from catalog_builder.pixels.container.table import CONTAINERS
from catalog_builder.pixels.virtual import Role, VirtualArray
from catalog_builder.raster.vrt import computed_vrt, tessera_metadata
from catalog_builder.storage import scheme
from catalog_builder.storage.headers import MEDIA_BYTES, MEDIA_NPY, REVALIDATE, media_type
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import TileId

Convert = Callable[[Dataset, str, str], Cogs | None]
"""``convert(dataset, item id, root of the service)``: the COGs of a tile-year, if it is converted."""
Export = Callable[[Dataset, str, str], str | None]
"""``export(dataset, item id, root of the service)``: the URL of the exported GeoTIFF of a tile-year."""
Pixels = Callable[[Dataset, str], TilePixels | None]
"""``pixels(dataset, item id)``: where this server reads a tile-year's pixels, if it has some."""
Exists = Callable[[str, int, int, int], bool]
"""``exists(dataset directory, lat_i, lon_i, year)``: whether the catalogue lists the tile-year."""

VRT_CACHE_CONTROL = "public, max-age=3600"
"""A view is derived from the tile's name; after an hour a rebuilt catalogue takes effect."""
COMPUTING = 4
"""Threads that compute rasters: each takes 30 MB, and may wait for a store."""
REDIRECT_CACHE_CONTROL = "public, max-age=3600"
"""The location of a dataset changes only with a rebuild of the catalogue, if ever."""


class DirectAccess:
    """The ASGI app of direct access; mount it at ``/source``, outside of compressing middleware.

    Parameters
    ----------
    roots
        Location of each dataset's files; other datasets are 404.
    exists
        Whether the catalogue lists a tile-year: called on the event loop for every request, so it
        must be a look-up in an index. A :class:`TesseraError` that it raises becomes a 503.
    converted
        What the views of single bands read if there is something better than the source.
    in_s3
        Apps that serve roots in S3; requests for other roots are redirected.
    exported
        The URL of a tile-year's exported GeoTIFF, if it has one: these lie anywhere below a root.
    pixels
        What rasters are computed from.
    pool
        Where documents are made.
    """

    def __init__(
        self,
        roots: Iterable[SourceRoot],
        exists: Exists,
        converted: Convert | None = None,
        in_s3: Mapping[str, BucketFiles] | None = None,
        exported: Export | None = None,
        pixels: Pixels | None = None,
        pool: Pool | None = None,
    ) -> None:
        self._pool = pool or Pool("documents", threads=2, waiting=64, seconds=10)
        self._converted = converted
        self._pixels = pixels
        self._limiter: anyio.CapacityLimiter | None = None
        self._exported = exported
        self._in_s3 = in_s3 or {}
        self._roots = {r.dataset.directory: r for r in roots}
        self._exists = exists
        every = [a for r in self._roots.values() for a in (_arrays_root(r), r.landmasks) if a is not None]
        self._files = {root: RangedFiles(root) for root in every if not scheme(root)}
        # a root that no client could read is the operator's mistake: fail now, not at a request
        self._addresses = {root: public_address(root) for root in every if scheme(root)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if not await only_reading(scope, send):
            return
        route = route_path(scope)
        path = visible(route.removesuffix("/"), scope.get("raw_path") or b"")
        named = None if path is None else asked(path, is_folder=route.endswith("/"))
        if named is None and path is not None and await self._is_export(path, scope, receive):
            directory, _, rest = path.partition("/")
            await self._file(self._roots[directory].root, rest, scope, receive, send)
            return
        if named is None:
            await send_not_found(
                scope, send, "expected <dataset>/<year>/<grid>/<grid>.vrt and its sibling files"
            )
            return
        try:
            found = self._find(named)
        except GridError as error:
            await send_not_found(scope, send, str(error))
            return
        except TesseraError as error:
            await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"1")])
            return
        kind = named.kind
        if isinstance(found, str):
            await send_not_found(scope, send, found)
        elif kind in ("planes_label", "planes") and self._local(found) is None:
            await send_not_found(scope, send, "bands are extracted only from files on the server's own disk")
        elif kind == "planes":
            await self._planes(found, scope, receive, send)
        elif kind == "computed" or kind == "computed_vrt":
            await self._computed(found, kind, scope, receive, send)
        elif kind == "landmask":
            await self._landmask(found, scope, receive, send)
        elif kind == "codes" or kind == "scales":
            await self._array(found, kind, scope, receive, send)
        elif kind == "index" and self._local(found) is None:
            # With an index GDAL would not ask for an array's size, and so not learn of the redirect: it
            # would be redirected again for every range.
            await send_not_found(scope, send, "folders of remote files have no index")
        elif kind == "index" and not route.endswith("/"):
            await send_redirect(send, f"{quote(named.grid)}/", VRT_CACHE_CONTROL)
        else:
            await self._generated(found, named, scope, receive, send)

    async def _is_export(self, path: str, scope: Scope, receive: Receive) -> bool:
        """Whether a path is that of a GeoTIFF in an item: nothing else below a root is given."""
        source = self._roots.get(path.partition("/")[0])
        find, ids = self._exported, exports(path)
        if source is None or find is None or _arrays_root(source) is None or not ids:
            return False
        root = scope.get("tessera.root", "")

        def find_all(_: Deadline) -> list[str | None]:
            return [find(source.dataset, item, root) for item in ids]

        hrefs = await self._pool.run(find_all, receive)
        return any(
            href is not None and unquote(urlsplit(href).path).endswith(f"/source/{path}") for href in hrefs
        )

    def _find(self, named: Asked) -> SourceFolder | str:
        """Return the tile-year, or why there is none."""
        source = self._roots.get(named.directory)
        if source is None:
            return f"no dataset '{named.directory[:40]}' here: expected one of {', '.join(self._roots)}"
        tile = TileId.from_name(named.grid)
        if tile.name != named.grid or not self._exists(named.directory, tile.lat_i, tile.lon_i, named.year):
            return f"the catalogue of {named.directory} has no {named.grid} of {named.year}"
        return SourceFolder(source, tile, named.year)

    def _local(self, found: SourceFolder) -> str | None:
        """Return the local folder that a tile-year's arrays lie in; None if they lie elsewhere or nowhere."""
        root = _arrays_root(found.source)
        return self._files[root].root if root in self._files else None

    async def _landmask(self, found: SourceFolder, scope: Scope, receive: Receive, send: Send) -> None:
        """Return a landmask."""
        root = found.source.landmasks
        if root is None:
            directory = found.source.dataset.directory
            await send_not_found(scope, send, f"the location of the landmasks of {directory} is not known")
        else:
            await self._file(root, f"{found.tile.name}.tiff", scope, receive, send)

    async def _array(
        self, found: SourceFolder, role: Role, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Return an array: the published file itself, or one computed from another container."""
        root = _arrays_root(found.source)
        if root is not None:
            path = found.path(".npy" if role == "codes" else "_scales.npy")
            await self._file(root, path, scope, receive, send)
            return
        try:  # a store may have to be opened
            place = await self._pool.run(lambda _: found.place, receive)
        except TesseraError as error:
            await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"1")])
            return
        await respond(
            scope,
            receive,
            send,
            ComputedArray(VirtualArray(place, role)),
            media_type=MEDIA_NPY,
            cache_control=VRT_CACHE_CONTROL,
        )

    async def _computed(
        self, found: SourceFolder, kind: ServedKind, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Return the raster of a tile-year's values, or the view of it."""
        try:
            pixels = await self._pool.run(lambda _: self._readable(found), receive)
        except FileNotFoundError as error:
            await send_not_found(scope, send, f"the source has no {error}")
            return
        except ArrayError as error:
            await send_error(scope, send, 409, "SourceMismatch", str(error))
            return
        except (CatalogError, StorageError, OSError):
            reason = "the source cannot be read at the moment, try again"
            await send_error(scope, send, 503, "Unavailable", reason, [(b"retry-after", b"1")])
            return
        if pixels is None:
            await send_not_found(scope, send, f"{found.tile.name} of {found.year} has no pixels to read here")
            return
        metadata = tessera_metadata(found.source.dataset, found.tile, found.year, pixels.grid)
        raster = ComputedRaster(pixels.place, metadata)
        content: Content = raster
        if kind == "computed_vrt":
            below = f"{found.source.dataset.directory}/{found.path('_computed.tif')}"
            href = f"{scope.get('tessera.root', '')}/source/{below}"
            factors = raster.overviews
            content = Document(computed_vrt(pixels.place.raster, href, metadata, overviews=factors).encode())
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(COMPUTING)
        await respond(
            scope,
            receive,
            send,
            content,
            media_type=media_type(route_path(scope)),
            cache_control=REVALIDATE,
            limiter=self._limiter,
            cut=raster.parts if content is raster else None,
            whole=content is not raster,
        )

    def _readable(self, found: SourceFolder) -> TilePixels | None:
        """Return where a tile-year's pixels are; arrays on the server's disk are checked."""
        item_id = f"{found.tile.name}_{found.year}"
        pixels = self._pixels(found.source.dataset, item_id) if self._pixels is not None else None
        local = self._local(found)
        if pixels is not None and pixels.place.kind == "npy" and local is not None:
            require_pair(found, local)
        return pixels

    async def _file(self, root: str, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Return a source file: by range from a local folder, by redirect otherwise."""
        if root in self._files:
            await self._files[root].serve(path, scope, receive, send)
        elif root in self._in_s3:
            await self._in_s3[root].serve(path, scope, receive, send)
        else:
            await send_redirect(send, f"{self._addresses[root]}/{quote(path)}", REDIRECT_CACHE_CONTROL)

    async def _planes(self, found: SourceFolder, scope: Scope, receive: Receive, send: Send) -> None:
        """Return the codes of a local source, band by band."""
        root, raster = self._files[found.source.root].root, found.tile.raster()
        try:
            offset = await self._pool.run(lambda _: codes_offset(found, raster, root), receive)
            with open_below(root, found.path(".npy")) as content:
                planes = Planes(content, offset, raster.height * raster.width)
                kind = MEDIA_BYTES
                await respond(scope, receive, send, planes, media_type=kind, cache_control=REVALIDATE)
        except FileNotFoundError as error:
            await send_not_found(scope, send, f"the source has no {error}")
        except ArrayError as error:
            await send_error(scope, send, 409, "SourceMismatch", str(error))

    async def _generated(
        self, found: SourceFolder, named: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Return a view, a label or the index."""
        folder = public_path(scope).rpartition("/")[0]
        local = self._local(found)
        try:
            cogs = None
            if named.kind == "band_vrt":
                cogs = await self._pool.run(lambda _: self._cogs(found, scope), receive)
            if cogs is not None:
                metadata = tessera_metadata(found.source.dataset, found.tile, found.year, cogs.grid)
                body = cogs.band_vrt(named.band, metadata)
            elif named.kind == "index" and local is not None:
                body = await self._pool.run(lambda _: index(found, local, folder), receive)
            elif local is not None:  # reads headers: not on the event loop
                body = await self._pool.run(lambda _: document(found, named.kind, named.band, local), receive)
            else:
                body = document(found, named.kind, named.band, None)
        except FileNotFoundError as error:
            await send_not_found(scope, send, f"the source has no {error}")
            return
        except ArrayError as error:
            await send_error(scope, send, 409, "SourceMismatch", str(error))
            return
        except (ContentChangedError, OSError):  # being rewritten, no descriptor left, a failing disk
            reason = "the source cannot be read at the moment, try again"
            await send_error(scope, send, 503, "Unavailable", reason, [(b"retry-after", b"1")])
            return
        kind = media_type("index.html") if named.kind == "index" else media_type(route_path(scope))
        cache_control = VRT_CACHE_CONTROL if local is None else REVALIDATE
        content = Document(body.encode())
        await respond(scope, receive, send, content, media_type=kind, cache_control=cache_control)

    def _cogs(self, found: SourceFolder, scope: Scope) -> Cogs | None:
        """Return the COGs of a tile-year, if there are some."""
        if self._converted is None:
            return None
        item_id = f"{found.tile.name}_{found.year}"
        return self._converted(found.source.dataset, item_id, scope.get("tessera.root", ""))


def _arrays_root(source: SourceRoot) -> str | None:
    """Return what the published arrays themselves lie below; None if they are computed."""
    return source.root if CONTAINERS[source.container].is_arrays else None
