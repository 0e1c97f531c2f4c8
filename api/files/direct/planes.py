"""A published array reordered band by band, for clients that read single bands.

A ``.npy`` of codes holds the 128 values of a pixel side by side, so reading one band over HTTP fetches
all of them: 107 MB for 0.8. If the array is on a local disk, the server can extract a band
on request; nothing is stored. It reads 128 bytes of page cache for each byte that it
sends: 0.1 s for a band of a whole tile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from api.files.folder import FileContent
from api.files.ranges import Span
from catalog_builder.tile.files import N_BANDS

STRIP = 1 << 16
"""Pixels read at a time: 8 MB."""


@dataclass(frozen=True, slots=True)
class Planes:
    """An int8 ``(height, width, 128)`` array as ``(128, height, width)``: a ``ranges.Content``."""

    source: FileContent
    offset: int
    """Bytes before the array in its file."""
    pixels: int
    """Height times width."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.pixels * N_BANDS

    @property
    def etag(self) -> str:
        """The file's, marked."""
        return f'{self.source.etag[:-1]}-planes"'

    @property
    def modified(self) -> int:
        """When the file changed."""
        return self.source.modified

    def read_now(self, span: Span) -> bytes | None:
        """Return nothing: extracting a band is work for a thread."""
        return None

    def read(self, span: Span) -> bytes:
        """Return the bytes; call it from a thread.

        Raises
        ------
        ContentChangedError
            If the file changed since it was opened.
        """
        parts, at = [], span.start
        while at < span.stop:
            band, first = divmod(at, self.pixels)
            last = min(first + STRIP, self.pixels, span.stop - band * self.pixels)
            values = self.source.read(Span(self.offset + first * N_BANDS, self.offset + last * N_BANDS))
            parts.append(np.frombuffer(values, np.uint8)[band::N_BANDS].tobytes())
            at += last - first
        return b"".join(parts)
