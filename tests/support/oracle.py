"""A brute-force oracle over manifests: numpy and shapely on every tile-year, no index and none of our code.

It reads the manifests itself, and knows a tile's cell only by its centre. There may be millions of rows:
names are made when they are asked for, and boxes are compared as numbers.
"""

from __future__ import annotations

import datetime as dt
import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

_LINE = re.compile(r"(\d{4})/grid_(-?\d+\.\d{2})_(-?\d+\.\d{2})/grid_\2_\3\.npy ")

Rows = npt.NDArray[np.int64]
"""Places of tile-years in the order that the API promises."""


@dataclass(frozen=True)
class Oracle:
    """Every tile-year, in the order that the API promises: by year, then latitude, then longitude."""

    year: npt.NDArray[np.int16]
    lat_i: npt.NDArray[np.int32]
    lon_i: npt.NDArray[np.int32]
    n_years: npt.NDArray[np.int8]
    """How many years the row's tile has."""

    @classmethod
    def of_parquet(cls, manifest: Path) -> Oracle:
        """Read a ``manifest.parquet``."""
        table = pq.read_table(manifest, columns=["year", "lat_i", "lon_i"])
        return cls._of(*(table[name].to_numpy() for name in table.column_names))

    @classmethod
    def of_texts(cls, manifests: Iterable[Path], *, by_id: bool = False) -> Oracle:
        """Read each ``registry_<year>.txt.xz``; ``by_id`` is pgSTAC's order, by year and id."""
        found = set()
        for path in manifests:
            for year, lon, lat in _LINE.findall(lzma.decompress(path.read_bytes()).decode()):
                found.add((int(year), int(lat.replace(".", "")), int(lon.replace(".", ""))))
        oracle = cls._of(*(np.array(column) for column in zip(*found, strict=True)))
        if by_id:
            ids = oracle.ids(oracle.all)
            order = sorted(range(len(oracle)), key=lambda row: (oracle.year[row], ids[row]))
            columns = (oracle.year, oracle.lat_i, oracle.lon_i, oracle.n_years)
            oracle = cls(*(column[order] for column in columns))
        return oracle

    @classmethod
    def _of(cls, year: npt.NDArray[Any], lat_i: npt.NDArray[Any], lon_i: npt.NDArray[Any]) -> Oracle:
        order = np.lexsort([lon_i, lat_i, year])
        year, lat_i, lon_i = (
            column[order].astype(kind)
            for column, kind in ((year, np.int16), (lat_i, np.int32), (lon_i, np.int32))
        )
        _, tile, n = np.unique(
            lat_i.astype(np.int64) * 100_000 + lon_i, return_inverse=True, return_counts=True
        )
        return cls(year, lat_i, lon_i, n.astype(np.int8)[tile])

    def __len__(self) -> int:
        return len(self.year)

    @property
    def all(self) -> Rows:
        """All rows."""
        return np.arange(len(self))

    @property
    def newest(self) -> int:
        return int(self.year[-1])

    @property
    def all_years(self) -> int:
        """How many years any tile has."""
        return len(np.unique(self.year))

    def ids(self, rows: Rows) -> list[str]:
        return [
            f"grid_{lon / 100:.2f}_{lat / 100:.2f}_{year}"
            for lon, lat, year in zip(
                self.lon_i[rows].tolist(),
                self.lat_i[rows].tolist(),
                self.year[rows].tolist(),
                strict=True,
            )
        ]

    def in_time(self, rows: Rows, start: dt.datetime | None, end: dt.datetime | None) -> Rows:
        """Return those of some rows whose year shares an instant with an interval; None is open."""
        first = {y: dt.datetime(y, 1, 1, tzinfo=dt.UTC) for y in set(self.year.tolist())}
        last = {y: dt.datetime(y, 12, 31, 23, 59, 59, tzinfo=dt.UTC) for y in first}
        good = [y for y in first if (start is None or start <= last[y]) and (end is None or first[y] <= end)]
        return rows[np.isin(self.year[rows], good)]

    def of_year(self, year: int) -> slice:
        """Return where a year's rows are."""
        return slice(*np.searchsorted(self.year, [year, year + 1]).tolist())

    def in_box(self, west: float, south: float, east: float, north: float) -> Rows:
        """Return rows whose cell shares a point with a box; west > east crosses the antimeridian."""
        # The nearest doubles to the edges' decimals, as a reader of "0.1" has them.
        high, low = (self.lat_i + 5) / 100 >= south, (self.lat_i - 5) / 100 <= north
        from_west, to_east = (self.lon_i + 5) / 100 >= west, (self.lon_i - 5) / 100 <= east
        along = (from_west & to_east) if west <= east else (from_west | to_east)
        return np.flatnonzero(high & low & along)

    def touching(self, shape: BaseGeometry) -> Rows:
        """Return rows whose cell shares a point with a geometry."""
        if shape.is_empty:
            return np.empty(0, np.int64)
        west, south, east, north = shape.bounds
        # The whole predicate is asked of everything whose cell is anywhere near: a margin, not an index.
        near = self.in_box(west - 1, south - 1, east + 1, north + 1)
        lon, lat = self.lon_i[near], self.lat_i[near]
        cells = shapely.box((lon - 5) / 100, (lat - 5) / 100, (lon + 5) / 100, (lat + 5) / 100)
        if shape.is_valid:  # prepared, GEOS misses cells of two polygons that are the same
            shapely.prepare(shape)
        return near[shapely.intersects(shape, cells)]

    def zone(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Return UTM zones."""
        return (self.lon_i[rows] + 18000) // 600 + 1

    def coverage(self, rows: Rows) -> npt.NDArray[np.str_]:
        """Return coverage classes."""
        n = self.n_years[rows]
        alone = (n == 1) & (self.year[rows] == self.newest)
        return np.where(n == self.all_years, "full", np.where(alone, "latest", "partial"))
