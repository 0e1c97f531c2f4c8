"""Overviews against an independent float64 computation, GDAL's nearest, and numpy's statistics."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog_builder.convert.encode import overviews
from catalog_builder.convert.encode.cog import write_cog
from catalog_builder.convert.encode.overviews import level_shapes, masked_pyramid, quantized_pyramid
from catalog_builder.convert.encode.quantize import blank, dequantize, quantize, valid_mask
from catalog_builder.errors import ConvertError


def tile(rows: int, cols: int, bands: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a quantised tile with water, an unprocessed strip, NaN and garbage scales."""
    rng = np.random.default_rng(seed)
    codes, scales = quantize(rng.standard_normal((rows, cols, bands)).astype(np.float32))
    scales *= rng.uniform(0.2, 3, scales.shape).astype(np.float32)
    scales[rng.random(scales.shape) < 0.1] = 0
    scales[rng.random(scales.shape) < 0.02] = np.inf
    scales[rng.random(scales.shape) < 0.02] = 1e6
    land = rng.random(scales.shape) > 0.1
    land[: rows // 3, : cols // 3] = False
    blank(codes, scales, valid_mask(scales, land))
    return codes, scales


def mean64(
    values: np.ndarray, counted: np.ndarray, shape: tuple[int, int], depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 mean of the counted pixels below each overview pixel, and their largest value."""
    full, bands = values.shape[:2], values.shape[2]
    steps = []
    for axis in (0, 1):  # an axis is halved until it is 1
        step, size = 1, full[axis]
        for _ in range(depth):
            if size > 1:
                step, size = step * 2, size // 2
        steps.append(step)
    out = np.full((*shape, bands), np.nan)
    peak = np.zeros(shape)
    for y in range(shape[0]):
        for x in range(shape[1]):
            window = np.s_[y * steps[0] : (y + 1) * steps[0], x * steps[1] : (x + 1) * steps[1]]
            pixels = values[window][counted[window]].astype(np.float64)
            if len(pixels):
                out[y, x] = pixels.mean(axis=0)
                peak[y, x] = np.abs(pixels).max()
    return out, peak


def check(codes: np.ndarray, scales: np.ndarray, block_size: int) -> None:
    made = quantized_pyramid(codes, scales, block_size=block_size)
    shapes = level_shapes(*scales.shape, block_size)
    assert made.codes[0] is codes
    assert made.scales[0] is scales
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(scales) & (scales > 0) & (scales < 1)
    values = dequantize(codes, scales)
    for depth, shape in enumerate(shapes):
        level_codes, level_scales = made.codes[depth], made.scales[depth]
        assert level_codes.shape == (*shape, codes.shape[2])
        assert level_scales.shape == shape
        if depth == 0:
            continue
        expected, peak = mean64(values, counted, shape, depth)
        empty = np.isnan(expected).any(axis=2)
        assert (np.isnan(level_scales) == empty).all()
        assert (level_codes[empty] == -128).all()
        assert (level_codes[~empty] >= -127).all()
        step = np.abs(expected[~empty]).max(axis=1) / 127
        rounding = 1e-6 * peak[~empty]
        error = np.abs(dequantize(level_codes, level_scales)[~empty] - expected[~empty]).max(axis=1)
        assert (error <= 0.5001 * step + rounding).all()
        assert (np.abs(level_scales[~empty] - step) <= 1e-6 * step + rounding + 2e-45).all()


@pytest.mark.parametrize("size", [(64, 64), (100, 70), (33, 17), (1, 90), (37, 1), (5, 5), (3, 200)])
def test_means_are_the_exact_ones(size: tuple[int, int]) -> None:
    check(*tile(*size), 16)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_tile(data: st.DataObject) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, max_side=20))
    codes = data.draw(hnp.arrays(np.int8, shape))
    some = st.one_of(st.floats(2.0**-60, 2.0, width=32), st.sampled_from([0.0, np.nan, np.inf]))
    scales = data.draw(hnp.arrays(np.float32, shape[:2], elements=some))
    blank(codes, scales, valid_mask(scales))
    check(codes, scales, 4)


def test_patches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, scales = tile(150, 170)
    whole = quantized_pyramid(codes, scales, block_size=32, statistics=True)
    monkeypatch.setattr(overviews, "_PATCH_SAMPLES", 5000)
    pieces = quantized_pyramid(codes, scales, block_size=32, statistics=True)
    for one, other in zip(whole.codes + whole.scales, pieces.codes + pieces.scales, strict=True):
        assert one.tobytes() == other.tobytes()
    assert whole.statistics is not None
    assert pieces.statistics is not None
    for a, b in zip(whole.statistics, pieces.statistics, strict=True):
        assert a.mean == pytest.approx(b.mean, abs=1e-6)
        assert (a.minimum, a.maximum) == (b.minimum, b.maximum)


@pytest.mark.parametrize("method", ["average", "nearest"])
def test_statistics(method: overviews.Method) -> None:
    codes, scales = tile(120, 90)
    made = quantized_pyramid(codes, scales, block_size=32, method=method, statistics=True)
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(scales) & (scales < 1)
    pixels = dequantize(codes, scales)[counted].astype(np.float64)
    assert made.statistics is not None
    for band, found in enumerate(made.statistics):
        assert found.minimum == pixels[:, band].min()
        assert found.maximum == pixels[:, band].max()
        assert found.mean == pytest.approx(pixels[:, band].mean(), rel=1e-5, abs=1e-6)
        assert found.stddev == pytest.approx(pixels[:, band].std(), rel=1e-5)
        assert found.valid_percent == 100 * counted.mean()


def test_no_valid_pixel() -> None:
    codes = np.full((40, 40, 4), -128, np.int8)
    scales = np.full((40, 40), np.nan, np.float32)
    made = quantized_pyramid(codes, scales, block_size=16, statistics=True)
    assert all(np.isnan(level).all() for level in made.scales)
    assert all((level == -128).all() for level in made.codes)
    assert made.statistics is not None
    assert np.isnan(made.statistics[0].mean)
    assert made.statistics[0].gdal_items() == {}


def test_garbage_scales_do_not_count_unless_asked() -> None:
    codes = np.full((4, 4, 3), 100, np.int8)
    scales = np.full((4, 4), 0.5, np.float32)
    scales[0, 0] = 1e30
    assert quantized_pyramid(codes, scales, block_size=2).scales[1][0, 0] == np.float32(50 / 127)
    wide = quantized_pyramid(codes, scales, block_size=2, scale_limit=None).scales[1][0, 0]
    assert wide == pytest.approx(1e30 * 100 / 127 / 4, rel=1e-6)


def test_vectors_that_cancel_are_data() -> None:
    codes = np.array([[[1, -2], [-1, 2]], [[3, 4], [-3, -4]]], np.int8)
    made = quantized_pyramid(codes, np.full((2, 2), 0.25, np.float32), block_size=1)
    assert made.codes[1].tolist() == [[[0, 0]]]
    assert made.scales[1][0, 0] > 0  # not "unprocessed"


@pytest.mark.parametrize("size", [(64, 64), (100, 70), (33, 17), (1, 90)])
def test_nearest_is_gdals(tmp_path: Path, size: tuple[int, int]) -> None:
    codes, scales = tile(*size)
    made = quantized_pyramid(codes, scales, block_size=16, method="nearest")
    for kind, level0, levels in (("codes", codes, made.codes), ("scales", scales[..., None], made.scales)):
        path = tmp_path / f"{kind}.tif"
        transform = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)
        with path.open("wb") as stream:
            write_cog(stream, [level0], crs_epsg=32631, transform=transform, block_size=16)
        with rasterio.open(path) as dataset:
            for level in levels:
                shape = (level0.shape[2], *level.shape[:2])
                got = dataset.read(out_shape=shape).transpose(1, 2, 0)
                assert got.tobytes() == level.tobytes()


def test_masked_float_means() -> None:
    rng = np.random.default_rng(5)
    values = rng.standard_normal((70, 50, 3)).astype(np.float32)
    values[rng.random((70, 50)) < 0.3] = np.nan
    values[:20, :20] = np.nan
    levels = masked_pyramid(values, None, block_size=16, nodata=np.nan)
    valid = ~np.isnan(values).any(axis=2)
    for depth, level in enumerate(levels[1:], 1):
        expected, _ = mean64(values, valid, level.shape[:2], depth)
        np.testing.assert_allclose(level, expected, rtol=1e-5, atol=1e-6)
    flat = masked_pyramid(values[..., 0], valid, block_size=16, nodata=np.nan)
    for one, other in zip(flat, levels, strict=True):
        assert one.tobytes() == np.ascontiguousarray(other[..., 0]).tobytes()


def test_masked_colour_means() -> None:
    rng = np.random.default_rng(6)
    values = rng.integers(0, 255, (40, 41, 3), dtype=np.uint8, endpoint=True)
    valid = rng.random((40, 41)) > 0.5
    levels = masked_pyramid(values, valid, block_size=8, nodata=0)
    for depth, level in enumerate(levels[1:], 1):
        expected, _ = mean64(values, valid, level.shape[:2], depth)
        expected = np.nan_to_num(np.rint(expected))
        assert level.dtype == np.uint8
        assert (np.abs(level - expected) <= 1e-3).all()
    nearest = masked_pyramid(values, valid, block_size=8, nodata=0, method="nearest")
    assert nearest[1].tolist() == values[1::2, 1::2][:, :20].tolist()


def test_wrong_arguments() -> None:
    codes, scales = tile(20, 20)
    with pytest.raises(ConvertError, match="one scale per pixel"):
        quantized_pyramid(codes, scales[:5], block_size=16)
    with pytest.raises(ConvertError, match="'cubic'"):
        quantized_pyramid(codes, scales, block_size=16, method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConvertError, match="'cubic'"):
        masked_pyramid(codes, scales > 0, block_size=16, nodata=0, method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ConvertError, match="the mask is"):
        masked_pyramid(codes, scales[:5] > 0, block_size=16, nodata=0)


def test_the_examples_in_the_module() -> None:
    assert doctest.testmod(overviews).failed == 0
