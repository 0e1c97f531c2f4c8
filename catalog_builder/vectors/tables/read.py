"""Points and polygons from files: CSV, GeoParquet, and what GDAL reads, in any CRS."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from catalog_builder.errors import QueryError, StorageError, TooLargeError
from catalog_builder.extras import install_line
from catalog_builder.tile.grid import cells_containing

LON_NAMES = ("lon", "longitude", "long", "lng", "x", "easting")
LAT_NAMES = ("lat", "latitude", "y", "northing")
"""Columns of coordinates, the first that a table has, in capitals or not."""
MAX_EDGE = 1000.0, 0.01
"""Metres and degrees between vertices before a polygon is projected: a straight line on one map is a curve on
another."""
MOST_VERTICES = 50_000_000
"""A polygon of coordinates that are no metres would fill the memory with them."""
_TEXT, _PARQUET, _ARROW = (
    (".csv", ".tsv", ".txt"),
    (".parquet", ".geoparquet"),
    (".arrow", ".feather", ".ipc"),
)
CRS84 = "OGC:CRS84"
_SHOWN = 5

Floats = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]


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


@dataclass(frozen=True, slots=True)
class Polygons:
    """Polygons with their attributes."""

    geometry: Geometries
    """Shapely polygons and multipolygons, OGC:CRS84, two dimensional and valid, (n,)."""
    columns: pa.Table
    """The attributes, n rows."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What is in a file, or in the body of a request."""

    path: str
    """Its name in messages."""
    columns: pa.Table
    crs: Any
    """Anything pyproj takes; None if the file does not say."""
    wkb: pa.Array | None = None
    """Geometries; None if columns have the coordinates."""
    text: Callable[[], TextIO] | None = None
    """Opens a file of lines, so that rows are found by their line."""

    def row(self, i: int) -> str:
        """Return how people find a row in the file."""
        if self.text is None:
            return f"row {i + 1}"
        with self.text() as lines:
            return f"line {_line(lines, i)}"


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
    QueryError
        If it has no points, no or an unknown CRS, or coordinates that are no numbers or not on the globe: the
        message names the rows.
    StorageError
        If the file cannot be read.
    """
    return points_of(_read(path, layer, wants_columns=lon is not None or lat is not None), lon, lat, crs)


def points_of(found: Layer, lon: str | None = None, lat: str | None = None, crs: str | None = None) -> Points:
    """Return the points of a layer; parameters and errors as of :func:`read_points`."""
    if found.wkb is None:
        x, y = _coordinates(found, lon, lat)
        of_file = crs or found.crs or CRS84
    else:
        x, y = _of_points(found)
        of_file = crs or found.crs
    degrees = _degrees(found.path, of_file)
    if degrees is not None:
        x, y = degrees(x, y)
    _refuse_astray(found, x, y, of_file)
    return Points(x, y, found.columns, has_degrees=found.wkb is None and degrees is None)


def read_polygons(path: str, *, crs: str | None = None, layer: str | None = None) -> Polygons:
    """Read polygons.

    Parameters
    ----------
    path, crs, layer
        As of :func:`read_points`.

    Raises
    ------
    QueryError, StorageError
        As :func:`read_points`; also if a polygon cannot be made valid.
    """
    return polygons_of(_read(path, layer, wants_columns=False), crs)


def polygons_of(found: Layer, crs: str | None = None, most: int = MOST_VERTICES) -> Polygons:
    """Return the polygons of a layer.

    Parameters
    ----------
    found, crs
        The layer, and its CRS if that does not say.
    most
        Vertices of all polygons, with those that are added because edges are curves on other maps.

    Raises
    ------
    TooLargeError
        If there are more.
    QueryError, StorageError
        As :func:`read_polygons`.
    """
    if found.wkb is None:
        raise QueryError(f"{found.path}: has no geometries, only columns: expected polygons")
    geometry = shapely.force_2d(_geometries(found))
    kinds = shapely.get_type_id(geometry)
    _refuse(found, ~np.isin(kinds, (3, 6)), lambda i: f"is no polygon: {_kind(geometry[i])}")
    _refuse(found, shapely.is_empty(geometry), lambda i: "is an empty polygon")
    degrees = _degrees(found.path, crs or found.crs)
    edge = MAX_EDGE[1] if degrees is None else MAX_EDGE[0]
    finite = np.isfinite(shapely.bounds(geometry)).all(axis=1)
    _refuse(found, ~finite, lambda i: "has coordinates that are no numbers")
    with np.errstate(over="ignore"):
        added = min(float(shapely.length(geometry).sum()) / edge, 1e15)
    vertices = int(shapely.get_num_coordinates(geometry).sum() + added)
    if vertices > most:
        raise TooLargeError(
            f"{found.path}: its polygons have {vertices:,} vertices, one for each {edge:g} of their edges"
            f" included: expected at most {most:,}"
        )
    invalid = ~shapely.is_valid(geometry)
    if invalid.any():
        geometry[invalid] = shapely.make_valid(geometry[invalid], method="structure")
    if degrees is not None:
        geometry = _moved(shapely.segmentize(geometry, edge), degrees)
    else:
        geometry = shapely.segmentize(geometry, edge)
    bounds = shapely.bounds(geometry)
    off = ~(np.isfinite(bounds).all(axis=1) & (np.abs(bounds) <= (180, 90, 180, 90)).all(axis=1))
    _refuse(found, off, lambda i: f"is not on the globe: its bounds are {bounds[i].round(6).tolist()}")
    return Polygons(geometry, found.columns)


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
            raise QueryError(
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
                raise QueryError(
                    f"{layer.path}, {layer.row(i)}: {name} is '{value}', expected a number"
                ) from None
        numbers = np.array([float(v) for v in column.to_pylist()])
    return numbers


def _of_points(layer: Layer) -> tuple[Floats, Floats]:
    geometry = _geometries(layer)
    kinds = shapely.get_type_id(geometry)
    single = (kinds == 4) & (shapely.get_num_geometries(geometry) == 1)
    geometry[single] = shapely.get_geometry(geometry[single], 0)
    kinds = shapely.get_type_id(geometry)
    _refuse(layer, kinds != 0, lambda i: f"is no point: {_kind(geometry[i])}")
    _refuse(layer, shapely.is_empty(geometry), lambda i: "is an empty point")
    return shapely.get_x(geometry), shapely.get_y(geometry)


def _geometries(layer: Layer) -> Geometries:
    texts = layer.wkb.to_numpy(zero_copy_only=False) if layer.wkb is not None else np.empty(0, object)
    try:
        found: Geometries = shapely.from_wkb(texts)
    except shapely.errors.ShapelyError as error:
        raise StorageError(f"{layer.path}: a geometry cannot be read: {error}") from error
    if not len(found):
        raise QueryError(f"{layer.path}: has no rows")
    _refuse(layer, shapely.is_missing(found), lambda i: "has no geometry")
    return found


def _kind(geometry: Any) -> str:
    return "nothing" if geometry is None else f"a {geometry.geom_type.lower()}"


def _degrees(path: str, crs: Any) -> Callable[[Floats, Floats], tuple[Floats, Floats]] | None:
    """Return what moves coordinates to degrees; None if they are."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    if crs is None:
        raise QueryError(f"{path}: does not say its CRS: give it, such as --crs EPSG:27700")
    try:
        found = CRS.from_user_input(crs)
    except CRSError:
        raise QueryError(
            f"{path}: '{str(crs)[:100]}' is not a CRS: expected one such as EPSG:27700"
        ) from None
    # geometries and columns are x, y whatever a geographic CRS says of its axes
    if found.is_geographic and (found.equals(CRS84, ignore_axis_order=True) or found.to_epsg() == 4326):
        return None
    try:
        transformer = Transformer.from_crs(found, CRS84, always_xy=True)
    except ProjError as error:
        raise QueryError(f"{path}: its CRS {found.name} cannot be transformed: {error}") from error

    def move(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        lon, lat = transformer.transform(x, y)
        return np.asarray(lon), np.asarray(lat)

    return move


def _moved(geometry: Geometries, move: Callable[[Floats, Floats], tuple[Floats, Floats]]) -> Geometries:
    points = shapely.get_coordinates(geometry)
    moved: Geometries = shapely.set_coordinates(geometry, np.column_stack(move(points[:, 0], points[:, 1])))
    return moved


def _refuse_astray(layer: Layer, x: Floats, y: Floats, crs: Any) -> None:
    if not len(x):
        raise QueryError(f"{layer.path}: has no rows")
    hint = ""
    if crs == CRS84 and (np.abs(x) > 360).any():
        hint = "; coordinates in metres need their CRS, such as --crs EPSG:27700"
    _refuse(
        layer,
        cells_containing(x, y) < 0,
        lambda i: f"is at ({x[i]}, {y[i]}): expected degrees, lon -180..180, lat -90..90{hint}",
    )


def _refuse(layer: Layer, bad: npt.NDArray[np.bool_], why: Callable[[int], str]) -> None:
    """Reject a file with bad rows, and name the first of them."""
    rows = np.flatnonzero(bad).tolist()
    if not rows:
        return
    others = ", ".join(layer.row(i) for i in rows[1:_SHOWN])
    more = f" ({len(rows):,} rows, also {others}{', …' if len(rows) > _SHOWN else ''})" if others else ""
    raise QueryError(f"{layer.path}, {layer.row(rows[0])}: {why(rows[0])}{more}")


def _line(text: TextIO, row: int) -> int:
    """Return the line of a row of a CSV file, empty lines counted."""
    delimiter = _delimiter(text)
    text.seek(0)
    reader = csv.reader(text, delimiter=delimiter)
    seen = -1
    for record in reader:
        seen += bool(record)
        if seen == row + 1:
            return reader.line_num
    return row + 2


# ------------------------------------------------------------------------------------------------ files


def _read(path: str, layer: str | None, *, wants_columns: bool) -> Layer:
    suffix = Path(path).suffix.lower()
    if not Path(path).exists():
        raise StorageError(f"{path}: no such file")
    try:
        if suffix in _TEXT:
            return _from_csv(path)
        if suffix in _PARQUET or suffix in _ARROW:
            return _from_arrow(path, wants_columns=wants_columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, QueryError | StorageError):
            raise
        raise StorageError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    return _from_gdal(path, layer)


def _from_csv(path: str) -> Layer:
    def text() -> TextIO:
        return Path(path).open(newline="", encoding="utf-8-sig", errors="replace")

    return csv_layer(path, path, text)


def csv_layer(name: str, source: Any, text: Callable[[], TextIO]) -> Layer:
    """Return the layer of a table of text.

    Parameters
    ----------
    name
        In messages.
    source
        Anything pyarrow reads.
    text
        Opens the same.
    """
    from pyarrow import csv as arrow_csv

    with text() as lines:
        parse = arrow_csv.ParseOptions(delimiter=_delimiter(lines), newlines_in_values=True)
    table = arrow_csv.read_csv(source, parse_options=parse)
    if not len(table):
        raise QueryError(f"{name}: has no rows")
    return Layer(name, table, None, text=text)


def _delimiter(text: TextIO) -> str:
    first = text.readline()
    return max(",;\t", key=first.count)


def _from_arrow(path: str, *, wants_columns: bool) -> Layer:
    if Path(path).suffix.lower() in _PARQUET:
        from pyarrow import parquet

        table = parquet.read_table(path)
    else:
        from pyarrow import feather

        table = feather.read_table(path)
    return table_layer(path, table, wants_columns=wants_columns)


def table_layer(path: str, table: pa.Table, *, wants_columns: bool) -> Layer:
    """Return the layer of an Arrow table, with geometries if it says by its metadata which they are."""
    said = json.loads((table.schema.metadata or {}).get(b"geo", b"{}"))
    name = said.get("primary_column")
    if wants_columns or name is None or name not in table.column_names:
        return Layer(path, table, None)
    about = said["columns"][name]
    others = table.drop_columns([name])
    # a CRS that is left out is CRS84, one that is null is unknown
    crs = json.dumps(about["crs"]) if about.get("crs") else (None if "crs" in about else CRS84)
    column = table[name].combine_chunks()
    if about["encoding"] == "point":
        points = shapely.points(*(column.field(axis).to_numpy(zero_copy_only=False) for axis in ("x", "y")))
        column = pa.array(shapely.to_wkb(points), pa.binary())
    elif about["encoding"] != "WKB":
        raise StorageError(f"{path}: its geometries are in '{about['encoding']}', expected WKB or point")
    return Layer(path, others, crs, column)


def _from_gdal(path: str, layer: str | None) -> Layer:
    try:
        import pyogrio
    except ImportError as error:
        raise StorageError(f"{path}: reading this format needs pyogrio: {install_line('vectors')}") from error
    from pyogrio.errors import DataSourceError

    try:
        names: Sequence[str] = [str(name) for name, _ in pyogrio.list_layers(path)]
        if layer is None and len(names) > 1:
            raise QueryError(f"{path}: has layers {', '.join(names)}: choose one with --layer")
        if layer is not None and layer not in names:
            raise QueryError(f"{path}: has no layer '{layer}': it has {', '.join(names)}")
        about, table = pyogrio.read_arrow(path, layer=layer or names[0])
    except (DataSourceError, IndexError, ValueError) as error:
        if isinstance(error, QueryError):
            raise
        raise StorageError(f"{path}: cannot be read: {' '.join(str(error).split())[:300]}") from error
    name = about["geometry_name"] or "wkb_geometry"
    if name not in table.column_names:
        return Layer(path, table, about["crs"])
    return Layer(path, table.drop_columns([name]), about["crs"], table[name].combine_chunks())
