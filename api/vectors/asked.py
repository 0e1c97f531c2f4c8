"""What a request for vectors asks: its parameters, each checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.request.times import parse_datetime, year_span
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import QueryError
from catalog_builder.item.bands_view import parse_bands
from catalog_builder.tile.files import ALL_BANDS, N_BANDS
from catalog_builder.vectors.points.options import PointOptions
from catalog_builder.vectors.points.rows import VECTOR_TYPES, RowOptions
from catalog_builder.vectors.tables.body import crs_code
from catalog_builder.vectors.zonal.rows import ZONAL_TYPES, ZonalRowOptions
from catalog_builder.vectors.zonal.statistics import STATISTICS
from catalog_builder.vectors.zonal.weights import COVERAGES
from catalog_builder.vectors.zonal.zonal import ZonalOptions


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query string."""

    description: str
    schema: Mapping[str, Any]
    required: bool = False


_TEXT = {"type": "string"}
_COMMON = {
    "datetime": Parameter(
        "RFC 3339 time or interval, as in a search: the years that it overlaps. Default: all.", _TEXT
    ),
    "bands": Parameter("Dimensions, counted from 0, such as 0,1,5-7. Default: all.", _TEXT),
    "max-scale": Parameter(
        "Pixels with this scale or a greater one are corrupt and have no data.",
        {"type": "number", "default": 1},
    ),
    "columns": Parameter(
        "A column for each dimension instead of lists.", {"type": "boolean", "default": False}
    ),
    "crs": Parameter("CRS of the coordinates, such as EPSG:27700. Default: as the body says.", _TEXT),
    "f": Parameter(
        "Format of the response, before Accept.",
        {"type": "string", "enum": ["geojson", "arrow", "parquet", "csv"]},
    ),
}
POINTS = {
    **_COMMON,
    "lon": Parameter("Column of longitudes, or x. Default: found by its name.", _TEXT),
    "lat": Parameter("Column of latitudes, or y. Default: found by its name.", _TEXT),
    "dtype": Parameter(
        "Type of the vectors; int8 are codes, with a column of scales.",
        {"type": "string", "enum": list(VECTOR_TYPES), "default": "float32"},
    ),
    "nearest": Parameter(
        "Metres: where the pixel has no data, take the nearest one that has, up to this far away.",
        {"type": "number", "default": 0},
    ),
    "window": Parameter(
        "The mean of so many by so many pixels around the point; odd.", {"type": "integer", "default": 1}
    ),
}
ZONAL = {
    **_COMMON,
    "stat": Parameter(
        f"Some of {', '.join(STATISTICS)}, separated by commas.", {"type": "string", "default": "mean"}
    ),
    "coverage": Parameter(
        "How much pixels at the edge count.",
        {"type": "string", "enum": list(COVERAGES), "default": "exact"},
    ),
    "dtype": Parameter(
        "Type of the statistics.", {"type": "string", "enum": list(ZONAL_TYPES), "default": "float32"}
    ),
}

_PARAMETER = re.compile(r"b(\d{3})", re.ASCII)
STATUS = "status"
"""The parameter that says why there is no vector."""
_EDR = {
    "datetime": _COMMON["datetime"],
    "parameter-name": Parameter(
        f"Dimensions, b000 to b127, and {STATUS}, separated by commas. Default: all.", _TEXT
    ),
    "crs": Parameter(
        "CRS of coords, such as EPSG:27700, and of points in CoverageJSON: grids are in their own UTM zone."
        " x comes first. Default: CRS84.",
        _TEXT,
    ),
    "f": Parameter(
        "Format of the response, before Accept.",
        {"type": "string", "enum": ["CoverageJSON", "GeoJSON"], "default": "CoverageJSON"},
    ),
}
POSITION = {
    "coords": Parameter("WKT: a POINT or a MULTIPOINT.", {**_TEXT, "example": "POINT(15.63 78.22)"}, True),
    **_EDR,
}
AREA = {
    "coords": Parameter(
        "WKT: a POLYGON or a MULTIPOLYGON.",
        {**_TEXT, "example": "POLYGON((15.63 78.22,15.64 78.22,15.64 78.222,15.63 78.22))"},
        True,
    ),
    **_EDR,
}


