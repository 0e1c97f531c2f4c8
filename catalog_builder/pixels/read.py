"""Read a window of a tile-year, from any container, and nothing that lies outside of what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catalog_builder.pixels.containers import CONTAINERS
from catalog_builder.pixels.place import Place
from catalog_builder.pixels.values import Pixels
from catalog_builder.pixels.window import Mask, Window
from catalog_builder.storage import Meter
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster

ALL_BANDS = tuple(range(N_BANDS))


def read_window(
    place: Place,
    window: Window | None = None,
    bands: Sequence[int] = ALL_BANDS,
    *,
    mask: Mask | None = None,
    level: int = 0,
    meter: Meter | None = None,
) -> Pixels:
    """Read the wanted pixels of a window.

    Parameters
    ----------
    place
        Where the tile-year is.
    window
        In pixels of ``level``; None is the whole raster.
    bands
        Which dimensions, from 0, in the order wanted.
    mask
        Which pixels of the window are wanted, (height, width); None is all. The others are without
        data, and are not read where that saves bytes.
    level
        0 is full resolution, n the n-th overview, of 2^n pixels a side: one that :func:`overview` found.
    meter
        Counts reads and bytes: exactly for arrays, and estimated from the sizes of the files for COGs,
        where GDAL reads.

    Returns
    -------
    Quantized or Values
        (height, width, bands): int8 codes and float32 scales, or float32 values.

    Raises
    ------
    ArrayError
        If a ``.npy`` is not the array that the tile must have.
    StorageError
        If a file cannot be read, or is not what its item says.
    ValueError
        If the raster does not have the window, or the mask is not the window's.
    """
    if window is None:
        window = Window(0, 0, *overview(place, level)[1].shape)
    if not level and not window.is_within(place.raster.shape):  # of overviews the files say the shape
        raise ValueError(f"{window} is not within a raster of {place.raster.shape} pixels")
    if mask is None:
        mask = np.ones(window.shape, np.bool_)
    elif mask.shape != window.shape:
        raise ValueError(f"the mask is {mask.shape}, the window {window.shape}")
    return CONTAINERS[place.kind].read(place, window, mask, bands, level, meter or Meter())


def cost(place: Place, window: Window, mask: Mask | None = None) -> tuple[int, bool]:
    """Return the bytes that :func:`read_window` takes, and whether that is exact or an estimate."""
    wanted = np.ones(window.shape, np.bool_) if mask is None else mask
    return CONTAINERS[place.kind].cost(place, window, wanted)


def overview(place: Place, level: int) -> tuple[int, Raster]:
    """Return the level of the overview that there is, at most the one asked for, and its raster.

    Raises
    ------
    StorageError
        If that is said by a file that cannot be read.
    """
    return CONTAINERS[place.kind].overview(place, level) if level else (0, place.raster)


def is_quantized(place: Place) -> bool:
    """Whether it holds codes and scales; if not, float32 values."""
    return CONTAINERS[place.kind].is_quantized


def is_drawable(place: Place) -> bool:
    """Whether a small image of it takes a small part of its bytes."""
    return CONTAINERS[place.kind].is_drawable(place)
