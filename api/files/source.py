"""The raw lane: every tile-year readable by range, before anything is converted.

Upstream's ``.npy`` is an uncompressed array behind a short header, so generated documents let GDAL read
any window of it in place (design, decision 12). GDAL reads an array only from a file beside its
description, so one folder holds both, per tile-year::

    /source/<dataset>/<year>/<grid>/            an index that GDAL reads, where the source is local
                                    <grid>_f32.vrt     embeddings, 128 x Float32   generated
                                    <grid>.vrt         codes, 128 x Int8           generated
                                    <grid>_scales.vrt  scales, Float32             generated
                                    <grid>_b005.vrt    one band, Float32, 0 to 127 generated; it reads
                                    <grid>_scales.xml  labels of the scales        generated
                                    <grid>.xml         and codes                   generated
                                    <grid>_planes.xml      or, where the source is local, of
                                    <grid>_planes.bin      the codes, band after band
                                    <label>.aux.xml    where a label's array lies on the ground
                                    <grid>.npy         codes       } by range where the source is a
                                    <grid>_scales.npy  scales      } local folder, by redirect to
                                    <grid>.tiff        landmask    } where it is published if not

The grid is the tile's formula on the snapped 10 m lattice, where the pixels truly lie (decision 6).
Whether the array has the formula's shape was checked by the builder, against the size that the
manifest states; where the file is local its header is read as well, and what does not fit is
answered with 409 and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Literal
from urllib.parse import quote

import anyio.to_thread
from starlette.types import Receive, Scope, Send

from api.files.bucket import BucketFiles
from api.files.converted import Cogs
from api.files.folder import MEDIA_TYPES, REVALIDATE, RangedFiles, media_type, open_below, visible
from api.files.planes import Planes
from api.files.ranges import (
    ContentChangedError,
    Document,
    Span,
    only_reading,
    public_path,
    respond,
    route_path,
    send_error,
    send_not_found,
    send_redirect,
)
from catalog_builder.errors import ArrayError, GridError, TesseraError
from catalog_builder.raster.label import RawArray, label_sidecar, raw_label
from catalog_builder.raster.npy import LONGEST_HEADER, NPY_HEADER, ArrayHeader, read_header
from catalog_builder.raster.vrt import (
    N_BANDS,
    RAW_STRIP,
    Source,
    band_vrt,
    f32_vrt,
    raw_codes_vrt,
    raw_scales_vrt,
    tessera_metadata,
)
from catalog_builder.storage import https_address
from catalog_builder.storage.where import is_local
from catalog_builder.tile.datasets import Dataset, source_path
from catalog_builder.tile.grid import Raster, TileId

Convert = Callable[[Dataset, str, str], Cogs | None]
"""``convert(dataset, item id, root of the service)``: the COGs of a tile-year, if it is converted."""
Exists = Callable[[str, int, int, int], bool]
"""``exists(dataset directory, lat_i, lon_i, year)``: whether the catalogue lists the tile-year."""

VRT_CACHE_CONTROL = "public, max-age=3600"
"""A view follows from the tile's name; an hour lets a rebuilt catalogue through."""
REDIRECT_CACHE_CONTROL = "public, max-age=3600"
"""Where a dataset is published changes with a rebuild of the catalogue, if ever."""

Kind = Literal[
    "f32_vrt",
    "codes_vrt",
    "scales_vrt",
    "band_vrt",
    "codes_label",
    "scales_label",
    "planes_label",
    "sidecar",
    "planes",
    "codes",
    "scales",
    "landmask",
    "index",
]

SUFFIXES: dict[str, Kind] = {
    "_f32.vrt": "f32_vrt",
    ".vrt": "codes_vrt",
    "_scales.vrt": "scales_vrt",
    ".xml": "codes_label",
    ".xml.aux.xml": "sidecar",
    "_scales.xml": "scales_label",
    "_scales.xml.aux.xml": "sidecar",
    "_planes.xml": "planes_label",
    "_planes.xml.aux.xml": "sidecar",
    "_planes.bin": "planes",
    ".npy": "codes",
    "_scales.npy": "scales",
    ".tiff": "landmask",
}
"""What follows ``<grid>`` in the names of a folder's files, but for the views of single bands."""

