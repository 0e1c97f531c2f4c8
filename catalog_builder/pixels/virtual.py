"""The published arrays of a tile-year as files, computed from the pixels of a container that has others.

What reads ``.npy`` files by ranges, as GDAL and every client of ours do, so reads any container.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from catalog_builder.pixels.place import Place
from catalog_builder.pixels.read import read_window
from catalog_builder.pixels.values import Quantized
from catalog_builder.pixels.window import Window
from catalog_builder.tile.files import ALL_BANDS, N_BANDS

Role = Literal["codes", "scales"]


@dataclass(frozen=True, slots=True)
class VirtualArray:
    """A ``.npy`` that is nowhere: int8 (rows, columns, 128) codes, or float32 (rows, columns) scales."""

    place: Place
    """Of a container that holds codes and scales."""
    role: Role

    @property
    def item_size(self) -> int:
        """Bytes of a pixel."""
        return N_BANDS if self.role == "codes" else 4

    @property
    def header(self) -> bytes:
        """What comes before the array: 128 bytes, as numpy writes them."""
        stream = io.BytesIO()
        shape = (*self.place.raster.shape, N_BANDS) if self.role == "codes" else self.place.raster.shape
        about = {"descr": "|i1" if self.role == "codes" else "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, about)
        return stream.getvalue()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        height, width = self.place.raster.shape
        return len(self.header) + height * width * self.item_size

    @property
    def stamp(self) -> str:
        """32 hex digits that change when the pixels' files do, as far as their places say it."""
        place = self.place
        said = f"{self.role} {place.main} {place.scales} {place.stamp} {place.size} {place.inside or ''}"
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the file; the pixels that they lie in are read, and no others.

        Raises
        ------
        StorageError
            If the pixels cannot be read.
        """
        header = self.header
        head, start, stop = header[start:stop], max(start - len(header), 0), stop - len(header)
        return head + self._pixels(start, stop) if start < stop else head

    def _pixels(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of the array."""
        width, item = self.place.raster.width, self.item_size
        first, last = start // item, -(-stop // item) - 1
        (top, left), (bottom, right) = divmod(first, width), divmod(last, width)
        if top == bottom:
            window = Window(top, left, 1, right - left + 1)
        else:
            window = Window(top, 0, bottom - top + 1, width)
        mask = np.ones(window.shape, np.bool_)
        if top != bottom:
            mask[0, :left] = mask[-1, right + 1 :] = False
        bands = ALL_BANDS if self.role == "codes" else ()
        found = read_window(self.place, window, bands, mask=mask)
        if not isinstance(found, Quantized):
            raise TypeError(f"{self.place.main}: has no codes and scales")
        array = found.codes if self.role == "codes" else found.scales.astype("<f4", copy=False)
        begin = (top * width + window.col) * item
        return array.tobytes()[start - begin : stop - begin]
