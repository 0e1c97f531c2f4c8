"""Sources of images: the files of an item, read in small parts by rio-tiler.

Only the catalogue's own files are opened: a client names an item and bands, never a URL.

======================  ==========================================================================
item                    read
======================  ==========================================================================
converted, no bands     its ``visual`` COG: one or two ranges
converted, three bands  those of its ``embeddings`` and the scales, from the overview that fits
not converted, local    the whole ``.npy`` pair, once: it is stored pixel by pixel, so three bands
                        are as many bytes as all. The image is cached in memory for the next tiles
not converted, remote   nothing: 110 MB for an image; the response says to convert it
======================  ==========================================================================

This module imports titiler and rio-tiler, which takes a second at the first image.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader
from rio_tiler.models import ImageData
from stac_fastapi.types.errors import NotFoundError
from titiler.core.resources.enums import ImageType
from titiler.core.utils import render_image

from api.catalogue.snapshot import AnySnapshot
from api.http.work.waiting import Deadline
from api.pictures.map_tile import TILE, MapTile
from api.pictures.style import Bands, Rescale, Style
from api.request.view import Shown
from api.search.map_links import ITEM_ZOOM
from api.search.render import item_documents
from catalog_builder.catalog.basis import load_basis
from catalog_builder.catalog.folder import COGS
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.convert.encode.colours import (
    Sample,
    colours,
    colours_of_values,
    fit_basis,
    picked_pixels,
)
from catalog_builder.errors import (
    ConvertError,
    MissingFileError,
    QueryError,
    QueryTimeoutError,
    StorageError,
    UnreadableError,
)
from catalog_builder.item.basis import Basis
from catalog_builder.pixels.container.table import CONTAINERS, place_below
from catalog_builder.pixels.place import place_of
from catalog_builder.pixels.read import is_drawable, read_window
from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.pixels.window import Mask
from catalog_builder.raster.gdal import gdal_environment, gdal_path
from catalog_builder.storage import join
from catalog_builder.tile.files import ALL_BANDS, N_BANDS
from catalog_builder.tile.grid import TileId

_KEPT_RAW = 8
"""Cached images of unconverted tiles, 2.5 MB each, 10 MB with selected bands."""
_SAMPLE_TILES = 6
_IN_S3 = Shown(hrefs="s3")
"""Files in S3 are read with the server's own credentials."""
# Codes and scales of one pixel must come from the same pixel: no interpolation.
_NEAREST: dict[str, Any] = {"resampling_method": "nearest", "reproject_method": "nearest"}


