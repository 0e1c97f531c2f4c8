"""Rebuilds: what changes, what is left alone, and what is refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.errors import CatalogError, DatasetError, ManifestError
from catalog_builder.manifests import ProblemKind
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import Bounds, TileId
from tests.support.catalogs import api_items, build_from, patch, write_manifest
from tests.support.needs import real_manifests

TILES = patch(0, 52, 5, 4)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    for year in (2022, 2023, 2024):
        write_manifest(tmp_path / "manifests", year, TILES)
    return tmp_path / "manifests"


def _ids(catalog: Path) -> set[str]:
    return set(api_items(CatalogFolder(catalog).open_index(), ""))


def _inodes(catalog: Path) -> dict[str, int]:
    items = catalog / "tessera-v1" / "items"
    return {p.parent.name: p.stat().st_ino for p in items.glob("year=*/items.parquet")}


def test_the_folder_is_a_static_catalogue_that_pystac_reads(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    catalog = pystac.Catalog.from_file(str(out / "catalog.json"))
    (collection,) = catalog.get_collections()
    for each in (catalog, collection):
        pystac.validation.validate_dict(each.to_dict(), extensions=[])
    assert collection.extent.spatial.bboxes == [[0.0, 52.0, 0.5, 52.4]]
    start, end = collection.extent.temporal.intervals[0]
    assert (start.isoformat(), end.isoformat()) == ("2022-01-01T00:00:00+00:00", "2024-12-31T23:59:59+00:00")
    assert collection.summaries.get_list("tessera:year") == [2022, 2023, 2024]
    assert collection.summaries.get_list("proj:code") == ["EPSG:32631"]
    assert set(collection.item_assets) >= {"embeddings_f32", "source_npy", "source_scales", "landmask"}
    assert collection.extra_fields["emb:dimensions"] == 128
    assert {link.rel for link in collection.links} >= {"license", "emb:model", "emb:source-data", "cite-as"}
    assert collection.extra_fields["tessera:coverage"] == {
        "tiles": 20,
        "items": 60,
        "full": 20,
        "latest": 0,
        "partial": 0,
        "items_per_year": {"2022": 20, "2023": 20, "2024": 20},
    }
    mirrors = [a for a in collection.assets.values() if a.roles == ["collection-mirror"]]
    assert len(mirrors) == 3
    for asset in mirrors:
        assert asset.media_type == "application/vnd.apache.parquet"
        assert Path(asset.get_absolute_href() or "").is_file()


def test_an_unchanged_rebuild_touches_nothing(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    before = (out / ".current").resolve()
    report = build_from(out, manifests)
    assert not report.published
    assert (report.added, report.changed, report.removed) == (0, 0, 0)
    assert (out / ".current").resolve() == before
    assert [p.name for p in before.parent.iterdir() if p.is_dir()] == [before.name]


def test_a_rebuild_counts_what_changed_and_links_the_rest(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    before = _inodes(out)
    # 2024: one tile gone, one new, three republished under the same name
    kept = TILES[:-1]
    write_manifest(manifests, 2024, kept[3:])
    with (manifests / "registry_2024.txt").open("a") as file:
        extra = tmp_path / "extra"
        file.write(write_manifest(extra, 2024, [TileId.from_name("grid_0.65_52.05")]).read_text())
        file.write(write_manifest(extra, 2024, kept[:3], salt="republished").read_text())
    report = build_from(out, manifests)
    changes = {y.year: (y.added, y.changed, y.removed) for y in report.years}
    assert changes == {2022: (0, 0, 0), 2023: (0, 0, 0), 2024: (1, 3, 1)}
    assert "grid_0.65_52.05_2024" in _ids(out)
    assert f"{TILES[-1].name}_2024" not in _ids(out)
    # the tile that lost its newest year is no longer covered in full: its other years' items say so
    item = api_items(CatalogFolder(out).open_index(), "")[f"{TILES[-1].name}_2022"]
    assert item["properties"]["tessera:coverage"] == "partial"
    after = _inodes(out)
    assert after["year=2024"] != before["year=2024"]
    # republish only hashes: the other years' files are the very same
    write_manifest(manifests, 2024, kept, salt="again")
    build_from(out, manifests)
    write_manifest(manifests, 2024, kept, salt="and again")
    middle = _inodes(out)
    assert {y.year: y.changed for y in build_from(out, manifests).years} == {2022: 0, 2023: 0, 2024: 19}
    last = _inodes(out)
    assert (last["year=2022"], last["year=2023"]) == (middle["year=2022"], middle["year=2023"])
    assert last["year=2024"] != middle["year=2024"]


def test_a_year_that_is_gone_is_removed_and_said(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    (manifests / "registry_2022.txt").unlink()
    report = build_from(out, manifests)
    assert (report.removed, report.items) == (20, 40)
    assert set(_inodes(out)) == {"year=2023", "year=2024"}


def test_update_keeps_what_the_sources_do_not_list(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    whole = api_items(CatalogFolder(out).open_index(), "")
    more = write_manifest(tmp_path / "more", 2024, patch(3, 50, 2, 2))
    report = build_from(out, more, update=True)
    assert (report.added, report.changed, report.removed, report.items) == (4, 0, 0, 64)
    after = api_items(CatalogFolder(out).open_index(), "")
    for name, item in whole.items():
        assert after[name]["assets"] == item["assets"], "facts survive the way through the index"


def test_years_and_bbox_narrow(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    report = build_from(out, manifests, years=frozenset({2023}), bounds=Bounds(0.1, 52.1, 0.3, 52.2))
    assert report.items == 2
    assert _ids(out) == {"grid_0.15_52.15_2023", "grid_0.25_52.15_2023"}
    listed = r"list 60 in 0\.0,52\.0,0\.5,52\.4 \(west,south,east,north; 2022: 20, 2023: 20, 2024: 20\)"
    for nothing in ({"years": frozenset({2019})}, {"bounds": Bounds(52.0, 0.0, 52.4, 0.5)}):
        with pytest.raises(CatalogError, match=f"no tile-year in the requested .*{listed}"):
            build_from(tmp_path / "none", manifests, **nothing)
    assert not (tmp_path / "none" / "index.sqlite").exists()


def test_collections_live_side_by_side(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    v1 = api_items(CatalogFolder(out).open_index(), "")
    build_from(out, manifests, dataset="v1.1-cam", years=frozenset({2024}))
    index = CatalogFolder(out).open_index()
    assert list(index.collections) == ["tessera-v1", "tessera-v1.1-cam"]
    assert api_items(index, "", Selection([1])) == v1
    assert index.count(Selection([2])).n == 20
    catalog = pystac.Catalog.from_file(str(out / "catalog.json"))
    assert [c.id for c in catalog.get_collections()] == ["tessera-v1", "tessera-v1.1-cam"]
    # a rebuild of the first keeps the second
    (manifests / "registry_2022.txt").unlink()
    build_from(out, manifests)
    index = CatalogFolder(out).open_index()
    assert [index.count(Selection([o])).n for o in (1, 2)] == [40, 20]
    assert (out / "tessera-v1.1-cam" / "items" / "year=2024" / "items.parquet").is_file()


def test_datasets_are_never_mixed(tmp_path: Path) -> None:
    def manifest(name: str, version: str, variant: str) -> Path:
        path = tmp_path / f"{name}.parquet"
        columns = {
            "version": [version],
            "variant": [variant],
            "year": [2024],
            "lon": [0.15],
            "lat": [52.05],
            "grid_size": [128 * 1139 * 729 + 128],
            "scales_size": [4 * 1139 * 729 + 128],
        }
        pq.write_table(pa.table(columns), path)
        return path

    cam = manifest("cam", "1.1", "cambridge")
    v1 = manifest("v1", "1.0", "vultr")
    with pytest.raises(DatasetError, match="never mixed"):
        build_from(tmp_path / "catalog", v1, cam)
    with pytest.raises(DatasetError, match=r"v1\.1-cam"):
        build_from(tmp_path / "catalog", cam)
    assert build_from(tmp_path / "catalog", cam, dataset="v1.1-cam").items == 1


@pytest.mark.parametrize("split", [False, True], ids=["one file", "a folder of two"])
def test_a_manifest_of_several_datasets_is_built_by_choosing_one(tmp_path: Path, split: bool) -> None:
    """What is wrong in rows of another dataset is no problem of this one."""
    tiles = [TileId.from_name(f"grid_{lon}_52.05") for lon in ("0.05", "0.15", "0.25")]
    rows = [
        ("1.0", "vultr", tiles[0], 52.05),
        ("1.1", "cambridge", tiles[0], 52.05),
        ("1.1", "cambridge", tiles[1], 52.05),
        ("2.0", "2B-L~beta1", tiles[2], 52.07),  # off the grid
    ]

    def write(name: str, some: list[Any]) -> None:
        columns = {
            "version": [r[0] for r in some],
            "variant": [r[1] for r in some],
            "year": [2024] * len(some),
            "lon": [r[2].lon for r in some],
            "lat": [r[3] for r in some],
            "grid_size": [128 * math.prod(r[2].raster().shape) + 128 for r in some],
            "scales_size": [4 * math.prod(r[2].raster().shape) + 128 for r in some],
        }
        (tmp_path / "m").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "m" / name)

    if split:
        write("a.parquet", rows[:1])
        write("b.parquet", rows[1:])
    else:
        write("a.parquet", rows)
    source = tmp_path / "m" if split else tmp_path / "m" / "a.parquet"
    for name, wanted in (("v1", {tiles[0]}), ("v1.1-cam", {tiles[0], tiles[1]})):
        report = build_from(tmp_path / "catalog", source, dataset=name, strict=True)
        index = CatalogFolder(tmp_path / "catalog").open_index()
        record = index.collections[f"tessera-{name}"]
        found = api_items(index, "", Selection([record.ordinal]))
        assert set(found) == {f"{tile.name}_2024" for tile in wanted}
        assert not report.problems.counts
        (note,) = [n for n in report.problems.notes if "also holds" in n]
        assert "v2-2B-L~beta1" in note
        assert f"--dataset {name}" in note
    with pytest.raises(DatasetError, match=r"holds dataset v1 .*v1\.1-cam .*not v2-2B-L~beta2"):
        build_from(tmp_path / "catalog", source, dataset="v2-2B-L~beta2")


def test_good_rows_are_kept_and_strict_fails(manifests: Path, tmp_path: Path) -> None:
    path = manifests / "registry_2023.txt"
    path.write_text("rubbish\n" + path.read_text())
    report = build_from(tmp_path / "catalog", manifests)
    assert report.items == 60
    assert report.problems.counts[ProblemKind.MALFORMED] == 1
    assert "registry_2023.txt line 1" in str(report.problems.kept[0])
    with pytest.raises(ManifestError, match=r"registry_2023\.txt line 1"):
        build_from(tmp_path / "strict", manifests, strict=True)
    assert not (tmp_path / "strict" / "index.sqlite").exists()


def test_a_catalogue_of_another_version_is_written_anew_unless_others_would_be_lost(
    manifests: Path, tmp_path: Path
) -> None:
    import sqlite3

    out = tmp_path / "catalog"

    def age() -> None:
        with sqlite3.connect(out / "index.sqlite") as db:
            db.execute("UPDATE meta SET value = '0' WHERE name = 'schema_version'")

    build_from(out, manifests)
    age()
    with pytest.raises(CatalogError, match="schema 0"):
        build_from(out, manifests, update=True)
    report = build_from(out, manifests)
    assert (report.items, report.published) == (60, True)
    assert "older tessera-stac" in report.problems.notes[0]
    build_from(out, manifests, dataset="v1.1-cam")
    age()
    with pytest.raises(CatalogError, match=r"tessera-v1, tessera-v1\.1-cam.*new folder"):
        build_from(out, manifests)


def test_two_builds_at_once_are_refused(manifests: Path, tmp_path: Path) -> None:
    out = tmp_path / "catalog"
    build_from(out, manifests)
    with CatalogFolder(out).new_version() as version:
        with pytest.raises(CatalogError, match="another build"):
            build_from(out, manifests)
        version.wanted = False
    build_from(out, manifests)


def test_a_build_is_over_though_another_process_holds_its_lock_file(tmp_path: Path) -> None:
    folder = CatalogFolder(tmp_path / "catalog")
    with folder.new_version():
        # What a process has that was forked meanwhile and did not start its program yet.
        inherited = os.dup(next(int(p.name) for p in Path("/dev/fd").iterdir() if _is_lock(p)))
    try:
        with folder.new_version():
            pass
    finally:
        os.close(inherited)


def _is_lock(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).endswith("catalog/.versions/.lock")
    except OSError:  # the one that lists them
        return False


def test_a_synthetic_dataset_needs_to_know_where_its_files_are(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, 2024, TILES)
    options = BuildOptions(dataset("synthetic"))
    with pytest.raises(DatasetError, match="--source-root"):
        build([str(manifest)], tmp_path / "catalog", options)


def test_misfitting_sizes_are_reported(tmp_path: Path) -> None:
    columns = {
        "year": [2024, 2024],
        "lon": [0.15, 0.25],
        "lat": [52.05, 52.05],
        "grid_size": [128 * 1139 * 729 + 128, 17],
        "scales_size": [4 * 1139 * 729 + 128, 17],
    }
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    report = build_from(tmp_path / "catalog", tmp_path / "manifest.parquet")
    assert report.problems.counts[ProblemKind.MISFIT] == 1
    assert "2024/grid_0.25_52.05: 17 and 17 bytes" in str(report.problems.kept[0])
    items = api_items(CatalogFolder(tmp_path / "catalog").open_index(), "")
    assert "embeddings_f32" in items["grid_0.15_52.05_2024"]["assets"]
    assert "embeddings_f32" not in items["grid_0.25_52.05_2024"]["assets"]


def test_all_real_manifests(tmp_path: Path) -> None:
    """Counts as published for geotessera 0.1.0's manifests."""
    report = build_from(tmp_path / "catalog", real_manifests())
    assert (report.items, report.tiles, report.problems.counts.total()) == (174_929, 146_455, 0)
    collection = json.loads((tmp_path / "catalog" / "tessera-v1" / "collection.json").read_text())
    coverage = collection["tessera:coverage"]
    assert (coverage["full"], coverage["latest"], coverage["partial"]) == (3_976, 142_229, 250)
    assert coverage["items_per_year"]["2022"] == 4_220
    assert collection["extent"]["spatial"]["bbox"] == [[-178.0, -54.3, 178.9, 64.3]]
