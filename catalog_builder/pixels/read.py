"""Read a window of a tile-year from any container, and only the selected pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catalog_builder.pixels.container.table import CONTAINERS
from catalog_builder.pixels.place import Overview, Place
from catalog_builder.pixels.values import Picked, Pixels, Quantized, Status, Values, has_data
from catalog_builder.pixels.window import Mask, Window
from catalog_builder.storage import Meter
from catalog_builder.tile.files import ALL_BANDS, N_BANDS

STRIP = 1 << 15
"""Pixels that :func:`read_values` reads at a time, 16 MB of values, unless one row takes more."""


def read_window(
    place: Place,
    window: Window | None = None,
    bands: Sequence[int] = ALL_BANDS,
    *,
    mask: Mask | None = None,
    level: int = 0,
    meter: Meter | None = None,
) -> Pixels:
    """Read the selected pixels of a window.

    Parameters
    ----------
    place
        Location of the tile-year.
    window
        In pixels of the raster of ``level``, see :func:`overview`; None: all of it.
    bands
        Dimensions, counted from 0, in the order of the result; if empty, only scales are read.
    mask
        Bool (rows, columns): the pixels of the window to read; None: all. The
        others are returned as no data, and are not read where that saves bytes.
    level
        0: full resolution; n: the n-th overview, as returned by :func:`overview`.
    meter
        Counts reads and bytes: exactly for arrays, estimated from the file sizes for COGs,
        where GDAL reads.

    Returns
    -------
    Quantized or Values
        (rows, columns, bands): int8 codes and float32 scales, or float32 values.

    Raises
    ------
    ArrayError
        If a ``.npy`` is not the array expected for the tile.
    StorageError
        If a file cannot be read, or does not match its item.
    ValueError
        If the window is outside the raster, or the mask has another shape than the window.
    """
    found = overview(place, level)
    window = window or Window(0, 0, *found.raster.shape)
    if not window.is_within(found.raster.shape):
        raise ValueError(f"{window} is not within a raster of {found.raster.shape} pixels")
    if mask is None:
        mask = np.ones(found.shape(window), np.bool_)
    elif mask.shape != found.shape(window):
        raise ValueError(f"the mask is {mask.shape}, the window {found.shape(window)}")
    return CONTAINERS[place.kind].read(place, window, mask, bands, level, meter or Meter())


def read_values(place: Place, window: Window, level: int = 0) -> npt.NDArray[np.float32]:
    """Read the values of all bands of a window in bounded memory, at any level.

    Parameters
    ----------
    place
        Location of the tile-year.
    window
        In pixels of a raster 2**level times as coarse as full resolution. If the container has no
        such overview, every so many pixels and rows of the nearest finer one are returned.
    level
        0: full resolution.

    Returns
    -------
    numpy.ndarray
        float32 (rows, columns, 128), NaN where there is no data.

    Raises
    ------
    ArrayError, StorageError
        As :func:`read_window`.
    """
    found = overview(place, level)
    coarser = 1 << (level - found.level)
    step = found.step * coarser
    out = np.empty((*window.shape, N_BANDS), np.float32)
    rows = max(1, STRIP // (step * step * window.width))
    for top in range(0, window.height, rows):
        height = min(rows, window.height - top)
        part = Window(
            (window.row + top) * step,
            window.col * step,
            (height - 1) * step + 1,
            (window.width - 1) * step + 1,
        )
        values = read_window(place, part, level=found.level).dequantized()
        out[top : top + height] = values[::coarser, ::coarser]
    return out


def read_status(
    place: Place, window: Window | None = None, *, meter: Meter | None = None
) -> npt.NDArray[np.uint8]:
    """Return why pixels of a window have no data, at full resolution.

    Parameters
    ----------
    place, window, meter
        As of :func:`read_window`.

    Returns
    -------
    numpy.ndarray
        uint8 (rows, columns) of :class:`~catalog_builder.pixels.values.Status`. Arrays and COGs say
        only that there is no data.

    Raises
    ------
    StorageError
        As :func:`read_window`.
    """
    window = window or Window(0, 0, *place.raster.shape)
    status = CONTAINERS[place.kind].status
    if status is not None:
        return status(place, window, meter or Meter())
    found = read_window(place, window, () if is_quantized(place) else (0,), meter=meter)
    is_data = has_data(found.scales) if isinstance(found, Quantized) else np.isfinite(found.values[..., 0])
    return np.where(is_data, Status.DATA, Status.NODATA).astype(np.uint8)


def read_pixels(
    place: Place,
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    bands: Sequence[int] = ALL_BANDS,
    *,
    meter: Meter | None = None,
) -> Picked:
    """Read single pixels, in any order: memory and reads are those of the pixels, not of a window.

    Parameters
    ----------
    place
        Location of the tile-year.
    rows, cols
        Int (n,), at full resolution; a pixel may be asked for several times.
    bands
        Dimensions, counted from 0, in the order of the result; if empty, only what tells where there is data
        is read.
    meter
        As of :func:`read_window`.

    Returns
    -------
    Picked
        (1, n, bands), and why pixels have no data, as :func:`read_status` returns it.

    Raises
    ------
    ArrayError
        If a ``.npy`` is not the array expected for the tile.
    StorageError
        If a file cannot be read, or does not match its item.
    ValueError
        If a pixel is outside the raster.
    """
    height, width = place.raster.shape
    if len(rows) and not (rows.min() >= 0 and cols.min() >= 0 and rows.max() < height and cols.max() < width):
        raise ValueError(f"pixels are not within a raster of {height} x {width}")
    flat, order = np.unique(rows * width + cols, return_inverse=True)
    found = CONTAINERS[place.kind].pick(place, flat // width, flat % width, bands, meter or Meter())
    if isinstance(found.pixels, Quantized):
        pixels: Pixels = Quantized(found.pixels.codes[:, order], found.pixels.scales[:, order])
    else:
        pixels = Values(found.pixels.values[:, order])
    return Picked(pixels, found.status[order])


def cost(place: Place, window: Window, mask: Mask | None = None) -> tuple[int, bool]:
    """Return the number of bytes that :func:`read_window` reads, and whether that is exact."""
    wanted = np.ones(window.shape, np.bool_) if mask is None else mask
    return CONTAINERS[place.kind].cost(place, window, wanted)


def overview(place: Place, level: int) -> Overview:
    """Return an existing overview, at most the requested one.

    Raises
    ------
    StorageError
        If that is said by a file that cannot be read.
    """
    return CONTAINERS[place.kind].overview(place, level) if level else Overview(0, place.raster)


def is_quantized(place: Place) -> bool:
    """Whether it contains codes and scales; if not, float32 values."""
    return CONTAINERS[place.kind].is_quantized


def is_drawable(place: Place) -> bool:
    """Whether a small image of it requires only a small part of its bytes."""
    return CONTAINERS[place.kind].is_drawable(place)
