"""Selection of the pixels of a region: exact and disjoint.

Neighbouring tiles overlap by some pixels. A pixel of a mosaic belongs to the tile whose 0.1 degree
cell contains its centre, so no pixel is fetched twice and no mosaic depends on the order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from catalog_builder.pixels.window import Mask, Window
from catalog_builder.tile.grid import PIXEL, Raster, TileId
from catalog_builder.tile.regions.region_file import MAX_EDGE, project
from catalog_builder.vectors.find import TileYear


@dataclass(frozen=True, slots=True)
class Part:
    """The selected part of one tile-year."""

    source: TileYear
    window: Window
    mask: Mask
    """Bool (height, width) of the window: the selected pixels."""

    @property
    def pixels(self) -> int:
        """Number of selected pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True, slots=True)
class Output:
    """One raster to write: a mosaic of a year and UTM zone, or one tile-year."""

    name: str
    """Without suffix."""
    year: int
    raster: Raster
    parts: tuple[Part, ...]

    def place(self, part: Part) -> tuple[slice, slice]:
        """Return the position of a part in the output: all tiles of a zone share one 10 m grid."""
        own, whole = part.source.place.raster.transform, self.raster.transform
        row = round((whole.f - own.f) / PIXEL) + part.window.row
        col = round((own.c - whole.c) / PIXEL) + part.window.col
        return slice(row, row + part.window.height), slice(col, col + part.window.width)

    @property
    def pixels(self) -> int:
        """Number of selected pixels of all parts."""
        return sum(p.pixels for p in self.parts)


def plan(sources: Iterable[TileYear], region: BaseGeometry, *, tiles: bool) -> list[Output]:
    """Return the outputs of a region.

    Parameters
    ----------
    sources
        The tile-years to read.
    region
        OGC:CRS84. A pixel is selected if its centre is inside; for a region without area, or too
        thin to contain a centre, every pixel that it touches.
    tiles
        Whether to make one output per tile-year instead of one per year and UTM zone.
    """
    groups: dict[tuple[Any, ...], list[Part]] = {}
    for source in sources:
        wanted = wanted_pixels(source.tile, source.place.raster, region)
        if wanted is None:
            continue
        part = Part(source, *wanted)
        # tiles that were converted on upstream's published corners share no grid
        off = (source.place.raster.transform.c % PIXEL, source.place.raster.transform.f % PIXEL)
        key = (source.id,) if tiles else (source.year, source.place.raster.epsg, off)
        groups.setdefault(key, []).append(part)
    return [_output(tuple(parts), tiles=tiles) for parts in groups.values()]


def _output(parts: tuple[Part, ...], *, tiles: bool) -> Output:
    first = parts[0].source
    boxes = [_bounds(p) for p in parts]
    west, south = min(b[0] for b in boxes), min(b[1] for b in boxes)
    east, north = max(b[2] for b in boxes), max(b[3] for b in boxes)
    raster = Raster(
        first.place.raster.epsg,
        Affine(PIXEL, 0.0, west, 0.0, -PIXEL, north),
        round((north - south) / PIXEL),
        round((east - west) / PIXEL),
    )
    zone = f"utm{first.place.raster.epsg % 100:02d}{'n' if first.place.raster.epsg < 32700 else 's'}"
    off = first.place.raster.transform.c % PIXEL or first.place.raster.transform.f % PIXEL
    mosaic = f"{first.dataset.directory}_{first.year}_{zone}{f'_{first.tile.name}' if off else ''}"
    prefix = "synthetic_" if first.dataset.is_synthetic and tiles else ""
    return Output(f"{prefix}{first.id}" if tiles else mosaic, first.year, raster, parts)


def _bounds(part: Part) -> tuple[float, float, float, float]:
    t, w = part.source.place.raster.transform, part.window
    west, north = t.c + PIXEL * w.col, t.f - PIXEL * w.row
    return west, north - PIXEL * w.height, west + PIXEL * w.width, north


def wanted_pixels(tile: TileId, raster: Raster, region: BaseGeometry) -> tuple[Window, Mask] | None:
    """Return the pixels of a tile in a region; None if there are none.

    Returns
    -------
    window, mask
        The smallest window around them, and bool (height, width) in it.
    """
    clipped = shapely.intersection(region, shapely.box(*tile.bounds))
    if clipped.is_empty or (clipped.area == 0 and region.area > 0):  # no more than a shared edge
        return None
    shape = project(shapely.segmentize(clipped, MAX_EDGE), _to_utm(raster.epsg))
    mask = _rasterized(shape, raster, all_touched=region.area == 0)
    if not mask.any() and clipped.equals(region):  # else its centre may lie in a neighbour
        mask = _rasterized(shape, raster, all_touched=True)
    if not mask.any():
        return None
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))
    return window, mask[window.slices]


def _rasterized(shape: BaseGeometry, raster: Raster, *, all_touched: bool) -> Mask:
    from rasterio.features import geometry_mask

    mask: Mask = geometry_mask([shape], raster.shape, raster.transform, all_touched=all_touched, invert=True)
    return mask


@lru_cache(maxsize=128)
def _to_utm(epsg: int) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs("OGC:CRS84", epsg, always_xy=True)