class Pictures:
    """Draws items of one snapshot. Safe to share between threads."""

    def __init__(self, snapshot: AnySnapshot, home: str) -> None:
        """Draw items of ``snapshot``, whose catalogue is the folder or the s3 URL ``home``."""
        self._snapshot = snapshot
        self._home = home
        self._folder = Path(home).resolve()
        self._places = (home, *(r.addresses.data for r in snapshot.collections.values()))
        self._raw: OrderedDict[tuple[str, Style], MemoryFile] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        """Held while a raw tile is read: its 110 MB are read once, however many map tiles want it."""

    def preview(self, cid: str, item_id: str, style: Style, max_size: int, deadline: Deadline) -> bytes:
        """Return a PNG of an item, at most ``max_size`` pixels a side.

        Raises
        ------
        NotFoundError
            If there is no such item, or no pixels to draw it from; the message says why.
        QueryError
            If the style does not fit it.
        QueryTimeoutError
            If the deadline passes.
        """

        def read(reader: Reader, **how: Any) -> ImageData:
            return reader.preview(max_size=max_size, **how)

        return _png(self._draw(cid, self._item(cid, item_id), style, read, deadline))

    def tile(self, cid: str, item_id: str, style: Style, at: MapTile, deadline: Deadline) -> bytes:
        """Return a map tile of an item; transparent where it is not. Raises as :meth:`preview`.

        Where the item is smaller than two pixels it is drawn from its bounds.
        """
        item = self._item(cid, item_id)
        if at.z < ITEM_ZOOM:
            return _png(at.mark(TileId.from_name(item["properties"]["tessera:tile"]).bounds))
        try:
            return _png(self._draw(cid, item, style, at.read, deadline))
        except TileOutsideBounds:
            return EMPTY

    def mosaic(self, cid: str, ids: Sequence[str], at: MapTile, deadline: Deadline) -> bytes:
        """Return a map tile of several items' ``visual``; of pixels that two have, the first's."""
        pixels = np.zeros((3, TILE, TILE), np.uint8)
        empty = np.ones((TILE, TILE), np.bool_)
        with gdal_environment(*self._places):
            for item in item_documents(self._snapshot, cid, ids, "", _IN_S3):
                visual = item["assets"].get("visual")
                if visual is None:
                    continue
                deadline.check()
                try:
                    with Reader(self._address(visual["href"])) as reader:
                        found = at.read(reader, indexes=(1, 2, 3))
                except TileOutsideBounds:
                    continue
                new = empty & ~np.ma.getmaskarray(found.array).all(axis=0)
                pixels[:, new] = found.data[:, new]
                empty &= ~new
                if not empty.any():
                    break
        return _png(ImageData(np.ma.MaskedArray(pixels, np.broadcast_to(empty, pixels.shape))))

    # --------------------------------------------------------------------------------- reading

    def _item(self, cid: str, item_id: str) -> dict[str, Any]:
        found = (
            item_documents(self._snapshot, cid, [item_id], "", _IN_S3)
            if cid in self._snapshot.collections
            else []
        )
        if not found:
            raise NotFoundError(f"no item '{item_id[:80]}' in collection '{cid[:80]}'")
        return found[0]

    def _draw(
        self,
        cid: str,
        item: dict[str, Any],
        style: Style,
        read: Callable[..., ImageData],
        deadline: Deadline,
    ) -> ImageData:
        visual = item["assets"].get("visual")
        with gdal_environment(*self._places):
            if style.bands is None and visual is not None:
                with Reader(self._address(visual["href"])) as reader:
                    return read(reader, indexes=(1, 2, 3))
            if item["properties"]["tessera:cog"]:
                return self._bands(item, style, read, deadline)
            with self._raw_reader(cid, item, style, deadline) as reader:
                return read(reader, indexes=(1, 2, 3))

    def _bands(
        self, item: dict[str, Any], style: Style, read: Callable[..., ImageData], deadline: Deadline
    ) -> ImageData:
        """Return three bands of a converted tile, stretched to 0..255."""
        bands = style.bands or (0, 1, 2)  # converted without colours
        rescale = style.rescale or _stretch(item["assets"], bands)
        place = place_of(item)
        sources = () if place is None or not place.is_converted else CONTAINERS[place.kind].sources(place)
        if not sources:
            raise NotFoundError("the item has no COG to render bands from")
        with ExitStack() as stack:
            indexes = (tuple(b + 1 for b in bands), (1,))  # of codes or values, of scales
            found = []
            for source, of in zip(sources, indexes, strict=False):
                deadline.check()
                reader = stack.enter_context(Reader(self._address(source.href)))
                found.append(read(reader, indexes=of, **_NEAREST))
        if len(found) == 1:
            values, hidden = found[0].data, np.ma.getmaskarray(found[0].array).any(axis=0)
        else:
            codes, scales = found
            with np.errstate(invalid="ignore", over="ignore"):
                values = codes.data.astype(np.float32) * scales.data
            hidden = np.ma.getmaskarray(scales.array)[0]
        return _stretched(values, hidden | ~np.isfinite(values).all(axis=0), rescale)

    def _address(self, href: str) -> str:
        """Return where one of the catalogue's files is; an item of ours names it."""
        if not href.startswith("/data/"):
            return gdal_path(href)
        path = (self._folder / href.removeprefix("/data/")).resolve()
        # Links inside the folder may lead anywhere in it, but not out: as the data route has it.
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise NotFoundError("the catalogue lists a file that does not exist")
        return str(path)

    # ------------------------------------------------------------------------------ raw tiles

    @contextmanager
    def _raw_reader(
        self, cid: str, item: dict[str, Any], style: Style, deadline: Deadline
    ) -> Iterator[Reader]:
        record = self._snapshot.collections[cid]
        year = item["properties"]["tessera:year"]
        tile = TileId.from_name(item["properties"]["tessera:tile"])
        key = (f"{cid}/{year}/{tile.name}", style)
        reader = self._kept(key)
        if reader is None:
            if not self._reading.acquire(timeout=max(deadline.left, 0)):
                raise QueryTimeoutError("the server is busy with other images; try again")
            try:
                deadline.check()
                reader = self._kept(key)  # another map tile may have waited for the same
                if reader is None:
                    made = self._raw_picture(record, tile, year, style, deadline)
                    with self._lock:
                        self._raw[key] = made
                        while len(self._raw) > _KEPT_RAW:
                            self._raw.popitem(last=False)[1].close()
                    reader = self._kept(key)
            finally:
                self._reading.release()
        if reader is None:  # pushed out by others at once
            raise QueryTimeoutError("the server is busy with other images; try again")
        with reader:
            yield reader

    def _kept(self, key: tuple[str, Style]) -> Reader | None:
        """Open an image in memory; once open it stays valid, even if it is evicted."""
        with self._lock:
            found = self._raw.get(key)
            if found is None:
                return None
            self._raw.move_to_end(key)
            return Reader(found.name)

    def _raw_picture(
        self, record: CollectionRecord, tile: TileId, year: int, style: Style, deadline: Deadline
    ) -> MemoryFile:
        """Return an unconverted tile's image as a GeoTIFF in memory."""
        found = _read_raw(record, tile, year, style.bands or ALL_BANDS)
        deadline.check()
        if style.bands is None:
            basis = self._basis(record, deadline)
            deadline.check()
            match found:
                case Quantized(codes, scales):
                    pixels = colours(basis, codes, scales).transpose(2, 0, 1)
                case Values(vectors):
                    pixels = colours_of_values(basis, vectors).transpose(2, 0, 1)
        else:
            values = found.dequantized().transpose(2, 0, 1)
            shown = found.scales if isinstance(found, Quantized) else values.sum(axis=0)
            hidden = ~np.isfinite(shown)
            rescale = style.rescale or _spread(values[:, ~hidden])
            image = _stretched(values, hidden, rescale)
            # 0 stands for no data, as in `visual`
            pixels = np.where(np.ma.getmaskarray(image.array), 0, np.maximum(image.data, 1)).astype(np.uint8)
        raster = tile.raster()
        file = MemoryFile(ext=".tif")
        with file.open(
            driver="GTiff",
            dtype="uint8",
            count=3,
            height=raster.height,
            width=raster.width,
            crs=f"EPSG:{raster.epsg}",
            transform=raster.transform,
            nodata=0,
        ) as dataset:
            dataset.write(pixels)
            dataset.build_overviews([2, 4, 8], Resampling.average)
        return file

    def _basis(self, record: CollectionRecord, deadline: Deadline) -> Basis:
        """Return a dataset's colours: those that were stored, or fitted on its first tiles."""

        def make() -> Basis:
            data = record.addresses.data.replace("{root}", "")
            out = join(self._home, COGS) if data.startswith("/data/") else data.rpartition("/")[0]
            if (
                not out.startswith("http")
                and (stored := load_basis(out, record.dataset.directory)) is not None
            ):
                return stored
            samples = []
            for year, tile in self._snapshot.tiles.first_tiles(record.ordinal, _SAMPLE_TILES):
                deadline.check()
                try:
                    vectors = _sampled(record, tile, year)
                except (NotFoundError, UnreadableError):
                    continue
                samples.append(Sample(f"{year}/{tile.name}", record.dataset.directory, vectors))
            return fit_basis(samples)

        try:
            return self._snapshot.once(("basis", record.ordinal), make)
        except ConvertError as error:
            raise NotFoundError(f"no colours for {record.id}: {error}") from error


