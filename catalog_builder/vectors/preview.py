"""A false-colour image of a region and year: PNG, GeoTIFF, or a self-contained web map.

All tiles are coloured by one basis (:mod:`catalog_builder.convert.encode.colours`): the one stored with the
converted tiles, or one fitted to the pixels being drawn. Only the part of a tile in the
region is read, from the matching overview: of its ``visual`` if it has one, otherwise of its
embeddings; of a local ``.npy`` every n-th pixel. Remote arrays are skipped: they have no overviews,
and an image would fetch all of their 110 MB.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.catalog.coverage.page import fill_page
from catalog_builder.console import Progress, no_progress
from catalog_builder.convert.encode.colours import (
    Sample,
    colours,
    colours_of_values,
    fit_basis,
    sample_pixels,
)
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.item.basis import BASIS_FILE, Basis
from catalog_builder.pixels.container.cog import image_overview, read_image
from catalog_builder.pixels.read import is_drawable, overview, read_window
from catalog_builder.pixels.values import Quantized, Values
from catalog_builder.pixels.window import Window
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster
from catalog_builder.vectors.find import TileYear, find
from catalog_builder.vectors.overlay import (
    Rings,
    drawn_over,
    metres_per_degree,
    outside,
    rings_of,
    shape_of,
)

MAX_SIDE = 8192
"""Maximum size in pixels; use `tessera-stac get` for more."""
SUFFIXES = (".png", ".tif", ".tiff", ".html")
_EARTH = 20037508.342789244
"""Half the width of the world in EPSG:3857, metres."""
_AT_A_TIME = 4
_FITTED_ON = 2048
"""Pixels of each tile that a basis is fitted to."""

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Preview:
    """An image in Web Mercator (EPSG:3857), whose pixels are square on any web map."""

    pixels: npt.NDArray[np.uint8]
    """uint8 (rows, cols, 3); 0 where there is no data."""
    bounds: Bounds
    """West, south, east, north in metres of EPSG:3857."""
    dataset: str
    """Title of the dataset."""
    year: int
    tiles: int
    """Number of tiles drawn."""
    left_out: int
    """Number of tiles of the year that are not drawn: they cannot be read in place, or only in full."""
    fitted: bool
    """Whether the colours were fitted to this image: those of another preview may differ."""
    outline: BaseGeometry | None = None
    """The polygons that the image is clipped to, in metres of EPSG:3857; None if they are a box."""

    @property
    def degrees(self) -> Bounds:
        """West, south, east, north in degrees."""
        west, south, east, north = self.bounds
        return (*_lonlat(west, south), *_lonlat(east, north))

    @property
    def transform(self) -> Affine:
        """From column and row to metres of EPSG:3857."""
        height, width, _ = self.pixels.shape
        west, south, east, north = self.bounds
        return Affine((east - west) / width, 0, west, 0, (south - north) / height, north)

    @property
    def metres_per_pixel(self) -> float:
        """Of the ground, in the middle of the image."""
        west, south, east, north = self.degrees
        across: int = self.pixels.shape[1]
        return metres_per_degree((south + north) / 2) * (east - west) / across

    def rings(self) -> Rings:
        """Return the outline of the region as lines, in metres of EPSG:3857."""
        return [] if self.outline is None else rings_of(self.outline, self.bounds, self.transform.a)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The part of a tile that is drawn."""

    source: TileYear
    transform: Affine
    pixels: npt.NDArray[Any]
    """(rows, cols, bands): uint8 colours, int8 codes, or float32 values."""
    scales: npt.NDArray[np.float32] | None = None
    """Of codes, (rows, cols)."""

    @property
    def is_coloured(self) -> bool:
        """Whether it was read from the tile's ``visual``."""
        return self.pixels.dtype == np.uint8

    def sample(self) -> Sample:
        """Return pixels to fit colours on."""
        if self.scales is not None:
            vectors = sample_pixels(self.pixels, self.scales, _FITTED_ON)
        else:
            flat = self.pixels.reshape(-1, N_BANDS)
            flat = flat[np.isfinite(flat).all(axis=1)]
            vectors = flat[:: max(1, len(flat) // _FITTED_ON)][:_FITTED_ON]
        return Sample(self.source.id, self.source.dataset.directory, vectors)

    def coloured(self, basis: Basis | None) -> npt.NDArray[np.uint8]:
        """Return (rows, cols, 3); a basis is needed unless it is coloured already."""
        if basis is None:
            return self.pixels
        if self.scales is None:
            return colours_of_values(basis, self.pixels)
        return colours(basis, self.pixels, self.scales)


def preview(
    catalog: str,
    region: BaseGeometry,
    *,
    years: Collection[int] | None = None,
    dataset: str | None = None,
    size: int = 2048,
    progress: Progress = no_progress,
) -> Preview:
    """Draw a region.

    Parameters
    ----------
    catalog
        A catalogue folder, or the URL of a tessera-stac API.
    region
        The region to draw, OGC:CRS84. The image covers its bounding box, and has no data outside of its
        polygons.
    years
        Years to choose from; the newest of them that the region has is drawn. None: any.
    dataset
        A dataset's directory name or collection id; None: the only one, or the first real one.
    size
        Length of the longer side in pixels; less if the data has no more.

    Raises
    ------
    QueryError
        If the region has nothing to draw, or crosses the antimeridian, or the size is
        beyond the limit.
    CatalogError, DatasetError, StorageError
        If the catalogue or a file cannot be read.
    """
    if not 16 <= size <= MAX_SIDE:
        raise QueryError(f"size must be 16..{MAX_SIDE} pixels, found {size}")
    west, south, east, north = region.bounds
    if east - west > 180:
        raise QueryError("a preview cannot cross the antimeridian: draw the two sides separately")
    listed = find(catalog, region, None if years is None else frozenset(years), dataset)
    found = listed.readable
    if not found:
        has = ", ".join(map(str, sorted({y for _, y in listed.listed})))
        wanted = "any year" if years is None else ", ".join(map(str, sorted(years)))
        raise QueryError(
            f"the catalogue has no tiles of {wanted} in this region that can be read"
            + (f": it lists {has} there" if has else "")
        )
    newest = max(tile.year for tile in found)
    chosen = [tile for tile in found if tile.year == newest]
    drawable = [t for t in chosen if is_drawable(t.place)]
    of_year = sum(y == newest for _, y in listed.tile_years)
    if not drawable:
        raise QueryError(
            f"{len(chosen)} tiles of {newest} are available, but none is converted: an image would fetch"
            " 110 MB of each. Convert them, or use a catalogue whose .npy files are on this machine"
        )
    bounds = _mercator_box(region, drawable)
    ground = 10 / math.cos(math.radians((south + north) / 2))  # a pixel of the data on the map, metres
    step = max((bounds[2] - bounds[0]) / size, (bounds[3] - bounds[1]) / size, ground)
    factor = 1 << max(0, int(math.log2(step / ground)))
    pieces = _read_all(drawable, bounds, factor, progress)
    plain = [piece for piece in pieces if not piece.is_coloured]
    stored = _stored_basis(drawable) if plain else None
    fitted = fit_basis([piece.sample() for piece in plain]) if plain and stored is None else None
    outline = shape_of(region)
    return Preview(
        pixels=_mosaic(pieces, stored or fitted, bounds, step, outline),
        bounds=bounds,
        dataset=drawable[0].dataset.title,
        year=newest,
        tiles=len(drawable),
        left_out=of_year - len(drawable),
        fitted=fitted is not None,
        outline=outline,
    )


def write_preview(picture: Preview, out: Path) -> None:
    """Write an image in the format of the file's suffix, atomically.

    A PNG and a web map show the outline of the region and a scale bar; a GeoTIFF has the pixels alone.

    Raises
    ------
    QueryError
        If the suffix is none of :data:`SUFFIXES`.
    """
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise QueryError(f"{out.name}: expected one of {', '.join(SUFFIXES)}")
    with storage.write_atomic(out) as file:
        if suffix == ".html":
            file.write_text(_page(picture))
        elif suffix == ".png":
            file.write_bytes(_png(_drawn(picture)))
        else:
            _write_geotiff(picture, file)


# ---------------------------------------------------------------------------------------- geometry


def _mercator(lon: float, lat: float) -> tuple[float, float]:
    sine = math.sin(math.radians(max(-85.0, min(85.0, lat))))
    return lon / 180 * _EARTH, math.log((1 + sine) / (1 - sine)) / (2 * math.pi) * _EARTH


def _lonlat(x: float, y: float) -> tuple[float, float]:
    return x / _EARTH * 180, math.degrees(math.atan(math.sinh(y / _EARTH * math.pi)))


def _mercator_box(region: BaseGeometry, tiles: Sequence[TileYear]) -> Bounds:
    """Return the part of the region's box that has tiles, in metres of EPSG:3857."""
    boxes = np.array([t.tile.bounds for t in tiles])
    west, south = np.maximum(region.bounds[:2], boxes[:, :2].min(axis=0))
    east, north = np.minimum(region.bounds[2:], boxes[:, 2:].max(axis=0))
    if west >= east or south >= north:  # a point, or a line: the whole of its tiles
        (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return (*_mercator(float(west), float(south)), *_mercator(float(east), float(north)))


# ----------------------------------------------------------------------------------------- reading


def _read_all(tiles: Sequence[TileYear], bounds: Bounds, factor: int, progress: Progress) -> list[_Piece]:
    """Read what is drawn of each tile; tiles whose raster ends before the region are left out."""
    pieces = []
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        for done, piece in enumerate(pool.map(lambda tile: _read(tile, bounds, factor), tiles), 1):
            progress("reading", done, len(tiles))
            if piece is not None:
                pieces.append(piece)
    if not pieces:
        raise QueryError("no pixel of the tiles lies in this region")
    return pieces


def _read(tile: TileYear, bounds: Bounds, factor: int) -> _Piece | None:
    place, level = tile.place, factor.bit_length() - 1
    found = image_overview(place.visual, level) if place.visual is not None else overview(place, level)
    window = _window(found.raster, bounds)
    if window is None:
        return None
    where = found.transform(window)
    if place.visual is not None:
        return _Piece(tile, where, read_image(place.visual, window, found.level))
    match read_window(place, window, level=found.level):
        case Quantized(codes, scales):
            return _Piece(tile, where, codes, scales)
        case Values(values):
            return _Piece(tile, where, values)


def _window(raster: Raster, bounds: Bounds) -> Window | None:
    """Return the window of a raster that an image shows, with a small margin; None if it is empty."""
    from rasterio.warp import transform_bounds

    left, bottom, right, top = transform_bounds("EPSG:3857", f"EPSG:{raster.epsg}", *bounds)
    t = raster.transform
    col0 = max(math.floor((left - t.c) / t.a) - 2, 0)
    row0 = max(math.floor((t.f - top) / -t.e) - 2, 0)
    col1 = min(math.ceil((right - t.c) / t.a) + 2, raster.width)
    row1 = min(math.ceil((t.f - bottom) / -t.e) + 2, raster.height)
    return Window(row0, col0, row1 - row0, col1 - col0) if col1 > col0 and row1 > row0 else None


def _stored_basis(tiles: Sequence[TileYear]) -> Basis | None:
    """Return the basis that was stored beside converted tiles: ``<dataset>/<year>/<tile>/<file>``."""
    for tile in tiles:
        if not tile.place.is_converted:
            continue
        address = f"{tile.place.main.rsplit('/', 3)[0]}/{BASIS_FILE}"
        try:
            basis = Basis.from_json(storage.read_bytes(address))
        except StorageError:
            return None
        return basis if basis.dataset == tile.dataset.directory else None
    return None


# ----------------------------------------------------------------------------------------- drawing


def _mosaic(
    pieces: Sequence[_Piece],
    basis: Basis | None,
    bounds: Bounds,
    step: float,
    outline: BaseGeometry | None,
) -> npt.NDArray[np.uint8]:
    """Mosaic the tiles, clipped to the region; where two overlap, the first one wins."""
    from rasterio.warp import Resampling, reproject

    # what is a whole number of pixels but for its last digits stays that
    width = max(1, math.ceil((bounds[2] - bounds[0]) / step - 1e-6))
    height = max(1, math.ceil((bounds[3] - bounds[1]) / step - 1e-6))
    across, down = (bounds[2] - bounds[0]) / width, (bounds[3] - bounds[1]) / height
    target = Affine(across, 0, bounds[0], 0, -down, bounds[3])
    out = np.zeros((3, height, width), np.uint8)
    for piece in pieces:
        drawn = np.zeros_like(out)
        reproject(
            np.ascontiguousarray(np.moveaxis(piece.coloured(None if piece.is_coloured else basis), -1, 0)),
            drawn,
            src_transform=piece.transform,
            src_crs=f"EPSG:{piece.source.place.raster.epsg}",
            src_nodata=0,
            dst_transform=target,
            dst_crs="EPSG:3857",
            dst_nodata=0,
            resampling=Resampling.bilinear,
        )
        np.copyto(out, drawn, where=~out.any(axis=0))
    if outline is not None:
        out[:, outside(outline, target, (height, width))] = 0
    return np.moveaxis(out, 0, -1)


def _with_alpha(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    alpha = np.where(pixels.any(axis=2, keepdims=True), np.uint8(255), np.uint8(0))
    return np.concatenate([pixels, alpha], axis=2)


def _drawn(picture: Preview) -> npt.NDArray[np.uint8]:
    """Return an image with what is drawn over it."""
    t = picture.transform
    rings = [(ring - (t.c, t.f)) / (t.a, t.e) for ring in picture.rings()]
    return drawn_over(_with_alpha(picture.pixels), rings, picture.metres_per_pixel)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG", optimize=True)
    return out.getvalue()


def _write_geotiff(picture: Preview, file: Path) -> None:
    import rasterio
    from rasterio.enums import ColorInterp

    height, width, _ = picture.pixels.shape
    with rasterio.open(
        file,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=3,
        height=height,
        width=width,
        crs="EPSG:3857",
        transform=picture.transform,
        nodata=0,
        compress="deflate",
        predictor=2,
        tiled=width >= 256 and height >= 256,
    ) as dataset:
        dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        dataset.write(np.moveaxis(picture.pixels, -1, 0))


def _page(picture: Preview) -> str:
    image = base64.b64encode(_png(_with_alpha(picture.pixels))).decode()
    outline = [[[round(n, 6) for n in _lonlat(x, y)] for x, y in ring.tolist()] for ring in picture.rings()]
    config = {
        "title": picture.dataset,
        "year": picture.year,
        "tiles": picture.tiles,
        "bounds": list(picture.degrees),
        "outline": outline,
        "image": f"data:image/png;base64,{image}",
    }
    return fill_page("preview.html", ("style.css", "map.js", "preview.js"), config)
