"""Windows of a zone's arrays, put together from tile-years as upstream puts them together.

Small windows are read by cells: squares of a tile's own raster that are as large as the blocks of its COG,
of which the last ones are kept. Chunks that are neighbours lie in the same cells, so that each block is
decoded once, however many threads want it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import FileChangedError
from catalog_builder.pixels.values import Quantized
from catalog_builder.pixels.window import Window
from catalog_builder.storage import scheme
from catalog_builder.tile.files import N_BANDS
from catalog_builder.zone_arrays.fill import UNFILLED, Landmask, TileSource, filled, read_land
from catalog_builder.zone_arrays.touching import Touched

BUDGET = 128 << 20
"""Bytes of cells that a process keeps: a row of them across a zone, twice."""
CODES_CELL = 64
"""Rows and columns of a cell of codes and scales: a block of our COGs."""
SCALES_CELL = 256
"""Rows and columns of a cell of scales alone."""
_LARGE = 128
"""A window with as many rows is read as it is, and not kept: no neighbour needs much of it again."""
_STRIP = 256
"""Pixels that are transposed at a time."""
_LANDMASKS = 256
"""Landmasks that are kept, of 0.1 MB each."""
_LONGEST_WAIT = 30.0
"""Seconds to wait for another thread that reads the same cell."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A tile-year where it lies in a group."""

    touched: Touched
    source: TileSource
    files: Hashable
    """:func:`identity` of its files, which all pixels must be of."""


@dataclass(frozen=True, slots=True)
class Block:
    """Part of a zone's arrays."""

    codes: npt.NDArray[np.int8]
    """int8 (128, rows, columns), 0 where there is no tile; (0, …) if none were wanted."""
    scales: npt.NDArray[np.float32]
    """float32 (rows, columns): finite where there is data, NaN where there is none, +inf where no tile is."""


