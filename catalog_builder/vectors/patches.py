"""Patches for training: squares of pixels around points or over a region, read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyproj import Transformer
from shapely import contains_xy, prepare
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.pixels.read import is_quantized, read_window
from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.pixels.window import Window
from catalog_builder.tile.cover import cover
from catalog_builder.tile.files import ALL_BANDS
from catalog_builder.tile.grid import PIXEL, Cells, Raster, TileId, cells_containing
from catalog_builder.vectors.find import Listed, TileYear, find_cells
from catalog_builder.vectors.points.options import MAX_SCALE

PatchType = Literal["float32", "int8"]
Floats = npt.NDArray[np.float64]
Lattice = tuple[int, float, float]
"""EPSG code, and what is left of the origin's x and y in pixels of 10 m: tiles of one share their pixels."""
_IMPORTED_IN = os.getpid()
_METRES_OF_DEGREE = 110_000.0
"""At least."""
MOST_PIXELS = 4096
"""Rows and columns of a patch."""


@dataclass(frozen=True, slots=True)
class PatchOptions:
    """How patches are read."""

    size: int = 64
    """Rows and columns."""
    bands: tuple[int, ...] = ALL_BANDS
    """Dimensions, counted from 0."""
    dtype: PatchType = "float32"
    """Values, or codes with their scales."""
    max_scale: float | None = MAX_SCALE
    """Pixels with this scale or a greater one have no data; None: whatever is stored."""

    def __post_init__(self) -> None:
        """Check them.

        Raises
        ------
        QueryError
            If one is out of range.
        """
        if not 1 <= self.size <= MOST_PIXELS:
            raise QueryError(f"size: expected 1..{MOST_PIXELS} pixels, found {self.size}")
        if self.dtype not in ("float32", "int8"):
            raise QueryError(f"dtype: expected float32 or int8, found {self.dtype}")
        if not self.bands or not set(self.bands) <= set(ALL_BANDS):
            raise QueryError(f"bands: expected dimensions of 0..{len(ALL_BANDS) - 1}, found {self.bands}")


@dataclass(frozen=True, slots=True)
class Spots:
    """Where patches are: arrays of one length, n."""

    cell: npt.NDArray[np.int64]
    """Of the tile that has the middle of the patch."""
    year: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]
    """Left edge, in pixels from the origin of the tile's lattice, eastwards."""
    y: npt.NDArray[np.int64]
    """Upper edge, in pixels, northwards."""
    point: npt.NDArray[np.int64]
    """Row of the point that it is around; -1 over a region."""


