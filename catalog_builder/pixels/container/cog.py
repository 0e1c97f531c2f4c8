"""GeoTIFFs, read by block: those that contain a selected pixel, at full resolution or of an overview.

A pair of COGs (int8 codes, float32 scales), or one GeoTIFF of float32 values; a COG's false colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import StorageError
from catalog_builder.pixels.place import Overview, Place
from catalog_builder.pixels.values import NODATA_CODE, Picked, Quantized, Status, Values, has_data
from catalog_builder.pixels.window import Mask, Window, blocks, paste
from catalog_builder.raster.gdal import gdal_environment, gdal_path
from catalog_builder.raster.vrt import VrtSource
from catalog_builder.storage import Meter
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster

if TYPE_CHECKING:
    import rasterio

Indices = npt.NDArray[np.int64]
BLOCK_PIXELS = 128
"""Rows and columns of a block of the COGs that conversion makes, if nothing else is asked for."""
FULL = 0.76
"""Share of a COG's bytes that is full resolution; the rest are its overviews."""
_NAN = np.float32(np.nan)


def read_pair(
    place: Place, window: Window, mask: Mask, bands: Sequence[int], level: int, meter: Meter
) -> Quantized:
    """Read a window of a pair; see :func:`catalog_builder.pixels.read.read_window`."""
    wanted, numbers = (window, mask, level, meter), [b + 1 for b in bands]
    codes = _read(place.main, place.raster, numbers, np.int8(NODATA_CODE), *wanted, place.size)
    # the overview of the scales holds the scale of each overview pixel: the two go together
    scales = _read(place.scales or "", place.raster, [1], _NAN, *wanted, place.scales_size)
    return Quantized(codes, scales[:, :, 0])


def read_values(
    place: Place, window: Window, mask: Mask, bands: Sequence[int], level: int, meter: Meter
) -> Values:
    """Read a window of float32 values; see :func:`catalog_builder.pixels.read.read_window`."""
    numbers = [b + 1 for b in bands]
    return Values(_read(place.main, place.raster, numbers, _NAN, window, mask, level, meter, place.size))


def pick_pair(place: Place, rows: Indices, cols: Indices, bands: Sequence[int], meter: Meter) -> Picked:
    """Read single pixels of a pair; see :func:`catalog_builder.pixels.read.read_pixels`."""
    numbers = [b + 1 for b in bands]
    codes = _pick(place.main, place.raster, numbers, np.int8(NODATA_CODE), rows, cols, meter, place.size)
    scales = _pick(place.scales or "", place.raster, [1], _NAN, rows, cols, meter, place.scales_size)[..., 0]
    status = np.where(has_data(scales[0]), Status.DATA, Status.NODATA).astype(np.uint8)
    return Picked(Quantized(codes, scales), status)


def pick_values(place: Place, rows: Indices, cols: Indices, bands: Sequence[int], meter: Meter) -> Picked:
    """Read single pixels of float32 values; see :func:`catalog_builder.pixels.read.read_pixels`."""
    numbers = [b + 1 for b in bands]
    found = _pick(place.main, place.raster, numbers or [1], _NAN, rows, cols, meter, place.size)
    status = np.where(np.isfinite(found[0, :, 0]), Status.DATA, Status.NODATA).astype(np.uint8)
    return Picked(Values(found if numbers else found[:, :, :0]), status)


def cost(place: Place, window: Window, mask: Mask) -> tuple[int, bool]:
    """Return an estimate of the bytes that a window takes."""
    touched = sum(
        w.height * w.width for w in blocks(window, mask, (BLOCK_PIXELS, BLOCK_PIXELS), place.raster.shape)
    )
    height, width = place.raster.shape
    share = touched / (height * width)
    total = 0
    for size, pixel in (
        (place.size, N_BANDS if place.scales else 4 * N_BANDS),
        (place.scales_size, 4 if place.scales else 0),
    ):
        total += round(share * (size * FULL if size else height * width * pixel))
    return total, False


def overview(place: Place, level: int) -> Overview:
    """Return the overview that a file has, at most the one asked for.

    Raises
    ------
    StorageError
        If the file cannot be read.
    """
    return image_overview(place.main, level)


def image_overview(address: str, level: int) -> Overview:
    """Return the overview that an image has, at most the one asked for."""
    with _opened(address, level) as (dataset, found):
        return Overview(found, Raster(dataset.crs.to_epsg(), dataset.transform, *dataset.shape))