class ZoneReader:
    """Reads windows of groups; safe to share between threads.

    Parameters
    ----------
    budget
        Bytes of cells to keep.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self._cells = _Kept(budget)
        self._landmasks = _Kept(_LANDMASKS << 17)

    def read(
        self,
        window: Window,
        tiles: Sequence[Placed],
        *,
        with_codes: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> Block:
        """Return a window of a group.

        Parameters
        ----------
        window
            In pixels of the group.
        tiles
            Those that touch it, in upstream's order: of pixels that several have, the last one's count.
        with_codes
            Whether codes are wanted.
        check
            Called between reads; what it raises ends them.

        Raises
        ------
        ArrayError, StorageError
            If a tile-year cannot be read.
        FileChangedError
            If its files are not those of its ``Placed`` any more.
        """
        bands = N_BANDS if with_codes else 0
        # as it is read, pixel by pixel: bands are brought to the front once, at the end
        codes = np.zeros((*window.shape, bands), np.int8)
        scales = np.full(window.shape, UNFILLED, np.float32)
        for placed in tiles:
            shared = placed.touched.shared(window)
            if shared is None:
                continue
            for part, pixels in self._parts(placed, shared, with_codes=with_codes, check=check):
                into = Window(part.row - window.row, part.col - window.col, *part.shape).slices
                scales[into] = pixels.scales
                if with_codes:
                    codes[into] = pixels.codes
        return Block(_bands_first(codes), scales)

    def _parts(
        self, placed: Placed, shared: Window, *, with_codes: bool, check: Callable[[], None]
    ) -> Iterator[tuple[Window, Quantized]]:
        """Yield what a tile-year has of a window: windows of the group, and their pixels."""
        row, col = placed.touched.row, placed.touched.col
        inside = Window(shared.row - row, shared.col - col, *shared.shape)
        if with_codes and inside.height >= _LARGE:
            check()
            yield shared, self._filled(placed, inside, with_codes=True)
            return
        shape = (placed.touched.height, placed.touched.width)
        side = CODES_CELL if with_codes else SCALES_CELL
        for cell, pixels in self._cells_of(placed, inside, shape, side, with_codes=with_codes, check=check):
            top, left = max(cell.row, inside.row), max(cell.col, inside.col)
            bottom = min(cell.row + cell.height, inside.row + inside.height)
            right = min(cell.col + cell.width, inside.col + inside.width)
            at = np.s_[top - cell.row : bottom - cell.row, left - cell.col : right - cell.col]
            part = Window(top + row, left + col, bottom - top, right - left)
            yield part, Quantized(pixels.codes[at], pixels.scales[at])

    def _cells_of(
        self,
        placed: Placed,
        inside: Window,
        shape: tuple[int, int],
        side: int,
        *,
        with_codes: bool,
        check: Callable[[], None],
    ) -> Iterator[tuple[Window, Quantized]]:
        """Yield the cells that a window of a tile touches: windows of the tile, and their pixels."""
        for top in range(inside.row // side * side, inside.row + inside.height, side):
            for left in range(inside.col // side * side, inside.col + inside.width, side):
                cell = Window(top, left, min(side, shape[0] - top), min(side, shape[1] - left))

                def make(cell: Window = cell) -> tuple[Quantized, int]:
                    check()
                    pixels = self._filled(placed, cell, with_codes=with_codes)
                    return pixels, pixels.codes.nbytes + pixels.scales.nbytes

                yield (
                    cell,
                    self._cells.get((placed.files, placed.source.place.inside, cell, with_codes), make),
                )

    def _filled(self, placed: Placed, window: Window, *, with_codes: bool) -> Quantized:
        """Read a window of a tile-year, all of it from the same files."""
        source = placed.source
        pixels = filled(source, window, with_codes=with_codes, land=self._land(source, window))
        if identity(source) != placed.files:
            raise FileChangedError(f"{source.place.main}: was replaced while it was read")
        return pixels

    def _land(self, source: TileSource, window: Window) -> Landmask | None:
        address = source.landmask
        if address is None or not source.needs_landmask:
            return None
        shape = source.place.raster.shape

        def make() -> tuple[npt.NDArray[np.uint8], int]:
            packed = np.packbits(read_land(address, shape), axis=1)
            return packed, packed.nbytes

        packed = self._landmasks.get((address, _stat(address)), make)[window.slices[0]]
        land: Landmask = np.unpackbits(packed, axis=1, count=shape[1])[:, window.slices[1]] != 0
        return land


def _bands_first(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Return (rows, columns, bands) as (bands, rows, columns), while a few pixels are in the cache.

    8 MB take 2.7 ms; numpy's copy of the transposed array takes 6.8.
    """
    height, width, bands = codes.shape
    pixels, out = codes.reshape(height * width, bands), np.empty((bands, height * width), np.int8)
    for start in range(0, height * width, _STRIP):
        out[:, start : start + _STRIP] = pixels[start : start + _STRIP].T
    return out.reshape(bands, height, width)


def identity(source: TileSource) -> Hashable:
    """Return what changes when the files of a tile-year do, as far as that is known without reading them."""
    place = source.place
    mask = source.landmask if source.needs_landmask else None
    addresses = (place.main, place.scales, mask)
    return (*addresses, place.stamp, *(None if a is None else _stat(a) for a in addresses))


def _stat(address: str) -> tuple[int, int, int] | None:
    """Return time, size and number of a local file; None if it is elsewhere, or a store, or not there."""
    if scheme(address):
        return None
    try:
        about = Path(address).stat()
    except OSError:  # reading it will say why
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


class _Kept:
    """What was made last, for all threads: who wants what is being made waits for it."""

    def __init__(self, budget: int) -> None:
        self._budget, self._bytes = budget, 0
        self._made: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Return what is kept, or what ``make`` returns with its size in bytes."""
        while True:
            with self._lock:
                found = self._made.get(key)
                if found is not None:
                    self._made.move_to_end(key)
                    return found[0]
                other = self._making.get(key)
                if other is None:
                    mine = self._making[key] = threading.Event()
                    break
            other.wait(_LONGEST_WAIT)  # if it failed there, it is tried here
        try:
            value, size = make()
            with self._lock:
                self._made[key] = value, size
                self._bytes += size
                while self._bytes > self._budget and len(self._made) > 1:
                    _, (_, dropped) = self._made.popitem(last=False)
                    self._bytes -= dropped
            return value
        finally:
            with self._lock:
                del self._making[key]
            mine.set()
