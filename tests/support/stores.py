"""Small stores in both published layouts, of random tiles near the poles, where tiles are narrow.

Shards are small as well. ``tessera-stac sample`` makes stores of the published sizes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.tile.grid import Raster, TileId

NORTH, EAST, SOUTH = (TileId.from_name(n) for n in ("grid_3.05_84.55", "grid_3.15_84.55", "grid_8.05_-84.55"))
"""Two neighbours, whose rasters overlap, and one of the other hemisphere and another zone."""
YEARS = (2023, 2024)
SHARD = 256
FALSE_NORTHING = 10_000_000


@dataclass(frozen=True)
class Stores:
    """The stores, and the pixels that are in them."""

    a: Path
    """Layout ``utm31``: chunks of 32 pixels in shards of 256."""
    b: Path
    """Icechunk, layout ``31N``: chunks of 128 pixels in shards of 256. 2023 is not complete."""
    tiles: Mapping[TileId, tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]]
    """Codes and scales of 2024 as a window of the store gives them: NaN is water."""


def make_stores(folder: Path, arrays: Mapping[TileId, Any] | None = None) -> Stores:
    """Write both stores, tile after tile, so that of an overlap the later tile's pixels are there.

    Without codes and scales of tiles, three random ones.
    """
    import icechunk
    import zarr

    if arrays is None:
        rng = np.random.default_rng(14)
        arrays = {tile: _random(rng, tile.raster()) for tile in (NORTH, EAST, SOUTH)}
    a, b = folder / "zarr", folder / "store.icechunk"
    root = zarr.open_group(a, mode="w-", zarr_format=3)
    root.attrs.update({"geoemb:dimensions": 128})
    _fill(root, arrays, hemispheres=False)
    with warnings.catch_warnings():  # as upstream does, whose readers expect it
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(a)
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(b)))
    session = repository.writable_session("main")
    root = zarr.open_group(session.store, mode="w", zarr_format=3)
    root.attrs.update({"geoemb:dimensions": 128})
    _fill(root, arrays, hemispheres=True)
    session.commit("filled")
    # of the neighbours' overlap the second one's pixels are in the stores
    return Stores(a, b, {t: _as_stored(t, arrays) for t in arrays})


def _random(rng: np.random.Generator, raster: Raster) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    shape = raster.shape
    codes = rng.integers(-127, 128, (*shape, 128), dtype=np.int8)
    scales = rng.gamma(8, 0.008, shape).astype(np.float32)
    scales[40:60, 10:30] = np.nan
    return codes, scales


def _as_stored(tile: TileId, arrays: Mapping[TileId, Any]) -> tuple[Any, Any]:
    """Return a tile's window when all tiles were written one after the other."""
    codes, scales = (array.copy() for array in arrays[tile])
    own = tile.raster()
    later = list(arrays)[list(arrays).index(tile) + 1 :]
    for other in later:
        raster = other.raster()
        if raster.epsg != own.epsg:
            continue
        row, col = _offset(own, raster)
        rows = slice(max(row, 0), max(min(row + raster.height, own.height), 0))
        cols = slice(max(col, 0), max(min(col + raster.width, own.width), 0))
        theirs = (slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col))
        codes[rows, cols], scales[rows, cols] = arrays[other][0][theirs], arrays[other][1][theirs]
    return codes, scales


def _offset(own: Raster, other: Raster) -> tuple[int, int]:
    return (
        round((own.transform.f - other.transform.f) / 10),
        round((other.transform.c - own.transform.c) / 10),
    )


def _fill(root: Any, arrays: Mapping[TileId, Any], *, hemispheres: bool) -> None:
    for zone in sorted({tile.utm_zone for tile in arrays}):
        tiles = [tile for tile in arrays if tile.utm_zone == zone]
        for half in ("N", "S") if hemispheres else ("",):
            some = [t for t in tiles if not half or (t.lat < 0) == (half == "S")]
            if some:
                _fill_zone(root, zone, half, {t: arrays[t] for t in some})


def _fill_zone(root: Any, zone: int, half: str, arrays: Mapping[TileId, Any]) -> None:
    from zarr.codecs import BloscCodec
    from zarr.codecs.numcodecs import PCodec

    epsg = (32700 if half == "S" else 32600) + zone
    places = {t: _corner(t.raster(), epsg) for t in arrays}
    west = math.floor(min(x for x, _ in places.values()) / 10 - 7) * 10
    top = math.ceil(max(y for _, y in places.values()) / 10 + 5) * 10
    right = max(places[t][0] + 10 * t.raster().width for t in arrays)
    bottom = min(places[t][1] - 10 * t.raster().height for t in arrays)
    height, width = (math.ceil(d / 10 / SHARD) * SHARD for d in (top - bottom, right - west))
    group = root.create_group(f"{zone:02d}{half}" if half else f"utm{zone:02d}")
    blosc, n = BloscCodec(cname="zstd", clevel=3), len(YEARS)
    flat: Sequence[str]
    if half:
        flat = ["time", "northing", "easting"]
        codes = group.create_array(
            "embeddings", shape=(n, height, width, 128), chunks=(1, 128, 128, 128),
            shards=(1, SHARD, SHARD, 128), dtype="i1", fill_value=0, compressors=blosc,
            dimension_names=[*flat, "band"],
        )  # fmt: skip
        scales = group.create_array(
            "scales", shape=(n, height, width), chunks=(1, 128, 128), shards=(1, SHARD, SHARD), dtype="f4",
            fill_value=np.float32("nan"), serializer=PCodec(), compressors=None, dimension_names=flat,
        )  # fmt: skip
    else:
        flat = ["time", "y", "x"]
        codes = group.create_array(
            "embeddings", shape=(n, 128, height, width), chunks=(1, 128, 32, 32),
            shards=(1, 128, SHARD, SHARD), dtype="i1", fill_value=0, compressors=blosc,
            dimension_names=["time", "band", "y", "x"],
        )  # fmt: skip
        scales = group.create_array(
            "scales", shape=(n, height, width), chunks=(1, 32, 32), shards=(1, SHARD, SHARD), dtype="f4",
            fill_value=np.float32("inf"), compressors=blosc, dimension_names=flat,
        )  # fmt: skip
    group.create_array("time", shape=(n,), dtype="i4", dimension_names=["time"])[:] = YEARS
    group.attrs.update(
        {
            "proj:code": f"EPSG:{epsg}",
            "spatial:transform": [10.0, 0.0, float(west), 0.0, -10.0, float(top)],
            "spatial:shape": [height, width],
        }
        | ({"years_complete": [2024]} if half else {})
    )
    whole = np.zeros((height, width, 128), np.int8)
    empty = np.full((height, width), np.nan if half else np.inf, np.float32)
    for tile, (x, y) in places.items():
        row, col = round((top - y) / 10), round((x - west) / 10)
        at = (slice(row, row + tile.raster().height), slice(col, col + tile.raster().width))
        whole[at], empty[at] = arrays[tile]
    codes[1] = whole if half else whole.transpose(2, 0, 1)
    scales[1] = empty
    if half:  # a year that is not complete has pixels, which nobody may read
        codes[0], scales[0] = whole, empty


def _corner(raster: Raster, epsg: int) -> tuple[float, float]:
    y = raster.transform.f
    return raster.transform.c, y - FALSE_NORTHING if raster.epsg > 32700 > epsg else y
