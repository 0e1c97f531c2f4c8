"""Polygons in pieces of bounded size, and the pixels of a piece: each belongs to one tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.tile.cover import cover
from catalog_builder.tile.grid import PIXEL, Cells, TileId, cells, cells_containing, epsg_codes, rows_cols
from catalog_builder.vectors.find import Listed, TileYear
from catalog_builder.vectors.points.reading import Sites
from catalog_builder.vectors.points.sites import to_utm
from catalog_builder.vectors.zonal.weights import Coverage, Floats, covered

LARGE = 100_000
"""Pixels from which on a polygon is taken tile by tile."""
AT_ONCE = 200_000
"""Pixels that are read together, about."""
MARGIN = 0.002
"""Degrees around a cell by which a polygon is clipped: more than a pixel wherever there is land."""
NEAR = 0.00015
"""Degrees of latitude that are more than a pixel."""
SQUARE_METRES = 111_000.0**2
"""Of a square degree at the equator."""

Geometries = npt.NDArray[np.object_]
Phase = tuple[int, float, float]
"""EPSG code of a zone, and where its pixels begin, metres within 10: not always at a multiple of it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A polygon, or a part of one, in degrees."""

    polygon: int
    """Number of the polygon."""
    geometry: BaseGeometry
    cells: frozenset[int]
    """Cells whose pixels it has; its pixels in others are those of other pieces."""
    pixels: int
    """About how many."""


@dataclass(frozen=True, slots=True)
class PiecePixels:
    """The pixels of some pieces, sorted by their polygon."""

    polygon: npt.NDArray[np.int64]
    sites: Sites
    weight: Floats

    def of(self) -> Iterator[tuple[int, slice]]:
        """Yield each polygon and where its pixels are."""
        numbers, first = np.unique(self.polygon, return_index=True)
        ends = [*first[1:].tolist(), len(self.polygon)]
        for number, start, end in zip(numbers.tolist(), first.tolist(), ends, strict=True):
            yield number, slice(start, end)


def cells_of(geometry: Geometries) -> list[Cells]:
    """Return the cells that have pixels of each polygon, and perhaps some more.

    A pixel may be covered at its edge, and have its centre in a cell that the polygon does not touch.
    """
    found = []
    bounds = shapely.bounds(geometry)
    aside = NEAR / np.cos(np.radians(np.minimum(np.abs(bounds[:, [1, 3]]).max(axis=1), 89.0)))
    low = _cells(bounds[:, 0] - aside, bounds[:, 1] - NEAR)
    high = _cells(bounds[:, 2] + aside, bounds[:, 3] + NEAR)
    (row, col), (last_row, last_col) = rows_cols(low), rows_cols(high)
    n_rows, n_cols = last_row - row + 1, last_col - col + 1
    for i, polygon in enumerate(geometry):
        if n_rows[i] * n_cols[i] <= 9:
            rows, cols = np.mgrid[row[i] : last_row[i] + 1, col[i] : last_col[i] + 1]
            found.append(cells(rows.ravel(), cols.ravel()))
        else:
            found.append(cover(shapely.buffer(polygon, float(aside[i]))).cells())
    return found


def _cells(lon: Floats, lat: Floats) -> Cells:
    return cells_containing(np.clip(lon, -180, 180), np.clip(lat, -90, 90))


def pieces_of(geometry: Geometries, cells_of_each: Sequence[Cells]) -> list[Piece]:
    """Return polygons in pieces, in the order of their first cells, so that tiles are read once or nearly."""
    found = []
    for number, (polygon, mine) in enumerate(zip(geometry, cells_of_each, strict=True)):
        pixels = _pixels(polygon)
        if pixels <= LARGE:
            found.append(Piece(number, polygon, frozenset(mine.tolist()), pixels))
            continue
        for cell in mine.tolist():
            west, south, east, north = TileId.from_cell(cell).bounds
            box = shapely.box(west - MARGIN, south - MARGIN, east + MARGIN, north + MARGIN)
            part = shapely.intersection(polygon, box)
            if part.area > 0:
                found.append(Piece(number, part, frozenset([cell]), _pixels(part)))
    return sorted(found, key=lambda piece: min(piece.cells))


def _pixels(polygon: BaseGeometry) -> int:
    _, south, _, north = polygon.bounds
    shrink = np.cos(np.radians((south + north) / 2))
    return int(polygon.area * SQUARE_METRES * shrink / PIXEL**2) + 1


def batched_pieces(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield pieces to be read together."""
    batch: list[Piece] = []
    pixels = 0
    for piece in pieces:
        if batch and pixels + piece.pixels > AT_ONCE:
            yield batch
            batch, pixels = [], 0
        batch.append(piece)
        pixels += piece.pixels
    if batch:
        yield batch


def pixels_of(pieces: Sequence[Piece], listed: Listed, year: int, coverage: Coverage) -> PiecePixels:
    """Return the pixels of pieces: each once, in the tile whose cell its centre is in."""
    found: list[tuple[npt.NDArray[np.int64], Cells, Floats, Floats, Floats]] = []
    phases = _phases(pieces, listed, year)
    for (epsg, left, top), own in phases.items():
        mine = [piece for piece in pieces if not piece.cells.isdisjoint(own)]
        degrees = np.array([piece.geometry for piece in mine], object)
        points = shapely.get_coordinates(degrees)
        metres = np.column_stack(to_utm(epsg).transform(points[:, 0], points[:, 1]))
        pixels = covered(shapely.set_coordinates(degrees, metres), coverage, left, top)
        lon, lat = to_utm(epsg).transform(pixels.x, pixels.y, direction="INVERSE")
        cell = cells_containing(lon, lat)
        # a piece has the pixels of its cells, a zone and phase those of its tiles
        keys = np.concatenate([np.fromiter(p.cells & own, np.int64) + (i << 32) for i, p in enumerate(mine)])
        keep = np.isin(cell + (pixels.polygon << 32), keys)
        numbers = np.array([piece.polygon for piece in mine])[pixels.polygon[keep]]
        found.append((numbers, cell[keep], pixels.x[keep], pixels.y[keep], pixels.weight[keep]))
    polygon, cell, x, y, weight = (np.concatenate([part[i] for part in found]) for i in range(5))
    order = np.argsort(polygon, kind="stable")
    return PiecePixels(polygon[order], Sites(cell[order], x[order], y[order]), weight[order])


def _phases(pieces: Sequence[Piece], listed: Listed, year: int) -> dict[Phase, frozenset[int]]:
    """Return the cells of pieces by the lattice of their pixels."""
    all_cells = np.array(sorted(set().union(*(piece.cells for piece in pieces))), np.int32)
    found: dict[Phase, set[int]] = {}
    for cell, epsg in zip(all_cells.tolist(), epsg_codes(*rows_cols(all_cells)).tolist(), strict=True):
        source, left, top = listed.tile_years.get((cell, year)), 0.0, 0.0
        if isinstance(source, TileYear):
            transform = source.place.raster.transform
            left, top = transform.c % PIXEL, transform.f % PIXEL
        found.setdefault((epsg, left, top), set()).add(cell)
    return {phase: frozenset(mine) for phase, mine in found.items()}
