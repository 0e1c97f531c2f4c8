"""Which pixels hold data, and that codes and scales come back from float32 values exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geotessera.core import dequantize_embedding
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog_builder.convert.encode.quantize import (
    blank,
    code_range,
    count_nodata_codes,
    dequantize,
    per_pixel_scales,
    quantize,
    recover,
    trusted_mask,
    valid_mask,
)
from catalog_builder.errors import ConvertError

NAN, INF = np.float32(np.nan), np.float32(np.inf)


def bits(values: np.ndarray) -> np.ndarray:
    return values.view(np.int32)


def tile(pixels: int, bands: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return random vectors as upstream quantises them."""
    rng = np.random.default_rng(seed)
    return quantize(rng.standard_normal((pixels, bands)).astype(np.float32) * 2)


# -- masks --------------------------------------------------------------------------------------------


def test_the_rule() -> None:
    scales = np.array([0.05, 0, NAN, INF, -INF, -0.1, 1.0, 1e6, 0.05], np.float32)
    land = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0], np.uint8)
    assert valid_mask(scales).tolist() == [True, False, False, False, False, False, True, True, True]
    assert valid_mask(scales, land).tolist() == [True, False, False, False, False, False, True, True, False]
    assert trusted_mask(scales).tolist() == [True] + [False] * 7 + [True]
    assert trusted_mask(scales, scale_limit=None).tolist() == valid_mask(scales).tolist()
    with pytest.raises(ConvertError, match="landmask is"):
        valid_mask(scales, land[:3])


def test_blank() -> None:
    codes = np.full((2, 2, 3), 5, np.int8)
    scales = np.array([[0.1, 0.2], [0.3, 2.0]], np.float32)
    blank(codes, scales, np.array([[True, False], [False, True]]))
    assert codes[..., 0].tolist() == [[5, -128], [-128, 5]]
    assert np.isnan(scales).tolist() == [[False, True], [True, False]]
    assert scales[1, 1] == 2  # suspect, but kept bit for bit
    with pytest.raises(ConvertError, match="do not fit"):
        blank(codes, scales, np.ones((2, 3), bool))


def test_nodata_codes_are_counted() -> None:
    codes = np.zeros((3, 4, 5), np.int8)
    codes[0, 0, 0] = codes[2, 3, 1] = codes[1, 1, 1] = -128
    valid = np.ones((3, 4), bool)
    valid[1, 1] = False
    assert count_nodata_codes(codes, valid) == 2


