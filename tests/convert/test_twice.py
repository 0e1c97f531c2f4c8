"""A tile-year in several places, and folders of datasets that are not known: nothing is chosen in silence."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from catalog_builder.synthetic.geotiff import write_geotiff_tile
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.datasets import dataset
from tests.convert.making import POLAR, YEAR, sample, write_pair
from tests.convert.test_odd_folders import convert, rows_of

pytestmark = pytest.mark.service
FILE = f"{YEAR}/{POLAR.name}/{POLAR.name}.npy"


def _pair(root: Path, *, change: bool = False, sidecar: str = "") -> Path:
    """Write the pair of one tile-year, of which one code may be another; return its ``.npy``."""
    made = sample()
    codes = made.codes.copy()
    codes[500, 20, 0] ^= change
    npy = write_pair(root, SampleTile(POLAR, YEAR, codes, made.scales, made.landmask))
    (root / "tessera_metadata.json").unlink()
    if sidecar:
        (root / "tessera_metadata.json").write_text(sidecar)
    return npy


def _codes(out: Path, row_path: str) -> np.ndarray:
    with rasterio.open(out / row_path) as ds:
        values: np.ndarray = ds.read()
        return values


@pytest.mark.parametrize("how", ["one folder", "two sources", "a pattern"])
def test_other_content_is_an_error_that_names_both(tmp_path: Path, how: str) -> None:
    a, b = _pair(tmp_path / "src/a"), _pair(tmp_path / "src/b", change=True)
    sources = {
        "one folder": [tmp_path / "src"],
        "two sources": [tmp_path / "src/a", tmp_path / "src/b"],
        "a pattern": [f"{tmp_path}/src/*/**/{POLAR.name}.npy"],
    }[how]
    done = convert(*sources, "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert f"{a} and {b} are the same tile-year with different content: keep one of them" in done.stderr
    assert "0 converted, 0 already done, 1 failed of 1" in done.stdout
    assert not list((tmp_path / "out").rglob("*.tif"))
    shutil.rmtree(tmp_path / "src/b")
    assert convert(*sources[:1], "--out", tmp_path / "out", "--workers", "0").returncode == 0


def test_scales_alone_may_differ(tmp_path: Path) -> None:
    a, b = _pair(tmp_path / "src/a"), _pair(tmp_path / "src/b")
    scales = b.with_name(f"{POLAR.name}_scales.npy")
    values = np.load(scales)
    values[500, 20] *= 2
    np.save(scales, values)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert f"{a.with_name(scales.name)} and {scales} are the same tile-year" in done.stderr


def test_of_the_same_content_one_is_used(tmp_path: Path) -> None:
    a, b = _pair(tmp_path / "src/a"), _pair(tmp_path / "src/b")
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 0
    note = f"{a} is used; the same content is also at {b}"
    assert note in done.stderr
    (row,) = rows_of(tmp_path / "out").values()
    assert row.note == note


def test_a_folder_that_two_links_lead_to_is_one_place(tmp_path: Path) -> None:
    _pair(tmp_path / "src/a")
    (tmp_path / "src/b").symlink_to(tmp_path / "src/a")
    done = convert(tmp_path / "src", tmp_path / "src/a", "--out", tmp_path / "out", "--workers", "0")
    assert (done.returncode, "same" in done.stderr) == (0, False)
    assert "1 converted, 0 already done, 0 failed of 1" in done.stdout


def test_geotiffs_that_only_their_tags_tell_apart(tmp_path: Path) -> None:
    made = sample()
    other = SampleTile(POLAR, YEAR, made.codes, made.scales * np.float32(2), made.landmask)
    for name, tile in (("one", made), ("two", other)):
        write_geotiff_tile(tmp_path / name, tile).rename(tmp_path / f"{name}.tif")
        shutil.rmtree(tmp_path / name)
    (tmp_path / "src").mkdir()
    for name in ("one.tif", "two.tif"):
        (tmp_path / name).rename(tmp_path / "src" / name)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 1
    assert f"{tmp_path}/src/one.tif and {tmp_path}/src/two.tif are the same tile-year" in done.stderr


def test_the_later_manifest_counts_as_in_a_build(tmp_path: Path) -> None:
    npy = _pair(tmp_path / "src")
    root = npy.parents[2]

    def line(path: Path, digest: str) -> str:
        return f"{YEAR}/{POLAR.name}/{path.name} {digest}\n"

    files = (npy, npy.with_name(f"{POLAR.name}_scales.npy"))
    right = "".join(line(p, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files)
    (tmp_path / "old.txt").write_text("".join(line(p, "0" * 64) for p in files))
    (tmp_path / "new.txt").write_text(right)
    for order, code in ((("old.txt", "new.txt"), 0), (("new.txt", "old.txt"), 1)):
        sources = [tmp_path / name for name in order]
        options = ["--dataset", "v1", "--source-root", root, "--workers", "0", "--force"]
        done = convert(*sources, "--out", tmp_path / "out", *options)
        assert done.returncode == code, done.stderr


def test_an_unknown_dataset_is_never_v1(tmp_path: Path) -> None:
    src, out = tmp_path / "src", tmp_path / "out"
    _pair(src / "npy/v1")
    unknown = _pair(src / "npy/v2", change=True)
    done = convert(src, "--out", out, "--workers", "0")
    assert done.returncode == 1
    assert f"{unknown}: {src}/npy/v2: the folder 'v2' is named like a dataset, but is none" in done.stderr
    assert "v1, v1.1-dclimate, v1.1-cam," in done.stderr
    assert "--dataset" in done.stderr
    (good,) = (row for row in rows_of(out).values() if row.ok)
    assert good.dataset == "v1"
    np.testing.assert_array_equal(
        _codes(out, good.files["embeddings"].path)[0, 500, 20], sample().codes[500, 20, 0]
    )
    assert sorted(p.name for p in out.iterdir()) == ["ledger", "v1"]
    named = convert(src / "npy/v2", "--dataset", "v2-2B-L~beta1", "--out", out, "--workers", "0")
    assert named.returncode == 0, named.stderr
    assert sorted(p.name for p in out.iterdir()) == ["ledger", "v1", "v2-2B-L~beta1"]


@pytest.mark.parametrize("where", ["v1.1", "v2.0", "v1-other", "global_0.1_degree_representation.camb"])
def test_other_folders_of_unknown_datasets(tmp_path: Path, where: str) -> None:
    _pair(tmp_path / "src" / "v1" / where)
    write_geotiff_tile(tmp_path / "tiff" / where, sample(), "0.5.1")
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert (done.returncode, where in done.stderr) == (1, True)
    assert not list((tmp_path / "out").rglob("*.tif"))
    tagged = convert(tmp_path / "tiff", "--out", tmp_path / "out", "--workers", "0")
    assert tagged.returncode == 0, "its tags say which dataset it is"


def test_the_wanted_dataset_is_not_what_another_is_called(tmp_path: Path) -> None:
    cam = '{"dataset_version": "1.1", "dataset_variant": "cambridge"}'
    _pair(tmp_path / "src/cam", sidecar=cam)
    only = convert(tmp_path / "src", "--dataset", "v1", "--out", tmp_path / "out", "--workers", "0")
    assert only.returncode == 2
    assert "holds dataset v1.1-cam (by " in only.stderr
    assert not (tmp_path / "out").exists()
    _pair(tmp_path / "src/legacy", change=True)
    done = convert(tmp_path / "src", "--dataset", "v1", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 0
    assert "also holds dataset v1.1-cam" in done.stderr
    both = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert both.returncode == 0
    assert {row.dataset for row in rows_of(tmp_path / "out").values()} == {
        "v1",
        dataset("v1.1-cam").directory,
    }


def test_landmasks_of_several_datasets(tmp_path: Path) -> None:
    """Each tile has its own dataset's landmask; two of one place are an error that names both."""
    made = sample()
    land = np.ones_like(made.landmask)
    for name, mask in (("v1", made.landmask), ("v1.1-cam", land)):
        npy = write_pair(tmp_path / "npy" / name, SampleTile(POLAR, YEAR, made.codes, made.scales, mask))
        (tmp_path / "npy" / name / "tessera_metadata.json").unlink()
        masks = tmp_path / "landmasks" / name.removesuffix("-cam")
        masks.mkdir(parents=True)
        written = next((tmp_path / "npy" / name).rglob("*.tiff"))
        written.rename(masks / written.name)
        assert npy.exists()
    done = convert(tmp_path, "--out", tmp_path.with_name("out"), "--workers", "0")
    assert done.returncode == 0, done.stderr
    fractions = {row.dataset: row.land_fraction for row in rows_of(tmp_path.with_name("out")).values()}
    assert fractions["v1.1-cam"] == 1.0
    assert fractions["v1"] == pytest.approx(float((made.landmask > 0).mean()))
    shutil.rmtree(tmp_path / "npy/v1.1-cam")
    for name in ("one", "two"):
        shutil.copytree(
            tmp_path / "landmasks" / ("v1" if name == "one" else "v1.1"), tmp_path / "masks" / name
        )
    shutil.rmtree(tmp_path / "landmasks")
    done = convert(tmp_path, "--out", tmp_path.with_name("out"), "--workers", "0", "--force")
    assert done.returncode == 1
    assert "are both the landmask of" in done.stderr
