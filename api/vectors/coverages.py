"""CoverageJSON of vectors: a series at points, and grids, a parameter for each dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from api.vectors.asked import STATUS
from catalog_builder.item.bands_view import band_key
from catalog_builder.tile.grid import PIXEL
from catalog_builder.vectors.points.options import PointYear
from catalog_builder.vectors.points.vectors import Indices, Outcome

Json = dict[str, Any]
_DEGREES = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The parameters of a response."""

    bands: tuple[int, ...]
    """Dimensions, those of the vectors that were read."""
    has_status: bool

    def parameters(self) -> Json:
        """Return their descriptions."""
        found: Json = {band_key(band): _of_band(band) for band in self.bands}
        if self.has_status:
            found[STATUS] = _OF_STATUS
        return found


def _of_band(band: int) -> Json:
    return {
        "type": "Parameter",
        "description": {"en": f"Dimension {band} of the TESSERA embedding of the year, dequantised"},
        "observedProperty": {"label": {"en": f"TESSERA embedding, dimension {band}"}},
        "unit": {
            "label": {"en": "dimensionless"},
            "symbol": {"value": "1", "type": "http://www.opengis.net/def/uom/UCUM/"},
        },
    }


_OF_STATUS: Json = {
    "type": "Parameter",
    "description": {"en": "Whether there is a vector, and why not"},
    "observedProperty": {
        "label": {"en": "Status"},
        "categories": [{"id": outcome.text, "label": {"en": outcome.text}} for outcome in Outcome],
    },
    "categoryEncoding": {outcome.text: int(outcome) for outcome in Outcome},
}


@lru_cache(maxsize=128)
def _referencing(crs: str) -> tuple[Json, ...]:
    """Return what x, y and t mean; x is longitude or easting whichever axis the CRS has first."""
    from pyproj import CRS

    found = CRS.from_user_input(crs)
    authority, code = crs.split(":")
    north_first = [axis.direction for axis in found.axis_info[:1]] == ["north"]
    system = {
        "type": "GeographicCRS" if found.is_geographic else "ProjectedCRS",
        "id": _DEGREES if crs == "OGC:CRS84" else f"http://www.opengis.net/def/crs/{authority}/0/{code}",
    }
    return (
        {"coordinates": ["y", "x"] if north_first else ["x", "y"], "system": system},
        {"coordinates": ["t"], "system": {"type": "TemporalRS", "calendar": "Gregorian"}},
    )


def _times(years: Sequence[int]) -> Json:
    """Return the axis of years: when each begins, and its bounds."""
    instants = {year: f"{year}-01-01T00:00:00Z" for each in years for year in (each, each + 1)}
    bounds = [instants[year] for each in years for year in (each, each + 1)]
    return {"values": [instants[year] for year in years], "bounds": bounds}


# ---------------------------------------------------------------------------------------------- points


def series(
    found: Sequence[PointYear],
    chosen: Chosen,
    crs: str,
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    *,
    single: bool,
) -> Iterator[bytes]:
    """Yield a coverage of points over years.

    Parameters
    ----------
    found
        The years, all points of each.
    chosen
        Parameters.
    crs
        Of x and y, by authority and code.
    x, y
        (n,), as they were asked for.
    single
        Whether it is a ``PointSeries``, of one point; else a ``MultiPointSeries``.
    """
    times = _times([year.year for year in found])
    if single:
        axes: Json = {"x": {"values": [float(x[0])]}, "y": {"values": [float(y[0])]}, "t": times}
        kind, names, shape = "PointSeries", ["t"], [len(found)]
    else:
        points = {"dataType": "tuple", "coordinates": ["x", "y"], "values": np.column_stack([x, y])}
        axes = {"composite": points, "t": times}
        kind, names, shape = "MultiPointSeries", ["t", "composite"], [len(found), len(x)]
    values = np.stack([year.vectors.dequantized() for year in found])
    status = np.stack([year.outcome for year in found])

    def ranges() -> Iterator[tuple[str, bytes]]:
        for i, band in enumerate(chosen.bands):
            yield band_key(band), _range("float", names, shape, values[..., i])
        if chosen.has_status:
            yield STATUS, _range("integer", names, shape, status)

    yield from _coverage(kind, axes, crs, chosen.parameters(), ranges())


