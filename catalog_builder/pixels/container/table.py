"""The containers of pixels, one row each: to support another one, write its functions and add its row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog_builder.pixels.container import cog, npy, store
from catalog_builder.pixels.place import ContainerKind, Overview, Place, published_arrays
from catalog_builder.pixels.values import Picked, Pixels
from catalog_builder.pixels.window import Mask, Window
from catalog_builder.raster.vrt import VrtSource
from catalog_builder.storage import Meter
from catalog_builder.tile.grid import TileId

Indices = npt.NDArray[np.int64]
"""Rows or columns of pixels, (n,)."""


@dataclass(frozen=True, slots=True)
class Container:
    """The operations of a container."""

    read: Callable[[Place, Window, Mask, Sequence[int], int, Meter], Pixels]
    """``read(place, window, mask, bands, level, meter)``: pixels of a window, no data outside the mask."""
    pick: Callable[[Place, Indices, Indices, Sequence[int], Meter], Picked]
    """``pick(place, rows, cols, bands, meter)``: single pixels, distinct and row by row."""
    cost: Callable[[Place, Window, Mask], tuple[int, bool]]
    """``cost(place, window, mask)``: the bytes that takes, and whether that is exact."""
    overview: Callable[[Place, int], Overview]
    """``overview(place, level)``: the one that there is, at most the level asked for."""
    is_quantized: bool
    """Whether it contains codes and scales; if not, float32 values."""
    is_drawable: Callable[[Place], bool] = lambda _: True
    """Whether a small image of a tile-year takes a small part of its bytes."""
    sources: Callable[[Place], tuple[VrtSource, ...]] = lambda _: ()
    """The rasters that GDAL reads it from, codes and scales or values; none if only we can read it."""
    below: Callable[[str, TileId, int], Place] | None = None
    """``below(root, tile, year)``: where a tile-year is below the root of its dataset; None if only items
    say where."""
    status: Callable[[Place, Window, Meter], npt.NDArray[np.uint8]] | None = None
    """``status(place, window, meter)``: why pixels have no data, of a container that tells reasons apart."""
    is_arrays: bool = False
    """Whether its two files are the published arrays themselves, byte by byte: direct access then gives
    the files, where it computes arrays from pixels of other containers."""


CONTAINERS: dict[ContainerKind, Container] = {
    "npy": Container(
        npy.read,
        npy.pick,
        npy.cost,
        npy.overview,
        True,
        npy.is_drawable,
        below=published_arrays,
        is_arrays=True,
    ),
    "cog": Container(cog.read_pair, cog.pick_pair, cog.cost, cog.overview, True, sources=cog.sources),
    "float": Container(cog.read_values, cog.pick_values, cog.cost, cog.overview, False, sources=cog.sources),
    "store": Container(
        store.read,
        store.pick,
        store.cost,
        store.overview,
        True,
        store.is_drawable,
        below=store.below,
        status=store.status,
    ),
}


def place_below(root: str, tile: TileId, year: int, container: ContainerKind = "npy") -> Place:
    """Return where a tile-year is below the root of its dataset.

    Raises
    ------
    ValueError
        If that follows from nothing: only items say where COGs are.
    """
    below = CONTAINERS[container].below
    if below is None:
        raise ValueError(f"tile-years in the container '{container}' can only be found through their items")
    return below(root, tile, year)
