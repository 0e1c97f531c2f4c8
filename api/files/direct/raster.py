"""The float32 values of a tile-year as a GeoTIFF that is nowhere: bytes are computed as they are requested.

Blocks are 16 pixels wide and 48 high, with all bands of a pixel side by side, and a row of blocks is one
piece of the file. So a pixel costs 0.4 MB, and a window one range per row of blocks that it touches: 7 at
most for 256 pixels. GDAL merges ranges only up to 10 MB, unless it reads with threads; the view beside it
(:func:`catalog_builder.raster.vrt.computed_vrt`) says so, and has the names of the bands, so that all that is
read before the first block lies in the 16 kB that GDAL requests at first.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from api.files.ranges import Span, failed
from catalog_builder.convert.encode.blocks import OVERVIEW_BLOCK_SIZE
from catalog_builder.convert.encode.overviews import level_shapes
from catalog_builder.convert.encode.tiff import Layout, assemble_header, geo_tags, metadata_tags
from catalog_builder.errors import StorageError
from catalog_builder.pixels.place import Place
from catalog_builder.pixels.read import read_values
from catalog_builder.pixels.window import Window
from catalog_builder.storage import scheme
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster

BLOCK = (48, 16)
"""Rows and columns of a block."""
BLOCK_BYTES = BLOCK[0] * BLOCK[1] * N_BANDS * 4
AT_ONCE = 10
"""Blocks that are computed at a time, 4 MB: what one request holds in memory, a few times over."""
FORM = 1
"""Version of the file's layout: part of its ETag."""

_LAYOUT = Layout(N_BANDS, np.dtype(np.float32), BLOCK, "pixel", "none", 0, 1)
_STORED = BLOCK_BYTES + 8
"""Bytes of a block in the file: as in our COGs, its size before it and its last four bytes again after it."""


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of the file."""

    number: int
    """0: full resolution."""
    shape: tuple[int, int]
    start: int
    """Offset of its first block in the file."""

    @property
    def across(self) -> int:
        """Blocks in a row."""
        return -(-self.shape[1] // BLOCK[1])

    @property
    def stop(self) -> int:
        """Offset behind its last block."""
        return self.start + -(-self.shape[0] // BLOCK[0]) * self.across * _STORED


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring blocks in a row of a level."""

    level: _Level
    row: int
    """Of blocks."""
    first: int
    stop: int

    @property
    def span(self) -> Span:
        """Where they are in the file."""
        at = self.level.start + (self.row * self.level.across + self.first) * _STORED
        return Span(at, at + (self.stop - self.first) * _STORED)

    @property
    def window(self) -> Window:
        """Their pixels, in those of the level."""
        rows, cols = self.level.shape
        top, left = self.row * BLOCK[0], self.first * BLOCK[1]
        return Window(top, left, min(BLOCK[0], rows - top), min(self.stop * BLOCK[1], cols) - left)


