"""A store of arrays as a source of a build: its groups, and which tile-years are in it.

What is in it is said, in this order, by a registry of blocks among the sources, by the registry of filled
tiles beside the store and the shards that hold none of them, or by which shards were written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder import storage
from catalog_builder.errors import DatasetError, StorageError
from catalog_builder.item.stored import Store
from catalog_builder.manifests.reading import dataset_of_address
from catalog_builder.stores.open import open_store, public_region
from catalog_builder.stores.written import shard_grid, written_blocks
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import (
    ZONE_COLS,
    ZONE_ROWS,
    BlockGrid,
    published_grid,
)
from catalog_builder.tile.datasets import Dataset

if TYPE_CHECKING:
    from catalog_builder.stores.open import OpenStore

FILLED = "_registry.parquet"
"""Name of the registry of filled tiles that geotessera kept: in ``<store>.build``, or in the store."""
_MODEL = re.compile(r"/model/v?(\d+(?:\.\d+)?)/?$", re.ASCII)


@dataclass(frozen=True)
class StoreSource:
    """A store that was given as a source."""

    store: Store
    opened: OpenStore

    @classmethod
    def open(cls, address: str, dataset: Dataset) -> StoreSource:
        """Open a store of a dataset.

        Raises
        ------
        DatasetError
            If it says that it is of another one.
        StorageError
            If it cannot be opened, is not on the lattice of the tiles, or needs packages that are missing.
        """
        opened = open_store(address)
        said = dataset_of_address(f"{opened.address}/")
        if said is not None and said != dataset:
            raise DatasetError(
                f"{address}: is of dataset {said.directory}, not {dataset.directory}: choose with --dataset"
            )
        model = _MODEL.search(str(opened.attributes.get("geoemb:model", "")))
        if model is not None and not _same_version(model[1], dataset.version):
            raise DatasetError(
                f"{address}: holds embeddings of model {model[1]}, not of dataset {dataset.directory}"
                f" (version {dataset.version}): choose with --dataset"
            )
        store = Store(
            storage.absolute(opened.address),
            opened.kind,
            tuple(sorted(opened.groups.values(), key=lambda g: g.name)),
            json.dumps({k: v for k, v in opened.attributes.items() if k.startswith("geoemb:")}),
            json.dumps(storage_options(opened.address)),
            consolidated=opened.kind == "zarr" and _is_consolidated(opened.address),
        )
        return cls(store, opened)

    def registry(self) -> str | None:
        """Return the address of the registry of filled tiles beside a Zarr store; None if there is none."""
        if self.store.kind != "zarr":
            return None
        beside = (f"{self.opened.address}.build/{FILLED}", storage.join(self.opened.address, FILLED))
        return next((address for address in beside if _exists(address)), None)

    def shards(self) -> Iterator[pa.Table]:
        """Yield the shards of ``scales`` that were written, group by group, as blocks.

        Raises
        ------
        StorageError
            If the store cannot be listed, with what to give instead.
        """
        for group in self.store.groups:
            try:
                yield written_blocks(self.opened, group)
            except StorageError as error:
                if storage.scheme(self.opened.address) not in ("http", "https"):
                    raise
                raise StorageError(
                    f"{self.opened.address}: which tiles are in it cannot be seen, since the web lists no"
                    f" folders and there is no {FILLED} beside it: give its s3:// address instead, or the"
                    " registry of its blocks as a further source"
                ) from error

    def shards_without(self, tiles: Iterable[pa.Table]) -> list[pa.Table]:
        """Return those of :meth:`shards` in which none of some tile-years of the store lies.

        Raises
        ------
        StorageError
            As :meth:`shards`.
        """
        grids = {group.epsg: self.grid_of(group.epsg) for group in self.store.groups}
        touched = np.unique(
            np.concatenate([*(self._touched(t, grids) for t in tiles), np.zeros(0, np.int64)])
        )
        found = []
        for table in self.shards():
            epsg, year, row, col = (table[name].to_numpy() for name in ("epsg", "year", "row", "col"))
            others = ~np.isin(_key(epsg, year, row, col), touched)
            if others.any():
                found.append(table.filter(pa.array(others)))
        return found

    def _touched(self, tiles: pa.Table, grids: Mapping[int, BlockGrid]) -> npt.NDArray[np.int64]:
        """Return the keys of the shards that tile-years lie in."""
        row, col = grid.of_centres(tiles["lat_i"].to_numpy(), tiles["lon_i"].to_numpy())
        year = tiles["year"].to_numpy().astype(np.int64)
        windows, raster = self.store.windows(row, col, year), grid.rasters(row, col)
        epsg = np.array([*(g.epsg for g in self.store.groups), 0])[windows.group]
        side = np.array([*(grids[g.epsg].side for g in self.store.groups), 1])[windows.group]
        first = windows.row // side, windows.col // side
        last = (windows.row + raster.height - 1) // side, (windows.col + raster.width - 1) // side
        keys = [np.zeros(0, np.int64)]
        for down in range(int((last[0] - first[0]).max(initial=-1)) + 1):
            for across in range(int((last[1] - first[1]).max(initial=-1)) + 1):
                r, c = np.minimum(first[0] + down, last[0]), np.minimum(first[1] + across, last[1])
                known = (windows.group >= 0) & (r >= 0) & (c >= 0)
                keys.append(_key(epsg[known], year[known], r[known], c[known]))
        return np.unique(np.concatenate(keys))

    def grid_of(self, epsg: int) -> BlockGrid:
        """Return the grid of a group's shards."""
        group = next(g for g in self.store.groups if g.epsg == epsg)
        return shard_grid(self.opened, group)