def _read_raw(
    record: CollectionRecord, tile: TileId, year: int, bands: Sequence[int], mask: Mask | None = None
) -> Pixels:
    """Read an unconverted tile-year, where that takes no more than reading this server's own disk."""
    place = place_below(record.source_root, tile, year, record.container)
    if not is_drawable(place):
        raise NotFoundError(
            f"{tile.name} of {year} is not converted, and its .npy is not on this server: a picture would"
            " take all of its 110 MB. 'tessera-stac convert' makes COGs, which are read in small parts"
        )
    try:
        return read_window(place, None, bands, mask=mask)
    except StorageError as error:
        # the client learns the file's name, but not its location on the server
        root = record.source_root.rstrip("/")
        reason = str(error).replace(f"{root}/", "").replace(f"{root.rpartition('/')[0]}/", "")
        kind = NotFoundError if isinstance(error, MissingFileError) else UnreadableError
        raise kind(f"{tile.name} of {year} cannot be read: {reason}") from error


def _sampled(record: CollectionRecord, tile: TileId, year: int) -> npt.NDArray[np.float32]:
    """Return pixels of an unconverted tile to fit colours on, float32 (n, 128): only these are read."""
    scales = _read_raw(record, tile, year, ())
    if not isinstance(scales, Quantized):
        raise NotFoundError(f"{tile.name} of {year} has no scales, which say what colours are fitted on")
    picked = picked_pixels(scales.scales)
    mask = np.zeros(scales.scales.shape, np.bool_)
    mask.ravel()[picked] = True
    if not len(picked):
        return np.empty((0, N_BANDS), np.float32)
    return _read_raw(record, tile, year, ALL_BANDS, mask).at(*np.unravel_index(picked, mask.shape))