@dataclass(frozen=True, slots=True)
class Patches:
    """Patches of tile-years, as a map-style data set: what a ``DataLoader`` of PyTorch takes.

    It needs no PyTorch itself. It can be pickled, and opens files and connections in the process that reads,
    so that workers of any start method can have it.
    """

    spots: Spots
    options: PatchOptions
    tiles: Mapping[tuple[int, int], TileYear]
    """By cell and year: those of the patches, and their neighbours."""
    labels: pa.Table | None = None
    """Columns of the points."""
    label: str | None = None
    """The column that samples have as their label."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many points and years have no patch, by the reason."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.spots.cell)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield all samples, in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Read a patch.

        Returns
        -------
        dict
            ``image``: float32 (bands, size, size), 0 where there is no data; or int8 codes, -128 there, with
            ``scale``: float32 (size, size), 0 there. ``valid``: bool (size, size). ``bounds``: west, south,
            east, north in metres of ``crs``, the UTM zone, such as ``EPSG:32631``. ``year``. Around points
            also ``point``, their row, and ``label``, if there is one.

        Raises
        ------
        IndexError
            If there is no such patch.
        StorageError
            If a tile cannot be read; or has no codes, if they are asked for.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"patch {i} of {len(self)}")
        # GDAL keeps connections for each thread, and a process that was forked would use its parent's
        here = os.getpid()
        return self._sample(i) if here == _IMPORTED_IN else _thread_of(here).submit(self._sample, i).result()

    def _sample(self, i: int) -> dict[str, Any]:
        spots, size = self.spots, self.options.size
        cell, year = int(spots.cell[i]), int(spots.year[i])
        x, y = int(spots.x[i]), int(spots.y[i])
        lattice = _lattice(self.tiles[cell, year].place.raster)
        pixels = self._pixels(lattice, cell, year, x, y)
        valid = pixels.has_data()
        if self.options.max_scale is not None:
            valid &= ~pixels.corrupt(self.options.max_scale)
        epsg, off_x, off_y = lattice
        west, north = x * PIXEL + off_x, y * PIXEL + off_y
        sample: dict[str, Any] = {
            **_arrays(pixels, valid),
            "valid": valid,
            "bounds": (west, north - size * PIXEL, west + size * PIXEL, north),
            "crs": f"EPSG:{epsg}",
            "year": year,
        }
        if self.labels is not None:
            sample["point"] = int(spots.point[i])
        if self.labels is not None and self.label is not None:
            sample["label"] = self.labels[self.label][sample["point"]].as_py()
        return sample

    def _pixels(self, lattice: Lattice, cell: int, year: int, x: int, y: int) -> Pixels:
        """Read the pixels of all tiles that a patch lies in; each is that of the cell that has its centre."""
        options, shape = self.options, (self.options.size, self.options.size)
        n = len(options.bands)
        is_coded = options.dtype == "int8"
        out: Pixels = Quantized.empty(shape, n) if is_coded else Values.empty(shape, n)
        parts = list(self._parts(lattice, cell, year, x, y))
        owner = _cells_of(lattice, x, y, options.size) if len(parts) > 1 else None
        for source, window, at in parts:
            if is_coded and not is_quantized(source.place):
                raise StorageError(f"{source.id} is available as float32 only: use float32")
            found = read_window(source.place, window, options.bands)
            there = _part(out, at)
            # where tiles overlap, one may have what the tile whose pixel it is has not
            put = found.has_data() & ~there.has_data()
            if owner is not None:
                put |= found.has_data() & (owner[at] == source.tile.cell)
            _copy(found, there, put)
        return out

    def _parts(
        self, lattice: Lattice, cell: int, year: int, x: int, y: int
    ) -> Iterator[tuple[TileYear, Window, tuple[slice, slice]]]:
        """Yield the tiles that a patch lies in: their windows, and where these are in the patch."""
        size = self.options.size
        for near in _cells_near(cell, size):
            source = self.tiles.get((near, year))
            if source is None or _lattice(source.place.raster) != lattice:
                continue
            left, top = _origin(source.place.raster)
            height, width = source.place.raster.shape
            col0, col1 = max(x - left, 0), min(x + size - left, width)
            row0, row1 = max(top - y, 0), min(top - y + size, height)
            if col0 < col1 and row0 < row1:
                window = Window(row0, col0, row1 - row0, col1 - col0)
                row, col = row0 - (top - y), col0 - (x - left)
                yield (
                    source,
                    window,
                    (slice(row, row + window.height), slice(col, col + window.width)),
                )


def patches_around(
    catalog: str,
    lon: Floats,
    lat: Floats,
    options: PatchOptions,
    *,
    years: Collection[int] | None = None,
    dataset: str | None = None,
    labels: pa.Table,
    label: str | None = None,
) -> Patches:
    """Return a patch around each point for each year, with the point's pixel in the middle.

    In a patch of an even size that is the first pixel right and below of the middle.

    Parameters
    ----------
    catalog, years, dataset
        As of :func:`catalog_builder.vectors.find.find_cells`.
    lon, lat
        Degrees, OGC:CRS84, (n,).
    options
        How to read them.
    labels, label
        The columns of the points, (n,), and which of them is their label.

    Raises
    ------
    QueryError
        If there is no such column.
    CatalogError, DatasetError
        If the catalogue or the dataset cannot be read.
    """
    if label is not None and label not in labels.column_names:
        raise QueryError(f"label: expected one of {', '.join(labels.column_names)}, found '{label}'")
    cell = cells_containing(lon, lat)
    listed = find_cells(catalog, _cells_around(lon, lat, options.size * PIXEL), years, dataset)
    tiles, reasons = _readable(listed)
    order = np.argsort(cell, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(cell[order])) + 1) if len(order) else []
    found: list[npt.NDArray[np.int64]] = []
    left_out: dict[str, int] = {}
    for group in groups:
        number = int(cell[group[0]])
        for year in listed.years:
            source = tiles.get((number, year))
            if source is None:
                reason = reasons.get((number, year)) or (
                    "missing-year" if number in listed.cells else "outside"
                )
                left_out[reason] = left_out.get(reason, 0) + len(group)
                continue
            x, y = _pixels_of(source.place.raster, lon[group], lat[group])
            half = options.size // 2
            same = np.full(len(group), number), np.full(len(group), year)
            found.append(np.stack([*same, x - half, y + half, group]))
    return Patches(_spots(found), options, tiles, labels, label, left_out)


def patches_over(
    catalog: str,
    region: BaseGeometry,
    options: PatchOptions,
    *,
    stride: int | None = None,
    years: Collection[int] | None = None,
    dataset: str | None = None,
) -> Patches:
    """Return patches over a region: their middles are inside, and on a grid of each UTM zone.

    Parameters
    ----------
    catalog, years, dataset
        As of :func:`patches_around`.
    region
        OGC:CRS84.
    options
        How to read them.
    stride
        Pixels from one to the next; None: their size.

    Raises
    ------
    QueryError
        If the stride is no number of pixels.
    CatalogError, DatasetError
        If the catalogue or the dataset cannot be read.
    """
    step = options.size if stride is None else stride
    if step < 1:
        raise QueryError(f"stride: expected at least 1 pixel, found {step}")
    cells = cover(region).cells()
    corners = np.array([TileId.from_cell(int(c)).bounds for c in cells]).reshape(-1, 4)
    lon, lat = (np.concatenate([corners[:, i], corners[:, i + 2]]) for i in (0, 1))
    lon, lat = np.concatenate([lon, lon]), np.concatenate([lat, lat[::-1]])
    around = np.union1d(cells, _cells_around(lon, lat, options.size * PIXEL))
    tiles, _ = _readable(find_cells(catalog, around, years, dataset))
    prepare(region)
    found = []
    for (cell, year), source in tiles.items():
        x, y = _grid_of(source.place.raster, options.size, step)
        half = options.size / 2
        lon, lat = _lonlat(_lattice(source.place.raster), x + half, y - half)
        inside = (cells_containing(lon, lat) == cell) & contains_xy(region, lon, lat)
        n = int(inside.sum())
        rows = (np.full(n, cell), np.full(n, year), x[inside], y[inside], np.full(n, -1))
        found.append(np.stack(rows))
    return Patches(_spots(found), options, tiles)


# ------------------------------------------------------------------------------------------- geometry


def _spots(found: Sequence[npt.NDArray[np.int64]]) -> Spots:
    """Return spots in the order of points, or else of tiles; of each the years one after the other."""
    rows = np.concatenate(found, axis=1) if found else np.empty((5, 0), np.int64)
    cell, year, x, y, point = rows
    order = np.lexsort((x, -y, year, cell, point))
    return Spots(*(column[order].astype(np.int64) for column in (cell, year, x, y, point)))


def _lattice(raster: Raster) -> Lattice:
    return raster.epsg, raster.transform.c % PIXEL, raster.transform.f % PIXEL


def _origin(raster: Raster) -> tuple[int, int]:
    """Return the upper left corner of a raster, in pixels of its lattice."""
    return math.floor(raster.transform.c / PIXEL), math.floor(raster.transform.f / PIXEL)


def _pixels_of(
    raster: Raster, lon: Floats, lat: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pixels of points, by their upper left corners."""
    _, off_x, off_y = _lattice(raster)
    easting, northing = _to_utm(raster.epsg).transform(lon, lat)
    x = np.floor((np.asarray(easting) - off_x) / PIXEL)
    y = np.ceil((np.asarray(northing) - off_y) / PIXEL)
    return x.astype(np.int64), y.astype(np.int64)


