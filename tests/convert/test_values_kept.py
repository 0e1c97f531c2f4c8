"""Values that codes and float32 scales cannot say: the tile is kept as float32, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.tile.verify import check_row
from catalog_builder.synthetic.geotiff import write_geotiff_tile
from tests.convert.making import POLAR, convert_one, sample, sample_basis, write_pair
from tests.convert.test_odd_folders import convert, rows_of

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_geotiff_tile(tmp_path_factory.mktemp("tile"), sample())


def _spoilt(tile: Path, folder: Path, spoil: dict[tuple[int, int, int], float]) -> tuple[Path, np.ndarray]:
    """Copy an exported tile with some samples (row, column, band) changed; return its values too."""
    path = folder / tile.name
    folder.mkdir()
    with rasterio.open(tile) as ds:
        values, profile, tags = ds.read(), ds.profile, ds.tags()
    for (row, col, band), value in spoil.items():
        values[band, row, col] = value
    with rasterio.open(path, "w", **profile) as ds:
        ds.write(values)
        ds.update_tags(**tags)
    return path, values


def _result(out: Path, row: LedgerRow, level: int | None = None) -> np.ndarray:
    how = {} if level is None else {"overview_level": level}
    with rasterio.open(out / row.files["embeddings"].path, **how) as ds:
        values: np.ndarray = ds.read()
        return values


def _check(found: np.ndarray, values: np.ndarray) -> None:
    """Every pixel that is finite in any band and not zero is there bit by bit; the others are NaN."""
    data = np.isfinite(values).any(axis=0) & (values != 0).any(axis=0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, data].view(np.uint32), values[:, data].view(np.uint32))
    assert np.isnan(found[:, ~data]).all()


@pytest.mark.parametrize(
    ("value", "what"), [(np.inf, "infinity in 1"), (-np.inf, "infinity in 1"), (np.nan, "NaN in 1")]
)
def test_one_odd_sample(tmp_path: Path, tile: Path, value: float, what: str) -> None:
    at = (600, 30, 77)
    path, values = _spoilt(tile, tmp_path / "src", {at: value})
    out = tmp_path / "out"
    done = convert(path, "--out", out, "--verify", "--workers", "0")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(out).values()
    assert (row.profile, row.lossless, row.verified) == ("float32", True, True)
    note = (
        f"kept as float32: pixel (600, 30): {what} of 128 bands; 1 pixels hold infinity or NaN in some bands:"
        " kept, but in no overview and statistics"
    )
    assert row.note == note
    assert note in done.stderr
    found = _result(out, row)
    _check(found, values)
    assert np.isfinite(np.delete(found[:, 600, 30], 77)).all(), "its other bands are there"
    assert np.isfinite(_result(out, row, 0)[:, 300, 15]).all(), "the overview is the mean of its neighbours"
    assert row.maximum is not None
    assert np.isfinite(row.maximum)
    assert check_row(str(out), row).problems == ()


@pytest.mark.parametrize("profile", ["native", "float32"])
def test_what_is_finite_in_no_band_is_no_data(tmp_path: Path, tile: Path, profile: str) -> None:
    """An infinite scale gives infinities, and NaN for code 0: that is no data in either profile."""
    samples = {(600, 30, band): (np.nan if band % 9 == 0 else np.inf) for band in range(128)}
    samples |= {(601, 30, band): np.nan for band in range(128)}
    path, values = _spoilt(tile, tmp_path / "src", samples)
    row = convert_one(path, tmp_path / "out", profile=profile, verify=True).row
    assert (row.profile, row.lossless, row.note) == (profile, True, "")
    found = _result(tmp_path / "out", row)
    if profile == "float32":
        _check(found, values)
    else:
        assert (found[:, 600:602, 30] == -128).all()


def test_colours_of_a_tile_with_infinities(tmp_path: Path, tile: Path) -> None:
    path, _ = _spoilt(tile, tmp_path / "src", {(600, 30, 5): np.inf, (600, 31, 5): np.nan})
    row = convert_one(path, tmp_path / "out", bases=(sample_basis(),)).row
    assert row.ok, row.reason
    with rasterio.open(tmp_path / "out" / row.files["visual"].path) as ds:
        image = ds.read()
    assert not image[:, 600, 30:32].any()
    assert image[:, 600, 29].all()


def test_float64_scales_that_float32_does_not_hold(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src")
    path = npy.with_name(f"{POLAR.name}_scales.npy")
    scales = np.load(path).astype(np.float64)
    made = sample()
    valid = (scales > 0) & (made.landmask == 1)
    at = tuple(np.argwhere(valid)[5])
    scales[at] = 0.1
    scales[600, 30], scales[601, 30] = 1e300, 1e-60  # float32: infinity, and zero
    np.save(path, scales)
    out = tmp_path / "out"
    done = convert(tmp_path / "src", "--out", out, "--verify", "--workers", "0")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(out).values()
    assert (row.profile, row.lossless, row.dtype, row.verified) == ("float32", False, "float32", True)
    note = "kept as float32: 3 of the float64 scales are none that float32 holds, such as 0.1 at"
    assert row.note.startswith(f"{note} ({at[0]}, {at[1]})")
    assert row.note in done.stderr
    with np.errstate(over="ignore"):
        expected = (made.codes.astype(np.float64) * scales[..., None]).astype(np.float32).transpose(2, 0, 1)
    found = _result(out, row)
    np.testing.assert_array_equal(found[:, valid].view(np.uint32), expected[:, valid].view(np.uint32))
    assert np.isnan(found[:, ~valid]).all()
    assert row.valid_fraction == pytest.approx(valid.mean(), abs=1e-6)
    assert check_row(str(out), row).problems == ()


def test_float64_scales_that_float32_holds_are_codes_and_scales(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src")
    path = npy.with_name(f"{POLAR.name}_scales.npy")
    np.save(path, np.load(path).astype(np.float64))
    row = convert_one(npy, tmp_path / "out", verify=True).row
    assert (row.profile, row.lossless, row.note) == ("native", True, "")