@dataclass(frozen=True, slots=True)
class ComputedRaster:
    """A :class:`api.files.ranges.Content`: float32, 128 bands, with overviews.

    Parameters
    ----------
    place
        Where the pixels are, in any container.
    metadata
        Dataset tags.
    """

    place: Place
    metadata: Mapping[str, str]
    modified: int | None = None

    @property
    def header(self) -> bytes:
        """Everything before the first block; it follows from the tile-year, and nothing is read for it."""
        return _header(self.place.raster, tuple(self.metadata.items()))[0]

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._levels[0].stop  # full resolution is last in the file

    @property
    def etag(self) -> str:
        """Changes with the layout, the tags and the files that values are read from."""
        place = self.place
        said = [
            FORM,
            self.header,
            place.kind,
            place.main,
            place.scales,
            place.stamp,
            place.size,
            place.inside,
        ]
        for address in (place.main, place.scales):
            if address is not None and not scheme(address):
                try:
                    about = Path(address).stat()
                except OSError:  # reading it will say why
                    continue
                said += [about.st_mtime_ns, about.st_size]
        return f'"{hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()}"'

    @property
    def overviews(self) -> list[int]:
        """Reduction factors of its overviews."""
        return [1 << level.number for level in self._levels[1:]]

    @property
    def _levels(self) -> tuple[_Level, ...]:
        return _header(self.place.raster, tuple(self.metadata.items()))[1]

    def read_now(self, span: Span) -> bytes | None:
        """Return the header's bytes; computing others is work for a thread."""
        return self.header[span.start : span.stop] if span.stop <= len(self.header) else None

    def read(self, span: Span) -> bytes:
        """Return the bytes; call it from a thread.

        Raises
        ------
        ContentChangedError
            If the pixels cannot be read.
        UnreadableError
            If what contains them is damaged.
        """
        parts = [self.header[span.start : span.stop]]
        for run in self._runs(span):
            start, stop = max(span.start, run.span.start), min(span.stop, run.span.stop)
            parts.append(self._blocks(run)[start - run.span.start : stop - run.span.start])
        return b"".join(parts)

    def parts(self, span: Span) -> Iterator[Span]:
        """Cut a span at the blocks, into parts that take a bounded amount of memory."""
        end = min(span.stop, len(self.header))
        if span.start < end:
            yield Span(span.start, end)
        for run in self._runs(span):
            yield Span(max(span.start, run.span.start), min(span.stop, run.span.stop))

    def _runs(self, span: Span) -> Iterator[_Run]:
        """Yield the blocks that a span touches, in the order of the file."""
        for level in reversed(self._levels):
            start, stop = max(span.start, level.start), min(span.stop, level.stop)
            first, end = (start - level.start) // _STORED, -(-(stop - level.start) // _STORED)
            while first < end:
                row, col = divmod(first, level.across)
                n = min(AT_ONCE, end - first, level.across - col)
                yield _Run(level, row, col, col + n)
                first += n

    def _blocks(self, run: _Run) -> bytes:
        """Return blocks as they are in the file; beyond the raster's edges they are NaN."""
        try:
            values = read_values(self.place, run.window, run.level.number)
        except StorageError as error:
            raise failed(error, self._public(str(error))) from error
        n = run.stop - run.first
        out = np.empty((n, _STORED), np.uint8)
        out[:, :4] = np.frombuffer(struct.pack("<I", BLOCK_BYTES), np.uint8)
        block = out[:, 4:-4].view("<f4").reshape(n, *BLOCK, N_BANDS)
        by_row = block.transpose(1, 0, 2, 3)
        height, width = values.shape[:2]
        whole, rest = divmod(width, BLOCK[1])
        if rest or height < BLOCK[0]:
            block[:] = np.nan
        by_row[:height, :whole] = values[:, : whole * BLOCK[1]].reshape(height, whole, BLOCK[1], N_BANDS)
        if rest:
            by_row[:height, whole, :rest] = values[:, whole * BLOCK[1] :]
        out[:, -4:] = out[:, -8:-4]
        return out.tobytes()

    def _public(self, reason: str) -> str:
        """Return a reason without the folders of the server's own files."""
        for address in (self.place.main, self.place.scales):
            if address is not None and not scheme(address):
                reason = reason.replace(f"{address.rpartition('/')[0]}/", "")
        return reason


@lru_cache(maxsize=64)
def _header(raster: Raster, metadata: tuple[tuple[str, str], ...]) -> tuple[bytes, tuple[_Level, ...]]:
    """Return the header, and the levels from full resolution down."""
    shapes = level_shapes(*raster.shape, OVERVIEW_BLOCK_SIZE)
    levels = [_Level(i, shape, 0) for i, shape in enumerate(shapes)]
    counts = [np.full((1, (level.stop - level.start) // _STORED), BLOCK_BYTES, np.uint64) for level in levels]
    tags = [*geo_tags(raster.epsg, raster.transform[:6]), *metadata_tags(_LAYOUT, dict(metadata))]
    header = assemble_header(shapes, [_LAYOUT] * len(shapes), counts, tags, float("nan"), False).data
    found: list[_Level] = []
    at = len(header)
    for level in reversed(levels):  # the smallest is first in the file
        found.insert(0, _Level(level.number, level.shape, at))
        at = found[0].stop
    return header, tuple(found)