def published_store(dataset: Dataset, zone_years: Iterable[tuple[int, int]]) -> Store:
    """Return the store beside which a registry of blocks is published, as its publisher describes it.

    Parameters
    ----------
    dataset
        Whose store.
    zone_years
        EPSG codes and years of the registry's parts: a part is written when a zone-year is complete.

    Raises
    ------
    DatasetError
        If the dataset has none.
    """
    if dataset.icechunk is None:
        raise DatasetError(
            f"a registry of blocks says what is in a store, and none of dataset {dataset.directory} is known:"
            " give the address of the store as a further source"
        )
    years: dict[int, list[int]] = {}
    for epsg, year in sorted(zone_years):
        years.setdefault(epsg, []).append(year)
    every = tuple(range(dataset.years[0], dataset.years[1] + 1))
    groups = []
    for epsg, complete in years.items():
        of, south = published_grid(epsg), epsg // 100 == 327
        name = f"{epsg % 100:02d}{'S' if south else 'N'}"
        groups.append(
            ZoneGroup(name, epsg, of.west, of.top, ZONE_ROWS[south], ZONE_COLS, every, tuple(complete))
        )
    options = json.dumps(storage_options(dataset.icechunk))
    return Store(dataset.icechunk, "icechunk", tuple(sorted(groups, key=lambda g: g.name)), "{}", options)


def in_groups(store: Store, tiles: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which tile-years are windows of a store: of complete years, and not outside of the group."""
    row, col = grid.of_centres(tiles["lat_i"].to_numpy(), tiles["lon_i"].to_numpy())
    windows = store.windows(row, col, tiles["year"].to_numpy().astype(np.int64))
    raster = grid.rasters(row, col)
    shapes = np.array([*(g.shape for g in store.groups), (0, 0)], np.int64)[windows.group]
    inside = (windows.row < shapes[:, 0]) & (windows.col < shapes[:, 1])
    inside &= (windows.row + raster.height > 0) & (windows.col + raster.width > 0)
    found: npt.NDArray[np.bool_] = (windows.group >= 0) & (windows.time >= 0) & inside
    return found


def storage_options(address: str) -> dict[str, Any]:
    """Return how fsspec reaches a store: nothing to say of local ones and of the web."""
    if storage.scheme(address) != "s3":
        return {}
    bucket, _ = storage.bucket_key(address)
    settings = storage.S3Settings.from_environment()
    if (region := public_region(bucket, settings)) is not None:
        return {"anon": True, "client_kwargs": {"region_name": region}}
    published = storage.published_address(address)
    if published is not None:
        endpoint = published.partition(f"/{bucket}")[0]
        return {"anon": True, "endpoint_url": endpoint}
    return {
        **({"anon": True} if settings.anonymous else {}),
        **({"endpoint_url": settings.endpoint} if settings.endpoint else {}),
        **({"requester_pays": True} if settings.requester_pays else {}),
    }


def _key(epsg: Any, year: Any, row: Any, col: Any) -> npt.NDArray[np.int64]:
    """Return one integer per shard."""
    high = np.asarray(epsg, np.int64) << 11 | np.asarray(year, np.int64)
    key: npt.NDArray[np.int64] = (high << 16 | np.asarray(row, np.int64)) << 16 | np.asarray(col, np.int64)
    return key


def _exists(address: str) -> bool:
    """Return whether there is a file; not, too, where that may not be asked."""
    try:
        return storage.exists(address)
    except StorageError:
        return False


def _same_version(a: str, b: str) -> bool:
    return (a if "." in a else f"{a}.0") == b


def _is_consolidated(address: str) -> bool:
    root: Any = json.loads(storage.read_bytes(storage.join(address, "zarr.json")))
    return bool(root.get("consolidated_metadata"))
