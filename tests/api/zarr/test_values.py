"""Pixels of the zones' arrays, of every container: against stores that geotessera fills, and numpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from api.app import create_app
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import Written
from catalog_builder.tile.grid import TileId
from tests.support.catalogs import build_from
from tests.support.containers import YEAR, Contained
from tests.support.http_server import serve
from tests.support.sample_stores import SampleStores
from tests.support.zone_arrays import Served, stored

pytestmark = pytest.mark.service
TIME = 7
"""Of 2024 on the time axis from 2017 on."""


@pytest.fixture(scope="module")
def of_tiles(sample_stores: SampleStores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the sample's .npy files, of two zones and hemispheres, three of them overlapping."""
    catalog = tmp_path_factory.mktemp("zarr") / "catalog"
    build_from(
        catalog, sample_stores.npy.root, dataset="synthetic", landmask_root=str(sample_stores.npy.landmasks)
    )
    with serve(create_app(catalog)) as server:
        yield Served(f"{server.url}/zarr/synthetic")


def group_of(served: Served, name: str) -> ZoneGroup:
    about = served.document("zarr.json")["consolidated_metadata"]["metadata"][name]["attributes"]
    return ZoneGroup.of(name, about, range(2017, 2026))


def windows(served: Served, tiles: list[TileId]) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield the group of each tile, and its window there with the pixels around it."""
    for tile in tiles:
        name = f"utm{tile.utm_zone:02d}"
        group = group_of(served, name)
        raster = tile.raster()
        row, col = (max(n - 40, 0) for n in group.position(raster))
        yield name, (row, col, raster.height + 80, raster.width + 80)


def test_all_is_as_in_the_store_that_geotessera_fills(of_tiles: Served, sample_stores: SampleStores) -> None:
    """Grid, coordinates and every pixel of tiles and around them, water and gaps included.

    tests/synthetic compares that store with geotessera's own, to the byte.
    """
    store = zarr.open_group(sample_stores.zarr.store, mode="r")
    bulk = Served(f"{of_tiles.url}/bulk")
    mine = of_tiles.document("zarr.json")
    theirs = {k: v for k, v in store.attrs.items() if k not in ("tessera:build",)}
    assert {k: v for k, v in mine["attributes"].items() if k != "tessera:build"} == theirs
    assert {name for name in mine["consolidated_metadata"]["metadata"] if "/" not in name} == {
        "utm33",
        "utm34",
    }
    for name in ("utm33", "utm34"):
        assert of_tiles.document(f"{name}/zarr.json")["attributes"] == dict(store[name].attrs)
    seen: dict[str, int] = {}
    for name, window in windows(of_tiles, [written.tile for written in sample_stores.npy.written]):
        codes, scales = bulk.window(name, TIME, *window)
        expected_codes, expected_scales = stored(sample_stores.zarr.store, name, TIME, *window)
        np.testing.assert_array_equal(scales, expected_scales)
        np.testing.assert_array_equal(codes, expected_codes)
        for kind, count in (("data", np.isfinite), ("water", np.isnan), ("unfilled", np.isinf)):
            seen[kind] = seen.get(kind, 0) + int(count(scales).sum())
    assert min(seen.values()) > 1000, seen


def test_both_sizes_of_chunks_have_the_same_pixels(of_tiles: Served, sample_stores: SampleStores) -> None:
    """Cells are cut otherwise than whole windows: at tiles' edges, too."""
    bulk = Served(f"{of_tiles.url}/bulk")
    for name, (row, col, _, width) in windows(of_tiles, [w.tile for w in sample_stores.npy.written]):
        for top in (row, row + 500):
            codes, scales = of_tiles.window(name, TIME, top, col, 100, width)
            expected_codes, expected_scales = bulk.window(name, TIME, top, col, 100, width)
            np.testing.assert_array_equal(codes, expected_codes)
            np.testing.assert_array_equal(scales, expected_scales)


def test_metadata_is_upstreams_without_shards(of_tiles: Served, sample_stores: SampleStores) -> None:
    mine = of_tiles.document("zarr.json")["consolidated_metadata"]["metadata"]
    root = zarr.open_group(sample_stores.zarr.store, mode="r").metadata.to_dict()
    theirs: dict[str, Any] = root["consolidated_metadata"]["metadata"]
    arrays = [name for name in mine if "/" in name]
    assert (
        sorted(arrays)
        == sorted(
            f"{g}/{a}" for g in theirs for a in theirs[g].get("consolidated_metadata", {}).get("metadata", {})
        )
        or len(arrays) == 12
    )
    for name in arrays:
        assert of_tiles.document(f"{name}/zarr.json") == mine[name]
        own = zarr.open_array(sample_stores.zarr.store, path=name, mode="r")
        about = own.metadata.to_dict()
        for key in (
            "shape",
            "fill_value",
            "dimension_names",
            "node_type",
            "attributes",
            "chunk_key_encoding",
        ):
            expected = list(about[key]) if key in ("shape", "dimension_names") else about[key]
            found = mine[name][key]
            assert found == expected or (found == "Infinity" and expected == np.inf), (name, key)
        assert mine[name]["data_type"] == str(own.dtype)
        if own.chunks != own.shape and own.ndim > 1:
            assert mine[name]["chunk_grid"]["configuration"]["chunk_shape"] == list(own.chunks)


