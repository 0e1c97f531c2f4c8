"""A window of the arrays of a Zarr or Icechunk store, read by chunk.

The room :mod:`catalog_builder.stores` is only imported when a store is read: its packages are optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.errors import StoreError
from catalog_builder.pixels.place import Overview, Place, StoreWindow
from catalog_builder.pixels.values import Picked, Quantized, Status
from catalog_builder.pixels.window import Mask, Window
from catalog_builder.storage import Meter
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import TileId

if TYPE_CHECKING:
    from catalog_builder.stores.open import OpenStore
    from catalog_builder.stores.zones import ZoneGroup


def read(
    place: Place, window: Window, mask: Mask, bands: Sequence[int], level: int, meter: Meter
) -> Quantized:
    """Read a window; see :func:`catalog_builder.pixels.read.read_window`.

    Scales that are NaN (water, or nothing embedded) and infinite (land that is not filled yet) become NaN;
    so does what lies outside the group.
    """
    from catalog_builder.stores.chunks import read_array

    opened, group, at = _found(place, window)
    step = 1 << level
    wanted = np.zeros(window.shape, np.bool_)
    wanted[::step, ::step] = mask
    pixels = Quantized.empty(window.shape, N_BANDS if bands else 0)
    read_array(opened, group, "scales", at, wanted, pixels.scales, meter)
    pixels.scales[~np.isfinite(pixels.scales)] = np.nan
    if bands:
        read_array(opened, group, "embeddings", at, wanted, pixels.codes, meter)
    if step > 1:
        pixels = Quantized(pixels.codes[::step, ::step].copy(), pixels.scales[::step, ::step].copy())
    pixels.blank(~mask)
    if not bands or list(bands) == list(range(N_BANDS)):
        return pixels
    return Quantized(pixels.codes[:, :, list(bands)], pixels.scales)


def status(place: Place, window: Window, meter: Meter) -> npt.NDArray[np.uint8]:
    """Return a :class:`Status` for each pixel; see :func:`catalog_builder.pixels.read.read_status`.

    Where a scale that was never written is infinite, NaN is water by the landmask, unless the store says that
    no landmask was used (geotessera 0.11, ``zarr.py``). Otherwise NaN is what was not embedded.
    """
    from catalog_builder.stores.chunks import read_array

    opened, group, at = _found(place, window)
    scales = np.full(window.shape, np.nan, np.float32)
    read_array(opened, group, "scales", at, np.ones(window.shape, np.bool_), scales, meter)
    rows, cols = np.arange(window.height) + at[1], np.arange(window.width) + at[2]
    return _status(opened, group, scales, rows[:, None], cols[None, :])


def pick(
    place: Place,
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    bands: Sequence[int],
    meter: Meter,
) -> Picked:
    """Read single pixels; see :func:`catalog_builder.pixels.read.read_pixels`. Each chunk is read once."""
    from catalog_builder.stores.chunks import pick_array

    opened, group, (time, top, left) = _found(place, Window(0, 0, 1, 1))
    rows, cols = rows + top, cols + left
    pixels = Quantized.empty((1, len(rows)), N_BANDS if bands else 0)
    pick_array(opened, group, "scales", (time, rows, cols), pixels.scales[0], meter)
    found = _status(opened, group, pixels.scales[0], rows, cols)
    pixels.scales[~np.isfinite(pixels.scales)] = np.nan
    if bands:
        wanted = np.isfinite(pixels.scales[0])
        codes = pixels.codes[0, wanted]
        pick_array(opened, group, "embeddings", (time, rows[wanted], cols[wanted]), codes, meter)
        pixels.codes[0, wanted] = codes
        if list(bands) != list(range(N_BANDS)):
            pixels = Quantized(pixels.codes[:, :, list(bands)], pixels.scales)
    return Picked(pixels, found)


def _status(
    opened: OpenStore,
    group: ZoneGroup,
    scales: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """Return the :class:`Status` of pixels with some scales, at rows and columns of a group."""
    from catalog_builder.stores.chunks import layout_of

    is_masked = layout_of(opened, group, "scales").unwritten == np.inf
    is_masked &= bool(opened.attributes.get("geoemb:landmask", True))
    found = np.full(scales.shape, Status.DATA, np.uint8)
    found[scales <= 0] = Status.NODATA
    found[np.isnan(scales)] = Status.WATER if is_masked else Status.NODATA
    found[np.isinf(scales)] = Status.UNFILLED
    found[(rows < 0) | (rows >= group.rows) | (cols < 0) | (cols >= group.cols)] = Status.OUTSIDE
    return found


def cost(place: Place, window: Window, mask: Mask) -> tuple[int, bool]:
    """Return the bytes of the chunks that a window takes, decoded: stored ones are about as many."""
    from catalog_builder.stores.chunks import chunks_touched, layout_of

    opened, group, at = _found(place, window)
    total = 0
    for name in ("embeddings", "scales"):
        layout = layout_of(opened, group, name)
        total += len(chunks_touched(layout, group, at, mask)) * layout.rows * layout.cols * layout.item
    return total, False


def overview(place: Place, level: int) -> Overview:
    """Return every n-th pixel of every n-th row: the arrays have no overviews."""
    return Overview(level, place.raster, 1 << level)


def is_drawable(place: Place) -> bool:
    """Whether a small image takes a small part of it: never, but a local store is near."""
    return not storage.scheme(place.main)


def below(root: str, tile: TileId, year: int) -> Place:
    """Return where a tile-year is in a store.

    Raises
    ------
    StorageError
        If the store cannot be opened, or has no complete year of the tile's zone.
    """
    from catalog_builder.stores.open import opened

    group = opened(root).group_of(tile)
    time = None if group is None else group.time(year)
    if group is None or time is None:
        raise StoreError(f"{root}: has no complete {year} of zone {tile.utm_zone}")
    raster = tile.raster()
    return Place("store", root, None, raster, inside=StoreWindow(group.name, time, *group.position(raster)))


def _found(place: Place, window: Window) -> tuple[OpenStore, ZoneGroup, tuple[int, int, int]]:
    """Return the store, the group, and where the window begins in it."""
    from catalog_builder.stores.open import opened

    inside = place.inside or StoreWindow("", 0, 0, 0)
    opened_store = opened(place.main)
    group = opened_store.groups.get(inside.group)
    if group is None:
        raise StoreError(f"{place.main}: has no group '{inside.group}'")
    if not 0 <= inside.time < len(group.years) or group.years[inside.time] not in group.complete:
        raise StoreError(f"{place.main}: group {group.name} has no complete year with index {inside.time}")
    return opened_store, group, (inside.time, inside.row + window.row, inside.col + window.col)
