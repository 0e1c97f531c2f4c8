"""False colour: one PCA of a whole dataset, so that neighbouring tiles and other years match in colour.

A *basis* is three directions in the 128 dimensional space with a stretch for each. It is fitted once, on
pixels of many tiles (:func:`fit_basis`), and kept as a small JSON document beside the converted tiles
(:mod:`catalog_builder.catalog.basis`). A tile's ``visual`` is its vectors projected on the basis: three
uint8 bands, 1 to 255 where there is data and 0, declared as nodata, elsewhere.

The fit is deterministic: tiles are chosen by a checksum of their names, pixels at even steps, directions
are given the sign that makes their largest loading positive, and all numbers are rounded to six digits.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catalog_builder.convert.encode.quantize import dequantize, trusted_mask
from catalog_builder.errors import ConvertError
from catalog_builder.item.basis import Basis

SAMPLE_TILES = 64
"""Maximum number of tiles that a basis is fitted to."""
SAMPLE_PIXELS = 4096
"""Pixels sampled per tile."""
THUMBNAIL = 512
"""Longest side of a thumbnail, pixels."""
_LOW, _HIGH = 2.0, 98.0
"""Percentiles of the sample that become 1 and 255."""
_STRIP = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """Pixels of one tile."""

    job: str
    dataset: str
    vectors: npt.NDArray[np.float32]
    """(n, 128), dequantised."""


def picked_pixels(scales: npt.NDArray[np.float32], n: int = SAMPLE_PIXELS) -> npt.NDArray[np.int64]:
    """Return the indices of the pixels that :func:`sample_pixels` takes, in row order."""
    at = np.flatnonzero(trusted_mask(scales))
    return at[:: max(1, len(at) // n)][:n]


def sample_pixels(
    codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], n: int = SAMPLE_PIXELS
) -> npt.NDArray[np.float32]:
    """Return up to n trusted pixels at even steps, dequantised, float32 (n, bands)."""
    picked = picked_pixels(scales, n)
    return dequantize(codes.reshape(-1, codes.shape[-1])[picked], scales.ravel()[picked])


def fit_basis(samples: Sequence[Sample]) -> Basis:
    """Fit a basis to samples of one dataset; their order does not matter.

    Raises
    ------
    ConvertError
        If there are no samples, or samples of several datasets.
    """
    samples = sorted((s for s in samples if len(s.vectors)), key=lambda s: s.job)
    datasets = sorted({s.dataset for s in samples})
    if len(datasets) > 1:
        raise ConvertError(f"a basis belongs to one dataset, but the sample is from {', '.join(datasets)}")
    if sum(len(s.vectors) for s in samples) < 16:
        raise ConvertError("the sample has no pixels to fit colours to")
    pixels = np.concatenate([s.vectors for s in samples]).astype(np.float64)
    mean = pixels.mean(axis=0)
    pixels -= mean
    variance, directions = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    components = directions[:, ::-1][:, :3].T
    largest = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(3), largest])[:, None]
    low, high = np.percentile(pixels @ components.T, [_LOW, _HIGH], axis=0)
    high = np.maximum(high, low + 1e-6)
    total = float(variance.sum()) or 1.0
    return Basis(
        dataset=datasets[0],
        mean=_rounded(mean),
        components=tuple(_rounded(c) for c in components),
        low=_rounded(low),
        high=_rounded(high),
        explained=_rounded(variance[::-1][:3] / total),
        tiles=tuple(s.job for s in samples),
        pixels=len(pixels),
    )


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{v:.6g}") for v in values.tolist())


def colours(
    basis: Basis, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint8]:
    """Project quantised pixels: uint8 (rows, cols, 3), 0 where there is no data.

    The projection is linear, so codes are projected and the scale is multiplied after: no float32 copy
    of the tile is made.
    """
    matrix, offset = _matrix(basis)
    flat, flat_scales = codes.reshape(-1, codes.shape[-1]), scales.ravel()
    out = np.zeros((flat.shape[0], 3), np.uint8)
    for start in range(0, len(out), _STRIP):
        part = slice(start, start + _STRIP)
        projected = flat[part].astype(np.float32) @ matrix
        projected *= flat_scales[part, None]
        _fill(out[part], projected, offset)
    return out.reshape(*scales.shape, 3)


def colours_of_values(basis: Basis, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Project float32 pixels (rows, cols, bands): uint8 (rows, cols, 3), 0 where a band is NaN."""
    matrix, offset = _matrix(basis)
    flat = values.reshape(-1, values.shape[-1])
    out = np.zeros((flat.shape[0], 3), np.uint8)
    for start in range(0, len(out), _STRIP):
        part = slice(start, start + _STRIP)
        with np.errstate(invalid="ignore", over="ignore"):
            _fill(out[part], flat[part] @ matrix, offset)
    return out.reshape(*values.shape[:2], 3)


def _matrix(basis: Basis) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the stretch folded into the projection: (bands, 3) and what is added after it, (3,)."""
    components = np.array(basis.components, np.float64)
    low, high = np.array(basis.low), np.array(basis.high)
    gain = 254.0 / (high - low)
    offset = 1.0 - (components @ np.array(basis.mean) + low) * gain
    return (components.T * gain).astype(np.float32), offset.astype(np.float32)


def _fill(
    out: npt.NDArray[np.uint8], projected: npt.NDArray[np.float32], offset: npt.NDArray[np.float32]
) -> None:
    projected += offset
    empty = ~np.isfinite(projected).all(axis=1)
    projected[empty] = 1
    np.rint(np.clip(projected, 1, 255, out=projected), out=projected)
    np.copyto(out, projected, casting="unsafe")
    out[empty] = 0


def thumbnail(levels: Sequence[npt.NDArray[np.uint8]]) -> bytes:
    """Return a PNG of at most 512 pixels a side from a visual's levels; no data is transparent.

    Levels are uint8 (rows, cols, 3), full resolution first; the smallest that is large enough is used.
    """
    from PIL import Image

    image = next((x for x in reversed(levels) if max(x.shape[:2]) >= THUMBNAIL), levels[0])
    alpha = np.where(image.any(axis=2, keepdims=True), np.uint8(255), np.uint8(0))
    picture = Image.fromarray(np.concatenate([image, alpha], axis=2), "RGBA")
    factor = THUMBNAIL / max(picture.size)
    if factor < 1:
        width, height = (max(1, round(n * factor)) for n in picture.size)
        # Pillow weights colours by alpha here, so transparent black does not bleed into shores.
        picture = picture.resize((width, height), Image.Resampling.BOX)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
