"""The ledger in the catalogue: assets, properties and statistics, the same from every reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.basis import load_basis, store_basis
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.convert.encode.colours import Sample, fit_basis, sample_pixels
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.table import read_table
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.errors import ConvertError
from catalog_builder.item.statistics import decode_code_range, decode_statistics
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.convert.making import POLAR, YEAR, convert_one, sample, write_pair
from tests.support.catalogs import api_items

NEIGHBOUR = TileId.from_name("grid_0.15_89.95")


def _basis(out: Path) -> tuple[object, ...]:
    made = sample()
    found = fit_basis([Sample("a", "synthetic", sample_pixels(made.codes, made.scales))])
    store_basis(str(out), found)
    assert load_basis(str(out), "synthetic") == found
    return (found,)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a catalogue: a native COG, a float32 one on the source grid, a tile-year not converted."""
    root = tmp_path_factory.mktemp("catalogue")
    write_pair(root / "src")
    write_pair(root / "src", sample(NEIGHBOUR))
    write_pair(root / "src", sample(POLAR, 2023))
    cogs = root / "catalog" / "cogs"
    npy = root / "src" / "global_0.1_degree_representation"
    with LedgerWriter(cogs / "ledger") as ledger:
        ledger.append(
            convert_one(npy / f"{YEAR}/{POLAR.name}/{POLAR.name}.npy", cogs, bases=_basis(cogs)).row
        )
        ledger.append(
            convert_one(
                npy / f"{YEAR}/{NEIGHBOUR.name}/{NEIGHBOUR.name}.npy", cogs, profile="float32", grid="source"
            ).row
        )
    _build(root)
    return root


def _build(root: Path, **options: object) -> object:
    return build(
        [str(root / "src" / "global_0.1_degree_representation")],
        root / "catalog",
        BuildOptions(dataset=dataset("synthetic"), url="http://cat", **options),  # type: ignore[arg-type]
    )


def _index(root: Path) -> Index:
    return CatalogFolder(root / "catalog").open_index()


OF_A_PAIR = ["embeddings", "scales", "embeddings_f32", "embeddings_f32_window", "visual", "thumbnail"]


def test_native_item(catalogue: Path) -> None:
    item = api_items(_index(catalogue), "http://cat")[f"{POLAR.name}_{YEAR}"]
    rows = latest(read_rows(catalogue / "catalog" / "cogs" / "ledger"))
    row = rows[f"synthetic/{YEAR}/{POLAR.name}"]
    assert item["properties"]["tessera:cog"] is True
    assert item["properties"]["tessera:grid"] == "utm"
    assert item["properties"]["tessera:valid_fraction"] == row.valid_fraction
    assert list(item["assets"])[:6] == OF_A_PAIR
    for key, role in (
        ("embeddings", "embeddings"),
        ("scales", "scales"),
        ("embeddings_f32", "vrt"),
        ("embeddings_f32_window", "window"),
        ("visual", "visual"),
        ("thumbnail", "thumbnail"),
    ):
        asset, file = item["assets"][key], row.files[role]
        assert asset["href"] == f"http://cat/data/cogs/{file.path}"
        assert asset["file:size"] == file.size
        assert asset["file:checksum"] == f"1220{file.sha256}"
        assert asset.get("file:header_size", 0) == file.header_size
        assert (catalogue / "catalog" / "cogs" / file.path).stat().st_size == file.size
    assert item["assets"]["embeddings"]["data_type"] == "int8"
    assert item["assets"]["embeddings"]["nodata"] == -128
    # NaN, as STAC writes it, is text, which rustac refuses: see tests/clients/test_rustac.py
    assert "nodata" not in item["assets"]["scales"]
    with rasterio.open(catalogue / "catalog" / "cogs" / row.files["embeddings"].path) as ds:
        assert list(ds.transform) == item["properties"]["proj:transform"]
        assert list(ds.shape) == item["properties"]["proj:shape"]
        assert list(ds.bounds) == item["properties"]["proj:bbox"]


def test_statistics_are_those_of_the_values(catalogue: Path) -> None:
    item = api_items(_index(catalogue), "http://cat")[f"{POLAR.name}_{YEAR}"]
    bands = item["assets"]["embeddings_f32"]["bands"]
    made = sample()
    inside = (made.scales > 0) & (made.landmask == 1)
    values = made.codes[inside].astype(np.float64) * made.scales[inside][:, None]
    assert [b["name"] for b in bands] == [f"b{i:03d}" for i in range(128)]
    for name, expected in (
        ("minimum", values.min(0)),
        ("maximum", values.max(0)),
        ("mean", values.mean(0)),
        ("stddev", values.std(0)),
    ):
        found = np.array([b["statistics"][name] for b in bands])
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_statistics_of_the_codes_are_those_of_the_published_array(catalogue: Path) -> None:
    item = api_items(_index(catalogue), "http://cat")[f"{POLAR.name}_{YEAR}"]
    folder = catalogue / "src" / "global_0.1_degree_representation" / f"{YEAR}" / POLAR.name
    codes, scales = (np.load(folder / f"{POLAR.name}{end}.npy") for end in ("", "_scales"))
    inside = np.isfinite(scales) & (scales > 0) & (sample().landmask == 1)
    assert not inside.all()
    assert item["assets"]["embeddings"]["bands"] == [
        {"name": f"b{i:03d}", "statistics": {"minimum": int(low), "maximum": int(high)}}
        for i, (low, high) in enumerate(zip(codes[inside].min(0), codes[inside].max(0), strict=True))
    ]


