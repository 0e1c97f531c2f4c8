"""An item is the same from the API's renderer, from parquet by two readers, and through pystac."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
import rasterio.warp
import shapely
import stac_geoparquet.arrow

from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.item.parquet import ROW_GROUP, z_order
from catalog_builder.manifests import ManifestPart
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import DATASETS, dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import TileId
from tests.support.catalogs import api_items, build_from, patch, write_manifest
from tests.support.tables import digest, landmask_table, tile_table

ROOT = "http://tessera.test/stac"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three years over patches in both hemispheres and at the antimeridian, with all kinds of facts."""
    folder = tmp_path_factory.mktemp("items")
    tiles = [*patch(0, 52, 4, 3), *patch(-180, -17, 2, 2), *patch(179, 66, 3, 1), *patch(30, -1, 2, 12)]
    for year, share in ((2018, tiles[:-3]), (2019, tiles[:-3:2]), (2024, tiles[1:])):
        write_manifest(folder / "manifests", year, share)
    build_from(folder / "catalog", folder / "manifests", url=ROOT)
    return folder / "catalog"


@pytest.fixture(scope="module")
def items(catalog: Path) -> dict[str, dict[str, Any]]:
    return api_items(CatalogFolder(catalog).open_index(), ROOT)


def _same(value: Any) -> Any:
    """Bring times to instants and leave out nulls: stac-geoparquet writes absent fields as null."""
    if isinstance(value, dict):
        return {k: _same(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_same(v) for v in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    if isinstance(value, str) and value[-1:] == "Z" and value[4:5] == "-":
        return datetime.fromisoformat(value)
    return value


def _parquet(catalog: Path) -> list[Path]:
    return sorted((catalog / "tessera-v1" / "items").glob("year=*/items.parquet"))


def test_parquet_through_stac_geoparquet_equals_the_api(catalog: Path, items: dict[str, Any]) -> None:
    found = {}
    for path in _parquet(catalog):
        for item in stac_geoparquet.arrow.stac_table_to_items(pq.ParquetFile(path).read()):
            found[item["id"]] = item
    assert found.keys() == items.keys()
    for name, item in items.items():
        assert _same(found[name]) == _same(item)


def test_parquet_through_duckdb_equals_the_api(catalog: Path, items: dict[str, Any]) -> None:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        pattern = f"{catalog}/tessera-v1/items/*/*.parquet"
        table = db.execute(
            "SELECT * EXCLUDE (year) FROM read_parquet(?, hive_partitioning = true)", [pattern]
        )
        names = [c[0] for c in table.description]
        rows = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    top = {
        "type",
        "stac_version",
        "stac_extensions",
        "id",
        "collection",
        "geometry",
        "bbox",
        "assets",
        "links",
    }
    assert len(rows) == len(items)
    for row in rows:
        item = {k: row[k] for k in top}
        item["bbox"] = [row["bbox"][k] for k in ("xmin", "ymin", "xmax", "ymax")]
        item["geometry"] = shapely.geometry.mapping(shapely.from_wkb(bytes(row["geometry"])))
        item["properties"] = {k: v for k, v in row.items() if k not in top}
        assert _same(item) == _same(items[row["id"]])


def test_pystac_reads_and_writes_every_field(items: dict[str, Any]) -> None:
    for item in items.values():
        read = pystac.Item.from_dict(item, preserve_dict=True)
        assert _same(read.to_dict(include_self_link=True, transform_hrefs=False)) == _same(item)


def test_items_are_valid_stac_1_1_0(items: dict[str, Any]) -> None:
    """Core and GeoJSON schemas come with pystac; those of the extensions are nowhere offline."""
    for item in list(items.values())[::7]:
        pystac.validation.validate_dict(item, extensions=[])


def test_the_embeddings_proposal(catalog: Path, items: dict[str, Any]) -> None:
    """Its text and schema of 20 March 2026: which names there are, and where."""
    for item in items.values():
        assert "embeddings" in item["assets"]
        properties = item["properties"]
        assert {name for name in properties if name.startswith("emb:")} == {"emb:quantization"}
        quantization = properties["emb:quantization"]
        assert set(quantization) == {"method", "original_dtype", "quantized_dtype", "link"}
        link = pystac.Link.from_dict(quantization["link"])
        assert (link.rel, str(link.href)[:8]) == ("about", "https://")
        for asset in item["assets"].values():
            assert not [name for name in asset if name.startswith("emb:")]
    document = json.loads((catalog / "tessera-v1" / "collection.json").read_text())
    assert {name for name in document if name.startswith("emb:")} == {
        "emb:type",
        "emb:dimensions",
        "emb:temporal_resolution",
    }
    assert {"data_type", "gsd"} <= set(document)
    assert {"emb:model", "emb:source-data"} <= {link["rel"] for link in document["links"]}
    assert len(document["item_assets"]["embeddings"]) >= 2


def test_every_item_states_its_tile_and_raster(items: dict[str, Any]) -> None:
    """The raster holds the cell as GDAL projects it, and starts less than a pixel outside it."""
    for name, item in items.items():
        tile = TileId.from_name(name.rpartition("_")[0])
        raster, properties = tile.raster(), item["properties"]
        assert item["bbox"] == list(tile.bounds)
        assert shapely.geometry.shape(item["geometry"]).equals(shapely.box(*tile.bounds))
        assert properties["proj:code"] == f"EPSG:{tile.epsg}"
        assert properties["proj:transform"][:6] == list(raster.transform)[:6]
        assert properties["proj:shape"] == list(raster.shape)
        assert properties["proj:bbox"] == list(raster.bbox)
        assert properties["tessera:utm_zone"] == int(properties["proj:code"][-2:])
        west, south, east, north = rasterio.warp.transform_bounds(
            "EPSG:4326", properties["proj:code"], *tile.bounds
        )
        left, bottom, right, top = properties["proj:bbox"]
        assert 0 <= west - left < 10
        assert 0 <= top - north < 10
        assert abs(right - east) < 20
        assert abs(bottom - south) < 20


def test_years_and_coverage_are_those_of_the_tile(items: dict[str, Any]) -> None:
    years: dict[str, set[int]] = {}
    for item in items.values():
        years.setdefault(item["properties"]["tessera:tile"], set()).add(item["properties"]["tessera:year"])
    every = {2018, 2019, 2024}
    for item in items.values():
        mine = years[item["properties"]["tessera:tile"]]
        assert item["properties"]["tessera:years"] == sorted(mine)
        wanted = "full" if mine == every else "latest" if mine == {2024} else "partial"
        assert item["properties"]["tessera:coverage"] == wanted
    assert {i["properties"]["tessera:coverage"] for i in items.values()} == {"full", "latest", "partial"}


def _one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *parts: ManifestPart, **options: Any
) -> dict[str, Any]:
    """Build from tables and return the first item."""
    monkeypatch.setattr("catalog_builder.build.staging.reader.read_dataset", lambda *_a, **_k: iter(parts))
    build_from(tmp_path / "catalog", "table", url=ROOT, **options)
    return next(iter(api_items(CatalogFolder(tmp_path / "catalog").open_index(), ROOT).values()))


def test_only_what_the_manifest_knows_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    raster = tile.raster()
    sizes = {
        "npy_size": [128 * raster.height * raster.width + 128],
        "scales_size": [4 * raster.height * raster.width + 128],
    }
    bare = tile_table([(tile, 2024)], npy_sha256=[None], scales_sha256=[None])
    item = _one(tmp_path / "1", monkeypatch, ManifestPart("m", None, bare))
    views = {"embeddings_f32", "embeddings_f32_window"}
    assert set(item["assets"]) == {"embeddings", *views, "source_npy", "source_scales"}
    embeddings, npy = item["assets"]["embeddings"], item["assets"]["source_npy"]
    assert (embeddings["href"], embeddings["type"]) == (npy["href"], npy["type"])
    assert (embeddings["data_type"], embeddings["tessera:scales"]) == ("int8", "source_scales")
    assert not {"file:size", "file:checksum", "updated"} & set(item["assets"]["source_npy"])
    known = tile_table([(tile, 2024)], mtime=[datetime(2025, 8, 20, 1, 2, 3, tzinfo=UTC)], **sizes)
    parts = ManifestPart("m", None, known), ManifestPart("l", None, landmasks=landmask_table([tile]))
    item = _one(tmp_path / "2", monkeypatch, *parts)
    npy, scales, landmask = (item["assets"][k] for k in ("source_npy", "source_scales", "landmask"))
    assert npy["file:size"], scales["file:size"] == (sizes["npy_size"][0], sizes["scales_size"][0])
    assert npy["file:checksum"] == "1220" + digest(f"{tile.name}2024").hex()
    assert scales["file:checksum"] == "1220" + digest(f"{tile.name}2024s").hex()
    assert npy["updated"] == "2025-08-20T01:02:03Z"
    assert (landmask["file:size"], landmask["file:checksum"]) == (12_000, "1220" + digest(tile.name).hex())
    assert landmask["proj:transform"][:6] == list(tile.raster("source").transform)[:6]
    assert len(item["assets"]["embeddings_f32"]["bands"]) == N_BANDS


def test_a_file_that_does_not_fit_its_raster_has_no_raw_lane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    table = tile_table([(tile, 2024)], npy_size=[1000], scales_size=[500])
    item = _one(tmp_path, monkeypatch, ManifestPart("m", None, table))
    assert set(item["assets"]) == {"embeddings", "source_npy", "source_scales"}
    assert item["assets"]["source_npy"]["file:size"] == 1000


def test_an_exported_geotiff_is_an_asset_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    path = 'odd "name" & ü/tile 1.tif'
    table = tile_table([(tile, 2024)], has_npy=[False], geotiff=[path], geotiff_size=[99])
    item = _one(tmp_path, monkeypatch, ManifestPart("m", None, table), source_root="https://host.test/tiffs")
    assert set(item["assets"]) == {"embeddings", "source_geotiff"}
    assert item["assets"]["embeddings"]["href"] == item["assets"]["source_geotiff"]["href"]
    assert item["assets"]["embeddings"]["data_type"] == "float32"
    assert "emb:quantization" not in item["properties"]
    assert item["assets"]["source_geotiff"]["href"] == (
        "https://host.test/tiffs/odd%20%22name%22%20%26%20%C3%BC/tile%201.tif"
    )


def test_parquet_is_sorted_in_space_and_tells_its_bounds(catalog: Path) -> None:
    for path in _parquet(catalog):
        file = pq.ParquetFile(path)
        table = file.read(["bbox", "geometry"])
        bbox = {k: pa.compute.struct_field(table["bbox"], k).to_numpy() for k in ("xmin", "ymin")}
        row, col = ((bbox["ymin"] + 90) * 10).round(), ((bbox["xmin"] + 180) * 10).round()
        order = z_order(row.astype(int), col.astype(int))
        assert (order[1:] > order[:-1]).all()
        geo = json.loads(file.metadata.metadata[b"geo"])
        column = geo["columns"]["geometry"]
        assert (geo["version"], column["encoding"], column["geometry_types"]) == ("1.1.0", "WKB", ["Polygon"])
        assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
        assert column["bbox"] == list(shapely.total_bounds(shapely.from_wkb(table["geometry"].to_pylist())))
        stac = json.loads(file.metadata.metadata[b"stac-geoparquet"])
        assert stac["version"] == "1.1.0"
        pystac.Collection.from_dict(stac["collections"]["tessera-v1"])
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert all(file.metadata.row_group(i).num_rows <= ROW_GROUP for i in range(file.num_row_groups))


def test_z_order_is_the_interleaving_of_bits() -> None:
    rng = np.random.default_rng(3)
    row, col = rng.integers(0, grid.N_ROWS, 500), rng.integers(0, grid.N_COLS, 500)
    for r, c, z in zip(row.tolist(), col.tolist(), z_order(row, col).tolist(), strict=True):
        bits = "".join(a + b for a, b in zip(f"{r:012b}", f"{c:012b}", strict=True))
        assert z == int(bits, 2)


WITH_NPY = [*(d for d in DATASETS if d.npy or d.is_synthetic), dataset("v2-2B-L~beta9")]


@pytest.mark.parametrize("ds", WITH_NPY, ids=lambda d: d.directory)
def test_every_dataset_has_its_own_collection_and_layout(ds: Any, tmp_path: Path) -> None:
    tile = TileId.from_name("grid_0.15_52.05")
    write_manifest(tmp_path / "m", 2024, [tile])
    root = {"source_root": "https://made.test/up"} if ds.is_synthetic else {}
    build_from(tmp_path / "catalog", tmp_path / "m", dataset=ds.directory, url=ROOT, **root)
    (item,) = api_items(CatalogFolder(tmp_path / "catalog").open_index(), ROOT).values()
    assert item["collection"] == f"tessera-{ds.directory}" == dataset(ds.directory).collection_id
    assert item["assets"]["source_npy"]["href"].endswith(
        f"{'made.test/up' if ds.is_synthetic else 'npy/' + ds.directory}/2024/{tile.name}/{tile.name}.npy"
    )
    assert item["properties"].get("tessera:synthetic", False) is ds.is_synthetic
    pystac.validation.validate_dict(item, extensions=[])
