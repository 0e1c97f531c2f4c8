"""Which shards of a store were written, as blocks of pixels, and which tile-years have data in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.storage import Meter
from catalog_builder.stores.chunks import read_array
from catalog_builder.stores.open import OpenStore
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import BLOCK_SCHEMA, BlockGrid, order_of_neighbours, tiles_in_blocks
from catalog_builder.tile.grid import TileId

Keeps = Callable[[npt.NDArray[np.int16], npt.NDArray[np.int16]], npt.NDArray[np.bool_] | None]
"""``keeps(lat_i, lon_i)``: which tiles are wanted; None: all."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The tile-years of a store that have data."""

    tiles: tuple[tuple[TileId, int], ...]
    """With their years, neighbours one after the other."""
    empty: int
    """Number of tile-years in written shards without a pixel of data."""
    edges: int
    """Number of those whose only data is in the corners of their rasters that are other tiles'."""


def written_blocks(store: OpenStore, group: ZoneGroup) -> pa.Table:
    """Return the shards of ``scales`` of a group that were written, as blocks.

    Returns
    -------
    pyarrow.Table
        :data:`~catalog_builder.tile.blocks.BLOCK_SCHEMA`, on the grid of :func:`shard_grid`.

    Raises
    ------
    StorageError
        If the store cannot be listed, as on the web.
    """
    found = np.array(list(store.written(group.name)), np.int64).reshape(-1, 3)
    found = found[found[:, 0] < len(group.years)]
    n = len(found)
    return pa.table(
        {
            "epsg": pa.array(np.full(n, group.epsg, np.int32)),
            "year": pa.array(np.array(group.years)[found[:, 0]].astype(np.int16)),
            "row": pa.array(found[:, 1].astype(np.int32)),
            "col": pa.array(found[:, 2].astype(np.int32)),
            "embedded": pa.repeat(True, n),
            "refused_px": pa.nulls(n, pa.int32()),
            "assembled_at": pa.array(np.zeros(n, np.int64)).cast(BLOCK_SCHEMA.field("assembled_at").type),
        },
        schema=BLOCK_SCHEMA,
    )


def shard_grid(store: OpenStore, group: ZoneGroup) -> BlockGrid:
    """Return the grid of a group's shards."""
    array = store.array(group.name, "scales")
    side = int((array.shards or array.chunks)[-1])
    return BlockGrid(group.epsg, group.west, group.top, side, both=group.name.startswith("utm"))


def filled_tiles(store: OpenStore, years: Collection[int] | None, keeps: Keeps) -> Filled:
    """Return which tile-years have data: all scales of tiles in written shards are read, 3 % of the pixels.

    A tile's raster is larger than the tile, which is no rectangle on the ground: data in the largest
    rectangle within the tile are its own.

    Parameters
    ----------
    store
        Which.
    years
        Those wanted; None: all that are complete.
    keeps
        Which tiles are wanted.

    Raises
    ------
    StorageError
        If the store cannot be listed or read.
    """
    wanted: list[tuple[ZoneGroup, int, TileId]] = []
    for group in store.groups.values():
        of = shard_grid(store, group)
        blocks = written_blocks(store, group)
        rows, cols = of.tiles()
        row, col = (a.ravel() for a in np.mgrid[rows, cols])
        mask = keeps(*grid.centres(row, col))
        every = grid.cells(row, col) if mask is None else grid.cells(row[mask], col[mask])
        for year in group.complete:
            if years is not None and year not in years:
                continue
            some = blocks.filter(pa.array(blocks["year"].to_numpy() == year))
            if some.num_rows and len(every):
                inside, _ = tiles_in_blocks(some, of, every)
                wanted += [
                    (group, year, TileId.from_cell(int(c))) for c in inside[order_of_neighbours(inside)]
                ]
    with ThreadPoolExecutor(8 if storage.scheme(store.address) else 1) as pool:
        found = list(pool.map(lambda one: _has_data(store, *one), wanted))
    return Filled(
        tuple((tile, year) for (_, year, tile), has in zip(wanted, found, strict=True) if has == "own"),
        found.count("none"),
        found.count("edges"),
    )


def _has_data(store: OpenStore, group: ZoneGroup, year: int, tile: TileId) -> str:
    """Say whether a tile-year has data of its ``own``, at its ``edges`` only, or ``none``."""
    raster, time = tile.raster(), group.time(year)
    if time is None:
        return "none"
    scales = np.full(raster.shape, np.nan, np.float32)
    row, col = group.position(raster)
    read_array(store, group, "scales", (time, row, col), np.ones(raster.shape, np.bool_), scales, Meter())
    valid = np.isfinite(scales) & (scales > 0)
    if not valid.any():
        return "none"
    return "own" if valid[_inner(tile)].any() else "edges"


def _inner(tile: TileId) -> tuple[slice, slice]:
    """Return rows and columns of the largest upright rectangle of a tile's raster within the tile."""
    raster, bounds = tile.raster(), tile.bounds
    x, y = _corners(raster.epsg, bounds)
    west, east = max(x[0], x[2]), min(x[1], x[3])
    south, north = max(y[2], y[3]), min(y[0], y[1])
    t = raster.transform
    rows = slice(max(math.ceil((t.f - north) / 10), 0), math.floor((t.f - south) / 10))
    cols = slice(max(math.ceil((west - t.c) / 10), 0), math.floor((east - t.c) / 10))
    return rows, cols


def _corners(epsg: int, bounds: grid.Bounds) -> tuple[list[float], list[float]]:
    """Return x and y of the north-western, north-eastern, south-western and south-eastern corner."""
    w, s, e, n = bounds
    x, y = _projection(epsg).transform([w, e, w, e], [n, n, s, s])
    return list(x), list(y)


@cache
def _projection(epsg: int) -> Any:
    from pyproj import Transformer  # 0.1 s to import: only when it is needed

    return Transformer.from_crs(4326, epsg, always_xy=True)