def test_every_container_has_the_same_pixels(contained: Contained) -> None:
    """COGs, arrays and windows of both layouts of stores, against numpy."""
    served = Served(f"{contained.server.url}/zarr/synthetic/bulk")
    assert YEAR in contained.years
    for tile in contained.years[YEAR]:
        name = f"utm{tile.utm_zone:02d}"
        about = served.document(f"{name}/zarr.json")
        years = np.frombuffer(served.get(f"{name}/time/c/0").content, "<i4").tolist()
        group = ZoneGroup.of(name, about["attributes"], years)
        raster = tile.raster()
        row, col = group.position(raster)
        codes, scales = served.window(name, years.index(YEAR), row, col, *raster.shape)
        values = contained.values(tile)
        has = np.isfinite(values).all(axis=0)
        own = np.ones(raster.shape, np.bool_)
        if tile != contained.years[YEAR][-1]:  # of what both have, the eastern one's pixels are there
            other = contained.years[YEAR][-1].raster()
            own[:, round((other.transform.c - raster.transform.c) / 10) :] = False
        found = np.where(np.isfinite(scales), codes.astype(np.float32) * scales, np.nan)
        if contained.container == "npy":  # where there is a landmask, as for the others, water has no data
            has &= np.isfinite(scales) | ~own
        np.testing.assert_array_equal(found[:, own & has], values[:, own & has])
        assert not np.isfinite(scales[own & ~has]).any()
        assert has[own].any()


def test_a_later_tile_is_written_over_an_earlier_one(sample_stores: SampleStores, tmp_path: Path) -> None:
    """Upstream goes from west to east: of the neighbours' overlap the eastern pixels count, data or none."""
    west, east = sample_stores.npy.written[:2]
    assert (west.tile.lon_i, east.tile.lon_i) == (1785, 1795)
    for written in (west, east):
        copied(written, sample_stores, tmp_path / "tiles")
    codes, scales = np.load(east.npy), np.load(east.scales)
    codes[:, :30] = -codes[:, :30]
    scales[210:220, :20] = 0
    np.save(tmp_path / "tiles" / east.npy.relative_to(sample_stores.npy.root), codes)
    np.save(tmp_path / "tiles" / east.scales.relative_to(sample_stores.npy.root), scales)
    build_from(tmp_path / "catalog", tmp_path / "tiles", dataset="synthetic")
    with serve(create_app(tmp_path / "catalog")) as server:
        served = Served(f"{server.url}/zarr/synthetic")
        group = group_of(served, "utm33")
        row, col = group.position(east.tile.raster())
        found, found_scales = served.window("utm33", TIME, row + 200, col - 10, 40, 50)
    np.testing.assert_array_equal(found[:, :, 10:].transpose(1, 2, 0), codes[200:240, :40])
    np.testing.assert_array_equal(np.isnan(found_scales[:, 10:]), scales[200:240, :40] <= 0)
    assert np.isnan(found_scales[10:20, 10:30]).all()
    other_row, other_col = group.position(west.tile.raster())
    at = np.s_[row + 200 - other_row :, col - 10 - other_col :]
    np.testing.assert_array_equal(
        found[:, :, :10].transpose(1, 2, 0), np.load(west.npy, mmap_mode="r")[at][:40, :10]
    )


def copied(written: Written, stores: SampleStores, root: Path) -> None:
    for path in (written.npy, written.scales):
        target = root / path.relative_to(stores.npy.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def test_years_without_tiles_are_absent(of_tiles: Served, sample_stores: SampleStores) -> None:
    name, (row, col, _, _) = next(windows(of_tiles, [sample_stores.npy.written[0].tile]))
    place = (row // 32 + 20, col // 32 + 2)
    assert of_tiles.chunk(name, "scales", (TIME, *place)) is not None
    assert of_tiles.chunk(name, "scales", (TIME - 1, *place)) is None
    assert of_tiles.chunk(name, "embeddings", (TIME, 0, 10, 10)) is None


@pytest.mark.parametrize("what", ["codes", "scales"])
def test_a_damaged_tile_is_an_error_and_no_fill_value(
    what: str, sample_stores: SampleStores, tmp_path: Path
) -> None:
    """Readers take 404 for no data: what cannot be read is never 404."""
    written = sample_stores.npy.written[3]
    root = tmp_path / "tiles"
    copied(written, sample_stores, root)
    catalog = tmp_path / "catalog"
    build_from(catalog, root, dataset="synthetic")
    source = written.npy if what == "codes" else written.scales
    damaged = root / source.relative_to(sample_stores.npy.root)
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    with serve(create_app(catalog)) as server:
        served = Served(f"{server.url}/zarr/synthetic")
        group = group_of(served, "utm33")
        row, col = (n // 32 for n in group.position(written.tile.raster()))
        found = served.get(f"utm33/embeddings/c/{TIME}/0/{row + 3}/{col + 1}")
        assert found.status_code == 409, found.text
        assert damaged.name in found.json()["description"]
        assert str(tmp_path) not in found.text
        damaged.unlink()
        found = served.get(f"utm33/embeddings/c/{TIME}/0/{row + 3}/{col + 1}")
        assert found.status_code in (409, 503), found.text
        assert str(tmp_path) not in found.text