_PATH = re.compile(r"([^/]+)/([0-9]{4})/(grid_-?[0-9.]{4,6}_-?[0-9.]{4,5})(?:/\3([a-z0-9_.]+))?")
_BAND = re.compile(r"_b(0[0-9]{2}|1[01][0-9]|12[0-7])\.vrt")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a path names."""

    kind: Kind
    band: int = 0
    """Of ``band_vrt``."""


@dataclass(frozen=True, slots=True)
class SourceRoot:
    """Where one dataset's source files are."""

    dataset: Dataset
    root: str
    """A local folder, or an http(s) or s3 address, above ``<year>/<grid>/<grid>.npy``."""
    landmasks: str | None = None
    """The same for ``<grid>.tiff``; None if there are none."""


@dataclass(frozen=True, slots=True)
class TileYear:
    """One folder of the raw lane."""

    source: SourceRoot
    tile: TileId
    year: int

    def path(self, suffix: str) -> str:
        """Return a source file's path below the dataset's root."""
        return source_path(self.year, self.tile.name, suffix)


def _asked(suffix: str | None, folder: bool) -> Asked | None:
    """Return what a path names, by what follows ``<grid>`` in it; None if nothing of ours."""
    if suffix is None:
        return Asked("index")
    if folder:
        return None
    if band := _BAND.fullmatch(suffix):
        return Asked("band_vrt", int(band[1]))
    kind = SUFFIXES.get(suffix)
    return None if kind is None else Asked(kind)


def public_address(root: str) -> str:
    """Return the http(s) address of a root, which any client can read if its bucket is public.

    >>> public_address("https://example.org/tiles/")
    'https://example.org/tiles'

    Raises
    ------
    ValueError
        If the root is not an http(s) or s3 address.
    """
    root = root.rstrip("/")
    if root.startswith(("http://", "https://")):
        return root
    if not root.startswith("s3://"):
        raise ValueError(f"'{root}' is not an http(s) or s3 address")
    return https_address(root)


