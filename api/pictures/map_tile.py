"""Map tiles of Web Mercator: where they are, and which of their pixels a file covers.

A file is read for the pixels of a map tile that it covers, and for no others: rio-tiler gives a map tile the
file's own resolution before it reduces it, so at zoom 0 it would warp four million pixels a side to show the
part of one that a tile-year covers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.warp import transform_bounds
from rio_tiler.errors import TileOutsideBounds
from rio_tiler.io import Reader
from rio_tiler.models import ImageData

from catalog_builder.tile.grid import Bounds

TILE = 256
"""Pixels a side."""
_EDGE = math.pi * 6378137.0
"""Half the width of the world in metres of Web Mercator."""


@dataclass(frozen=True, slots=True)
class MapTile:
    """A map tile, ``WebMercatorQuad/z/x/y``."""

    z: int
    x: int
    y: int

    @property
    def pixel(self) -> float:
        """Size of a pixel in metres of Web Mercator."""
        return 2 * _EDGE / (TILE << self.z)

    @property
    def origin(self) -> tuple[float, float]:
        """West and north edge in metres of Web Mercator."""
        side = self.pixel * TILE
        return self.x * side - _EDGE, _EDGE - self.y * side

    def window(self, bounds: Bounds) -> tuple[slice, slice] | None:
        """Return the rows and columns of the pixels that a box (metres of Web Mercator) touches, or None."""
        left, top = self.origin
        west, south, east, north = bounds
        rows = _span((top - north) / self.pixel, (top - south) / self.pixel)
        cols = _span((west - left) / self.pixel, (east - left) / self.pixel)
        return None if rows is None or cols is None else (rows, cols)

    def bounds(self, rows: slice, cols: slice) -> Bounds:
        """Return the box of some pixels in metres of Web Mercator."""
        left, top = self.origin
        return Bounds(
            left + cols.start * self.pixel,
            top - rows.stop * self.pixel,
            left + cols.stop * self.pixel,
            top - rows.start * self.pixel,
        )

    def read(self, reader: Reader, **how: Any) -> ImageData:
        """Return a file's pixels in the map tile, (bands, 256, 256), masked where it has none.

        Raises
        ------
        TileOutsideBounds
            If it has none at all.
        """
        box = transform_bounds(reader.crs, "EPSG:3857", *reader.bounds, densify_pts=21)
        covered = self.window(Bounds(*box))
        if covered is None:
            raise TileOutsideBounds(f"{self} is outside the file")
        rows, cols = covered
        found = reader.part(
            self.bounds(rows, cols),
            bounds_crs="EPSG:3857",
            dst_crs="EPSG:3857",
            height=rows.stop - rows.start,
            width=cols.stop - cols.start,
            **how,
        ).array
        whole = np.ma.masked_all((len(found), TILE, TILE), found.dtype)
        whole.data[...] = 0
        whole[:, rows, cols] = found
        return ImageData(whole)

    def mark(self, box: Bounds) -> ImageData:
        """Return a map tile on which a box (degrees) is grey, and nothing else."""
        whole = np.ma.masked_all((3, TILE, TILE), np.uint8)
        whole.data[...] = 0
        covered = self.window(Bounds(*transform_bounds("EPSG:4326", "EPSG:3857", *box)))
        if covered is not None:
            whole[(slice(None), *covered)] = _GREY
        return ImageData(whole)


_GREY = 128


def _span(start: float, stop: float) -> slice | None:
    """Return the pixels of a map tile between two edges, in pixels from its own; None if there is none."""
    # A millionth of a pixel is a rounding, and no reason to draw a pixel more.
    first, last = max(math.floor(start + 1e-6), 0), min(math.ceil(stop - 1e-6), TILE)
    return slice(first, last) if first < last else None
