"""What upstream's ``zarr-fill`` writes for a window of a tile-year (geotessera 0.11, ``zarr.py``).

Codes are as published. A scale is NaN where the landmask says water, and where it is none of an embedding:
not finite, not positive, or not below 1. Three things that its ``.npy`` tiles never show are added: pixels
of a store that says that they were not filled are not filled here either (+inf), codes where a converted
tile has no data are 0, the arrays' fill value, and float32 values become codes and scales again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog_builder.convert.encode.quantize import quantize, recover, trusted_mask
from catalog_builder.errors import StorageError
from catalog_builder.pixels.container.table import CONTAINERS
from catalog_builder.pixels.place import Place
from catalog_builder.pixels.read import is_quantized, read_window
from catalog_builder.pixels.values import Quantized, Status, Values
from catalog_builder.pixels.window import Window
from catalog_builder.storage import Meter
from catalog_builder.tile.files import ALL_BANDS

UNFILLED = np.float32(np.inf)
"""Scale where no tile is, or no pixel of it."""
Landmask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileSource:
    """Where the pixels of a tile-year come from."""

    place: Place
    landmask: str | None = None
    """Path or URL of its landmask; None if there is none, or if it counts already."""

    @property
    def needs_landmask(self) -> bool:
        """Whether its pixels are not masked yet: those of stores and of converted tiles are."""
        return self.landmask is not None and not self.place.is_converted and self.place.kind != "store"


def filled(
    source: TileSource, window: Window, *, with_codes: bool = True, land: Landmask | None = None
) -> Quantized:
    """Return codes and scales of a window as upstream fills them in.

    Parameters
    ----------
    source
        The tile-year.
    window
        In pixels of its raster.
    with_codes
        Whether codes are wanted: otherwise none are returned, and where possible none read.
    land
        Bool (rows, columns) of the window: False on water; None: all is land.

    Returns
    -------
    Quantized
        int8 (rows, columns, 128 or 0), and float32 (rows, columns): finite where there is data, NaN where
        there is none, +inf where nothing was filled in.

    Raises
    ------
    ArrayError, StorageError
        As :func:`catalog_builder.pixels.read.read_window`.
    """
    place = source.place
    bands = ALL_BANDS if with_codes or not is_quantized(place) else ()
    found = read_window(place, window, bands)
    pixels = _quantized(found) if isinstance(found, Values) else found
    codes, scales = pixels.codes, pixels.scales.copy()
    if place.kind not in ("npy", "store"):
        codes[~np.isfinite(scales)] = 0
    if land is not None:
        scales[~land] = np.nan
    scales[~trusted_mask(scales)] = np.nan
    status = CONTAINERS[place.kind].status
    if status is not None:
        scales[status(place, window, Meter()) >= Status.UNFILLED] = UNFILLED
    return Quantized(codes if with_codes else codes[:, :, :0], scales)


def _quantized(found: Values) -> Quantized:
    """Return codes and scales of values: those that they were made from, or upstream's for them."""
    recovery = recover(found.values)
    codes, scales = recovery.codes, recovery.scales
    lost = ~np.isfinite(scales)
    codes[lost], scales[lost] = quantize(found.values[lost])
    return Quantized(codes, scales)


def read_land(address: str, shape: tuple[int, int]) -> Landmask:
    """Read a landmask, bool (rows, columns), False on water.

    Parameters
    ----------
    address
        Path or URL of the GeoTIFF.
    shape
        Of the tile.

    Raises
    ------
    StorageError
        If it cannot be read, or is not the tile's.
    """
    from catalog_builder.pixels.container.cog import image_overview, read_image

    found = image_overview(address, 0).raster.shape
    if found != shape:
        raise StorageError(f"{address}: {found[0]} x {found[1]} pixels, the tile has {shape[0]} x {shape[1]}")
    land: Landmask = read_image(address, Window(0, 0, *shape), 0)[:, :, 0] != 0
    return land
