"""Points and polygons from files: CSV, GeoParquet, and what GDAL reads, in any CRS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from catalog_builder.errors import VectorFileError
from catalog_builder.tile.grid import cells_containing
from catalog_builder.tile.regions.crs import CRS84, degrees
from catalog_builder.tile.regions.files import read_layer
from catalog_builder.tile.regions.layer import Layer, kind_of
from catalog_builder.tile.regions.polygons import Polygons, polygons_of

__all__ = ["Points", "Polygons", "points_of", "polygons_of", "read_points", "read_polygons"]

LON_NAMES = ("lon", "longitude", "long", "lng", "x", "easting")
LAT_NAMES = ("lat", "latitude", "y", "northing")
"""Columns of coordinates, the first that a table has, in capitals or not."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Points:
    """Labelled points."""

    lon: Floats
    """Degrees, OGC:CRS84, (n,)."""
    lat: Floats
    columns: pa.Table
    """The other columns, n rows; of a table with columns of coordinates those too."""
    has_degrees: bool = False
    """Whether these columns are degrees, so that a table of them needs no others."""


def read_points(
    path: str,
    *,
    lon: str | None = None,
    lat: str | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> Points:
    """Read points.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``, ``.parquet`` (GeoParquet, or columns of coordinates), ``.arrow``, or a file that
        GDAL reads: GeoJSON, GeoPackage, FlatGeobuf, shapefile (zipped or not), KML and others.
    lon, lat
        Columns of the coordinates, x and y in other CRS; None: the geometry, or the columns that are usually
        called so.
    crs
        Of the coordinates, such as ``EPSG:27700``; None: as the file says; CRS84 for columns without a word.
    layer
        Of a file with several.

    Raises
    ------
    VectorFileError
        If it is not there or cannot be read, has no points, no or an unknown CRS, or coordinates that are no
        numbers or not on the globe: the message names the rows.
    StorageError
        If a remote file cannot be fetched, or a package that reads the format is missing.
    """
    return points_of(read_layer(path, layer, wants_columns=lon is not None or lat is not None), lon, lat, crs)


def points_of(found: Layer, lon: str | None = None, lat: str | None = None, crs: str | None = None) -> Points:
    """Return the points of a layer; parameters and errors as of :func:`read_points`."""
    if found.wkb is None:
        x, y = _coordinates(found, lon, lat)
        of_file = crs or found.crs or CRS84
    else:
        x, y = _of_points(found)
        of_file = crs or found.crs
    move, _ = degrees(found.path, of_file)
    if move is not None:
        x, y = move(x, y)
    _refuse_astray(found, x, y, of_file)
    return Points(x, y, found.columns, has_degrees=found.wkb is None and move is None)


def read_polygons(path: str, *, crs: str | None = None, layer: str | None = None) -> Polygons:
    """Read polygons.

    Parameters
    ----------
    path, crs, layer
        As of :func:`read_points`.

    Raises
    ------
    VectorFileError, StorageError
        As :func:`read_points`.
    """
    return polygons_of(read_layer(path, layer), crs)


# ------------------------------------------------------------------------------------------- coordinates


def _coordinates(layer: Layer, lon: str | None, lat: str | None) -> tuple[Floats, Floats]:
    names = [str(name) for name in layer.columns.column_names]
    found = []
    for wanted, usual, flag in ((lon, LON_NAMES, "--lon"), (lat, LAT_NAMES, "--lat")):
        name = wanted if wanted in names else None
        if wanted is None:
            by_lower = {n.strip().lower(): n for n in reversed(names)}
            name = next((by_lower[n] for n in usual if n in by_lower), None)
        if name is None:
            sought = f"'{wanted}'" if wanted else ", ".join(usual)
            raise VectorFileError(
                f"{layer.path}: has no column called {sought}: it has {', '.join(names)}; name it with {flag}"
            )
        found.append(_numbers(layer, name))
    return found[0], found[1]


def _numbers(layer: Layer, name: str) -> Floats:
    column = layer.columns[name]
    try:
        numbers: Floats = column.cast(pa.float64()).to_numpy().astype(np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        for i, value in enumerate(column.to_pylist()):
            try:
                float(value)
            except (TypeError, ValueError):
                raise VectorFileError(
                    f"{layer.path}, {layer.row(i)}: {name} is '{value}', expected a number"
                ) from None
        numbers = np.array([float(v) for v in column.to_pylist()])
    return numbers


def _of_points(layer: Layer) -> tuple[Floats, Floats]:
    geometry = layer.geometries()
    layer.refuse(shapely.is_missing(geometry), lambda i: "has no geometry")
    kinds = shapely.get_type_id(geometry)
    single = (kinds == 4) & (shapely.get_num_geometries(geometry) == 1)
    geometry[single] = shapely.get_geometry(geometry[single], 0)
    kinds = shapely.get_type_id(geometry)
    layer.refuse(kinds != 0, lambda i: f"is no point: {kind_of(geometry[i])}")
    layer.refuse(shapely.is_empty(geometry), lambda i: "is an empty point")
    return shapely.get_x(geometry), shapely.get_y(geometry)


def _refuse_astray(layer: Layer, x: Floats, y: Floats, crs: Any) -> None:
    if not len(x):
        raise VectorFileError(f"{layer.path}: has no rows")
    hint = ""
    if crs == CRS84 and (np.abs(x) > 360).any():
        hint = "; coordinates in metres need their CRS, such as --crs EPSG:27700"
    layer.refuse(
        cells_containing(x, y) < 0,
        lambda i: f"is at ({x[i]}, {y[i]}): expected degrees, lon -180..180, lat -90..90{hint}",
    )
