"""Any codes and scales come back bit for bit, through .npy pairs and through GeoTIFFs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog_builder.convert.encode.quantize import dequantize, quantize
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.synthetic.geotiff import Exporter
from catalog_builder.synthetic.sample import write_geotiff_tile
from catalog_builder.synthetic.world import SampleTile
from tests.convert.making import POLAR, YEAR, convert_one, sample, write_pair

pytestmark = pytest.mark.slow

SHAPE = POLAR.raster().shape
ANY_SCALE = hnp.arrays(np.float32, 16, elements=st.floats(2.0**-120, 2.0**120, width=32))
ANY_CODES = hnp.arrays(np.int8, (16, 128))
FEW = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
    ],
)


def _tile(codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], *, spread: bool = True) -> SampleTile:
    """Return a tile whose first pixels are given, the rest noise (or no data)."""
    rng = np.random.default_rng(0)
    full = rng.integers(-127, 128, (*SHAPE, 128), dtype=np.int8)
    full[..., 0] = 127  # as upstream quantises: the largest code is 127
    full_scales = rng.uniform(0.02, 0.14, SHAPE).astype(np.float32)
    if not spread:
        full[:], full_scales[:] = 0, 0
    n = len(scales)
    full.reshape(-1, 128)[:n], full_scales.ravel()[:n] = codes, scales
    return SampleTile(POLAR, YEAR, full, full_scales, np.ones(SHAPE, np.uint8))


def _read(out: Path, row: LedgerRow) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    assert row.ok, row.reason
    with rasterio.open(out / row.files["embeddings"].path) as ds:
        codes = ds.read().transpose(1, 2, 0)
    with rasterio.open(out / row.files["scales"].path) as ds:
        return codes, ds.read(1)


@FEW
@given(codes=ANY_CODES, scales=ANY_SCALE)
def test_any_pair_through_npy(
    tmp_path_factory: pytest.TempPathFactory, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> None:
    root = tmp_path_factory.mktemp("npy")
    made = _tile(codes, scales)
    row = convert_one(write_pair(root, made), root / "out").row
    found, found_scales = _read(root / "out", row)
    np.testing.assert_array_equal(found, made.codes)
    np.testing.assert_array_equal(found_scales.view(np.uint32), made.scales.view(np.uint32))


def _geotiff(root: Path, values: npt.NDArray[np.float32]) -> Path:
    """Write float32 values as geotessera 0.7.5 names and tags them, without its slow codec."""
    raster = POLAR.raster("source")
    path = root / f"{POLAR.name}_{YEAR}.tiff"
    profile = {"driver": "GTiff", "height": SHAPE[0], "width": SHAPE[1], "count": 128, "dtype": "float32"}
    with rasterio.open(
        path, "w", **profile, crs=f"EPSG:{raster.epsg}", transform=raster.transform, interleave="pixel"
    ) as ds:
        ds.write(values.transpose(2, 0, 1))
        ds.update_tags(
            TESSERA_DATASET_VERSION="v1",
            TESSERA_YEAR=str(YEAR),
            TESSERA_TILE_LAT=f"{POLAR.lat:.2f}",
            TESSERA_TILE_LON=f"{POLAR.lon:.2f}",
        )
    return path


@FEW
@given(
    values=hnp.arrays(
        np.float32,
        (16, 128),
        elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_nan=False, allow_subnormal=False),
    )
)
def test_upstream_quantised_through_geotiff(
    tmp_path_factory: pytest.TempPathFactory, values: npt.NDArray[np.float32]
) -> None:
    root = tmp_path_factory.mktemp("tiff")
    codes, scales = quantize(values)
    made = _tile(codes, scales)
    with np.errstate(over="ignore"):
        path = _geotiff(root, dequantize(made.codes, made.scales))
    row = convert_one(path, root / "out").row
    assert row.profile == "native", row.note
    found, found_scales = _read(root / "out", row)
    data = made.scales > 0
    back = dequantize(found, found_scales)[data]
    np.testing.assert_array_equal(
        back.view(np.uint32), dequantize(made.codes, made.scales)[data].view(np.uint32)
    )
    # codes too, wherever the vector is not so small that products lose their precision
    normal = made.scales > 1e-30
    np.testing.assert_array_equal(found[normal], made.codes[normal])
    assert np.isnan(found_scales[~data]).all()


@FEW
@given(
    values=hnp.arrays(
        np.float32,
        (4, 128),
        elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_nan=False, allow_subnormal=False),
        fill=st.nothing(),
    )
)
def test_any_values_through_geotiff(
    tmp_path_factory: pytest.TempPathFactory, values: npt.NDArray[np.float32]
) -> None:
    """What is not codes times a scale is kept as float32, and the result says why."""
    root = tmp_path_factory.mktemp("any")
    full = np.zeros((*SHAPE, 128), np.float32)
    full.reshape(-1, 128)[:4] = values
    row = convert_one(_geotiff(root, full), root / "out").row
    assert row.ok, row.reason
    data = full.any(axis=2)
    if row.profile == "native":
        back = dequantize(*_read(root / "out", row))
        assert not row.note
    else:
        with rasterio.open(root / "out" / row.files["embeddings"].path) as ds:
            assert np.isnan(ds.nodata)
            back = ds.read().transpose(1, 2, 0)
        assert row.note.startswith("kept as float32: pixel (0, ")
    np.testing.assert_array_equal(back[data].view(np.uint32), full[data].view(np.uint32))
    assert np.isnan(back[~data]).all()


@pytest.mark.parametrize("exporter", ["0.5.1", "0.7.5", "0.10", "0.11"])
def test_every_exporter_gives_what_the_pair_gives(tmp_path: Path, exporter: Exporter) -> None:
    made = sample()
    pair = convert_one(write_pair(tmp_path / "src"), tmp_path / "out").row
    path = write_geotiff_tile(tmp_path / "tiff", made, exporter)
    masks = tmp_path / "src" / "global_0.1_degree_tiff_all"
    row = convert_one(path, tmp_path / "out", wanted={"landmask_root": str(masks)}, verify=True).row
    assert (row.dataset, row.tile, row.year, row.profile) == ("synthetic", POLAR, YEAR, "native"), row.reason
    for a, b in zip(_read(tmp_path / "out", pair), _read(tmp_path / "out", row), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (row.statistics, row.valid_fraction) == (pair.statistics, pair.valid_fraction)
    with rasterio.open(path) as source, rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds:
        tags = ds.tags()
        assert {k: tags[k] for k in source.tags()} == source.tags()
        assert tags["TESSERA_DATASET_VARIANT"] == "synthetic"
        assert tags["TESSERA_GRID"] == "utm"
        assert ds.descriptions == source.descriptions
        assert ds.nodata == -128
        t = ds.transform
        assert (t.c % 10, t.f % 10) == (0, 0)


def test_source_grid_keeps_the_published_corner(tmp_path: Path) -> None:
    path = write_geotiff_tile(tmp_path / "tiff", sample())
    row = convert_one(path, tmp_path / "out", grid="source").row
    with rasterio.open(path) as source, rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as ds:
        assert ds.transform == source.transform
        assert ds.tags()["TESSERA_GRID"] == "source"


def test_scales_per_band(tmp_path: Path) -> None:
    made = sample()
    npy = write_pair(tmp_path / "src")
    plain = convert_one(npy, tmp_path / "out").row
    scales = npy.with_name(f"{POLAR.name}_scales.npy")
    np.save(scales, np.broadcast_to(made.scales[..., None], (*made.scales.shape, 128)))
    row = convert_one(npy, tmp_path / "out").row
    assert row.content == plain.content
    np.save(scales, made.scales[..., None] * np.linspace(1, 2, 128, dtype=np.float32))
    assert "expected one scale per pixel" in convert_one(npy, tmp_path / "out").row.reason


def test_float32_view_is_the_product(tmp_path: Path) -> None:
    made = sample()
    row = convert_one(write_pair(tmp_path / "src"), tmp_path / "out").row
    with rasterio.open(tmp_path / "out" / row.files["vrt"].path) as ds:
        assert ds.dtypes[0] == "float32"
        values = ds.read().transpose(1, 2, 0)
        with rasterio.open(tmp_path / "out" / row.files["embeddings"].path) as codes:
            assert ds.overviews(1) == codes.overviews(1)
    valid = (made.scales > 0) & (made.landmask == 1)
    np.testing.assert_array_equal(values[valid], dequantize(made.codes, made.scales)[valid])
    assert np.isnan(values[~valid]).all()


def test_nearest_overviews_are_real_vectors(tmp_path: Path) -> None:
    made = sample()
    row = convert_one(write_pair(tmp_path / "src"), tmp_path / "out", overviews="nearest").row
    with rasterio.open(tmp_path / "out" / row.files["embeddings"].path, overview_level=1) as ds:
        small = ds.read().transpose(1, 2, 0).reshape(-1, 128)
    real = {v.tobytes() for v in made.codes.reshape(-1, 128)}
    assert all(v.tobytes() in real for v in small if v[0] != -128)


def test_same_source_same_files(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src")
    first, second = (convert_one(npy, tmp_path / f"out{i}").row for i in range(2))
    assert first.files == second.files
