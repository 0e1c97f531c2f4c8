"""A brute-force oracle over the real tiles: every tile-year tested one by one with shapely and numpy.

It shares no code with the index or the cover: it reads the manifests itself, and knows a tile's cell
only by its name.
"""

from __future__ import annotations

import datetime as dt
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

_LINE = re.compile(r"(\d{4})/grid_(-?[\d.]+)_(-?[\d.]+)/grid_\2_\3\.npy ")


@dataclass(frozen=True)
class Oracle:
    """Every tile-year, in the order the API promises: by year, then latitude, then longitude."""

    year: npt.NDArray[np.int64]
    lat: npt.NDArray[np.float64]
    lon: npt.NDArray[np.float64]
    ids: npt.NDArray[np.object_]

    @classmethod
    def read(cls, manifests: list[Path], *, by_id: bool = False) -> Oracle:
        """Read the manifests; the order is that of the index, or by year and id, as pgSTAC's."""
        found = set()
        for path in manifests:
            for line in lzma.decompress(path.read_bytes()).decode().splitlines():
                if match := _LINE.match(line):
                    year, lon, lat = match.groups()
                    found.add((int(year), float(lat), float(lon), f"grid_{lon}_{lat}_{year}"))
        year, lat, lon, ids = zip(
            *sorted(found, key=(lambda f: (f[0], f[3])) if by_id else None), strict=True
        )
        return cls(np.array(year), np.array(lat), np.array(lon), np.array(ids, object))

    def touching(self, shape: BaseGeometry) -> npt.NDArray[np.bool_]:
        near = self.near(shape)
        found = np.zeros(len(self.year), bool)
        # The whole predicate is asked of everything whose box is anywhere near: a margin, not an index.
        found[near] = shapely.intersects(self._cells(near), shape)
        return found

    def _cells(self, at: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        """Return cells; the corners are the decimals that the name implies."""

        def edge(centre: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
            return (np.rint(centre * 100) + side) / 100

        lon, lat = self.lon[at], self.lat[at]
        cells: npt.NDArray[np.object_] = shapely.box(edge(lon, -5), edge(lat, -5), edge(lon, 5), edge(lat, 5))
        return cells

    def near(self, shape: BaseGeometry) -> npt.NDArray[np.int64]:
        if shape.is_empty:
            return np.empty(0, np.int64)
        west, south, east, north = shape.bounds
        return np.flatnonzero(
            (self.lon > west - 1) & (self.lon < east + 1) & (self.lat > south - 1) & (self.lat < north + 1)
        )

    def in_bbox(self, west: float, south: float, east: float, north: float) -> npt.NDArray[np.bool_]:
        if west <= east:
            return self.touching(shapely.box(west, south, east, north))
        return self.touching(shapely.box(west, south, 180, north)) | self.touching(
            shapely.box(-180, south, east, north)
        )

    def overlapping(self, start: dt.datetime | None, end: dt.datetime | None) -> npt.NDArray[np.bool_]:
        first = {y: dt.datetime(y, 1, 1, tzinfo=dt.UTC) for y in set(self.year.tolist())}
        last = {y: dt.datetime(y, 12, 31, 23, 59, 59, tzinfo=dt.UTC) for y in first}
        good = [y for y in first if (start is None or start <= last[y]) and (end is None or first[y] <= end)]
        return np.isin(self.year, good)
