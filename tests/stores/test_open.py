"""Stores of both layouts are read by range, locally and on the web; replaced shards are noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from api.files.folder import RangedFiles
from catalog_builder.errors import StorageError, StoreError
from catalog_builder.storage import Meter
from catalog_builder.stores import keys
from catalog_builder.stores.open import Shard, open_store, read_region
from catalog_builder.stores.zones import ZoneGroup
from tests.support.http_server import serve
from tests.support.stores import NORTH, SHARD, SOUTH, Stores

PIXEL = (1, slice(100, 101), slice(30, 31))


def codes_key(kind: str, key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (key[0], slice(None), *key[1:]) if kind == "zarr" else key


@pytest.mark.parametrize("layout", ["a", "b"])
def test_groups_and_windows(stores: Stores, layout: str) -> None:
    """A tile's window of its group has its pixels."""
    store = open_store(str(getattr(stores, layout)))
    names = {"a": ["utm31", "utm32"], "b": ["31N", "32S"]}[layout]
    assert sorted(store.groups) == names
    for tile, (codes, scales) in stores.tiles.items():
        group = store.group_of(tile)
        assert group is not None
        assert group.complete == ((2023, 2024) if layout == "a" else (2024,))
        row, col = group.position(tile.raster())
        rows, cols = slice(row, row + scales.shape[0]), slice(col, col + scales.shape[1])
        assert np.array_equal(
            read_region(store, group.name, "scales", (1, rows, cols)), scales, equal_nan=True
        )
        found = read_region(store, group.name, "embeddings", codes_key(store.kind, (1, rows, cols)))
        assert np.array_equal(found if layout == "b" else found.transpose(1, 2, 0), codes)
    absent = store.group_of(SOUTH.from_name("grid_50.05_10.05"))
    assert absent is None
    assert ZoneGroup.from_json(json.loads(json.dumps(group.as_json()))) == group


@pytest.mark.parametrize("layout", ["a", "b"])
def test_written_shards(stores: Stores, layout: str) -> None:
    store = open_store(str(getattr(stores, layout)))
    group = store.group_of(NORTH)
    assert group is not None
    grid = [(r, c) for r in range(group.rows // SHARD) for c in range(group.cols // SHARD)]
    years = (1,) if layout == "a" else (0, 1)
    # a shard of nothing but fill is not written
    found = set(store.written(group.name))
    assert {s.time for s in found} == set(years)
    assert found <= {Shard(t, r, c) for t in years for r, c in grid}
    scales = read_region(store, group.name, "scales", (1, slice(None), slice(None)))
    for row, col in grid:
        part = scales[row * SHARD : (row + 1) * SHARD, col * SHARD : (col + 1) * SHARD]
        fill = np.isposinf(part) if layout == "a" else np.isnan(part)
        assert (Shard(1, row, col) in found) == (not fill.all())


@pytest.mark.service
def test_a_pixel_is_two_requests_once_the_indexes_are_known(stores: Stores) -> None:
    with serve(RangedFiles(stores.a.parent)) as server:
        store = open_store(f"{server.url}/zarr")
        group = store.group_of(NORTH)
        assert group is not None
        sent = []
        for _ in range(2):
            server.clear()
            meter = Meter()
            read_region(store, group.name, "scales", PIXEL, meter)
            read_region(store, group.name, "embeddings", codes_key("zarr", PIXEL), meter)
            assert meter.requests == server.count("GET")
            sent.append((meter.requests, meter.bytes))
        assert sent[1][0] == 2
        assert sent[1][1] < 128 * 32 * 32 + 4 * 32 * 32 + 2000
        assert sent[0][1] - sent[1][1] >= 2 * (16 * (SHARD // 32) ** 2 + 4)
        with pytest.raises(StorageError, match="cannot be listed"):
            list(store.written(group.name))
        with pytest.raises(StoreError, match="no root group"):
            open_store(f"{server.url}/elsewhere")


def test_neighbouring_chunks_are_one_request(stores: Stores) -> None:
    store = open_store(str(stores.a))
    group = store.group_of(NORTH)
    assert group is not None
    first = codes_key("zarr", PIXEL)
    read_region(store, group.name, "embeddings", first)
    meter = Meter()
    # a whole shard
    read_region(store, group.name, "embeddings", (1, slice(None), slice(0, SHARD), slice(0, SHARD)), meter)
    assert meter.requests == 1


def test_a_replaced_shard_is_never_read_with_the_old_index(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(stores.a, copy)
    store = open_store(str(copy))
    group = store.group_of(NORTH)
    assert group is not None
    key = (1, slice(None), slice(64, 128), slice(0, 64))
    before = read_region(store, group.name, "embeddings", key)
    array = zarr.open_array(copy, path=f"{group.name}/embeddings", mode="r+")
    array[1, :, 0:SHARD, 0:SHARD] = 7  # all chunks elsewhere in the file
    with pytest.raises(StorageError, match="changed while it was being read"):
        read_region(store, group.name, "embeddings", key)
    after = read_region(store, group.name, "embeddings", key)
    assert (after == 7).all()
    assert not (before == 7).all()
    # without a chunk to read, the index is looked at again after a while
    array[1, :, 0:SHARD, 0:SHARD] = 0  # fill: the shard is gone
    monkeypatch.setattr(keys, "FRESH", 0.0)
    assert not read_region(store, group.name, "embeddings", key).any()


def test_a_damaged_chunk_is_an_error(stores: Stores, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(stores.a, copy)
    store = open_store(str(copy))
    group = store.group_of(NORTH)
    assert group is not None
    shard = copy / group.name / "embeddings" / "c" / "1" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    index = 16 * (SHARD // 32) ** 2 + 4
    data[: len(data) - index] = bytes(len(data) - index)
    shard.write_bytes(data)
    with pytest.raises(StorageError, match=r"embeddings cannot be read or decoded"):
        read_region(store, group.name, "embeddings", (1, slice(None), slice(0, 64), slice(0, 64)))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"spatial:transform": [10.0, 0.0, 300005.0, 0.0, -10.0, 5777000.0]}, "multiples of 10 m"),
        ({"spatial:transform": [20.0, 0.0, 300000.0, 0.0, -20.0, 5777000.0]}, "grid of 10 m"),
        ({"proj:code": "EPSG:32632"}, r"EPSG:32632, expected EPSG:32631"),
        ({"spatial:shape": None}, "not the grid of a UTM zone"),
    ],
)
def test_another_lattice_is_refused(attributes: dict[str, Any], reason: str) -> None:
    said = {
        "proj:code": "EPSG:32631",
        "spatial:transform": [10.0, 0.0, 300000.0, 0.0, -10.0, 5777000.0],
        "spatial:shape": [100, 100],
    }
    assert ZoneGroup.of("utm31", said, [2024]).epsg == 32631
    with pytest.raises(StoreError, match=reason):
        ZoneGroup.of("utm31", said | attributes, [2024])
    with pytest.raises(StoreError, match="no 'proj:code'"):
        ZoneGroup.of("utm31", {}, [2024])


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no root group"):
        open_store(str(tmp_path))
    zarr.open_group(tmp_path / "empty", mode="w", zarr_format=3)
    with pytest.raises(StoreError, match="no group of a UTM zone"):
        open_store(str(tmp_path / "empty"))
