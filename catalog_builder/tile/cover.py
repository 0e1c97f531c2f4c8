"""Which grid cells a geometry touches: the core of every spatial search.

:func:`cover` returns exactly the cells whose closed polygon shares a point with the geometry,
in planar longitude and latitude, as runs of adjacent columns. The index reads one key range per
run, so nothing has to be tested again afterwards.

The geometry is decomposed into points, lines and polygons. Each descends a pyramid of blocks whose
sides are powers of four cells: a block it does not touch is dropped, a block whose cells it is sure
to touch is kept whole, the rest are split into sixteen. All blocks of all parts at one level are
tested in one vectorised call, and the cost follows the length of the boundary, not the area. What
equals its own bounding box (points, rectangles, lines along a parallel or a meridian) needs
comparisons only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.grid import LAT_EDGES, LON_EDGES, N_COLS, N_ROWS, Bounds, rows_cols_touching

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Geometries = npt.NDArray[np.object_]

_LON = np.array(LON_EDGES)
_LAT = np.array(LAT_EDGES)

_SPLIT_SHIFT = 2
"""A block splits into 4 x 4: fewer levels, so fewer calls, than 2 x 2."""
_MAX_LEVEL = 6
"""Blocks of 4**6 = 4096 cells a side hold the whole grid."""
_FIRST_BLOCKS = 6
"""A part starts at the level where it spans at most this many blocks in each direction."""

_INSET = 0.045
"""Degrees, slightly less than half a cell."""

# Keys leave one gap after every row, so that a run never joins the next row's first column.
_STRIDE = N_COLS + 1

_POINT, _LINES, _POLYGON = 0, (1, 2), 3  # shapely.GeometryType of what has no parts


class Runs(NamedTuple):
    """Cells as runs of columns: int32 arrays of one length, sorted by row, then column.

    Runs of one row neither overlap nor touch.
    """

    row: npt.NDArray[np.int32]
    first_col: npt.NDArray[np.int32]
    last_col: npt.NDArray[np.int32]
    """Inclusive."""

    @property
    def n_cells(self) -> int:
        """Number of cells in all runs."""
        return int((self.last_col.astype(np.int64) - self.first_col + 1).sum())

    def cells(self) -> npt.NDArray[np.int32]:
        """Return every cell as ``row * 3600 + column``, ascending (see ``tiles.cells``)."""
        length = (self.last_col - self.first_col + 1).astype(np.int64)
        first = grid.cells(self.row, self.first_col).astype(np.int64)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        return (np.repeat(first, length) + within).astype(np.int32)


def cover_box(bounds: Bounds) -> Runs:
    """Return the cells that share a point with a box, edges included: one run a row.

    The box must have west <= east; split one that crosses the antimeridian first
    (:func:`catalog_builder.tile.grid.split_antimeridian`).
    """
    rows, cols = rows_cols_touching(bounds)
    n = len(rows) if cols else 0
    return Runs(
        np.arange(rows.start, rows.start + n, dtype=np.int32),
        np.full(n, cols.start, np.int32),
        np.full(n, cols.stop - 1, np.int32),
    )


def cover(geometry: BaseGeometry) -> Runs:
    """Return the cells that share a point with a geometry, edges and corners included.

    Parameters
    ----------
    geometry
        Any shapely geometry in degrees (OGC:CRS84), also a collection; a third coordinate is
        ignored. What lies beyond 180 degrees or the poles touches no cell: nothing is wrapped.

    Returns
    -------
    Runs
        Empty for an empty geometry.

    Raises
    ------
    QueryError
        If a coordinate is not finite.

    Notes
    -----
    The result equals ``shapely.intersects(cell, part)`` for each part of the geometry. Where
    parts of a multi-polygon overlap they count as their union. The inside of an invalid (self
    crossing) polygon follows the even-odd rule, as in GEOS; its outline always counts. Nothing is
    repaired.

    Examples
    --------
    >>> cover(shapely.box(0.05, 52.05, 0.25, 52.1)).n_cells
    6
    """
    box = _as_box(geometry)
    if box is not None:
        return cover_box(box)
    parts = _simple_parts(geometry)
    if not len(parts):
        return _merge([])
    bounds = shapely.bounds(parts)
    if not (np.isfinite(bounds).all() and np.isfinite(shapely.get_coordinates(parts)).all()):
        raise QueryError("a geometry must hold finite coordinates")
    ranges = _Blocks.spanned(bounds)
    parts, bounds, ranges = _on_grid(parts, bounds, ranges)
    settled = _settled_by_bounds(parts, bounds, ranges)
    found = [ranges.take(settled)]
    if not settled.all():
        found += _descend(parts[~settled], ranges.take(~settled))
    return _merge(found)


@lru_cache(maxsize=4)
def cells_with_area(geometry: BaseGeometry) -> grid.Cells:
    """Return the cells that share area with polygons, ascending: an edge or a corner is not enough.

    Parameters
    ----------
    geometry
        As of :func:`cover`.

    Examples
    --------
    >>> box = shapely.box(0.1, 52.1, 0.2, 52.2)
    >>> len(cells_with_area(box)), cover(box).n_cells
    (1, 9)
    """
    found, edge = cover(geometry).cells(), cover(geometry.boundary).cells()
    row, col = grid.rows_cols(edge)
    boxes = shapely.box(_LON[col], _LAT[row], _LON[col + 1], _LAT[row + 1])
    shapely.prepare(geometry)
    return np.setdiff1d(found, edge[shapely.touches(geometry, boxes)], assume_unique=True)


class _Blocks(NamedTuple):
    """Rectangles of cells, inclusive on all sides, int64 arrays of one length."""

    row0: Ints
    row1: Ints
    col0: Ints
    col1: Ints

    @classmethod
    def spanned(cls, bounds: npt.NDArray[np.float64]) -> _Blocks:
        """Vectorised :func:`rows_cols_touching` for (n, 4) bounds; may be empty (row1 < row0)."""
        west, south, east, north = bounds.T
        return cls(
            np.maximum(np.searchsorted(_LAT, south, "left") - 1, 0),
            np.minimum(np.searchsorted(_LAT, north, "right") - 1, N_ROWS - 1),
            np.maximum(np.searchsorted(_LON, west, "left") - 1, 0),
            np.minimum(np.searchsorted(_LON, east, "right") - 1, N_COLS - 1),
        )

    def take(self, mask: Bools) -> _Blocks:
        """Return the blocks selected by a mask."""
        return _Blocks(*(values[mask] for values in self))

    def polygons(self) -> Geometries:
        """Return the blocks as polygons of exactly the grid's edges."""
        return shapely.box(_LON[self.col0], _LAT[self.row0], _LON[self.col1 + 1], _LAT[self.row1 + 1])

    def cores(self) -> Geometries:
        """Return the blocks as polygons that still reach into each of their cells, but only just."""
        return shapely.box(
            _LON[self.col0] + _INSET,
            _LAT[self.row0] + _INSET,
            _LON[self.col1 + 1] - _INSET,
            _LAT[self.row1 + 1] - _INSET,
        )