def years_of(texts: Mapping[str, str], record: CollectionRecord) -> tuple[int, ...]:
    """Return the years of a collection that ``datetime`` overlaps, ascending.

    Raises
    ------
    QueryError
        If it is malformed, or the collection has none of them.
    """
    if "datetime" not in texts:
        return tuple(record.years)
    interval = parse_datetime(texts["datetime"])
    found = tuple(year for year in record.years if interval.overlaps(*year_span(year)))
    if not found:
        have = ", ".join(map(str, record.years))
        raise QueryError(f"datetime: the collection has the years {have}, found '{texts['datetime'][:60]}'")
    return found


def point_options(texts: Mapping[str, str], years: tuple[int, ...]) -> tuple[PointOptions, RowOptions]:
    """Return what is read at points, and how it is written.

    Raises
    ------
    QueryError
        If a parameter is malformed, or two contradict each other.
    """
    dtype: Any = texts.get("dtype", "float32")
    options = PointOptions(
        years,
        bands=parse_bands(texts.get("bands", "0-127")),
        nearest=_number(texts, "nearest", 0.0),
        window=int(_number(texts, "window", 1, whole=True)),
        max_scale=_number(texts, "max-scale", 1.0),
    )
    return options, RowOptions(dtype, _truth(texts, "columns"))


def zonal_options(texts: Mapping[str, str], years: tuple[int, ...]) -> tuple[ZonalOptions, ZonalRowOptions]:
    """Return what is computed in polygons, and how it is written. Raises as :func:`point_options`."""
    dtype: Any = texts.get("dtype", "float32")
    statistics: Any = tuple(name.strip() for name in texts.get("stat", "mean").split(","))
    coverage: Any = texts.get("coverage", "exact")
    options = ZonalOptions(
        years,
        bands=parse_bands(texts.get("bands", "0-127")),
        statistics=statistics,
        coverage=coverage,
        max_scale=_number(texts, "max-scale", 1.0),
    )
    return options, ZonalRowOptions(dtype, _truth(texts, "columns"))


def crs_of(texts: Mapping[str, str]) -> str | None:
    """Return the CRS that is given; None if none is."""
    return crs_code(texts["crs"]) if "crs" in texts else None


def parameters_of(texts: Mapping[str, str]) -> tuple[tuple[int, ...], bool]:
    """Return the dimensions of ``parameter-name``, ascending, and whether the status is one of them.

    >>> parameters_of({"parameter-name": "b002,status,b000"})
    ((0, 2), True)

    Raises
    ------
    QueryError
        If it names something else.
    """
    if "parameter-name" not in texts:
        return ALL_BANDS, True
    bands, has_status = set[int](), False
    for name in texts["parameter-name"].split(","):
        match = _PARAMETER.fullmatch(name.strip())
        if match is not None and int(match[1]) < N_BANDS:
            bands.add(int(match[1]))
        elif name.strip() == STATUS:
            has_status = True
        else:
            raise QueryError(
                f"parameter-name: expected some of b000 to b{N_BANDS - 1} and {STATUS}, found '{name[:40]}'"
            )
    return tuple(sorted(bands)), has_status


def _number(texts: Mapping[str, str], name: str, default: float, *, whole: bool = False) -> float:
    text = texts.get(name)
    if text is None:
        return default
    try:
        return int(text[:9]) if whole else float(text)
    except ValueError:
        kind = "an integer" if whole else "a number"
        raise QueryError(f"{name}: expected {kind}, found '{text[:40]}'") from None


def _truth(texts: Mapping[str, str], name: str) -> bool:
    text = texts.get(name, "false").lower()
    if text not in ("true", "false"):
        raise QueryError(f"{name}: expected true or false, found '{text[:40]}'")
    return text == "true"