def read_image(address: str, window: Window, level: int) -> npt.NDArray[Any]:
    """Read a window of an image, such as a false colour: (height, width, bands).

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    with _opened(address, level) as (dataset, _):
        return np.moveaxis(dataset.read(window=_raster_window(window)), 0, -1)


def sources(place: Place) -> tuple[VrtSource, ...]:
    """Return what a view of it reads: codes and scales, or values."""
    if place.scales is None:
        return (VrtSource(place.main, "Float32", bands=N_BANDS),)
    return VrtSource(place.main, "Int8", bands=N_BANDS), VrtSource(place.scales, "Float32")


def _read(
    address: str,
    raster: Raster,
    numbers: list[int],
    nodata: np.generic,
    window: Window,
    mask: Mask,
    level: int,
    meter: Meter,
    size: int | None,
) -> npt.NDArray[Any]:
    """Read bands (from 1) of a window: (height, width, bands)."""
    out = np.full((*mask.shape, len(numbers)), nodata, dtype=nodata.dtype)
    if not numbers:
        return out
    with _opened(address, level) as (ds, found):
        if found != level:
            raise StorageError(f"{address}: has {found} overviews, expected {level}")
        _require(ds, address, ds.shape if level else raster.shape, numbers, nodata)
        per_pixel = size * FULL / (raster.height * raster.width) * len(numbers) / ds.count if size else 0.0
        for w in blocks(window, mask, ds.block_shapes[0], ds.shape):
            data = ds.read(numbers, window=_raster_window(w))
            paste(out, window, w, np.moveaxis(data, 0, -1))
            meter.add(round(w.height * w.width * per_pixel))
    out[~mask] = nodata
    return out


def _pick(
    address: str,
    raster: Raster,
    numbers: list[int],
    nodata: np.generic,
    rows: Indices,
    cols: Indices,
    meter: Meter,
    size: int | None,
) -> npt.NDArray[Any]:
    """Read bands (from 1) of single pixels: (1, n, bands). Each block that holds some is read once."""
    out = np.full((1, len(rows), len(numbers)), nodata, dtype=nodata.dtype)
    if not numbers or not len(rows):
        return out
    with _opened(address, 0) as (ds, _):
        _require(ds, address, raster.shape, numbers, nodata)
        per_pixel = size * FULL / (raster.height * raster.width) * len(numbers) / ds.count if size else 0.0
        height, width = ds.block_shapes[0]
        number = rows // height * (raster.width // width + 1) + cols // width
        order = np.argsort(number, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
            top, left = int(rows[at].min()), int(cols[at].min())  # of the block, what is needed
            window = Window(top, left, int(rows[at].max()) - top + 1, int(cols[at].max()) - left + 1)
            data = ds.read(numbers, window=_raster_window(window))
            out[0, at] = data[:, rows[at] - top, cols[at] - left].T
            high = min(height, raster.height - top // height * height)
            wide = min(width, raster.width - left // width * width)
            meter.add(round(high * wide * per_pixel))
    return out


def _require(
    ds: rasterio.DatasetReader, address: str, shape: tuple[int, int], numbers: list[int], nodata: np.generic
) -> None:
    """Reject a raster of another shape or type, or without some bands."""
    if ds.shape != shape or ds.dtypes[0] != nodata.dtype.name:
        raise StorageError(f"{address}: expected {nodata.dtype} {shape}, found {ds.dtypes[0]} {ds.shape}")
    if ds.count < max(numbers):
        raise StorageError(f"{address}: has {ds.count} bands, expected {max(numbers)}")


@contextmanager
def _opened(address: str, level: int) -> Iterator[tuple[rasterio.DatasetReader, int]]:
    """Open a raster at an overview (0: full resolution), or at its smallest if it has fewer."""
    import rasterio
    from rasterio.errors import RasterioError

    path = gdal_path(address)
    try:
        with gdal_environment(address):
            dataset = rasterio.open(path)
            level = min(level, len(dataset.overviews(1))) if level else 0
            if level:
                dataset.close()
                dataset = rasterio.open(path, overview_level=level - 1)
            with dataset:
                yield dataset, level
    except (RasterioError, OSError) as error:
        raise StorageError(f"{address}: cannot be read: {error}") from error


def _raster_window(window: Window) -> Any:
    from rasterio.windows import Window as RasterWindow

    return RasterWindow(window.col, window.row, window.width, window.height)