def test_float32_item_on_the_source_grid(catalogue: Path) -> None:
    item = api_items(_index(catalogue), "http://cat")[f"{NEIGHBOUR.name}_{YEAR}"]
    row = latest(read_rows(catalogue / "catalog" / "cogs" / "ledger"))[f"synthetic/{YEAR}/{NEIGHBOUR.name}"]
    assert item["properties"]["tessera:grid"] == "source"
    embeddings = item["assets"]["embeddings"]
    assert (embeddings["data_type"], len(embeddings["bands"])) == ("float32", 128)
    assert "nodata" not in embeddings
    for key in ("embeddings_f32", "embeddings_f32_window"):  # nothing to multiply: the COG itself
        asset = item["assets"][key]
        assert asset["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
        assert "nodata" not in asset
        for fact in ("href", "file:size", "file:checksum", "file:header_size"):
            assert asset[fact] == embeddings[fact]
        assert asset["href"].endswith(row.files["embeddings"].path)
    for band, full in zip(embeddings["bands"], item["assets"]["embeddings_f32"]["bands"], strict=True):
        wanted = {name: full["statistics"][name] for name in ("minimum", "maximum")}
        assert band == {"name": full["name"], "statistics": wanted}
    with rasterio.open(catalogue / "catalog" / "cogs" / row.files["embeddings"].path) as ds:
        assert list(ds.transform) == item["properties"]["proj:transform"]


def test_items_without_cog_are_as_without_a_ledger(catalogue: Path, tmp_path: Path) -> None:
    build(
        [str(catalogue / "src" / "global_0.1_degree_representation")],
        tmp_path / "plain",
        BuildOptions(dataset=dataset("synthetic"), url="http://cat"),
    )
    plain = api_items(CatalogFolder(tmp_path / "plain").open_index(), "http://cat")
    full = api_items(_index(catalogue), "http://cat")
    name = f"{POLAR.name}_2023"
    assert orjson.dumps(full[name]) == orjson.dumps(plain[name])
    assert full[name]["properties"]["tessera:cog"] is False
    # and with an empty list of ledgers the whole catalogue is
    without = BuildOptions(dataset=dataset("synthetic"), url="http://cat", ledgers=())
    build([str(catalogue / "src" / "global_0.1_degree_representation")], tmp_path / "none", without)
    assert api_items(CatalogFolder(tmp_path / "none").open_index(), "http://cat") == plain


def test_parquet_says_the_same(catalogue: Path) -> None:
    items = api_items(_index(catalogue), "http://cat")
    found = 0
    for year in (2023, YEAR):
        path = catalogue / "catalog" / "tessera-synthetic" / "items" / f"year={year}" / "items.parquet"
        for row in pq.ParquetFile(path).read().to_pylist():
            item = items[row["id"]]
            assets = _without_nulls(row["assets"])
            assert {k: v["href"] for k, v in assets.items()} == {
                k: v["href"] for k, v in item["assets"].items()
            }
            for key, asset in item["assets"].items():
                said = {k: v for k, v in assets[key].items() if k != "updated"}
                assert said == {k: v for k, v in asset.items() if k != "updated"}, key
            assert row["tessera:cog"] == item["properties"]["tessera:cog"]
            assert row["tessera:valid_fraction"] == item["properties"].get("tessera:valid_fraction")
            assert row["tessera:grid"] == item["properties"]["tessera:grid"]
            found += 1
    assert found == 3


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def test_filter_on_valid_fraction_in_sql(catalogue: Path) -> None:
    index = _index(catalogue)
    (ordinal,) = (r.ordinal for r in index.collections.values())
    some = Selection([ordinal], where="t.valid_fraction > ?", values=(0.5,))
    assert index.count(some).n == len(index.page(some, 10)) == 2
    assert index.count(Selection([ordinal], where="t.valid_fraction > ?", values=(1.0,))).n == 0


def test_missing_plans_what_has_no_cog(catalogue: Path) -> None:
    source = str(catalogue / "catalog")
    everything = plan([source], Wanted())
    assert everything.total == 3
    missing = plan([source], Wanted(missing=True))
    (job,) = missing.jobs()
    assert (missing.total, job.year) == (1, 2023)
    assert job.landmask is not None, "as when the folder itself is converted"


def test_rebuild_is_unchanged_and_update_keeps(catalogue: Path) -> None:
    report = _build(catalogue)
    assert not report.published  # type: ignore[attr-defined]
    report = _build(catalogue, update=True, ledgers=())
    assert not report.published  # type: ignore[attr-defined]


def test_ledger_as_a_table(catalogue: Path) -> None:
    table = read_table(catalogue / "catalog" / "cogs" / "ledger")
    assert table.num_rows == 2
    row = next(r for r in table.to_pylist() if r["profile"] == "native")
    assert row["embeddings"]["path"].endswith("_embeddings.tif")
    assert len(row["embeddings"]["sha256"]) == 32
    assert decode_statistics(row["statistics"]).shape == (4, 128)
    assert decode_code_range(row["code_range"]).shape == (2, 128)
    assert [r["code_range"] for r in table.to_pylist() if r["profile"] == "float32"] == [None]
    assert dict(row["versions"])["gdal"] == rasterio.__gdal_version__
    assert row["sources"][0]["verified"] is False


def test_cog_of_another_source_is_left_out(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src")
    cogs = tmp_path / "catalog" / "cogs"
    with LedgerWriter(cogs / "ledger") as ledger:
        ledger.append(convert_one(npy, cogs).row)
    manifest = tmp_path / "registry_2024.txt"
    name = f"{YEAR}/{POLAR.name}/{POLAR.name}"
    manifest.write_text(f"{name}.npy {'0' * 64}\n{name}_scales.npy {'1' * 64}\n")
    report = build(
        [str(manifest)],
        tmp_path / "catalog",
        BuildOptions(dataset=dataset("synthetic"), source_root=str(tmp_path)),
    )
    assert any("convert them again" in note for note in report.problems.notes)
    (item,) = api_items(CatalogFolder(tmp_path / "catalog").open_index(), "").values()
    assert item["properties"]["tessera:cog"] is False


def test_one_tile_of_two_sources_is_said_and_the_last_is_used(tmp_path: Path) -> None:
    """Whichever ledger is given first; that one is converted again from the same files is nothing to say."""
    home = tmp_path / "catalog"
    ledgers = []
    for seed in (0, 1, 1):
        npy = write_pair(tmp_path / f"src{seed}", sample(seed=seed))
        ledgers.append(str(tmp_path / f"ledger{len(ledgers)}"))
        with LedgerWriter(ledgers[-1]) as ledger:
            row = convert_one(npy, home / "cogs").row
            ledger.append(row)
    last = row.content
    options: dict[str, Any] = {"dataset": dataset("synthetic"), "url": "http://cat"}
    options["source_root"] = str(tmp_path / "src0")
    for given in (ledgers[:2], ledgers[1::-1]):
        report = build([], home, BuildOptions(ledgers=tuple(given), **options))
        (note,) = (n for n in report.problems.notes if "more than once" in n)
        assert note.startswith(f"{YEAR}: 1 tiles")
        assert f"({POLAR.name} is the first)" in note
        (item,) = api_items(CatalogFolder(home).open_index(), "http://cat").values()
        assert f"_{last}_embeddings.tif" in item["assets"]["embeddings"]["href"]
    report = build([], home, BuildOptions(ledgers=tuple(ledgers[1:]), **options))
    assert not any("more than once" in n for n in report.problems.notes)


def test_ledger_alone_is_a_catalogue(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src")
    cogs = tmp_path / "catalog" / "cogs"
    with LedgerWriter(cogs / "ledger") as ledger:
        ledger.append(convert_one(npy, cogs).row)
    options = BuildOptions(dataset=dataset("synthetic"), source_root=str(tmp_path))
    assert build([], tmp_path / "catalog", options).items == 1
    (item,) = api_items(CatalogFolder(tmp_path / "catalog").open_index(), "").values()
    assert list(item["assets"]) == OF_A_PAIR[:4]


def test_items_and_collection_are_valid_stac(catalogue: Path) -> None:
    index = _index(catalogue)
    for item in api_items(index, "http://cat").values():
        core = {
            **item,
            "stac_extensions": [],
            "links": [link for link in item["links"] if link["rel"] == "collection"],
        }
        pystac.Item.from_dict(core, migrate=False).validate()
    (document,) = index.documents.values()
    assets = json.loads(document)["item_assets"]
    assert list(assets)[:6] == OF_A_PAIR
    assert assets["embeddings"]["nodata"] == -128
    assert assets["embeddings_f32"]["bands"][5] == {"name": "b005"}


def test_missing_needs_a_catalogue(catalogue: Path) -> None:
    with pytest.raises(ConvertError, match="needs a catalogue"):
        plan([str(catalogue / "src")], Wanted(missing=True))