def _grid_of(raster: Raster, size: int, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the upper left corners of patches about in a raster, at multiples of a step, (n,)."""
    left, top = _origin(raster)
    x = np.arange((left - size) // step, (left + raster.width) // step + 1) * step
    y = np.arange((top - raster.height) // step, (top + size) // step + 1) * step
    xs, ys = (axis.ravel() for axis in np.meshgrid(x, y))
    return xs, ys


def _lonlat(lattice: Lattice, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    epsg, off_x, off_y = lattice
    lon, lat = _to_utm(epsg).transform(x * PIXEL + off_x, y * PIXEL + off_y, direction="INVERSE")
    return np.asarray(lon), np.asarray(lat)


def _cells_of(lattice: Lattice, x: int, y: int, size: int) -> Cells:
    """Return the cells of the centres of a patch's pixels, (size, size)."""
    xs, ys = np.meshgrid(x + 0.5 + np.arange(size), y - 0.5 - np.arange(size))
    lon, lat = _lonlat(lattice, xs, ys)
    return cells_containing(lon, lat)


def _cells_around(lon: Floats, lat: Floats, metres: float) -> Cells:
    """Return the cells that are at most so far from points, or a little further."""
    down = metres / _METRES_OF_DEGREE + 0.001
    # near a pole a patch may lie around it; there are no tiles there
    across = down / np.maximum(np.cos(np.radians(np.minimum(np.abs(lat) + down, 90))), 0.01)
    steps = np.linspace(-1, 1, 2 * math.ceil(float(across.max(initial=0)) / 0.1) + 1)
    rows = np.linspace(-1, 1, 2 * math.ceil(down / 0.1) + 1)
    cells = cells_containing(
        np.clip(lon[:, None, None] + across[:, None, None] * steps[None, None, :], -180, 180),
        np.clip(lat[:, None, None] + down * rows[None, :, None], -90, 90),
    )
    return np.unique(cells[cells >= 0])


@lru_cache(maxsize=1 << 16)
def _cells_near(cell: int, size: int) -> tuple[int, ...]:
    """Return the cells that a patch may lie in whose middle is in a cell, that cell first."""
    west, south, east, north = TileId.from_cell(cell).bounds
    lon, lat = np.array([west, east, west, east]), np.array([south, south, north, north])
    found: list[int] = _cells_around(lon, lat, size * PIXEL).tolist()
    return (cell, *(each for each in found if each != cell))


@lru_cache(maxsize=4)
def _thread_of(pid: int) -> ThreadPoolExecutor:
    """Return the thread in which a process that was forked reads."""
    return ThreadPoolExecutor(1, f"patches-{pid}")


@lru_cache(maxsize=128)
def _to_utm(epsg: int) -> Transformer:
    return Transformer.from_crs("OGC:CRS84", epsg, always_xy=True)


# -------------------------------------------------------------------------------------------- pixels


def _readable(listed: Listed) -> tuple[dict[tuple[int, int], TileYear], dict[tuple[int, int], str]]:
    """Return tile-years that can be read, and why others cannot."""
    tiles = {at: one for at, one in listed.tile_years.items() if isinstance(one, TileYear)}
    return tiles, {at: "unreadable" for at, one in listed.tile_years.items() if isinstance(one, str)}


def _part(pixels: Pixels, at: tuple[slice, slice]) -> Pixels:
    """Return a view of pixels."""
    if isinstance(pixels, Quantized):
        return Quantized(pixels.codes[at], pixels.scales[at])
    return Values(pixels.values[at])


def _copy(found: Pixels, into: Pixels, where: npt.NDArray[np.bool_]) -> None:
    if isinstance(into, Values):
        np.copyto(into.values, found.dequantized(), where=where[..., None])
    elif isinstance(found, Quantized):
        np.copyto(into.codes, found.codes, where=where[..., None])
        np.copyto(into.scales, found.scales, where=where)


def _arrays(pixels: Pixels, valid: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
    """Return pixels with bands first, and without numbers where they are not valid."""
    pixels.blank(~valid)
    if isinstance(pixels, Quantized):
        scale = np.where(valid, pixels.scales, np.float32(0))
        return {"image": np.ascontiguousarray(np.moveaxis(pixels.codes, -1, 0)), "scale": scale}
    pixels.values[~valid] = 0
    return {"image": np.ascontiguousarray(np.moveaxis(pixels.values, -1, 0))}
