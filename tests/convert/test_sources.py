"""What is taken for a job: files, folders, globs, manifests; names, tags and sidecars."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, in_shard, plan
from catalog_builder.errors import ConvertError, DatasetError
from catalog_builder.synthetic.sample import sample_set, write_geotiff_tile
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import Bounds, TileId
from tests.convert.making import POLAR, YEAR, convert_one, jobs_of, sample, write_pair

OTHER = TileId.from_name("grid_0.15_89.95")


def test_a_folder_with_pairs_landmasks_and_geotiffs(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_pair(tmp_path, sample(POLAR, 2023))
    write_geotiff_tile(tmp_path, sample())  # the pair's own export: left out
    write_geotiff_tile(tmp_path, sample(OTHER), "0.5.1")
    found = plan([str(tmp_path)], Wanted())
    jobs = {j.id: j for j in found.jobs()}
    assert found.total == 3
    assert set(jobs) == {
        f"synthetic/2023/{POLAR.name}",
        f"synthetic/{YEAR}/{POLAR.name}",
        f"synthetic/{YEAR}/{OTHER.name}",
    }
    assert "1 GeoTIFFs skipped" in found.notes[0]
    pair = jobs[f"synthetic/{YEAR}/{POLAR.name}"]
    assert pair.kind == "npy"
    assert pair.scales is not None
    assert pair.landmask is not None
    assert pair.bytes_in == sum(f.size or 0 for f in pair.files)
    assert jobs[f"synthetic/2023/{POLAR.name}"].landmask == pair.landmask
    assert jobs[f"synthetic/{YEAR}/{OTHER.name}"].kind == "geotiff"
    assert pickle.loads(pickle.dumps(pair)) == pair  # noqa: S301
    assert len(pickle.dumps(pair)) < 1500


def test_years_box_and_shards(tmp_path: Path) -> None:
    for tile in (POLAR, OTHER):
        for year in (2022, 2023, 2024):
            folder = tmp_path / str(year) / tile.name
            folder.mkdir(parents=True)
            (folder / f"{tile.name}.npy").touch()
            (folder / f"{tile.name}_scales.npy").touch()
    assert plan([str(tmp_path)], Wanted(years=frozenset({2023}))).total == 2
    assert plan([str(tmp_path)], Wanted(bounds=Bounds(0, 89.9, 0.1, 90))).total == 3
    shards = [{j.id for j in plan([str(tmp_path)], Wanted(shard=(i, 3))).jobs()} for i in range(3)]
    assert sum(map(len, shards)) == len(set.union(*shards)) == 6
    assert all(in_shard(job, (i, 3)) for i, jobs in enumerate(shards) for job in jobs)


def test_globs_and_several_sources(tmp_path: Path) -> None:
    write_geotiff_tile(tmp_path / "a", sample(), "0.5.1")
    write_geotiff_tile(tmp_path / "b", sample(OTHER), "0.5.1")
    assert plan([str(tmp_path / "*" / "*.tif")], Wanted()).total == 2
    assert plan([str(tmp_path / "**" / "*.tif"), str(tmp_path / "a")], Wanted()).total == 2
    with pytest.raises(ConvertError, match="nothing to convert"):
        plan([str(tmp_path / "*.nothing")], Wanted())
    with pytest.raises(ConvertError, match="no such file"):
        plan([str(tmp_path / "nothing.txt")], Wanted())


def test_a_manifest_with_hashes(tmp_path: Path) -> None:
    made = sample_set(tmp_path, tile_years=[(POLAR, YEAR)], workers=1)
    registry = next(r for r in made.registries if r.name == f"registry_{YEAR}.txt")
    wanted = Wanted(
        dataset=dataset("synthetic"), source_root=str(made.embeddings), landmask_root=str(made.landmasks)
    )
    (job,) = plan([str(registry)], wanted).jobs()
    assert job.main.sha256 == made.written[0].npy_sha256
    assert job.landmask is not None
    row = convert_one(
        registry,
        tmp_path / "out",
        wanted={
            "dataset": dataset("synthetic"),
            "source_root": str(made.embeddings),
            "landmask_root": str(made.landmasks),
        },
    ).row
    assert [s.verified for s in row.sources] == [True, True, True], "SHA256SUM beside the landmask counts"
    with pytest.raises(DatasetError, match="--dataset"):
        plan([str(registry)], Wanted())
    with pytest.raises(DatasetError, match="--source-root"):
        plan([str(registry)], Wanted(dataset=dataset("synthetic")))
    (published,) = plan([str(registry)], Wanted(dataset=dataset("v1"))).jobs()
    assert published.main.address.startswith("https://data.source.coop/tessera/tessera/npy/v1/2024/")


def test_a_file_without_a_year_is_not_guessed_where_others_say_theirs(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src", landmask=False)
    for path in (npy, npy.with_name(f"{POLAR.name}_scales.npy")):
        shutil.copy(path, tmp_path / "src" / path.name)
    years = {job.year for job in plan([str(tmp_path / "src")], Wanted(years=frozenset({2024}))).jobs()}
    assert years == {2024, None}


def test_loose_npy_needs_a_year(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src", landmask=False)
    for path in (npy, npy.with_name(f"{POLAR.name}_scales.npy")):
        path.rename(tmp_path / path.name)
    row = convert_one(tmp_path / npy.name, tmp_path / "out").row
    assert "--years" in row.reason
    row = convert_one(tmp_path / npy.name, tmp_path / "out", wanted={"years": frozenset({2024})}).row
    assert (row.ok, row.dataset, row.year) == (True, "v1", 2024)
    with pytest.raises(ConvertError, match="this is the scales file"):
        jobs_of(tmp_path / f"{POLAR.name}_scales.npy")


def test_without_a_landmask_all_is_land(tmp_path: Path) -> None:
    row = convert_one(write_pair(tmp_path, landmask=False), tmp_path / "out").row
    assert row.land_fraction is None
    assert row.valid_fraction == pytest.approx((sample().scales > 0).mean(), abs=1e-6)


def test_tags_decide_and_must_agree(tmp_path: Path) -> None:
    path = write_geotiff_tile(tmp_path, sample())
    renamed = path.rename(tmp_path / "whatever.tif")
    row = convert_one(renamed, tmp_path / "out").row
    assert (row.dataset, row.tile, row.year) == ("synthetic", POLAR, YEAR)
    wrong = renamed.rename(tmp_path / f"{OTHER.name}_{YEAR}.tiff")
    assert (
        f"its tags say {POLAR.name}, but its name {OTHER.name}"
        in convert_one(wrong, tmp_path / "out").row.reason
    )
    wrong = wrong.rename(tmp_path / f"{POLAR.name}_2021.tiff")
    assert "its tags say year 2024, but its name 2021" in convert_one(wrong, tmp_path / "out").row.reason
    right = wrong.rename(tmp_path / f"{POLAR.name}_{YEAR}.tiff")
    reason = convert_one(right, tmp_path / "out", wanted={"dataset": dataset("v1")}).row.reason
    assert "datasets are never mixed" in reason


def _raster(path: Path, count: int, dtype: str, **more: object) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 200, (count, 300, 200)).astype(dtype)
    profile = {"driver": "GTiff", "height": 300, "width": 200, "count": count, "dtype": dtype}
    with rasterio.open(
        path, "w", **profile, crs="EPSG:32633", transform=Affine(20, 0, 4e5, 0, -20, 5e6), **more
    ) as ds:
        ds.write(values)
        ds.update_tags(MADE_BY="me")
    return values


@pytest.mark.parametrize(
    ("count", "dtype"), [(3, "uint8"), (1, "uint16"), (1, "uint8"), (4, "float32"), (2, "float64")]
)
def test_ordinary_rasters_become_cogs(tmp_path: Path, count: int, dtype: str) -> None:
    from rio_cogeo import cog_validate

    values = _raster(tmp_path / "picture.tif", count, dtype)
    row = convert_one(tmp_path / "picture.tif", tmp_path / "out", verify=True).row
    assert (row.status, row.profile, row.dataset, row.tile) == ("ok", "raster", "", None), row.reason
    path = tmp_path / "out" / row.files["embeddings"].path
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as ds:
        np.testing.assert_array_equal(ds.read(), values)
        assert ds.tags()["MADE_BY"] == "me"
    assert 0 < row.files["embeddings"].header_size < row.files["embeddings"].size


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int8"])
def test_many_bands_of_a_block_lie_side_by_side(tmp_path: Path, dtype: str) -> None:
    from rio_cogeo import cog_validate

    values = _raster(tmp_path / "mosaic.tif", 24, dtype, nodata=7)
    row = convert_one(tmp_path / "mosaic.tif", tmp_path / "out", verify=True).row
    assert (row.status, row.profile) == ("ok", "raster"), row.reason
    path = tmp_path / "out" / row.files["embeddings"].path
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as ds:
        np.testing.assert_array_equal(ds.read(), values)
        assert ds.nodata == 7
        assert ds.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "TILE"


def test_options_that_matter_change_the_digest() -> None:
    same = ConvertOptions("a").digest_for("v1")
    assert ConvertOptions("b", verify=True, run="x", durable=False).digest_for("v1") == same
    for other in (
        ConvertOptions("a", profile="float32"),
        ConvertOptions("a", grid="source"),
        ConvertOptions("a", level=2),
    ):
        assert other.digest_for("v1") != same


def test_a_manifest_of_several_datasets_is_converted_by_choosing_one(tmp_path: Path) -> None:
    """Without a choice all are planned, each to its own folder."""
    columns = {
        "version": ["1.0", "1.1", "1.1"],
        "variant": ["vultr", "cambridge", "cambridge"],
        "year": [2024] * 3,
        "lon": [0.05, 0.05, 0.15],
        "lat": [52.05] * 3,
        "grid_size": [0] * 3,
    }
    path = tmp_path / "manifest.parquet"
    pq.write_table(pa.table(columns), path)
    jobs = {
        name: sorted(job.id for job in plan([str(path)], Wanted(dataset=dataset(name))).jobs())
        for name in ("v1", "v1.1-cam")
    }
    assert jobs == {
        "v1": ["v1/2024/grid_0.05_52.05"],
        "v1.1-cam": ["v1.1-cam/2024/grid_0.05_52.05", "v1.1-cam/2024/grid_0.15_52.05"],
    }
    assert sorted(job.id for job in plan([str(path)], Wanted()).jobs()) == sorted(
        jobs["v1"] + jobs["v1.1-cam"]
    )
    (note,) = plan([str(path)], Wanted(dataset=dataset("v1"))).notes
    assert "also holds dataset v1.1-cam" in note
    with pytest.raises(DatasetError, match="not v2-2B-L~beta1"):
        plan([str(path)], Wanted(dataset=dataset("v2-2B-L~beta1")))
