"""Codes and scales: how a TESSERA vector is stored, which pixels hold one, and how to get both back.

A pixel is 128 int8 *codes* and one float32 *scale*; its vector is ``float32(code) * scale``, a single
rounded float32 product per band. Upstream quantises each pixel by ``scale = max|x| / 127`` and
``code = rint(x / scale)``, so that the largest code is 127 in magnitude (inference scripts of
``ucam-eo/tessera``).

Which pixels hold data
----------------------
One rule, :func:`valid_mask`, used wherever the question comes up:

    a pixel is **valid** when its scale is finite and greater than 0, and the landmask, when there is
    one, is not 0 there.

Scale 0 marks a pixel that was never processed (geotessera issue 266), NaN and infinity mark pixels
that must not be dequantised, and the landmask is 0 on water. Everywhere else :func:`blank` writes code
-128 in every band and scale NaN, so that both files say "no data" in the same pixels.

Valid pixels are stored **bit for bit**, whatever they hold. Two consequences:

* Upstream's codes run from -127 to 127, which leaves -128 as the nodata value of the code bands. Should
  a valid pixel hold -128 it is kept, and a reader that masks by code alone will miss that one sample:
  the scale is what decides, and :func:`count_nodata_codes` says how many there are.
* Some published files hold scales near 1e6 or FLT_MAX. Upstream's Zarr builder takes scales of 1.0 and
  more as garbage (the 99.99th percentile of real ones is 0.137). They are kept too, but
  :func:`trusted_mask` leaves them out of overviews and statistics, which one of them would ruin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from catalog_builder.errors import ConvertError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODATA_CODE: Final = -128
"""Code in every band of a pixel without data."""
MAX_CODE: Final = 127
"""Largest magnitude that upstream's quantiser produces."""
SCALE_LIMIT: Final = 1.0
"""Scales from here on are garbage by the rule of upstream's Zarr builder."""

# Pixels worked on at a time: 1024 x 128 float32 and their temporaries stay in a core's own cache.
_STRIP: Final = 1024


def valid_mask(scales: NDArray[np.float32], landmask: NDArray[Any] | None = None) -> NDArray[np.bool_]:
    """Return which pixels hold data: scale finite and > 0, and land where a landmask is given.

    Parameters
    ----------
    scales
        float32 (rows, cols), or any shape.
    landmask
        Same shape; 0 is water, anything else land.

    Raises
    ------
    ConvertError
        The landmask has another shape.
    """
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(scales) & (scales > 0)
    if landmask is not None:
        if landmask.shape != scales.shape:
            raise ConvertError(f"landmask is {landmask.shape}, the scales are {scales.shape}")
        valid &= landmask != 0
    return valid


def trusted_mask(
    scales: NDArray[np.float32], *, scale_limit: float | None = SCALE_LIMIT
) -> NDArray[np.bool_]:
    """Return which pixels count in overviews and statistics: valid, and scale below `scale_limit`."""
    trusted = valid_mask(scales)
    if scale_limit is not None:
        with np.errstate(invalid="ignore"):
            trusted &= scales < scale_limit
    return trusted