# ---------------------------------------------------------------------------------------- colours


def _stretch(assets: dict[str, Any], bands: Bands) -> Rescale:
    """Return mean -+ 2 standard deviations of bands, from the item's statistics."""
    listed = assets.get("embeddings_f32", {}).get("bands", [])
    if len(listed) != N_BANDS or any("statistics" not in listed[b] for b in bands):
        raise QueryError("this item has no statistics for a default stretch: give rescale=min,max")
    found = (listed[b]["statistics"] for b in bands)
    return tuple((s["mean"] - 2 * s["stddev"], s["mean"] + 2 * max(s["stddev"], 1e-9)) for s in found)


def _spread(values: npt.NDArray[np.float32]) -> Rescale:
    """Return mean -+ 2 standard deviations of some values (3, n)."""
    if not values.shape[1]:
        return ((0.0, 1.0),)
    mean, deviation = values.mean(axis=1, dtype=np.float64), values.std(axis=1, dtype=np.float64)
    return tuple(
        (float(m - 2 * d), float(m + 2 * max(d, 1e-9))) for m, d in zip(mean, deviation, strict=True)
    )


def _stretched(values: npt.NDArray[np.float32], hidden: npt.NDArray[np.bool_], rescale: Rescale) -> ImageData:
    """Return values (3, rows, cols) as colours."""
    limits = rescale if len(rescale) == 3 else rescale * 3
    out = np.zeros(values.shape, np.uint8)
    for colour, band, (low, high) in zip(out, values, limits, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = (band - np.float32(low)) * np.float32(255 / (high - low))
        np.copyto(colour, np.rint(np.clip(np.nan_to_num(scaled), 0, 255)), casting="unsafe")
    return ImageData(np.ma.MaskedArray(out, np.broadcast_to(hidden, out.shape)))


def _png(image: ImageData) -> bytes:
    content, _ = render_image(image, output_format=ImageType.png, zlevel=1)
    return bytes(content)


EMPTY = _png(ImageData(np.ma.MaskedArray(np.zeros((3, TILE, TILE), np.uint8), True)))
"""A transparent map tile."""
