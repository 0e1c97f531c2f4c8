"""How much of each pixel a polygon covers: exactly (exactextract), or by one of GDAL's rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from catalog_builder.tile.grid import PIXEL

Coverage = Literal["exact", "all-touched", "centre"]
COVERAGES: tuple[Coverage, ...] = ("exact", "all-touched", "centre")
"""The share of the pixel that is covered; 1 for each pixel that is touched; 1 if its centre is inside."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Covered:
    """The pixels of some polygons, m of all of them, polygon by polygon."""

    polygon: npt.NDArray[np.int64]
    """Number of the polygon, (m,)."""
    x: Floats
    """Centre of the pixel in metres, (m,)."""
    y: Floats
    weight: Floats
    """Above 0 and at most 1, (m,)."""


def covered(
    geometry: npt.NDArray[np.object_], coverage: Coverage, left: float = 0.0, top: float = 0.0
) -> Covered:
    """Return the pixels that polygons cover.

    Parameters
    ----------
    geometry
        Shapely polygons and multipolygons in metres of a zone, valid, (n,).
    coverage
        What counts.
    left, top
        A corner of any pixel of the 10 m lattice, metres.

    Examples
    --------
    >>> found = covered(np.array([shapely.box(5, 0, 20, 10)]), "exact")
    >>> found.x.tolist(), found.y.tolist(), found.weight.tolist()
    ([5.0, 15.0], [5.0, 5.0], [0.5, 1.0])
    """
    rule = _exact if coverage == "exact" else _by_rule
    parts = list(rule(geometry, coverage == "all-touched", left % PIXEL, top % PIXEL))
    if not parts:
        nothing = np.empty(0)
        return Covered(np.empty(0, np.int64), nothing, nothing, nothing)
    counts = [len(weight) for _, _, _, weight in parts]
    numbers = np.repeat([number for number, _, _, _ in parts], counts).astype(np.int64)
    x, y, weight = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    return Covered(numbers, x, y, weight)


def _exact(
    geometry: npt.NDArray[np.object_], _touched: bool, left: float, top: float
) -> Iterator[tuple[int, Floats, Floats, Floats]]:
    """Yield the number of each polygon, centres of its pixels, and their shares."""
    from exactextract import exact_extract
    from exactextract.feature import Feature, FeatureSource
    from exactextract.raster import RasterSource

    west, south, east, north = _aligned(shapely.total_bounds(geometry), left, top)

    class Lattice(RasterSource):  # type: ignore[misc]
        """The whole zone, of which nothing is read: only which pixels are covered is asked."""

        def res(self) -> tuple[float, float]:
            return PIXEL, PIXEL

        def extent(self) -> tuple[float, float, float, float]:
            return west, south, east, north

        def srs_wkt(self) -> None:
            return None

        def nodata_value(self) -> None:
            return None

        def read_window(self, _col: int, _row: int, width: int, height: int) -> npt.NDArray[np.int8]:
            return np.zeros((height, width), np.int8)

    class Polygon(Feature):  # type: ignore[misc]
        def __init__(self, wkb: bytes) -> None:
            super().__init__()
            self._wkb = wkb

        def geometry(self) -> bytes:
            return self._wkb

        def fields(self) -> list[str]:
            return []

    class Polygons(FeatureSource):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Polygon]:
            return map(Polygon, shapely.to_wkb(geometry))

        def count(self) -> int:
            return len(geometry)

        def srs_wkt(self) -> None:
            return None

    found: list[dict[str, Any]] = exact_extract(
        Lattice(), Polygons(), ["cell_id", "coverage"], output="geojson", include_geom=False
    )
    width = round((east - west) / PIXEL)
    for number, feature in enumerate(found):
        about = feature["properties"]
        row, col = np.divmod(np.asarray(about["cell_id"], np.int64), width)
        weight = np.asarray(about["coverage"], np.float64)
        is_covered = weight > 0
        x, y = west + (col + 0.5) * PIXEL, north - (row + 0.5) * PIXEL
        yield number, x[is_covered], y[is_covered], weight[is_covered]


def _by_rule(
    geometry: npt.NDArray[np.object_], touched: bool, left: float, top: float
) -> Iterator[tuple[int, Floats, Floats, Floats]]:
    from rasterio.features import geometry_mask

    for number, polygon in enumerate(geometry):
        west, south, east, north = _aligned(np.array(polygon.bounds), left, top)
        shape = round((north - south) / PIXEL), round((east - west) / PIXEL)
        transform = Affine(PIXEL, 0.0, west, 0.0, -PIXEL, north)
        row, col = np.nonzero(geometry_mask([polygon], shape, transform, all_touched=touched, invert=True))
        yield number, west + (col + 0.5) * PIXEL, north - (row + 0.5) * PIXEL, np.ones(len(row))


def _aligned(bounds: Floats, left: float, top: float) -> tuple[float, float, float, float]:
    """Return bounds on the lattice, a pixel larger on each side."""
    low = (np.floor((bounds[:2] - (left, top)) / PIXEL) - 1) * PIXEL + (left, top)
    high = (np.ceil((bounds[2:] - (left, top)) / PIXEL) + 1) * PIXEL + (left, top)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