class RawLane:
    """The ASGI app of the raw lane; mount it at ``/source``, outside of compressing middleware.

    Parameters
    ----------
    roots
        Where each dataset's files are; a dataset that is not among them is 404.
    exists
        Whether the catalogue lists a tile-year: called on the event loop for every request, so it
        must be a look-up in an index. A :class:`TesseraError` that it raises becomes a 503.
    converted
        What the views of single bands read where there is something better than the source.
    in_s3
        What answers for the files of roots in S3; a root that is not among them is redirected to.
    """

    def __init__(
        self,
        roots: Iterable[SourceRoot],
        exists: Exists,
        converted: Convert | None = None,
        in_s3: Mapping[str, BucketFiles] | None = None,
    ) -> None:
        self._converted = converted
        self._in_s3 = in_s3 or {}
        self._roots = {r.dataset.directory: r for r in roots}
        self._exists = exists
        every = [a for r in self._roots.values() for a in (r.root, r.landmasks) if a is not None]
        self._files = {root: RangedFiles(root) for root in every if is_local(root)}
        # a root that no client could read is the operator's mistake: say so now, not at a request
        self._addresses = {root: public_address(root) for root in every if not is_local(root)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not await only_reading(scope, send):
            return
        route = route_path(scope)
        path = visible(route.removesuffix("/"), scope.get("raw_path") or b"")
        match = None if path is None else _PATH.fullmatch(path)
        asked = None if match is None else _asked(match[4], route.endswith("/"))
        if match is None or asked is None:
            await send_not_found(scope, send, "expected <dataset>/<year>/<grid>/<grid>.vrt and its siblings")
            return
        try:
            found = self._find(match[1], int(match[2]), match[3])
        except GridError as error:
            await send_not_found(scope, send, str(error))
            return
        except TesseraError as error:
            await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"1")])
            return
        kind = asked.kind
        if isinstance(found, str):
            await send_not_found(scope, send, found)
        elif kind in ("planes_label", "planes") and found.source.root not in self._files:
            await send_not_found(scope, send, "bands are cut out only of files on the server's own disk")
        elif kind == "planes":
            await self._planes(found, scope, receive, send)
        elif kind in ("codes", "scales", "landmask"):
            await self._file(found, kind, scope, receive, send)
        elif kind == "index" and found.source.root not in self._files:
            # With an index GDAL would not ask for an array's size, and so not learn of the redirect: it
            # would be redirected anew for every range.
            await send_not_found(scope, send, "folders of files that lie elsewhere have no index")
        elif kind == "index" and not route.endswith("/"):
            await send_redirect(send, f"{quote(match[3])}/", VRT_CACHE_CONTROL)
        else:
            await self._generated(found, asked, scope, receive, send)

    def _find(self, directory: str, year: int, name: str) -> TileYear | str:
        """Return the tile-year, or why there is none."""
        source = self._roots.get(directory)
        if source is None:
            return f"no dataset '{directory[:40]}' here: expected one of {', '.join(self._roots)}"
        tile = TileId.from_name(name)
        if tile.name != name or not self._exists(directory, tile.lat_i, tile.lon_i, year):
            return f"the catalogue of {directory} has no {name} of {year}"
        return TileYear(source, tile, year)

    async def _file(self, found: TileYear, kind: Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a source file: by range from a local folder, by redirect otherwise."""
        if kind == "landmask":
            root, path = found.source.landmasks, f"{found.tile.name}.tiff"
        else:
            root, path = found.source.root, found.path(".npy" if kind == "codes" else "_scales.npy")
        if root is None:
            await send_not_found(
                scope, send, f"the landmasks of {found.source.dataset.directory} are not known"
            )
        elif root in self._files:
            await self._files[root].serve(path, scope, receive, send)
        elif root in self._in_s3:
            await self._in_s3[root].serve(path, scope, receive, send)
        else:
            await send_redirect(send, f"{self._addresses[root]}/{quote(path)}", REDIRECT_CACHE_CONTROL)

    async def _planes(self, found: TileYear, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the codes of a local source, band after band."""
        root, path = self._files[found.source.root].root, found.path(".npy")
        raster = found.tile.raster()
        try:
            offset = await anyio.to_thread.run_sync(self._codes, found, raster)
            with open_below(root, path) as content:
                planes = Planes(content, offset, raster.height * raster.width)
                kind = "application/octet-stream"
                await respond(scope, receive, send, planes, media_type=kind, cache_control=REVALIDATE)
        except FileNotFoundError as error:
            await send_not_found(scope, send, f"the source has no {error}")
        except ArrayError as error:
            await send_error(scope, send, 409, "SourceMismatch", str(error))

    async def _generated(
        self, found: TileYear, asked: Asked, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a view, a label or the index."""
        folder = public_path(scope).rpartition("/")[0]
        try:
            cogs = None
            if asked.kind == "band_vrt":
                cogs = await anyio.to_thread.run_sync(self._cogs, found, scope)
            if cogs is not None:
                metadata = tessera_metadata(found.source.dataset, found.tile, found.year, cogs.grid)
                body = cogs.band_vrt(asked.band, metadata)
            elif found.source.root in self._files:  # reads headers: not on the event loop
                body = await anyio.to_thread.run_sync(self._document, found, asked, folder)
            else:
                body = self._document(found, asked, folder)
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
        kind = MEDIA_TYPES[".html"] if asked.kind == "index" else media_type(route_path(scope))
        cache_control = REVALIDATE if found.source.root in self._files else VRT_CACHE_CONTROL
        document = Document(body.encode())
        await respond(scope, receive, send, document, media_type=kind, cache_control=cache_control)

    def _cogs(self, found: TileYear, scope: Scope) -> Cogs | None:
        """Return the COGs of a tile-year, if there are some."""
        if self._converted is None:
            return None
        item_id = f"{found.tile.name}_{found.year}"
        return self._converted(found.source.dataset, item_id, scope.get("tessera.root", ""))

    def _document(self, found: TileYear, asked: Asked, folder: str) -> str:
        """Return the text of a view or label, or of the index of a folder given by its public path.

        Raises
        ------
        FileNotFoundError
            If the view's source file is not in the local root; the message is its name.
        ArrayError
            If it is there and is not the tile's array.
        """
        kind = asked.kind
        raster = found.tile.raster()
        name = found.tile.name
        metadata = tessera_metadata(found.source.dataset, found.tile, found.year)
        if kind == "index":
            return self._index(found, folder)
        if kind == "sidecar":
            return label_sidecar(raster)
        if kind in ("codes_vrt", "codes_label", "planes_label"):
            array = RawArray(f"{name}.npy", "Int8", N_BANDS, self._codes(found, raster))
            if kind == "codes_vrt":
                return raw_codes_vrt(raster, array, metadata)
            if kind == "planes_label":
                array = replace(array, href=f"{name}_planes.bin", offset=0, planar=True)
            return raw_label(raster, array)
        offset, bands, big_endian = self._scales(found, raster)
        array = RawArray(f"{name}_scales.npy", "Float32", bands, offset, big_endian)
        if kind == "scales_vrt":
            return raw_scales_vrt(raster, array, metadata)
        if kind == "scales_label":
            return raw_label(raster, array)
        self._codes(found, raster)
        if kind == "f32_vrt":
            codes = Source(f"{name}.vrt", "Int8", bands=N_BANDS)
            scales = Source(f"{name}_scales.vrt", "Float32", bands=bands)
            return f32_vrt(raster, codes, scales, metadata, strip=RAW_STRIP)
        scales = Source(f"{name}_scales.xml", "Float32", bands=bands)
        label = "_planes.xml" if found.source.root in self._files else ".xml"
        return band_vrt(raster, Source(f"{name}{label}", "Int8", bands=N_BANDS), scales, asked.band, metadata)

    def _codes(self, found: TileYear, raster: Raster) -> int:
        """Return the offset of the codes, checked where the file is local."""
        header = self._header(found, ".npy")
        if header is None:
            return NPY_HEADER
        header.require("int8", (*raster.shape, N_BANDS))
        return header.offset

    def _scales(self, found: TileYear, raster: Raster) -> tuple[int, int, bool]:
        """Return offset, number of bands and whether the scales are big-endian."""
        header = self._header(found, "_scales.npy")
        if header is None:
            return NPY_HEADER, 1, False
        # upstream's code accepts one scale per pixel, and one per value
        header.require("float32", raster.shape, (*raster.shape, N_BANDS))
        return header.offset, N_BANDS if len(header.shape) == 3 else 1, header.big_endian

    def _header(self, found: TileYear, suffix: str) -> ArrayHeader | None:
        """Return the header of a local file; None where the source is not local."""
        files = self._files.get(found.source.root)
        if files is None:
            return None
        path = found.path(suffix)
        with open_below(files.root, path) as content:
            header = read_header(content.read(Span(0, min(content.size, LONGEST_HEADER))), path)
            header.require_size(content.size)
        return header

    def _index(self, found: TileYear, folder: str) -> str:
        """Return a page that lists the folder, in the form of nginx's.

        GDAL fetches it when it opens a file, unless ``GDAL_DISABLE_READDIR_ON_OPEN`` says otherwise,
        and then asks neither for sidecar files that are not there, nor for sizes that the page states.
        """
        lines = []
        for suffix, kind in SUFFIXES.items():
            date = f"01-Jan-{found.year}"  # GDAL's parser wants one; a view is as old as its subject
            size = "-"
            try:
                if kind == "sidecar" or kind.endswith(("_vrt", "_label")):
                    size = str(len(self._document(found, Asked(kind), folder).encode()))
                elif kind == "planes":
                    height, width = found.tile.raster().shape
                    size = str(height * width * N_BANDS)
                elif kind != "landmask":
                    with open_below(self._files[found.source.root].root, found.path(suffix)) as content:
                        size = str(content.size)
                elif found.source.landmasks is None:
                    continue
            except (FileNotFoundError, ArrayError):
                continue
            name = f"{found.tile.name}{suffix}"
            lines.append(f'<a href="{name}">{name}</a> {date} 00:00 {size:>15}')
        # GDAL takes what a listing does not name for absent
        bands = [f"{found.tile.name}_b{band:03d}.vrt" for band in range(N_BANDS)]
        lines += [f'<a href="{name}">{name}</a> {date} 00:00 {"-":>15}' for name in bands]
        title = f"Index of {escape(folder)}"
        return (
            f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1><hr><pre>\n"
            + "\n".join(lines)
            + "\n</pre><hr></body>\n</html>\n"
        )
