"""A published pair of arrays, read by row: of each row, the selected span.

Adjacent spans are joined where the gap costs less than a request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.errors import ArrayError, StorageError
from catalog_builder.pixels.place import Overview, Place
from catalog_builder.pixels.values import Picked, Quantized, Status, has_data
from catalog_builder.pixels.window import Mask, Window, byte_ranges, scatter
from catalog_builder.raster.npy import NPY_HEADER, ArrayHeader, header_size, read_header
from catalog_builder.tile.files import N_BANDS

CONNECTIONS = 8
PICK_GAP = 4096
"""Bytes between two pixels that are rather read than asked around, where a request may hold many ranges."""


def read(
    place: Place, window: Window, mask: Mask, bands: Sequence[int], level: int, meter: storage.Meter
) -> Quantized:
    """Read a window; see :func:`catalog_builder.pixels.read.read_window`."""
    shape, step = place.raster.shape, 1 << level
    found = Quantized.empty(mask.shape, N_BANDS if bands else 0)
    wanted = np.zeros(window.shape, np.bool_)
    wanted[::step, ::step] = mask
    if bands:
        _fill(found.codes, place.main, (*shape, N_BANDS), window, wanted, step, meter)
    _fill(found.scales, place.scales or "", shape, window, wanted, step, meter)
    found.blank(~mask)
    if not bands or list(bands) == list(range(N_BANDS)):
        return found
    return Quantized(found.codes[:, :, list(bands)], found.scales)


def pick(
    place: Place,
    rows: npt.NDArray[np.int64],
    cols: npt.NDArray[np.int64],
    bands: Sequence[int],
    meter: storage.Meter,
) -> Picked:
    """Read single pixels; see :func:`catalog_builder.pixels.read.read_pixels`."""
    shape, flat = place.raster.shape, rows * place.raster.width + cols
    found = Quantized.empty((1, len(flat)), N_BANDS if bands else 0)
    _pick(found.scales[0], place.scales or "", shape, flat, meter)
    status = np.where(has_data(found.scales[0]), Status.DATA, Status.NODATA).astype(np.uint8)
    if bands:
        _pick(found.codes[0], place.main, (*shape, N_BANDS), flat, meter)
        if list(bands) != list(range(N_BANDS)):
            found = Quantized(found.codes[:, :, list(bands)], found.scales)
    return Picked(found, status)


def cost(place: Place, window: Window, mask: Mask) -> tuple[int, bool]:
    """Return the bytes that a window takes, exactly."""
    total = 2 * NPY_HEADER
    height, width = place.raster.shape
    scale = ((place.scales_size or 0) - NPY_HEADER) // (height * width)
    for item in (N_BANDS, max(scale, 0) or 4):
        total += sum(stop - start for start, stop in byte_ranges(window, mask, item, place.raster.width))
    return total, True


def overview(place: Place, level: int) -> Overview:
    """Return every n-th pixel of every n-th row: arrays have no overviews, but local ones need none."""
    return Overview(level, place.raster, 1 << level)


def is_drawable(place: Place) -> bool:
    """Whether a small image takes a small part of it."""
    return not storage.scheme(place.main)


def read_array_header(file: storage.RangedFile, name: str) -> ArrayHeader:
    """Read the header of an array, of any length, and compare it with the file's size if that is known.

    Raises
    ------
    ArrayError
        If it is no array, or truncated.
    StorageError
        If it cannot be read.
    """
    is_remote = file.size is None  # of local arrays only what is read of the pixels is counted
    start = file.read(0, NPY_HEADER if file.size is None else min(NPY_HEADER, file.size), counted=is_remote)
    whole = header_size(start) if file.size is None else min(header_size(start), file.size)
    if whole > len(start):
        start += file.read(len(start), whole, counted=is_remote)
    header = read_header(start, name)
    if file.size is not None:
        header.require_size(file.size)
    return header


def _fill(
    out: npt.NDArray[Any],
    address: str,
    shape: tuple[int, ...],
    window: Window,
    mask: Mask,
    step: int,
    meter: storage.Meter,
) -> None:
    """Fill the array of every n-th pixel of a window from a ``.npy`` of the whole tile."""
    with storage.open_ranged(address, meter) as file:
        header = read_array_header(file, address)
        item = _item(header, out.dtype, shape)
        ranges = byte_ranges(window, mask, item, shape[1])

        def fetch(part: tuple[int, int]) -> bytes:
            return file.read(header.offset + part[0], header.offset + part[1])

        def place(parts: Iterator[bytes]) -> None:
            for (start, _), data in zip(ranges, parts, strict=True):
                pixels = _decoded(data, header, shape)
                scatter(out, window, shape, start // item, pixels, step)

        if file.size is not None:  # threads wait for servers, not for a disk
            place(map(fetch, ranges))
        else:
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                place(pool.map(fetch, ranges))


def _pick(
    out: npt.NDArray[Any],
    address: str,
    shape: tuple[int, ...],
    flat: npt.NDArray[np.int64],
    meter: storage.Meter,
) -> None:
    """Fill an array (n, ...) with pixels of the array of a whole tile, by their ascending numbers."""
    if not len(flat):
        return
    usual = out.dtype.itemsize * (shape[2] if len(shape) == 3 else 1)
    with storage.open_ranged(address, meter) as file:
        if file.size is None:  # the header that nearly all arrays have comes with the pixels, in one request
            groups, ranges = _groups(flat, usual, NPY_HEADER)
            parts, header = _with_header(file, address, ranges, is_sure=len(shape) == 3)
        else:
            groups, parts, header = [], [], None
        header = header or read_array_header(file, address)
        item = _item(header, out.dtype, shape)
        if not parts or header.offset != NPY_HEADER or item != usual:
            groups, ranges = _groups(flat, item, header.offset)
            parts = file.read_many(ranges)
    for (at, to), data in zip(groups, parts, strict=True):
        pixels = _decoded(data, header, shape)
        if to - at == 1:
            out[at] = pixels[0]
        else:
            out[at:to] = pixels[flat[at:to] - flat[at]]


def _with_header(
    file: storage.RangedFile, address: str, ranges: list[tuple[int, int]], *, is_sure: bool
) -> tuple[list[bytes], ArrayHeader | None]:
    """Return ranges and, if it has the usual length, the header; nothing if scales may be shorter ones."""
    try:
        start, *parts = file.read_many([(0, NPY_HEADER), *ranges])
    except StorageError:
        if is_sure:
            raise
        return [], None
    return parts, read_header(start, address) if header_size(start) == NPY_HEADER else None


def _groups(
    flat: npt.NDArray[np.int64], item: int, offset: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return which pixels are read together (first, after the last), and the bytes of the file to read."""
    first = np.flatnonzero(np.diff(flat, prepend=-PICK_GAP) > max(1, PICK_GAP // item))
    last = np.append(first[1:], len(flat))
    starts, stops = flat[first] * item + offset, (flat[last - 1] + 1) * item + offset
    return (
        list(zip(first.tolist(), last.tolist(), strict=True)),
        list(zip(starts.tolist(), stops.tolist(), strict=True)),
    )


def _item(header: ArrayHeader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return the bytes of a pixel; reject an array that is not the tile's.

    Scales may be of any float type, and there may be one for each band, as upstream's code and ``convert``
    take them.
    """
    found = header.shape
    is_scales = len(shape) == 2 and header.dtype.kind == "f" and not header.fortran
    if not (is_scales and found[:2] == shape and len(found) in (2, 3) and found[-1] > 0):
        header.require(dtype, shape)
    return header.dtype.itemsize * math.prod(found[2:])


def _decoded(data: bytes, header: ArrayHeader, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return pixels that follow each other: int8 (n, bands), or float32 (n,) scales."""
    pixels = np.frombuffer(data, header.dtype).reshape(-1, *header.shape[2:])
    if len(shape) == 3 or (pixels.ndim == 1 and pixels.dtype == np.float32):
        return pixels
    if pixels.ndim == 2:
        first = pixels[:, :1]
        if not ((pixels == first) | (np.isnan(pixels) & np.isnan(first))).all():
            raise ArrayError(
                f"{header.name}: a pixel has other scales in other bands: expected one per pixel"
            )
        pixels = first[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = pixels.astype(np.float32, copy=False)
        inexact = (narrow != pixels) & np.isfinite(pixels) & (pixels > 0)
    if inexact.any():
        raise ArrayError(
            f"{header.name}: holds {header.dtype} scales that float32 does not, such as"
            f" {pixels[inexact][0]!s}: convert the tile, which keeps its values"
        )
    return narrow