# ----------------------------------------------------------------------------------------------- grids


@dataclass(frozen=True, slots=True)
class GridYear:
    """The pixels of a grid in one of the years."""

    found: PointYear
    at: Indices
    """Which of its points, n of them."""
    row: Indices
    """In the grid, (n,)."""
    col: Indices


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels on one lattice."""

    epsg: int
    west: float
    """Centre of the first pixel, metres."""
    north: float
    height: int
    width: int
    years: tuple[GridYear, ...]
    """Each of the request."""

    def axes(self) -> Json:
        """Return its axes."""
        east, south = self.west + PIXEL * (self.width - 1), self.north - PIXEL * (self.height - 1)
        return {
            "x": {"start": self.west, "stop": east, "num": self.width},
            "y": {"start": self.north, "stop": south, "num": self.height},
            "t": _times([year.found.year for year in self.years]),
        }


def grids(found: Sequence[Grid], chosen: Chosen) -> Iterator[bytes]:
    """Yield a grid as a coverage, or several as a collection of coverages."""
    if len(found) == 1:
        yield from _grid(found[0], chosen, chosen.parameters())
        return
    head = {"type": "CoverageCollection", "domainType": "Grid", "parameters": chosen.parameters()}
    yield orjson.dumps(head)[:-1] + b',"coverages":['
    for i, grid in enumerate(found):
        if i:
            yield b","
        yield from _grid(grid, chosen, None)
    yield b"]}"


def _grid(grid: Grid, chosen: Chosen, parameters: Json | None) -> Iterator[bytes]:
    names, shape = ["t", "y", "x"], [len(grid.years), grid.height, grid.width]
    vectors = [year.found.vectors.dequantized(year.at) for year in grid.years]

    def ranges() -> Iterator[tuple[str, bytes]]:
        for i, band in enumerate(chosen.bands):
            values = np.full(shape, np.nan, np.float32)
            for t, year in enumerate(grid.years):
                values[t, year.row, year.col] = vectors[t][:, i]
            yield band_key(band), _range("float", names, shape, values)
        if chosen.has_status:
            status = np.full(shape, None, object)
            for t, year in enumerate(grid.years):
                status[t, year.row, year.col] = year.found.outcome[year.at].astype(object)
            yield STATUS, _range("integer", names, shape, status)

    yield from _coverage("Grid", grid.axes(), f"EPSG:{grid.epsg}", parameters, ranges())


# ------------------------------------------------------------------------------------------------ parts


def _coverage(
    kind: str, axes: Json, crs: str, parameters: Json | None, ranges: Iterator[tuple[str, bytes]]
) -> Iterator[bytes]:
    """Yield a coverage, a range at a time: each is made when the client has taken the one before."""
    domain = {"type": "Domain", "domainType": kind, "axes": axes, "referencing": _referencing(crs)}
    head: Mapping[str, Any] = {"type": "Coverage", "domain": domain}
    if parameters is not None:
        head = {**head, "parameters": parameters}
    before = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)[:-1] + b',"ranges":{'
    for name, values in ranges:
        yield b'%s"%s":%s' % (before, name.encode(), values)
        before = b","
    yield b"}}"


def _range(dtype: str, names: list[str], shape: list[int], values: npt.NDArray[Any]) -> bytes:
    flat = values.reshape(-1)
    plain: Any = flat.tolist() if flat.dtype == object else np.ascontiguousarray(flat)
    array = {"type": "NdArray", "dataType": dtype, "axisNames": names, "shape": shape, "values": plain}
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
