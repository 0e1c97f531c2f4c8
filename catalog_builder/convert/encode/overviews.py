"""Overviews of quantised and of float tiles: means of the vectors, over the pixels that hold data.

Codes of different pixels have different scales, so averaging codes is wrong. Here the vectors
``code * scale`` are summed over the trusted pixels, sums and counts go on to the next level, so that
every level is the mean of all full-resolution pixels below it, and each overview pixel is quantised
again with a scale of its own. Vectors are not renormalised: TESSERA's are not of unit length.

Sizes are floored halves, as GDAL's COG driver makes them; an odd last row or column is in no overview
pixel. The deepest level fits into one block.

**Precision.** Sums are float32, added in pairs, so a mean is off by at most a few 2**-24 of the largest
value that went into it: about a hundred-thousandth of a quantisation step of the pixels below. The codes
are those of an exact computation unless that is so close to a tie between two codes, or unless the
vectors below cancel to almost nothing. Every operation is a single IEEE addition, multiplication or
division in a fixed order, so the result has the same bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from catalog_builder.convert.encode.quantize import MAX_CODE, NODATA_CODE, SCALE_LIMIT, trusted_mask
from catalog_builder.convert.encode.tiff import BandStatistics
from catalog_builder.errors import ConvertError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

type Method = Literal["average", "nearest"]

# Samples of a patch that is taken through all levels at once: 6 MB of float32, well inside a
# third-level cache, and large enough that numpy's cost per call does not show.
_PATCH_SAMPLES: Final = 1_500_000


@dataclass(frozen=True, slots=True)
class Pyramid:
    """Codes and scales at every level, full resolution first; the two always describe each other."""

    codes: tuple[NDArray[np.int8], ...]
    """int8 (rows, cols, bands) per level; -128 where there is no data."""
    scales: tuple[NDArray[np.float32], ...]
    """float32 (rows, cols) per level; NaN where there is no data."""
    statistics: tuple[BandStatistics, ...] | None
    """Of the dequantised values at full resolution, per band, over trusted pixels; None if not asked."""


def level_shapes(rows: int, cols: int, block_size: int) -> tuple[tuple[int, int], ...]:
    """Return (rows, cols) of every level, full resolution first, halving until one block holds all.

    >>> level_shapes(1140, 732, 256)
    ((1140, 732), (570, 366), (285, 183), (142, 91))
    """
    shapes = [(rows, cols)]
    while max(rows, cols) > block_size:
        rows, cols = max(1, rows // 2), max(1, cols // 2)
        shapes.append((rows, cols))
    return tuple(shapes)


def quantized_pyramid(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    *,
    block_size: int,
    method: Method = "average",
    scale_limit: float | None = SCALE_LIMIT,
    statistics: bool = False,
) -> Pyramid:
    """Build the overviews of a quantised tile.

    Parameters
    ----------
    codes, scales
        int8 (rows, cols, bands) and float32 (rows, cols), blanked (:func:`~.quantize.blank`). They
        become level 0 as they are, without a copy.
    method
        ``"average"``: mean vectors, requantised. ``"nearest"``: codes and scale of the pixel that
        GDAL's nearest resampling would take, so that every vector is a real one.
    scale_limit
        Pixels with a scale from here on do not count in means and statistics; None: all valid ones do.
    statistics
        Whether to compute :attr:`Pyramid.statistics`, for about a tenth of a second per tile.

    Raises
    ------
    ConvertError
        Shapes that do not fit, or an unknown method.
    """
    if codes.ndim != 3 or codes.shape[:2] != scales.shape:
        raise ConvertError(f"codes are {codes.shape}, scales {scales.shape}: expected one scale per pixel")
    shapes = level_shapes(scales.shape[0], scales.shape[1], block_size)
    trusted = trusted_mask(scales, scale_limit=scale_limit)
    moments = _Moments(codes.shape[2]) if statistics else None
    if method == "nearest":
        if moments is not None:
            for rows, cols in _patches(scales.shape, 1, codes.shape[2]):
                patch = codes[rows, cols].astype(np.float32)
                patch *= np.where(trusted[rows, cols], scales[rows, cols], 0)[..., None]
                moments.add(patch, trusted[rows, cols])
        picks = [_nearest(scales.shape, shape) for shape in shapes[1:]]
        out_codes = [codes[pick] for pick in picks]
        out_scales = [scales[pick] for pick in picks]
    elif method == "average":
        out_codes = [np.empty((*shape, codes.shape[2]), np.int8) for shape in shapes[1:]]
        out_scales = [np.empty(shape, np.float32) for shape in shapes[1:]]
        weights = np.where(trusted, scales, np.float32(0))
        for rows, cols in _patches(scales.shape, len(shapes) - 1, codes.shape[2]):
            _average_patch(codes, weights, trusted, rows, cols, out_codes, out_scales, shapes, moments)
    else:
        raise ConvertError(f"unknown overview method {method!r}: expected average or nearest")
    return Pyramid(
        (codes, *out_codes), (scales, *out_scales), None if moments is None else moments.result(trusted.size)
    )


def masked_pyramid[T: np.generic](
    values: NDArray[T],
    valid: NDArray[np.bool_] | None,
    *,
    block_size: int,
    nodata: float,
    method: Method = "average",
) -> tuple[NDArray[T], ...]:
    """Build the overviews of ordinary values: every level is the mean over valid pixels.

    Parameters
    ----------
    values
        (rows, cols) or (rows, cols, bands), float32 or an integer type (means are then rounded half to
        even). It becomes level 0 as it is.
    valid
        (rows, cols); None: pixels that are not NaN in any band. A pixel counts in all bands or in none.
    nodata
        Written where no pixel below is valid.
    """
    cube = values[..., None] if values.ndim == 2 else values
    if valid is None:
        valid = ~np.isnan(cube).any(axis=2)
    if cube.ndim != 3 or valid.shape != cube.shape[:2]:
        raise ConvertError(f"values are {values.shape}, the mask is {valid.shape}")
    bands = cube.shape[2]
    shapes = level_shapes(valid.shape[0], valid.shape[1], block_size)
    if method == "nearest":
        return (values, *(values[_nearest(valid.shape, shape)] for shape in shapes[1:]))
    if method != "average":
        raise ConvertError(f"unknown overview method {method!r}: expected average or nearest")
    levels = [np.empty((*shape, bands), values.dtype) for shape in shapes[1:]]
    integer = values.dtype.kind != "f"
    for rows, cols in _patches(valid.shape, len(levels), bands):
        sums = cube[rows, cols].astype(np.float32)
        inside = valid[rows, cols]
        sums[~inside] = 0
        counts = inside.astype(np.float32)
        for depth, out in enumerate(levels, 1):
            sums, counts = _halve(sums, shapes[depth - 1]), _halve(counts, shapes[depth - 1])
            if not sums.size:
                break
            y, x = rows.start >> depth, cols.start >> depth
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = sums / counts[..., None]
            if integer:
                np.rint(mean, out=mean)
            mean[counts == 0] = nodata
            out[y : y + mean.shape[0], x : x + mean.shape[1]] = mean
    return (values, *(level[..., 0] if values.ndim == 2 else level for level in levels))


def _nearest(full: tuple[int, ...], shape: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the index that takes, for every overview pixel, the full-resolution pixel at its centre."""
    rows, cols = ((np.arange(n) * 2 + 1) * size // (2 * n) for n, size in zip(shape, full, strict=True))
    return np.ix_(rows, cols)


def _patches(shape: tuple[int, ...], levels: int, bands: int) -> Iterator[tuple[slice, slice]]:
    """Cut the raster into patches that no overview pixel straddles."""
    unit = 1 << levels
    width = _even_share(shape[1], max(unit, _PATCH_SAMPLES // (unit * bands)), unit)
    height = _even_share(shape[0], max(unit, _PATCH_SAMPLES // (width * bands)), unit)
    for y in range(0, shape[0], height):
        for x in range(0, shape[1], width):
            yield slice(y, min(y + height, shape[0])), slice(x, min(x + width, shape[1]))


def _even_share(size: int, limit: int, unit: int) -> int:
    """Return the multiple of `unit` that cuts `size` into even parts of at most about `limit`."""
    parts = -(-size // limit)
    return -(-size // (parts * unit)) * unit


def _average_patch(
    codes: NDArray[np.int8],
    weights: NDArray[np.float32],
    trusted: NDArray[np.bool_],
    rows: slice,
    cols: slice,
    out_codes: Sequence[NDArray[np.int8]],
    out_scales: Sequence[NDArray[np.float32]],
    shapes: Sequence[tuple[int, int]],
    moments: _Moments | None,
) -> None:
    """Take one patch through all levels."""
    sums = codes[rows, cols].astype(np.float32)
    np.multiply(sums, weights[rows, cols, None], out=sums)
    if moments is not None:
        moments.add(sums, trusted[rows, cols])
    counts = trusted[rows, cols].astype(np.float32)
    for depth, (level_codes, level_scales) in enumerate(zip(out_codes, out_scales, strict=True), 1):
        sums, counts = _halve(sums, shapes[depth - 1]), _halve(counts, shapes[depth - 1])
        if not sums.size:
            return
        y, x = rows.start >> depth, cols.start >> depth
        window = slice(y, y + sums.shape[0]), slice(x, x + sums.shape[1])
        level_scales[window] = _requantize(sums, counts, level_codes[window])


def _halve(sums: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Add neighbours in pairs along both axes; an axis of the level that is 1 already stays."""
    if shape[0] > 1:
        even = sums.shape[0] & ~1
        sums = sums[0:even:2] + sums[1:even:2]
    if shape[1] > 1:
        even = sums.shape[1] & ~1
        sums = sums[:, 0:even:2] + sums[:, 1:even:2]
    return sums


def _requantize(
    sums: NDArray[np.float32], counts: NDArray[np.float32], codes: NDArray[np.int8]
) -> NDArray[np.float32]:
    """Quantise ``sums / counts`` into `codes` (rows, cols, bands); return the scales (rows, cols).

    The codes of a vector do not depend on its length, so they are made from the sum; only the scale
    is divided by the count.
    """
    magnitude = np.abs(sums)
    # As in quantize._largest: bits of non-negative floats are ordered like the floats.
    largest: NDArray[np.float32] = magnitude.view(np.int32).max(axis=2).view(np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        np.multiply(sums, (np.float32(MAX_CODE) / largest)[..., None], out=magnitude)
        scales = largest / (np.float32(MAX_CODE) * counts)
    np.rint(magnitude, out=magnitude)
    with np.errstate(invalid="ignore"):
        np.copyto(codes, magnitude, casting="unsafe")
    empty = counts == 0
    codes[empty] = NODATA_CODE  # the scale is 0 / 0 there, NaN
    # Beyond these bounds the factor overflows or loses its precision: no real vector is there.
    odd = ~((largest > 1e-30) & (largest < 1e30) | empty)
    if odd.any():
        _requantize_odd(sums, counts, codes, scales, odd)
    return scales


def _requantize_odd(
    sums: NDArray[np.float32],
    counts: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    odd: NDArray[np.bool_],
) -> None:
    """Requantise, in float64, the pixels whose sum is zero, minute or enormous."""
    exact = sums[odd].astype(np.float64)
    largest = np.abs(exact).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.rint(exact * (MAX_CODE / largest)[:, None])
        scale = (largest / (MAX_CODE * counts[odd].astype(np.float64))).astype(np.float32)
    ratio[largest == 0] = 0
    # A mean of exactly zero is data: the smallest positive scale keeps it apart from "unprocessed".
    scale[scale == 0] = np.finfo(np.float32).smallest_subnormal
    overflown = ~np.isfinite(largest)
    ratio[overflown], scale[overflown] = NODATA_CODE, np.nan
    codes[odd], scales[odd] = ratio.astype(np.int8), scale


class _Moments:
    """Minimum, maximum, sum and sum of squares per band, gathered patch by patch."""

    def __init__(self, bands: int) -> None:
        self.minimum = np.full(bands, np.inf, np.float32)
        self.maximum = np.full(bands, -np.inf, np.float32)
        self.sums = np.zeros(bands)
        self.squares = np.zeros(bands)
        self.count = 0

    def add(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add the valid pixels of `values` (rows, cols, bands)."""
        count = int(np.count_nonzero(valid))
        if not count:
            return
        bands = values.shape[2]
        pixels = values.reshape(-1, bands) if count == valid.size else values[valid]
        # Reductions along the first axis are fast when the other is long: 64 pixels side by side.
        # They also sum in 64 strands, which keeps float32 sums short.
        even = count // 64 * 64
        for part in (pixels[:even].reshape(-1, 64 * bands), pixels[even:]):
            if not part.size:
                continue
            np.minimum(self.minimum, part.min(axis=0).reshape(-1, bands).min(axis=0), out=self.minimum)
            np.maximum(self.maximum, part.max(axis=0).reshape(-1, bands).max(axis=0), out=self.maximum)
            self.sums += part.sum(axis=0).reshape(-1, bands).sum(axis=0, dtype=np.float64)
            squares = np.einsum("ij,ij->j", part, part)
            self.squares += squares.reshape(-1, bands).sum(axis=0, dtype=np.float64)
        self.count += count

    def result(self, pixels: int) -> tuple[BandStatistics, ...]:
        """Return the statistics per band, of a raster of `pixels` pixels."""
        if not self.count:
            nan = float("nan")
            return (BandStatistics(nan, nan, nan, nan, 0.0),) * self.sums.size
        mean = self.sums / self.count
        spread = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        share = 100 * self.count / pixels
        return tuple(
            BandStatistics(float(low), float(high), float(middle), float(deviation), share)
            for low, high, middle, deviation in zip(self.minimum, self.maximum, mean, spread, strict=True)
        )
