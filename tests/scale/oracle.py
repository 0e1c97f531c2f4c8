"""A brute-force oracle over a manifest's own columns: numpy on every row, no index and none of our code.

It is :class:`tests.api.oracle.Oracle` for millions of rows: names are made when they are asked for, and
boxes are compared as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import shapely
from shapely.geometry.base import BaseGeometry

Rows = npt.NDArray[np.int64]
"""Places of tile-years in the order that the API promises."""


@dataclass(frozen=True)
class ManifestOracle:
    """Every tile-year of a ``manifest.parquet``, sorted by year, latitude, longitude."""

    year: npt.NDArray[np.int16]
    lat_i: npt.NDArray[np.int32]
    lon_i: npt.NDArray[np.int32]
    n_years: npt.NDArray[np.int8]
    """How many years the row's tile has."""

    @classmethod
    def read(cls, manifest: Path) -> ManifestOracle:
        table = pq.read_table(manifest, columns=["year", "lat_i", "lon_i"])
        year, lat_i, lon_i = (table[name].to_numpy() for name in table.column_names)
        order = np.lexsort([lon_i, lat_i, year])
        year, lat_i, lon_i = year[order].astype(np.int16), lat_i[order], lon_i[order]
        _, tile, n = np.unique(
            lat_i.astype(np.int64) * 100_000 + lon_i, return_inverse=True, return_counts=True
        )
        return cls(year, lat_i, lon_i, n.astype(np.int8)[tile])

    def __len__(self) -> int:
        return len(self.year)

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
        near = self.in_box(*shape.bounds)
        lon, lat = self.lon_i[near], self.lat_i[near]
        cells = shapely.box((lon - 5) / 100, (lat - 5) / 100, (lon + 5) / 100, (lat + 5) / 100)
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
