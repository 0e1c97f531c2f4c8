"""Selection of the pixels of a region: exact and disjoint.

Neighbouring tiles overlap by some pixels. A pixel of a mosaic belongs to the tile whose 0.1 degree
cell contains its centre, so no pixel is fetched twice and no mosaic depends on the order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from catalog_builder.pixels.window import Mask, Window
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import PIXEL, Raster, TileId
from catalog_builder.tile.regions.crs import MAX_EDGE, project
from catalog_builder.vectors.find import Found, TileYear
from catalog_builder.vectors.regions.grid import Grid


@dataclass(frozen=True, slots=True)
class Part:
    """The selected part of one tile-year."""

    source: TileYear
    window: Window
    mask: Mask
    """Bool (height, width) of the window: the selected pixels."""
    own: Mask
    """Those whose centre lies in the tile's own cell: the others may be another tile's, which counts."""

    @property
    def pixels(self) -> int:
        """Number of selected pixels."""
        return int(self.own.sum())


@dataclass(frozen=True, slots=True)
class Output:
    """One raster to write: a mosaic of a year and UTM zone, or one tile-year."""

    name: str
    """Without suffix."""
    year: int
    grid: Grid
    parts: tuple[Part, ...]
    is_warped: bool = False
    """Whether the parts have other lattices than the output, or not all the same one."""

    def place(self, part: Part) -> tuple[slice, slice]:
        """Return the position of a part in the output: all tiles of a zone share one 10 m grid."""
        own, whole = part.source.place.raster.transform, self.grid.transform
        row = round((whole.f - own.f) / PIXEL) + part.window.row
        col = round((own.c - whole.c) / PIXEL) + part.window.col
        return slice(row, row + part.window.height), slice(col, col + part.window.width)

    @property
    def pixels(self) -> int:
        """Number of selected pixels of all parts."""
        return sum(p.pixels for p in self.parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """The outputs of a region, and what the catalogue has not."""

    outputs: tuple[Output, ...]
    lost: Mapping[str, Mapping[str, str]]
    """By output: items that are listed, but cannot be read, and why."""
    missing: str
    """Years and cells that the catalogue has not, in words; empty if it has all."""
    years: tuple[int, ...]
    """Years that the catalogue has in the region, whichever were asked for."""


def plan(found: Found, region: BaseGeometry, *, tiles: bool, aligned: bool = False, name: str = "") -> Plan:
    """Return the outputs of a region.

    Parameters
    ----------
    found
        What the catalogue has.
    region
        OGC:CRS84. A pixel is selected if its centre is inside; for a region without area, or too
        thin to contain a centre, every pixel that it touches.
    tiles
        Whether to make one output per tile-year instead of one per year and UTM zone.
    aligned
        Whether all years have one shape and transform.
    name
        Beginning of the names of outputs; empty: the dataset.
    """
    groups: dict[tuple[Any, ...], list[Part]] = {}
    lost: dict[str, dict[str, str]] = {}
    for (cell, year), source in found.tile_years.items():
        tile = TileId.from_cell(cell)
        if isinstance(source, str):
            if overlap(tile, region) is not None:
                item = f"{tile.name}_{year}"
                output = _name(found.dataset, item, year, tile.raster(), tiles=tiles, prefix=name)
                lost.setdefault(output, {})[item] = source
            continue
        wanted = wanted_pixels(source.tile, source.place.raster, region)
        if wanted is None:
            continue
        part = Part(source, *wanted, wanted[1])
        # tiles that were converted on upstream's published corners share no grid
        key = (source.id,) if tiles else (source.year, source.place.raster.epsg, _off(source.place.raster))
        groups.setdefault(key, []).append(part)
    outputs = [_output(tuple(parts), tiles=tiles, prefix=name) for parts in groups.values()]
    return _planned(found, region, _aligned(outputs) if aligned and not tiles else outputs, lost)


def _planned(
    found: Found, region: BaseGeometry, outputs: Sequence[Output], lost: Mapping[str, Mapping[str, str]]
) -> Plan:
    cells = {c for c, _ in found.listed}
    cells = {c for c in cells if overlap(TileId.from_cell(c), region) is not None}
    listed = {(c, y) for c, y in found.listed if c in cells}
    return Plan(
        tuple(outputs),
        lost,
        missing(listed, found.years),
        tuple(sorted({year for _, year in listed})),
    )


def missing(listed: Collection[tuple[int, int]], years: Iterable[int]) -> str:
    """Return in words which years have fewer cells than others, and which none.

    >>> missing([(1, 2022), (2, 2022), (1, 2023)], [2019, 2020, 2022, 2023])
    '2023: 1 of 2 cells; 2019-2020 not in this region'
    """
    total, said, none = len({cell for cell, _ in listed}), [], list[int]()
    for year in sorted(years):
        n = sum(y == year for _, y in listed)
        if n == 0:
            none.append(year)
        elif n < total:
            said.append(f"{year}: {n} of {total} cells")
    if none and total:
        said.append(f"{ranges(none)} not in this region")
    return "; ".join(said)


def ranges(years: Iterable[int]) -> str:
    """Return years in words, those that follow each other together.

    >>> ranges([2017, 2018, 2019, 2021])
    '2017-2019, 2021'
    """
    runs: list[list[int]] = []
    for year in sorted(years):
        if runs and year == runs[-1][-1] + 1:
            runs[-1].append(year)
        else:
            runs.append([year])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _off(raster: Raster) -> tuple[float, float]:
    return raster.transform.c % PIXEL, raster.transform.f % PIXEL


def _output(parts: tuple[Part, ...], *, tiles: bool, prefix: str) -> Output:
    first = parts[0].source
    raster = _around(first.place.raster.epsg, [_bounds(part) for part in parts])
    name = _name(first.dataset, first.id, first.year, first.place.raster, tiles=tiles, prefix=prefix)
    return Output(name, first.year, Grid.of(raster), parts)


def _around(epsg: int, boxes: Sequence[tuple[float, float, float, float]]) -> Raster:
    """Return the smallest raster around boxes (west, south, east, north), all on one lattice."""
    west, south = min(b[0] for b in boxes), min(b[1] for b in boxes)
    east, north = max(b[2] for b in boxes), max(b[3] for b in boxes)
    transform = Affine(PIXEL, 0.0, west, 0.0, -PIXEL, north)
    return Raster(epsg, transform, round((north - south) / PIXEL), round((east - west) / PIXEL))


def _name(dataset: Dataset, item: str, year: int, raster: Raster, *, tiles: bool, prefix: str) -> str:
    if tiles:
        return f"{prefix}_{item}" if prefix else f"synthetic_{item}" if dataset.is_synthetic else item
    zone = f"utm{raster.epsg % 100:02d}{'n' if raster.epsg < 32700 else 's'}"
    own = f"_{item.rpartition('_')[0]}" if any(_off(raster)) else ""
    return f"{prefix or dataset.directory}_{year}_{zone}{own}"


def _aligned(outputs: Sequence[Output]) -> list[Output]:
    """Return outputs whose years have one raster, as they have one lattice."""
    boxes: dict[tuple[Any, ...], list[tuple[float, float, float, float]]] = {}
    for output in outputs:
        key = _lattice(output.parts[0])
        boxes.setdefault(key, []).extend(_bounds(part) for part in output.parts)
    around = {key: _around(key[0], found) for key, found in boxes.items()}
    return [replace(o, grid=Grid.of(around[_lattice(o.parts[0])])) for o in outputs]


def plan_warped(found: Found, region: BaseGeometry, grid: Grid, near: float, name: str = "") -> Plan:
    """Return the outputs of a region on another grid, one for each year.

    Parameters
    ----------
    found, region, name
        As of :func:`plan`.
    grid
        Of all outputs.
    near
        How far around the region pixels are needed, in metres.
    """
    by_year: dict[int, list[Part]] = {}
    lost: dict[str, dict[str, str]] = {}
    code = grid.crs.lower().replace(":", "") if grid.crs.startswith("EPSG:") else "warped"

    def output(year: int) -> str:
        return f"{name or found.dataset.directory}_{year}_{code}"

    for (cell, year), source in found.tile_years.items():
        tile = TileId.from_cell(cell)
        if isinstance(source, str):
            if overlap(tile, region) is not None:
                lost.setdefault(output(year), {})[f"{tile.name}_{year}"] = source
            continue
        part = _near(source, region, near)
        if part is not None:
            by_year.setdefault(year, []).append(part)
    outputs = [Output(output(y), y, grid, tuple(parts), is_warped=True) for y, parts in by_year.items()]
    return _planned(found, region, outputs, lost)


def lattices(parts: Sequence[Part]) -> dict[int, list[Output]]:
    """Return parts put together on their own lattices, by the EPSG code of their zone."""
    groups: dict[tuple[Any, ...], list[Part]] = {}
    for part in parts:
        groups.setdefault(_lattice(part), []).append(part)
    found: dict[int, list[Output]] = {}
    for (epsg, _), group in groups.items():
        found.setdefault(epsg, []).append(_output(tuple(group), tiles=False, prefix=""))
    return found


def _lattice(part: Part) -> tuple[int, tuple[float, float]]:
    raster = part.source.place.raster
    return raster.epsg, _off(raster)


def _near(source: TileYear, region: BaseGeometry, near: float) -> Part | None:
    """Return the pixels of a tile that are near a region; its own are in its cell."""
    raster, to_utm = source.place.raster, _to_utm(source.place.raster.epsg)
    piece = overlap(source.tile, region)
    if piece is None:
        return None
    shape = project(shapely.segmentize(piece, MAX_EDGE), to_utm).buffer(near)
    mask = _rasterized(shape, raster, all_touched=True)
    if not mask.any():
        return None
    cell = project(shapely.segmentize(shapely.box(*source.tile.bounds), MAX_EDGE), to_utm)
    own = _rasterized(cell, raster, all_touched=False) & mask
    window = _around_mask(mask)
    return Part(source, window, mask[window.slices], own[window.slices])


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
    clipped = overlap(tile, region)
    if clipped is None:
        return None
    shape = project(shapely.segmentize(clipped, MAX_EDGE), _to_utm(raster.epsg))
    mask = _rasterized(shape, raster, all_touched=region.area == 0)
    if not mask.any() and clipped.equals(region):  # else its centre may lie in a neighbour
        mask = _rasterized(shape, raster, all_touched=True)
    if not mask.any():
        return None
    window = _around_mask(mask)
    return window, mask[window.slices]


def _around_mask(mask: Mask) -> Window:
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0] + 1), int(cols[-1] - cols[0] + 1))


def overlap(tile: TileId, region: BaseGeometry) -> BaseGeometry | None:
    """Return the part of a region in a tile's cell; None if that is no more than a shared edge."""
    clipped = shapely.intersection(region, shapely.box(*tile.bounds))
    return None if clipped.is_empty or (clipped.area == 0 and region.area > 0) else clipped


def _rasterized(shape: BaseGeometry, raster: Raster, *, all_touched: bool) -> Mask:
    from rasterio.features import geometry_mask

    mask: Mask = geometry_mask([shape], raster.shape, raster.transform, all_touched=all_touched, invert=True)
    return mask


@lru_cache(maxsize=128)
def _to_utm(epsg: int) -> Any:
    from pyproj import Transformer

    return Transformer.from_crs("OGC:CRS84", epsg, always_xy=True)