@given(
    codes=hnp.arrays(np.int8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_ranges_are_of_pixels_with_data(codes: np.ndarray, seed: int, share: float) -> None:
    """-128 counts in a pixel with data, which its scale decides, and nowhere else."""
    valid = np.random.default_rng(seed).random(codes.shape[:2]) < share
    blank(codes, np.ones(codes.shape[:2], np.float32), valid)
    found = code_range(codes, valid)
    if not valid.any():
        assert found is None
        return
    assert found is not None
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [codes[valid].min(axis=0), codes[valid].max(axis=0)])


def test_scales_per_band() -> None:
    scales = np.array([[0.1, NAN, INF]], np.float32)
    cube = np.repeat(scales[..., None], 4, axis=2)
    assert bits(per_pixel_scales(cube, (1, 3))).tolist() == bits(scales).tolist()
    assert per_pixel_scales(scales, (1, 3)) is scales
    cube[0, 1, 2] = 0.5
    with pytest.raises(ConvertError, match=r"pixel \(0, 1\) has scale nan in band 0 and 0.5 in band 2"):
        per_pixel_scales(cube, (1, 3))
    with pytest.raises(ConvertError, match="scales have shape"):
        per_pixel_scales(scales, (3, 1))


# -- quantise and dequantise --------------------------------------------------------------------------


def test_quantize_is_upstreams_formula() -> None:
    rng = np.random.default_rng(3)
    values = rng.standard_normal((50, 128)).astype(np.float32)
    values[7] = 0
    values[8, 3] = np.nan
    codes, scales = quantize(values)
    for vector, code, scale in zip(values, codes, scales, strict=True):
        if np.isnan(vector).any():
            assert np.isnan(scale)
            assert (code == -128).all()
        elif not vector.any():
            assert scale == 0
            assert not code.any()
        else:
            assert scale == np.float32(np.abs(vector).max() / np.float32(127))
            assert (code == np.rint(vector / scale)).all()
            assert np.abs(code).max() == 127


def test_dequantize_is_geotesseras() -> None:
    codes, scales = tile(300)
    scales[5] = 0
    theirs = dequantize_embedding(codes.reshape(30, 10, 128), scales.reshape(30, 10))
    assert bits(dequantize(codes, scales)).tolist() == bits(theirs).reshape(300, 128).tolist()
    scales[6], scales[7] = NAN, INF
    ours = dequantize(codes, scales, out=np.empty((300, 128), np.float32))
    assert np.isnan(ours[6:8]).all()
    assert not np.isnan(ours[8:]).any()
    with pytest.raises(ConvertError, match="one scale per pixel"):
        dequantize(codes, scales[:5])


# -- recovery -----------------------------------------------------------------------------------------

positive = st.floats(2.0**-100, 2.0**100, width=32)


@st.composite
def vectors(draw: st.DrawFn, elements: st.SearchStrategy[int]) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    codes = draw(hnp.arrays(np.int8, shape, elements=elements))
    return codes, draw(hnp.arrays(np.float32, shape[0], elements=positive))


@settings(deadline=None)
@given(vectors(st.integers(-127, 127)), st.data())
def test_upstreams_codes_come_back(made: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    codes, scales = made
    for code in codes:  # the largest code of upstream's quantiser is 127
        code[data.draw(st.integers(0, code.size - 1))] = data.draw(st.sampled_from([-127, 127]))
    values = dequantize(codes, scales)
    found = recover(values)
    assert found.exact
    assert found.reason is None
    assert (found.codes == codes).all()
    # Bit for bit, but for a neighbouring scale with the very same products.
    assert (np.abs(bits(found.scales) - bits(scales)) <= 1).all()
    assert (bits(dequantize(found.codes, found.scales)) == bits(values)).all()


@settings(deadline=None)
@given(vectors(st.integers(-128, 127)))
def test_any_codes_come_back_as_the_same_values(made: tuple[np.ndarray, np.ndarray]) -> None:
    codes, scales = made
    values = dequantize(codes, scales)
    found = recover(values)
    assert found.exact
    # A vector of zeros is "unprocessed", whatever its scale was; sign of zero aside, values are equal.
    assert (dequantize(found.codes, found.scales) == values).all()
    assert not found.scales[(codes == 0).all(axis=1)].any()


@settings(deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(width=32)))
def test_anything_else_is_exact_or_refused(values: np.ndarray) -> None:
    found = recover(values)
    assert found.exact == (found.reason is None) == (found.first_failure is None)
    with np.errstate(over="ignore"):
        back = dequantize(found.codes, found.scales)
    holds = np.isfinite(found.scales) & (found.scales > 0)
    assert (bits(back)[holds] == bits(values)[holds]).all()
    assert not values[found.scales == 0].any()
    lost = ~holds & (found.scales != 0) & np.isfinite(values).any(axis=1)
    assert lost.sum() == found.failed
    if found.failed:
        assert found.first_failure == np.flatnonzero(lost)[0]


def test_a_whole_tile_of_codes_and_scales() -> None:
    codes, scales = tile(40_000)
    values = dequantize(codes, scales)
    whole = recover(values.reshape(200, 200, 128))
    assert whole.exact
    assert (whole.codes.reshape(codes.shape) == codes).all()
    assert (bits(whole.scales).ravel() == bits(scales)).all()
    # Strip by strip is the same.
    part = recover(values[1000:3500])
    assert (part.codes == codes[1000:3500]).all()
    assert (part.scales == scales[1000:3500]).all()


@pytest.mark.parametrize("bands", [1, 3, 16])
def test_a_selection_of_bands(bands: int) -> None:
    codes, scales = tile(3000)
    values = dequantize(codes[:, :bands], scales)
    found = recover(values)
    assert found.exact
    assert (dequantize(found.codes, found.scales) == values).all()


def test_pixels_without_data() -> None:
    codes, scales = tile(8)
    values = dequantize(codes, scales)
    values[1] = 0
    values[2] = -0.0
    values[3] = np.nan
    values[4] = np.where(codes[4] == 0, NAN, np.copysign(INF, codes[4]))  # an infinite scale
    found = recover(values)
    assert found.exact
    assert found.scales[1] == found.scales[2] == 0
    assert np.isnan(found.scales[3])
    assert np.isinf(found.scales[4])
    assert (found.codes[3:5] == -128).all()
    assert valid_mask(found.scales).tolist() == [True, False, False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v: np.full_like(v, 0.1) * np.arange(1, 129, dtype=np.float32) ** 0.5, "not int8 codes"),
        (lambda v: np.where(np.arange(128) == 5, np.nextafter(v, INF), v), "not int8 codes"),
        (lambda v: np.where(np.arange(128) == 5, NAN, v), "NaN in 1 of 128 bands"),
    ],
)
def test_one_spoilt_pixel_is_found(spoil: Any, reason: str) -> None:
    codes, scales = tile(3000)
    values = dequantize(codes, scales)
    values[2500] = spoil(values[2500])
    found = recover(values)
    assert (found.exact, found.failed, found.first_failure) == (False, 1, 2500)
    assert found.reason is not None
    assert reason in found.reason


def test_plain_floats_are_refused_quickly() -> None:
    values = np.random.default_rng(1).standard_normal((20_000, 128)).astype(np.float32)
    found = recover(values)
    assert (found.failed, found.first_failure) == (20_000, 0)


def test_negative_zero_is_not_a_code() -> None:
    values = dequantize(*tile(1))
    values[0, np.flatnonzero(np.abs(values[0]) < np.abs(values[0]).max())[0]] = -0.0
    assert not recover(values).exact