def _as_box(geometry: BaseGeometry) -> Bounds | None:
    """Return the bounds of a polygon that is an axis-parallel rectangle of five points, or None.

    This is what a bbox becomes on its way through GeoJSON, so it is worth a test of 3 µs.
    """
    if shapely.get_type_id(geometry) != _POLYGON or shapely.get_num_coordinates(geometry) != 5:
        return None
    (ax, ay), (bx, by), (cx, cy), (dx, dy), _ = shapely.get_coordinates(geometry).tolist()
    upright = ax == bx and by == cy and cx == dx and dy == ay
    flat = ay == by and bx == cx and cy == dy and dx == ax
    if not (upright or flat):  # also NaN
        return None
    box = Bounds(min(ax, cx), min(ay, cy), max(ax, cx), max(ay, cy))
    return box if max(map(abs, box)) < np.inf else None


def _simple_parts(geometry: BaseGeometry) -> Geometries:
    """Decompose a geometry into non-empty points, lines and polygons."""
    parts = np.array([geometry], dtype=np.object_)
    # Collections nest; the loop ends because every pass opens one layer.
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts = shapely.get_parts(parts)
    parts = shapely.get_parts(parts)  # copies: preparing them does not modify the caller's geometry
    return parts[~shapely.is_empty(parts)]


def _on_grid(
    parts: Geometries, bounds: npt.NDArray[np.float64], ranges: _Blocks
) -> tuple[Geometries, npt.NDArray[np.float64], _Blocks]:
    """Drop the parts whose bounding box touches no cell."""
    keep = (ranges.row0 <= ranges.row1) & (ranges.col0 <= ranges.col1)
    return parts[keep], bounds[keep], ranges.take(keep)


def _settled_by_bounds(parts: Geometries, bounds: npt.NDArray[np.float64], ranges: _Blocks) -> Bools:
    """Return which parts touch every cell that their bounding box touches.

    Those without extent in one direction are their own box. One that lies inside a single row (or
    column) of cells is connected and reaches from one end to the other, so it meets all of them;
    only if nothing was cut off at the edge of the grid can that be said.
    """
    west, south, east, north = bounds.T
    inside = (west >= -180) & (east <= 180) & (south >= -90) & (north <= 90)
    one_line = (ranges.row0 == ranges.row1) | (ranges.col0 == ranges.col1)
    return cast(Bools, (west == east) | (south == north) | (inside & one_line))


