"""Finished tiles: strictly valid, read alike by independent decoders, checked again by `validate`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.request import url2pathname

import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image
from rio_cogeo import cog_info, cog_validate

from catalog_builder.catalog.basis import load_basis, store_basis
from catalog_builder.convert.encode.colours import colours, thumbnail
from catalog_builder.convert.fit_colours import fit_visual
from catalog_builder.convert.ledger.reader import read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.tile.verify import check_row, validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.errors import ConvertError
from catalog_builder.synthetic.sample import make_tile
from tests.convert.conftest import VALIDATE
from tests.convert.making import POLAR, YEAR, convert_one, sample, sample_basis, write_pair


@pytest.fixture(scope="module", params=["native", "float32"])
def converted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LedgerRow]:
    """Convert a tile to each profile, with colours."""
    root = tmp_path_factory.mktemp(request.param)
    row = convert_one(
        write_pair(root / "src"), root / "out", profile=request.param, bases=(sample_basis(),), verify=True
    ).row
    assert row.ok, row.reason
    assert row.verified
    return root / "out", row


def _rasters(out: Path, row: LedgerRow) -> list[Path]:
    return [out / f.path for f in row.files.values() if f.path.endswith(".tif")]


def test_every_raster_is_strictly_valid(converted: tuple[Path, LedgerRow]) -> None:
    for path in _rasters(*converted):
        valid, errors, warnings = cog_validate(path, strict=True)
        assert valid, (path, errors, warnings)
        with rasterio.open(path) as ds:
            last = len(ds.overviews(1)) - 1
        with rasterio.open(path, overview_level=last) as ds:
            assert ds.shape == tuple(map(min, ds.shape, ds.block_shapes[0])), "overviews down to one block"


@pytest.mark.service
def test_gdals_full_check_finds_nothing(converted: tuple[Path, LedgerRow], gdal_validator: Path) -> None:
    for path in _rasters(*converted):
        command = [sys.executable, VALIDATE, gdal_validator, path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert "is a valid cloud optimized GeoTIFF" in done.stdout


def test_tifffile_reads_the_same(converted: tuple[Path, LedgerRow]) -> None:
    for path in _rasters(*converted):
        with rasterio.open(path) as ds, tifffile.TiffFile(path) as file:
            theirs = file.pages[0].asarray()
            ours = ds.read()
            if theirs.ndim == 2:
                theirs = theirs[None]
            elif theirs.shape != ours.shape:
                theirs = theirs.transpose(2, 0, 1)
            np.testing.assert_array_equal(ours, theirs)


def test_header_size_is_where_the_data_begin(converted: tuple[Path, LedgerRow]) -> None:
    out, row = converted
    for file in row.files.values():
        if file.header_size:
            with tifffile.TiffFile(out / file.path) as tiff:
                first = min(min(page.dataoffsets) for page in tiff.pages)
            assert first == file.header_size + 4  # the block's size stands before it


def test_visual_and_thumbnail(converted: tuple[Path, LedgerRow]) -> None:
    out, row = converted
    made = sample()
    valid = (made.scales > 0) & (made.landmask == 1)
    with rasterio.open(out / row.files["visual"].path) as ds:
        assert (ds.count, ds.dtypes[0], ds.nodata) == (3, "uint8", 0)
        image = ds.read().transpose(1, 2, 0)
        assert [c.name for c in ds.colorinterp] == ["red", "green", "blue"]
    np.testing.assert_array_equal((image > 0).all(axis=2), valid)
    np.testing.assert_array_equal((image == 0).all(axis=2), ~valid)
    assert image[valid].std(axis=0).min() > 20, "colours use their range"
    picture = Image.open(io.BytesIO((out / row.files["thumbnail"].path).read_bytes()))
    assert (picture.mode, max(picture.size)) == ("RGBA", 512)
    alpha = np.asarray(picture)[..., 3]
    assert (alpha == 0).any()
    assert (alpha == 255).any()


def test_cog_info_of_the_native_pair(converted: tuple[Path, LedgerRow]) -> None:
    out, row = converted
    info = cog_info(out / row.files["embeddings"].path)
    assert info.COG
    assert info.Compression == "ZSTD"
    assert info.Profile.Dtype == ("int8" if row.profile == "native" else "float32")
    assert info.Tags["Image Metadata"]["TESSERA_YEAR"] == str(YEAR)
    assert info.Tags["Image Structure"]["OVERVIEW_RESAMPLING"] == "AVERAGE"


def test_colours_match_over_tiles_and_profiles() -> None:
    """A vector has the same colour wherever it lies, up to the rounding of float32."""
    basis, made = sample_basis(), sample()
    whole = colours(basis, made.codes, made.scales)
    part = colours(basis, made.codes[100:300], made.scales[100:300])
    assert np.abs(whole[100:300].astype(int) - part).max() <= 1
    with pytest.raises(ConvertError, match="components"):
        replace(basis, components=basis.components[:2])
    with pytest.raises(ConvertError, match="stretch"):
        replace(basis, low=basis.high)


def test_the_basis_is_deterministic_and_keeps_what_it_was_made_from(tmp_path: Path) -> None:
    for year in (2022, 2023, 2024):
        made = make_tile(POLAR, year)
        write_pair(tmp_path / "src", made)
    found = plan([str(tmp_path / "src")], Wanted())
    options = ConvertOptions(str(tmp_path / "out"))
    first, second = (fit_visual(found, options, ExecutorWorkers(Inline(), 1)) for _ in range(2))
    assert first == second
    (basis,) = first
    assert basis.dataset == "synthetic"
    assert basis.tiles == tuple(f"synthetic/{y}/{POLAR.name}" for y in (2022, 2023, 2024))
    assert basis.pixels == 3 * 4096
    np.testing.assert_allclose(
        np.array(basis.components) @ np.array(basis.components).T, np.eye(3), atol=1e-5
    )
    where = store_basis(options.out, basis)
    assert load_basis(options.out, "synthetic") == basis
    assert json.loads(Path(url2pathname(where)).read_text())["about"].startswith("PCA")
    Path(where).write_text("{}")
    with pytest.raises(ConvertError, match="not a visual basis"):
        load_basis(options.out, "synthetic")


def test_a_thumbnail_of_nothing_is_transparent() -> None:
    picture = Image.open(io.BytesIO(thumbnail([np.zeros((700, 300, 3), np.uint8)])))
    assert np.asarray(picture)[..., 3].max() == 0


@pytest.mark.parametrize("profile", ["native", "float32"])
def test_validate_finds_what_is_wrong(tmp_path: Path, profile: str) -> None:
    npy = write_pair(tmp_path / "src")
    out = tmp_path / "out"
    row = convert_one(npy, out, profile=profile).row
    with LedgerWriter(out / "ledger") as ledger:
        ledger.append(row)
    report = validate_results(str(out))
    assert (report.sound, report.checked, report.pixels) == (True, 1, 1)

    path = out / row.files["embeddings"].path
    good = path.read_bytes()
    path.write_bytes(good[:-3] + b"abc")
    assert "SHA-256" in check_row(str(out), row).problems[0]
    path.write_bytes(good[:-3])
    assert "the ledger says" in check_row(str(out), row).problems[0]
    path.unlink()
    assert "missing" in check_row(str(out), row).problems[0]
    path.write_bytes(good)

    # a file that is what the ledger says, but not what the source is
    other = make_tile(POLAR, YEAR, seed=9)
    wrong = convert_one(write_pair(tmp_path / "other", other), tmp_path / "out2", profile=profile).row
    mixed = replace(wrong, sources=row.sources)
    assert any("differ" in p for p in check_row(str(tmp_path / "out2"), mixed).problems)
    assert check_row(str(tmp_path / "out2"), mixed, pixels=False).problems == ()

    # a source that changed since is a note: the files are still what they were
    npy.write_bytes(npy.read_bytes()[:-1] + b"x")
    report = validate_results(str(out))
    assert (report.sound, report.pixels) == (True, 0)
    assert "the manifest says" in report.notes[0].note
    assert len(list(read_rows(out / "ledger"))) == 1