def blank(codes: NDArray[np.int8], scales: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    """Mark the pixels that are not `valid` as no data, in place: codes -128, scale NaN.

    `codes` is (rows, cols, bands), `scales` and `valid` are (rows, cols).
    """
    if codes.shape[:-1] != scales.shape or scales.shape != valid.shape:
        raise ConvertError(f"codes {codes.shape}, scales {scales.shape} and mask {valid.shape} do not fit")
    invalid = ~valid
    codes[invalid] = NODATA_CODE
    scales[invalid] = np.nan


def count_nodata_codes(codes: NDArray[np.int8], valid: NDArray[np.bool_]) -> int:
    """Return how many samples of valid pixels equal the nodata value -128 (upstream: none)."""
    found = 0
    for row, mask in zip(codes, valid, strict=True):
        if row.min(initial=0) == NODATA_CODE:
            found += int(np.count_nonzero(row[mask] == NODATA_CODE))
    return found


def code_range(codes: NDArray[np.int8], valid: NDArray[np.bool_]) -> NDArray[np.int8] | None:
    """Return the smallest and the largest code of each band, over pixels with data.

    Parameters
    ----------
    codes
        int8 (rows, cols, bands).
    valid
        (rows, cols): which pixels hold data.

    Returns
    -------
    numpy.ndarray
        int8 (2, bands): minima, maxima. None if no pixel holds data.
    """
    low = np.full(codes.shape[2], 127, np.int8)
    high = np.full(codes.shape[2], -128, np.int8)
    for row, mask in zip(codes, valid, strict=True):  # a row at a time stays in the cache
        part = row if mask.all() else row[mask]
        np.minimum(low, part.min(axis=0, initial=127), out=low)
        np.maximum(high, part.max(axis=0, initial=-128), out=high)
    return np.stack([low, high]) if valid.any() else None


def per_pixel_scales(scales: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Return one scale per pixel, (rows, cols), from either form that upstream's code accepts.

    Raises
    ------
    ConvertError
        The shape is neither `shape` nor (*`shape`, bands), or bands of a pixel differ in scale.
    """
    if scales.ndim == 3 and scales.shape[:2] == shape and scales.shape[2] > 0:
        first = scales[..., 0]
        same = scales == first[..., None]
        same |= np.isnan(scales) & np.isnan(first)[..., None]
        if not same.all():
            row, col, band = (int(axis[0]) for axis in np.nonzero(~same))
            raise ConvertError(
                f"pixel ({row}, {col}) has scale {first[row, col]} in band 0 and {scales[row, col, band]} "
                f"in band {band}: expected one scale per pixel"
            )
        scales = first
    if scales.shape != shape:
        raise ConvertError(f"scales have shape {scales.shape}, the embedding is {shape}")
    return np.ascontiguousarray(scales)


def inexact_in_float32(scales: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return which finite, positive scales of another type are none that float32 holds.

    >>> inexact_in_float32(np.array([0.5, 0.1, 1e300, np.nan])).tolist()
    [False, True, True, False]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        inexact: NDArray[np.bool_] = scales.astype(np.float32) != scales
        return inexact & np.isfinite(scales) & (scales > 0)


def products(codes: NDArray[np.int8], scales: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return code times scale, multiplied as float64 and rounded once, float32 (rows, cols, bands).

    `scales` is (rows, cols), of any float type; NaN where one is not finite.
    """
    out = np.empty(codes.shape, np.float32)
    for values, row, line in zip(out, codes, scales, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            exact = row * line.astype(np.float64)[:, None]
            values[:] = np.where(np.isfinite(line)[:, None], exact, np.nan)
    return out


def quantize(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise vectors as upstream does: ``scale = max|x| / 127``, ``code = rint(x / scale)``.

    `values` is (..., bands) float. Returns codes int8 (..., bands) and scales float32 (...). A zero
    vector has scale 0 and codes 0; one that is not finite in every band has scale NaN and codes -128.
    """
    x = np.asarray(values, dtype=np.float32)
    largest = np.abs(x).max(axis=-1)
    scales = (largest / np.float32(MAX_CODE)).astype(np.float32)
    scales[~np.isfinite(scales)] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.rint(x / scales[..., None])
    ratio[scales == 0] = 0
    # Only for scales so small (below 1e-38) that the scale itself lost precision.
    np.clip(ratio, -MAX_CODE, MAX_CODE, out=ratio)
    ratio[np.isnan(scales)] = NODATA_CODE
    return ratio.astype(np.int8), scales


def dequantize(
    codes: NDArray[np.int8], scales: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return ``float32(code) * scale``, float32 (..., bands); NaN where the scale is not finite.

    A scale of 0 gives the zero vector, as in every version of geotessera. `out` may be reused.
    """
    if codes.shape[:-1] != scales.shape:
        raise ConvertError(f"codes are {codes.shape}, scales {scales.shape}: expected one scale per pixel")
    if out is None:
        out = np.empty(codes.shape, np.float32)
    np.copyto(out, codes)
    # An infinite scale would give NaN for code 0 and infinities for the rest: NaN for all, as
    # geotessera 0.11 does.
    finite = np.where(np.isfinite(scales), scales, np.float32(np.nan))
    with np.errstate(over="ignore"):
        np.multiply(out, finite[..., None], out=out)
    return out


@dataclass(frozen=True, slots=True)
class Recovery:
    """Codes and scales found in float32 vectors, with the proof or the reason why there is none."""

    codes: NDArray[np.int8]
    """int8 (..., bands); -128 in a pixel that was not recovered or holds no data."""
    scales: NDArray[np.float32]
    """float32 (...); NaN in a pixel that was not recovered or holds no data."""
    failed: int
    """Pixels whose values are not int8 codes times one float32 scale."""
    first_failure: int | None
    """Index of the first such pixel, counted in the order of the input; None if there is none."""
    reason: str | None
    """Why that pixel failed; None when every pixel was recovered."""

    @property
    def exact(self) -> bool:
        """Whether ``dequantize(codes, scales)`` equals the input bit for bit wherever it holds data."""
        return self.failed == 0


def recover(values: NDArray[np.float32]) -> Recovery:
    """Find the codes and scales that float32 vectors were made from, and prove it on every sample.

    `values` is (..., bands), the bands contiguous: any block of pixels, so that a caller can work
    strip by strip. For each pixel:

    * The scale is ``max|v| / 127`` as rounded by float32, or one of its two neighbours: upstream's
      largest code is 127, and rounding 127 * s and dividing it by 127 loses at most one ulp.
    * If none of them fits, every largest code from 128 down to 1 is tried (the file may hold a
      selection of the bands, or codes from another quantiser).
    * Whatever was found counts only if ``float32(int8 code) * scale`` has **the same bits** as the
      input in every band. That check, not the search, is what makes the result lossless.

    Codes made as upstream makes them come back as they were. The scale does too, unless two
    neighbouring float32 scales give identical products in all bands; then the values are the same and
    the scale may be the neighbour (possible only for vectors with very few distinct codes).

    Pixels without data need no proof: a zero vector comes back as scale 0 and codes 0, a vector that is
    NaN in every band as scale NaN, one of infinities and NaN (an infinite scale) as scale infinity, both
    with codes -128. A vector of finite and other samples holds data that codes cannot represent, and fails.
    """
    bands = values.shape[-1]
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, bands)
    codes = np.empty(flat.shape, np.int8)
    scales = np.empty(flat.shape[0], np.float32)
    work = np.empty((min(_STRIP, flat.shape[0]), bands), np.float32)
    failed, first, reason = 0, None, None
    for start in range(0, flat.shape[0], _STRIP):
        strip = slice(start, min(start + _STRIP, flat.shape[0]))
        bad = _recover_strip(flat[strip], codes[strip], scales[strip], work[: strip.stop - start])
        if bad.size:
            failed += bad.size
            if first is None:
                first = start + int(bad[0])
                reason = _failure(flat[first])
    return Recovery(codes.reshape(values.shape), scales.reshape(values.shape[:-1]), failed, first, reason)


def _recover_strip(
    values: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    work: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Fill `codes` and `scales` for one strip (pixels, bands); return the pixels that failed."""
    largest = _largest(values, work)
    np.divide(largest, np.float32(MAX_CODE), out=scales)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        np.multiply(values, (np.float32(MAX_CODE) / largest)[:, None], out=work)
        np.rint(work, out=work)
        np.copyto(codes, work, casting="unsafe")
        # NaN times anything is NaN and might pass for equal; it is looked at below.
        unproved = _differs(values, codes, scales, work)
        if not np.isfinite(scales).all():
            unproved = np.union1d(unproved, np.flatnonzero(~np.isfinite(scales)))
    if not unproved.size:
        return unproved

    # Zero vectors, whatever the sign of their zeros (a negative code times scale 0).
    peaks = largest[unproved]
    zero = unproved[peaks == 0]
    codes[zero], scales[zero] = 0, 0
    # NaN compares as larger than infinity, so a peak tells nothing of the other samples: look at all.
    strange = unproved[~np.isfinite(peaks)]
    codes[strange] = NODATA_CODE
    infinite = np.isinf(values[strange]).any(axis=1)
    scales[strange] = np.where(infinite, np.float32(np.inf), np.float32(np.nan))
    mixed = strange[np.isfinite(values[strange]).any(axis=1)]

    rest = unproved[np.isfinite(peaks) & (peaks > 0)]
    rest = _search(values, codes, scales, rest, range(MAX_CODE, MAX_CODE - 1, -1))
    rest = _search(values, codes, scales, rest, range(MAX_CODE + 1, 0, -1))
    failures = np.sort(np.concatenate([mixed, rest]))
    codes[failures], scales[failures] = NODATA_CODE, np.nan
    return failures


def _largest(values: NDArray[np.float32], work: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return max|v| of every row; NaN if the row holds a NaN."""
    np.abs(values, out=work)
    # Non-negative floats are ordered like their bits, and numpy's integer maximum along a short
    # axis is twice as fast as its float maximum.
    peaks: NDArray[np.int32] = work.view(np.int32).max(axis=1)
    return peaks.view(np.float32)


def _differs(
    values: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    work: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Return the rows where ``float32(code) * scale`` does not have the bits of `values`."""
    np.copyto(work, codes)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(work, scales[:, None], out=work)
    unequal = work.view(np.int32) != values.view(np.int32)
    return np.flatnonzero(unequal.any(axis=1))


def _search(
    values: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    rows: NDArray[np.intp],
    largest_codes: range,
) -> NDArray[np.intp]:
    """Try scales for `rows` until each is proved; return the rows for which nothing fits.

    Gives up on all of them when the first few cannot be recovered: one such pixel decides that the
    tile is kept as float32, and trying 128 codes on every pixel of it would take a minute.
    """
    if len(largest_codes) > 1 and rows.size > 16:
        probe = _search(values, codes, scales, rows[:16], largest_codes)
        if probe.size == 16:
            return rows
        return np.concatenate([probe, _search_all(values, codes, scales, rows[16:], largest_codes)])
    return _search_all(values, codes, scales, rows, largest_codes)


def _search_all(
    values: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    rows: NDArray[np.intp],
    largest_codes: range,
) -> NDArray[np.intp]:
    for largest_code in largest_codes:
        if not rows.size:
            break
        vectors = values[rows]
        peaks = np.abs(vectors).max(axis=1)
        # In float64 the ratio is good to 1e-5 of a code, the precision of the float32 values.
        ratio = vectors.astype(np.float64) * (largest_code / peaks.astype(np.float64))[:, None]
        nearest = np.rint(ratio)
        plausible = (np.abs(ratio - nearest) < 1e-3).all(axis=1) & (nearest.max(axis=1) <= MAX_CODE)
        if not plausible.any():
            continue
        chosen = np.flatnonzero(plausible)
        trial = nearest[chosen].astype(np.int8)
        middle = np.divide(peaks[chosen], np.float32(largest_code), dtype=np.float32)
        proved = np.zeros(rows.size, np.bool_)
        # m = fl(K * s) is off by less than s * 2**-24 < ulp(s) per K, so s is fl(m / K) or a neighbour.
        with np.errstate(over="ignore"):
            below = np.nextafter(middle, np.float32(0), dtype=np.float32)
            above = np.nextafter(middle, np.float32(np.inf), dtype=np.float32)
        for scale in (middle, below, above):
            differs = _differs(vectors[chosen], trial, scale, np.empty(trial.shape, np.float32))
            fits = np.setdiff1d(np.arange(chosen.size), differs, assume_unique=True)
            fits = fits[~proved[chosen[fits]]]
            codes[rows[chosen[fits]]] = trial[fits]
            scales[rows[chosen[fits]]] = scale[fits]
            proved[chosen[fits]] = True
        rows = rows[~proved]
    return rows


def _failure(vector: NDArray[np.float32]) -> str:
    for what, found in (("infinity", np.isinf(vector)), ("NaN", np.isnan(vector))):
        if found.any():
            return f"{what} in {int(found.sum())} of {vector.size} bands"
    return f"its {vector.size} values (largest {np.abs(vector).max():.6g}) are not int8 codes times one scale"
