"""Catalogues of stores: which tile-years are in them, and which window each is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import zarr
from pyproj import Transformer
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.errors import CatalogError, DatasetError, StorageError
from catalog_builder.tile.grid import TileId
from tests.support.catalogs import api_items, build_from, write_manifest
from tests.support.http_server import serve
from tests.support.registry import SIDE, TOP, WEST, block_at, epsg_of, write_land, write_part
from tests.support.stores import EAST, NORTH, SOUTH, Stores, make_stores

ROOT = "https://stac.test"
DCLIMATE = "v1.1-dclimate"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return make_stores(tmp_path_factory.mktemp("stores"))


def items(catalog: Path) -> dict[str, Any]:
    return api_items(CatalogFolder(catalog).open_index(), ROOT)


def beside(tile: TileId, cols: int) -> TileId:
    return TileId.from_row_col(tile.row, tile.col + cols)


# ------------------------------------------------------------------------------------------ the registry


def touching(tile: TileId) -> list[tuple[int, int]]:
    """Return the blocks that a tile's pixels lie in: its cell projected, no formula of ours."""
    zone = f"{tile.utm_zone:02d}{'N' if tile.lat > 0 else 'S'}"
    to = Transformer.from_crs(4326, epsg_of(zone), always_xy=True)
    west, south, east, north = tile.bounds
    x, y = to.transform([west, west, east, east], [south, north, south, north])
    rows = range(int((TOP[zone[2]] - max(y)) // SIDE), int((TOP[zone[2]] - min(y)) // SIDE) + 1)
    cols = range(int((min(x) - WEST) // SIDE), int((max(x) - WEST) // SIDE) + 1)
    return [(row, col) for row in rows for col in cols]


def test_a_tile_year_is_where_land_and_an_embedded_block_are(tmp_path: Path) -> None:
    inside, sea, refused = (TileId.from_name(f"grid_{lon}_52.05") for lon in ("0.15", "0.25", "1.55"))
    south, edge = TileId.from_name("grid_0.15_-0.05"), TileId.from_name("grid_-179.95_65.05")
    other = TileId.from_name("grid_5.95_52.05")  # in the overlap of zones 31 and 32
    write_part(tmp_path, "31N", 2024, touching(inside), refused_px=[None] * len(touching(inside)))
    write_part(
        tmp_path, "31N", 2024, touching(refused), run="run-2", embedded=[False] * len(touching(refused))
    )
    write_part(tmp_path, "31S", 2023, touching(south))
    write_part(tmp_path, "01N", 2023, touching(edge))
    write_part(tmp_path, "32N", 2023, [block_at(other.lon, other.lat, "32N")])
    listed = write_land(tmp_path / "land", [inside, refused, south, edge, other])
    report = build_from(tmp_path / "catalog", tmp_path / "parts", listed, dataset=DCLIMATE, url=ROOT)
    assert not report.problems.counts
    found = items(tmp_path / "catalog")
    assert set(found) == {f"{inside.name}_2024", f"{south.name}_2023", f"{edge.name}_2023"}
    assert f"{sea.name}_2024" not in found

    item = found[f"{inside.name}_2024"]
    pystac.validation.validate_dict(item, extensions=[])
    asset = item["assets"]["source_zarr"]
    assert (asset["href"], asset["type"]) == (
        "s3://tessera-embeddings/v1.1/dclimate.icechunk",
        "application/vnd.zarr+icechunk",
    )
    row, col, height, width = asset["tessera:window"]
    assert (asset["tessera:group"], asset["tessera:time_index"]) == ("31N", 2024 - 2017)
    west, north = item["properties"]["proj:transform"][2], item["properties"]["proj:transform"][5]
    assert (WEST + 10 * col, TOP["N"] - 10 * row) == (west, north)
    assert [height, width] == item["properties"]["proj:shape"]
    assert asset["storage:refs"] == ["tessera-embeddings"]
    assert item["properties"]["storage:schemes"]["tessera-embeddings"] == {
        "type": "aws-s3",
        "platform": "https://{bucket}.s3.{region}.amazonaws.com",
        "bucket": "tessera-embeddings",
        "region": "us-west-2",
        "requester_pays": False,
        "anonymous": True,
    }
    assert "tessera:refused_fraction" not in item["properties"]  # null: not measured
    assert found[f"{south.name}_2023"]["properties"]["tessera:refused_fraction"] == 0
    assert "source_npy" not in item["assets"]
    assert item["assets"]["embeddings"]["tessera:scales"] == "source_zarr"
    assert item["assets"]["embeddings_f32"]["href"].startswith(
        f"{ROOT}/source/{DCLIMATE}/2024/{inside.name}/"
    )


def test_the_newest_row_of_a_block_counts(tmp_path: Path) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    blocks = touching(tile)
    none = [False] * len(blocks)
    write_part(tmp_path, "31N", 2023, blocks, "2026-03-01T00:00:00+00:00", "a")
    write_part(tmp_path, "31N", 2023, blocks, "2026-02-01T00:00:00+00:00", "z", embedded=none)
    # 23:00 in New York is later than 01:00 of the next day in Greenwich
    write_part(tmp_path, "31N", 2024, blocks, "2026-03-02T01:00:00+00:00", "z", embedded=none)
    write_part(tmp_path, "31N", 2024, blocks, "2026-03-01T23:00:00-05:00", "a")
    write_part(tmp_path, "31N", 2022, blocks, "2026-02-01T00:00:00+00:00", "a")
    write_part(tmp_path, "31N", 2022, blocks, "2026-03-01T00:00:00+00:00", "b", embedded=none)
    listed = write_land(tmp_path / "land", [tile])
    build_from(tmp_path / "catalog", tmp_path / "parts", listed, dataset=DCLIMATE, url=ROOT)
    assert set(items(tmp_path / "catalog")) == {f"{tile.name}_{year}" for year in (2023, 2024)}


def test_refused_pixels_are_bounded_by_the_overlap(tmp_path: Path) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    raster = tile.raster()
    blocks = touching(tile)
    assert len(blocks) > 1
    refused = [3_000_000, 5_000, 70, 2_000_000][: len(blocks)]
    embedded = [False, True, True, True][: len(blocks)]
    write_part(tmp_path, "31N", 2024, blocks, refused_px=refused, embedded=embedded)
    listed = write_land(tmp_path / "land", [tile])
    build_from(tmp_path / "catalog", tmp_path / "parts", listed, dataset=DCLIMATE, url=ROOT)
    left, bottom, right, top = raster.bbox
    bound = 0.0
    for (row, col), pixels in zip(blocks, refused, strict=True):
        x, y = WEST + col * SIDE, TOP["N"] - row * SIDE
        wide, high = min(right, x + SIDE) - max(left, x), min(top, y) - max(bottom, y - SIDE)
        bound += min(pixels, max(wide, 0) * max(high, 0) / 100)
    (item,) = items(tmp_path / "catalog").values()
    share = item["properties"]["tessera:refused_fraction"]
    assert bound / (raster.height * raster.width) <= share < bound / (raster.height * raster.width) + 1e-4


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    write_part(tmp_path, "31N", 2024, touching(tile))
    with pytest.raises(CatalogError, match=r"list of landmasks.*landmasks/v1\.1/landmasks\.parquet"):
        build_from(tmp_path / "a", tmp_path / "parts", dataset=DCLIMATE)
    with pytest.raises(DatasetError, match="give the address of the store"):
        build_from(tmp_path / "b", tmp_path / "parts", write_land(tmp_path / "land", [tile]), dataset="v1")


# ---------------------------------------------------------------------------------------------- stores


def test_windows_of_a_zarr_store_hold_the_tiles_pixels(stores: Stores, tmp_path: Path) -> None:
    listed = write_land(tmp_path / "land", [NORTH, EAST, SOUTH, beside(NORTH, -30)])
    build_from(tmp_path / "catalog", stores.a, listed, dataset="synthetic", url=ROOT)
    found = items(tmp_path / "catalog")
    assert {i for i in found if i.endswith("_2024")} == {f"{t.name}_2024" for t in (NORTH, EAST, SOUTH)}
    for tile, (codes, scales) in stores.tiles.items():
        asset = found[f"{tile.name}_2024"]["assets"]["source_zarr"]
        assert (asset["href"], asset["type"]) == (str(stores.a), "application/vnd+zarr; version=3")
        row, col, height, width = asset["tessera:window"]
        group = zarr.open_group(stores.a, mode="r")[asset["tessera:group"]]
        rows, cols, time = slice(row, row + height), slice(col, col + width), asset["tessera:time_index"]
        assert np.array_equal(np.asarray(group["embeddings"][time, :, rows, cols]).transpose(1, 2, 0), codes)
        assert np.array_equal(group["scales"][time, rows, cols], scales, equal_nan=True)


def test_incomplete_years_of_a_repository_are_no_items(stores: Stores, tmp_path: Path) -> None:
    listed = write_land(tmp_path / "land", [NORTH, EAST, SOUTH])
    report = build_from(tmp_path / "catalog", stores.b, listed, dataset="synthetic", url=ROOT)
    found = items(tmp_path / "catalog")
    assert set(found) == {f"{t.name}_2024" for t in (NORTH, EAST, SOUTH)}
    assert {i["assets"]["source_zarr"]["tessera:group"] for i in found.values()} == {"31N", "32S"}
    assert report.items == 3


@pytest.mark.service
def test_the_registry_beside_a_store_is_its_manifest(stores: Stores, tmp_path: Path) -> None:
    beside_it = Path(f"{stores.a}.build")
    beside_it.mkdir()
    row = {
        "year": [2024, 2024],
        "zone": [31, 31],
        "tile_lon": [NORTH.lon, 60.05],
        "tile_lat": [NORTH.lat, 10.05],
    }
    try:
        pq.write_table(pa.table(row), beside_it / "_registry.parquet")
        report = build_from(tmp_path / "catalog", stores.a, dataset="synthetic", url=ROOT)
        assert set(items(tmp_path / "catalog")) == {f"{NORTH.name}_2024"}
        assert any("1 tile-years are left out" in note for note in report.problems.notes)
        assert any("is older than the store" in note for note in report.problems.notes)
        # what was filled since is found by the shards that hold none of the registry's tiles
        listed = write_land(tmp_path / "land", [NORTH, EAST, SOUTH])
        report = build_from(tmp_path / "more", stores.a, listed, dataset="synthetic", url=ROOT)
        assert {f"{t.name}_2024" for t in (NORTH, SOUTH)} <= set(items(tmp_path / "more"))
        assert any("is older than the store" in note for note in report.problems.notes)
        with serve(Starlette(routes=[Mount("/", StaticFiles(directory=stores.a.parent))])) as server:
            build_from(tmp_path / "web", f"{server.url}/{stores.a.name}", dataset="synthetic", url=ROOT)
            (item,) = items(tmp_path / "web").values()
            assert item["assets"]["source_zarr"]["href"] == f"{server.url}/{stores.a.name}"
    finally:
        (beside_it / "_registry.parquet").unlink()
        beside_it.rmdir()


@pytest.mark.service
def test_a_store_on_the_web_cannot_be_listed(stores: Stores, tmp_path: Path) -> None:
    listed = write_land(tmp_path / "land", [NORTH])
    with (
        serve(Starlette(routes=[Mount("/", StaticFiles(directory=stores.a.parent))])) as server,
        pytest.raises(StorageError, match=r"the web lists no folders.*give its s3:// address"),
    ):
        build_from(tmp_path / "c", f"{server.url}/{stores.a.name}", listed, dataset="synthetic")


def test_stores_and_lists_without_each_other(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="list of landmasks"):
        build_from(tmp_path / "a", stores.a, dataset="synthetic")
    with pytest.raises(CatalogError, match="windows of one store"):
        build_from(tmp_path / "b", stores.a, stores.b, dataset="synthetic")
    row = {"year": [2024], "zone": [31], "tile_lon": [NORTH.lon], "tile_lat": [NORTH.lat]}
    pq.write_table(pa.table(row), tmp_path / "_registry.parquet")
    with pytest.raises(DatasetError, match="give the address of the store"):
        build_from(tmp_path / "c", tmp_path / "_registry.parquet", dataset="synthetic")


def test_a_store_of_another_model_is_refused(stores: Stores, tmp_path: Path) -> None:
    root = stores.a / "zarr.json"
    before = root.read_text()
    said = json.loads(before)
    said["attributes"]["geoemb:model"] = "https://geotessera.org/model/1.1"
    root.write_text(json.dumps(said))
    try:
        with pytest.raises(DatasetError, match=r"model 1\.1, not of dataset v1 .*--dataset"):
            build_from(tmp_path / "a", stores.a, write_land(tmp_path / "land", [NORTH]), dataset="v1")
        build_from(
            tmp_path / "b", stores.a, write_land(tmp_path / "land", [NORTH]), dataset="v1.1-cam", url=ROOT
        )
        collection = json.loads((tmp_path / "b" / "tessera-v1.1-cam" / "collection.json").read_text())
        assert collection["geoemb:model"] == "https://geotessera.org/model/1.1"
    finally:
        root.write_text(before)


def test_arrays_and_a_store_of_one_dataset(stores: Stores, tmp_path: Path) -> None:
    write_manifest(tmp_path / "m", 2024, [NORTH, beside(NORTH, 5)])
    listed = write_land(tmp_path / "land", [NORTH, EAST])
    build_from(tmp_path / "catalog", tmp_path / "m", stores.a, listed, dataset="v1", url=ROOT)
    found = items(tmp_path / "catalog")
    has = {k: {"source_npy", "source_zarr", "embeddings_f32"} & set(i["assets"]) for k, i in found.items()}
    assert has[f"{NORTH.name}_2024"] == {"source_npy", "source_zarr", "embeddings_f32"}
    assert has[f"{beside(NORTH, 5).name}_2024"] == {"source_npy", "embeddings_f32"}
    assert has[f"{EAST.name}_2024"] == {"source_zarr"}  # direct access gives the published arrays

    # an update without the store keeps what is known of it
    write_manifest(tmp_path / "n", 2024, [beside(NORTH, 6)])
    build_from(tmp_path / "catalog", tmp_path / "n", dataset="v1", url=ROOT, update=True)
    again = items(tmp_path / "catalog")
    assert again[f"{EAST.name}_2024"] == found[f"{EAST.name}_2024"]
    assert set(again) == {*found, f"{beside(NORTH, 6).name}_2024"}


def test_a_collection_has_an_asset_per_group(stores: Stores, tmp_path: Path) -> None:
    listed = write_land(tmp_path / "land", [NORTH, EAST, SOUTH])
    build_from(tmp_path / "catalog", stores.b, listed, dataset="synthetic", url=ROOT)
    collection = pystac.Collection.from_file(
        str(tmp_path / "catalog" / "tessera-synthetic" / "collection.json")
    )
    pystac.validation.validate_dict(collection.to_dict(), extensions=[])
    groups = {k: a for k, a in collection.assets.items() if "tessera:group" in a.extra_fields}
    assert set(groups) == {"31N", "32S"}
    assert groups["31N"].extra_fields["tessera:years"] == [2024]
    assert groups["31N"].extra_fields["proj:code"] == "EPSG:32631"
    assert collection.extra_fields["geoemb:dimensions"] == 128
    assert "source_zarr" in collection.item_assets
    # no year is built again from the same sources
    report = build_from(tmp_path / "catalog", stores.b, listed, dataset="synthetic", url=ROOT)
    assert not report.published


def test_a_root_of_files_where_there_are_none(stores: Stores, tmp_path: Path) -> None:
    land = write_land(tmp_path / "land", list(stores.tiles))
    with pytest.raises(DatasetError, match="--source-root says where files are, and all tile-years are in"):
        build_from(
            tmp_path / "catalog", stores.a, land, dataset=DCLIMATE, url=ROOT, source_root=str(tmp_path)
        )
    assert not (tmp_path / "catalog" / "catalog.json").exists()
