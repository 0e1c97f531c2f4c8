"""A plain Zarr v3 store as geotessera 0.11 makes it (``zarr.py``: ``init_store``, ``fill_store``).

One group ``utmNN`` per UTM zone holds both hemispheres on the northern CRS, southern northings being
negative. ``embeddings`` are int8 (time, band, y, x) and ``scales`` float32 (time, y, x), NaN for water and
pixels without a vector, +inf where no tile was filled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder.stores.extent import SHARD, centres, zone_group
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import Written
from catalog_builder.synthetic.stores.mosaic import BLOCK, Mosaic, by
from catalog_builder.synthetic.stores.shard import ShardWriter
from catalog_builder.tile.datasets import SYNTHETIC, dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.zone_arrays import attributes

if TYPE_CHECKING:
    import zarr

CHUNK = 32


def write_zarr(
    store: Path, tiles: Sequence[Written], years: Iterable[int], report: Callable[[int, int], None]
) -> None:
    """Write a store with some tiles.

    Parameters
    ----------
    store
        A folder that does not exist yet.
    tiles
        The tiles, which are the land list as well: they determine how far a zone reaches.
    years
        The time axis.
    report
        Called with (shards written, of how many).
    """
    import zarr

    root = zarr.open_group(store, mode="w-", zarr_format=3)
    root.attrs.update(attributes.root(dataset(SYNTHETIC)))
    axis = sorted(years)
    jobs = []
    for zone, of_zone in by(tiles, lambda w: w.tile.utm_zone):
        place = zone_group(zone, np.array([w.tile.cell for w in of_zone]), axis)
        group = _create_group(root, place)
        for year, of_year in by(of_zone, lambda w: w.year):
            mosaic = Mosaic(place, of_year)
            jobs += [(group, mosaic, axis.index(year), shard) for shard in mosaic.squares(SHARD)]
    for done, (group, mosaic, time, shard) in enumerate(jobs, 1):
        _write_shard(store / group.path, group, mosaic, time, shard)
        report(done, len(jobs))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")  # not in the Zarr v3 standard yet
        zarr.consolidate_metadata(store)


def _create_group(root: zarr.Group, place: ZoneGroup) -> zarr.Group:
    """Create a zone's group with its coordinates and arrays without data."""
    from zarr.codecs import BloscCodec

    group = root.create_group(place.name)
    blosc = BloscCodec(cname="zstd", clevel=3)
    size = (len(place.years), *place.shape)
    x, y = centres(place)
    group.create_array(
        "embeddings",
        shape=(size[0], N_BANDS, *size[1:]),
        chunks=(1, N_BANDS, CHUNK, CHUNK),
        shards=(1, N_BANDS, SHARD, SHARD),
        dtype=np.int8,
        fill_value=0,
        compressors=blosc,
        dimension_names=["time", "band", "y", "x"],
    )
    group.create_array(
        "scales",
        shape=size,
        chunks=(1, CHUNK, CHUNK),
        shards=(1, SHARD, SHARD),
        dtype=np.float32,
        fill_value=np.inf,
        compressors=blosc,
        dimension_names=["time", "y", "x"],
    )
    coordinates: dict[str, npt.NDArray[Any]] = {
        "x": x,
        "y": y,
        "time": np.array(place.years, np.int32),
        "band": np.arange(N_BANDS, dtype=np.int32),
    }
    for dimension, values in coordinates.items():
        array = group.create_array(
            dimension,
            shape=values.shape,
            dtype=values.dtype,
            fill_value=0,
            compressors=blosc,
            dimension_names=[dimension],
        )
        array[:] = values
    group.attrs.update(attributes.grid(place, ("y", "x")))
    return group


def _write_shard(folder: Path, group: zarr.Group, mosaic: Mosaic, time: int, shard: tuple[int, int]) -> None:
    """Write a shard of both arrays."""
    row, col = (n * SHARD for n in shard)
    scales: dict[tuple[int, int], npt.NDArray[np.float32]] = {}  # by block

    def codes(r: int, c: int) -> npt.NDArray[np.int8] | None:
        pixels = mosaic.block(row + r * BLOCK, col + c * BLOCK)
        if pixels is None:
            return None
        known = np.where(pixels.valid & pixels.land, pixels.scales, np.float32(np.nan))
        scales[r, c] = np.where(pixels.covered, known, np.float32(np.inf))[None]
        return pixels.codes.transpose(2, 0, 1)[None]

    place = f"{shard[0]}/{shard[1]}"
    embeddings = folder / f"embeddings/c/{time}/0/{place}"
    embeddings.parent.mkdir(parents=True, exist_ok=True)
    with embeddings.open("wb") as file:
        array = _array(group, "embeddings")
        if not ShardWriter(array, 2, 3).write(file, codes):
            # geotessera takes a shard that is there as one that was filled, whatever is in it.
            nothing = np.zeros((1, N_BANDS, BLOCK, BLOCK), np.int8)
            ShardWriter(array, 2, 3, keep_fill=True).write(file, lambda _r, _c: nothing)
    path = folder / f"scales/c/{time}/{place}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        ShardWriter(_array(group, "scales"), 1, 2).write(file, lambda r, c: scales.get((r, c)))


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    import zarr

    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - created above
    return array
