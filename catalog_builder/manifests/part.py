"""The parts that readers yield, and the selection they are given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from shapely.geometry.base import BaseGeometry

from catalog_builder.tile.cover import cells_with_area
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import LAT_EDGES, LON_EDGES, Bounds, cells, of_centres, split_antimeridian
from catalog_builder.tile.table import LANDMASK_SCHEMA, TILE_SCHEMA

UNKNOWN = -1
"""Marks a size or time that a manifest does not state."""

IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint8]
"""SHA-256 digests, shape (n, 32)."""


@dataclass(frozen=True, slots=True)
class ManifestPart:
    """Some rows of one manifest."""

    source: str
    """Address of the file or folder they came from, and the member of an archive."""
    dataset: Dataset | None
    """The dataset stated by the manifest (version and variant columns, sidecar, URL); None if not stated."""
    tiles: pa.Table | None = None
    """Tile-years, :data:`~catalog_builder.tile.table.TILE_SCHEMA`."""
    landmasks: pa.Table | None = None
    """:data:`~catalog_builder.tile.table.LANDMASK_SCHEMA`."""
    blocks: pa.Table | None = None
    """Blocks of an Icechunk store, :data:`~catalog_builder.tile.blocks.BLOCK_SCHEMA`: which tile-years lie in
    them depends on the list of land."""
    root: str | None = None
    """Root of ``<year>/<grid>/<grid>.npy``, if the source is the data itself."""


@dataclass(frozen=True, slots=True)
class Subset:
    """The requested years and area; everything by default."""

    years: frozenset[int] | None = None
    bounds: Bounds | BaseGeometry | None = None
    """A box, or polygons in degrees (OGC:CRS84). A tile is kept when its cell shares area with it (a shared
    edge is not enough). West may be greater than east: the box then crosses the antimeridian."""

    def keeps(self, lat_i: IntArray, lon_i: IntArray, year: IntArray | None = None) -> BoolArray | None:
        """Return the mask of selected tiles, or None if all are.

        Parameters
        ----------
        lat_i, lon_i
            Tile centres in hundredths of a degree, shape (n,).
        year
            Shape (n,); None for landmasks, which have no year.
        """
        mask: BoolArray | None = None
        if self.years is not None and year is not None:
            mask = np.isin(year, sorted(self.years))
        if self.bounds is not None:
            inside = np.zeros(len(lat_i), dtype=np.bool_)
            row, col = of_centres(np.asarray(lat_i), np.asarray(lon_i))
            if isinstance(self.bounds, BaseGeometry):
                boxes = []
                inside = np.isin(cells(row, col), cells_with_area(self.bounds))
            else:
                boxes = split_antimeridian(*self.bounds)
            for west, south, east, north in boxes:
                # cells whose open interval overlaps the open interval of the box
                col_first = np.searchsorted(LON_EDGES, west, side="right") - 1
                col_last = np.searchsorted(LON_EDGES, east, side="left") - 1
                row_first = np.searchsorted(LAT_EDGES, south, side="right") - 1
                row_last = np.searchsorted(LAT_EDGES, north, side="left") - 1
                inside |= (row >= row_first) & (row <= row_last) & (col >= col_first) & (col <= col_last)
            mask = inside if mask is None else mask & inside
        return None if mask is None or bool(mask.all()) else mask


def sizes(values: IntArray | None, n: int) -> pa.Array:
    """Return an int64 array of bytes with :data:`UNKNOWN` as null."""
    if values is None:
        return pa.nulls(n, pa.int64())
    values = np.ascontiguousarray(values, dtype=np.int64)
    unknown = values < 0
    return pa.array(values, mask=unknown if unknown.any() else None)


def digests(values: Hashes | None, known: BoolArray | None, n: int) -> pa.Array:
    """Return a fixed-size binary array of SHA-256 digests.

    Parameters
    ----------
    values
        Shape (n, 32); None if there are none.
    known
        Which rows have one, shape (n,); None if all have.
    """
    if values is None:
        return pa.nulls(n, pa.binary(32))
    validity = None
    if known is not None and not known.all():
        validity = pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(
        pa.binary(32), n, [validity, pa.py_buffer(np.ascontiguousarray(values, dtype=np.uint8))]
    )


def times(seconds: IntArray | None, n: int) -> pa.Array:
    """Return UTC timestamps from seconds since 1970, :data:`UNKNOWN` as null."""
    if seconds is None:
        return pa.nulls(n, pa.timestamp("s", tz="UTC"))
    seconds = np.ascontiguousarray(seconds, dtype=np.int64)
    unknown = seconds < 0
    return pa.array(seconds, mask=unknown if unknown.any() else None).cast(pa.timestamp("s", tz="UTC"))


def tile_table(lat_i: IntArray, lon_i: IntArray, year: IntArray, **columns: pa.Array) -> pa.Table:
    """Return a table with ``TILE_SCHEMA``; not given: nulls, ``has_npy`` true, ``in_store`` false."""
    n = len(lat_i)
    given: dict[str, pa.Array] = {
        "lat_i": pa.array(np.ascontiguousarray(lat_i, dtype=np.int16)),
        "lon_i": pa.array(np.ascontiguousarray(lon_i, dtype=np.int16)),
        "year": pa.array(np.ascontiguousarray(year, dtype=np.int16)),
        "has_npy": pa.repeat(True, n),
        "in_store": pa.repeat(False, n),
        **columns,
    }
    return pa.Table.from_arrays(
        [given[f.name] if f.name in given else pa.nulls(n, f.type) for f in TILE_SCHEMA], schema=TILE_SCHEMA
    )


def landmask_table(lat_i: IntArray, lon_i: IntArray, **columns: pa.Array) -> pa.Table:
    """Return a table with ``LANDMASK_SCHEMA``; columns not given are null."""
    n = len(lat_i)
    given: dict[str, pa.Array] = {
        "lat_i": pa.array(np.ascontiguousarray(lat_i, dtype=np.int16)),
        "lon_i": pa.array(np.ascontiguousarray(lon_i, dtype=np.int16)),
        **columns,
    }
    return pa.Table.from_arrays(
        [given[f.name] if f.name in given else pa.nulls(n, f.type) for f in LANDMASK_SCHEMA],
        schema=LANDMASK_SCHEMA,
    )