def _descend(parts: Geometries, ranges: _Blocks) -> list[_Blocks]:
    """Walk down the pyramid and return the blocks that the parts cover or, at the last level, touch."""
    shapely.prepare(parts)
    has_area = shapely.get_type_id(parts) == _POLYGON
    start = _start_level(ranges)
    found: list[_Blocks] = []
    part = row = col = np.empty(0, np.int64)
    for level in range(int(start.max()), -1, -1):
        new_part, new_row, new_col = _grid_of_blocks(ranges, level, np.flatnonzero(start == level))
        part = np.concatenate([part, new_part])
        row, col = np.concatenate([row, new_row]), np.concatenate([col, new_col])
        part, row, col, blocks = _clip(ranges, level, part, row, col)
        touched = shapely.intersects(parts[part], blocks.polygons())
        if level == 0:
            found.append(blocks.take(touched))
            break
        inside = np.zeros(len(part), np.bool_)
        ask = touched & has_area[part]
        # Every cell of the block meets its core, so a core inside the polygon settles them all; and
        # an outline along the block's own edge, as a world's or a grid-aligned region's, is no obstacle.
        inside[ask] = shapely.contains_properly(parts[part[ask]], blocks.take(ask).cores())
        found.append(blocks.take(inside))
        split = touched & ~inside
        part, row, col = _children(part[split], row[split], col[split])
    return found


def _start_level(ranges: _Blocks) -> Ints:
    """Return, per part, the lowest level at which it spans at most ``_FIRST_BLOCKS`` blocks a side."""
    span = np.maximum(ranges.row1 - ranges.row0, ranges.col1 - ranges.col0) + 1
    limits = _FIRST_BLOCKS << (_SPLIT_SHIFT * np.arange(_MAX_LEVEL))
    return cast(Ints, np.searchsorted(limits, span, "left"))


def _grid_of_blocks(ranges: _Blocks, level: int, part: Ints) -> tuple[Ints, Ints, Ints]:
    """Return part, row and column of the blocks at a level that the ranges of some parts span."""
    shift = _SPLIT_SHIFT * level
    row0, row1, col0, col1 = (values[part] >> shift for values in ranges)
    n_cols = col1 - col0 + 1
    count = (row1 - row0 + 1) * n_cols
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    width = np.repeat(n_cols, count)
    return (
        np.repeat(part, count),
        np.repeat(row0, count) + within // width,
        np.repeat(col0, count) + within % width,
    )


def _clip(ranges: _Blocks, level: int, part: Ints, row: Ints, col: Ints) -> tuple[Ints, Ints, Ints, _Blocks]:
    """Clip blocks to the cells that their part's bounding box touches, and drop those outside it."""
    shift = _SPLIT_SHIFT * level
    blocks = _Blocks(
        np.maximum(row << shift, ranges.row0[part]),
        np.minimum(((row + 1) << shift) - 1, ranges.row1[part]),
        np.maximum(col << shift, ranges.col0[part]),
        np.minimum(((col + 1) << shift) - 1, ranges.col1[part]),
    )
    keep = (blocks.row0 <= blocks.row1) & (blocks.col0 <= blocks.col1)
    return part[keep], row[keep], col[keep], blocks.take(keep)


def _children(part: Ints, row: Ints, col: Ints) -> tuple[Ints, Ints, Ints]:
    """Split every block into 4 x 4."""
    side = 1 << _SPLIT_SHIFT
    step = np.arange(side * side)
    return (
        np.repeat(part, side * side),
        ((row << _SPLIT_SHIFT)[:, None] + step // side).ravel(),
        ((col << _SPLIT_SHIFT)[:, None] + step % side).ravel(),
    )


def _merge(found: list[_Blocks]) -> Runs:
    """Turn blocks, which may overlap, into sorted runs that neither overlap nor touch."""
    empty = np.empty(0, np.int64)
    row0, row1, col0, col1 = (
        (np.concatenate(values) for values in zip(*found, strict=True)) if found else (empty,) * 4
    )
    height = row1 - row0 + 1
    row = np.repeat(row0, height) + np.arange(height.sum()) - np.repeat(np.cumsum(height) - height, height)
    first, last = row * _STRIDE + np.repeat(col0, height), row * _STRIDE + np.repeat(col1, height)
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.maximum.accumulate(last[order])
    opens = np.ones(len(first), np.bool_)
    opens[1:] = first[1:] > last[:-1] + 1
    closes = np.roll(opens, -1)  # a run ends where the next one opens
    first, last = first[opens], last[closes]
    return Runs(*(v.astype(np.int32) for v in (first // _STRIDE, first % _STRIDE, last % _STRIDE)))
