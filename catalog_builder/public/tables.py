"""Vectors as Arrow tables, and regions as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder.console import no_progress
from catalog_builder.errors import QueryError
from catalog_builder.public.catalogs import Location
from catalog_builder.public.remote import PointsAtServer, PolygonsAtServer
from catalog_builder.tile.files import ALL_BANDS
from catalog_builder.tile.regions.crs import CRS84
from catalog_builder.tile.regions.layer import Layer
from catalog_builder.tile.regions.region import region_of
from catalog_builder.vectors.points.options import MAX_SCALE, PointOptions
from catalog_builder.vectors.points.reading import Threads
from catalog_builder.vectors.points.rows import RowOptions, Rows, VectorType
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.table import OfYear, RowMaker
from catalog_builder.vectors.regions.run import Options, Report, get
from catalog_builder.vectors.regions.write import Dtype, Format
from catalog_builder.vectors.tables.read import (
    Points,
    Polygons,
    points_of,
    polygons_of,
    read_points,
    read_polygons,
)
from catalog_builder.vectors.zonal.rows import ZonalRowOptions, ZonalRows, ZonalType
from catalog_builder.vectors.zonal.statistics import Statistic
from catalog_builder.vectors.zonal.weights import Coverage
from catalog_builder.vectors.zonal.zonal import Zonal, ZonalOptions

At = str | PathLike[str] | tuple[npt.ArrayLike, npt.ArrayLike] | Any
"""Points: a file, ``(lon, lat)`` in degrees (OGC:CRS84), or a GeoDataFrame."""
Fields = str | PathLike[str] | Sequence[BaseGeometry] | Any
"""Polygons: a file, shapely geometries in degrees (OGC:CRS84), or a GeoDataFrame."""
Area = str | PathLike[str] | tuple[float, float, float, float] | BaseGeometry
"""A region: a file of polygons, west, south, east, north in degrees, or a geometry in degrees (OGC:CRS84)."""

Reader = Literal["here", "server"]
"""Who reads the pixels."""


def points(
    catalog: Location,
    at: At,
    *,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    dtype: VectorType = "float32",
    columns: bool = False,
    nearest: float = 0.0,
    window: int = 1,
    max_scale: float | None = MAX_SCALE,
    workers: int = 4,
    reader: Reader = "here",
) -> pa.Table:
    """Return the vectors at points, as ``tessera-stac points`` writes them.

    Parameters
    ----------
    catalog
        A catalogue, its folder, s3 URL, or the URL of a tessera-stac API.
    at
        A file that the command reads, ``(lon, lat)`` in degrees (OGC:CRS84), n each, or a GeoDataFrame of
        points in any CRS.
    years
        Years; None: all of the collection.
    dataset
        Collection id; None: the only one, or the first real one.
    bands
        Dimensions, counted from 0.
    dtype
        ``float32``, ``float16``, or ``int8`` codes with a column ``scale``.
    columns
        A column for each dimension, ``b000`` and so on, instead of lists.
    nearest
        Metres: where the pixel has no data, take the nearest one that has, up to this far away.
    window
        The mean of so many by so many pixels around the point; odd.
    max_scale
        Pixels with this scale or a greater one are corrupt and have no data; None: whatever is stored.
    workers
        Number of threads that read tiles, or that wait for the server.
    reader
        ``here``: this machine reads the pixels, by range from a server. ``server``: the API of the catalogue
        reads them, in requests as large as it takes, some at a time: faster where it is near its files.

    Returns
    -------
    pyarrow.Table
        A row for each year and point, in their order: the columns of the points, ``year``, ``status``
        (``valid``, ``water``, ``nodata``, ``unreadable``, ``missing-year``, ``outside``), ``reason``,
        ``embedding`` (a list of numbers, null where there is none), and ``geometry`` as WKB in degrees:
        GeoParquet, once it is written.

    Raises
    ------
    QueryError
        If a point is not on the globe, or an option is out of range.
    CatalogError, DatasetError, StorageError
        If the catalogue, the dataset or the file cannot be read. A tile that cannot be read costs its own
        points, which are ``unreadable``.

    Examples
    --------
    >>> table = points("/srv/tessera", ([0.12], [52.2]), years=[2024])  # doctest: +SKIP
    >>> table["status"].to_pylist()  # doctest: +SKIP
    ['valid']
    """
    labels = labels_of(at)
    options = PointOptions(_years(years), dataset, tuple(bands), nearest, window, max_scale)
    rows = Rows(labels, options, RowOptions(dtype, columns), "parquet")
    if is_remote(reader):
        return _table(PointsAtServer(fspath(catalog), labels, options, dtype, workers).read(), rows)
    threads = Threads(workers)
    try:
        return _table(Sampling.of(fspath(catalog), labels.lon, labels.lat, options, threads).read(), rows)
    finally:
        threads.close()


def zonal(
    catalog: Location,
    fields: Fields,
    *,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    stat: Iterable[Statistic] = ("mean",),
    coverage: Coverage = "exact",
    dtype: ZonalType = "float32",
    columns: bool = False,
    max_scale: float | None = MAX_SCALE,
    workers: int = 4,
    reader: Reader = "here",
) -> pa.Table:
    """Return statistics of the vectors in polygons, as ``tessera-stac zonal`` writes them.

    Parameters
    ----------
    catalog, years, dataset, bands, columns, max_scale, workers, reader
        As of :func:`points`.
    fields
        A file that the command reads, shapely polygons in degrees (OGC:CRS84), or a GeoDataFrame in any CRS.
    stat
        Some of ``mean``, ``std``, ``count``, ``median``, ``min``, ``max`` and ``sum``.
    coverage
        How much pixels at the edge count: ``exact`` shares, ``all-touched`` or ``centre``.
    dtype
        ``float32`` or ``float16``.

    Returns
    -------
    pyarrow.Table
        A row for each year and polygon, in their order: the columns of the polygons, ``year``, ``status``,
        ``reason``, ``pixels``, ``count``, ``valid_fraction``, a list of numbers for each statistic, and
        ``geometry`` as WKB in degrees.

    Raises
    ------
    QueryError
        If a geometry is no polygon or not on the globe, or an option is out of range.
    CatalogError, DatasetError, StorageError
        As of :func:`points`.

    Examples
    --------
    >>> table = zonal("/srv/tessera", "fields.gpkg", years=[2024], stat=["mean", "std"])  # doctest: +SKIP
    """
    polygons = _polygons_of(fields)
    options = ZonalOptions(_years(years), dataset, tuple(bands), tuple(stat), coverage, max_scale)
    rows = ZonalRows(polygons, options, ZonalRowOptions(dtype, columns), "parquet")
    if is_remote(reader):
        return _table(PolygonsAtServer(fspath(catalog), polygons, options, workers).read(), rows)
    threads = Threads(workers)
    try:
        return _table(Zonal.of(fspath(catalog), polygons.geometry, options, threads).read(), rows)
    finally:
        threads.close()


def region(
    catalog: Location,
    area: Area,
    out: str | PathLike[str],
    *,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    kind: Format = "geotiff",
    dtype: Dtype = "float32",
    max_scale: float | None = None,
    name: str = "",
    grid_aligned: bool = False,
    skip_failed: bool = False,
    force: bool = False,
    workers: int = 4,
) -> Report:
    """Write the vectors of a region as rasters, as ``tessera-stac get`` does.

    Parameters
    ----------
    catalog, years, dataset, bands, workers
        As of :func:`points`.
    area
        ``(west, south, east, north)`` in degrees, a file of a region, or a shapely geometry in degrees
        (OGC:CRS84).
    out
        Folder, created if necessary. What is there of the same request is kept.
    kind
        ``geotiff``, ``cog``, ``npy``, ``netcdf`` or ``zarr``.
    dtype
        ``float32`` values, or ``int8`` codes with the scales in a file of their own.
    max_scale
        Pixels with this scale or a greater one have no data; None: they are kept, and counted from 1.0 on.
    name
        Beginning of the names of files; empty: the dataset.
    grid_aligned
        All years have one shape and transform, so that they stack.
    skip_failed
        Write files without the tiles that cannot be read.
    force
        Replace files of another region, or with other options.

    Returns
    -------
    Report
        ``files`` are those that are there, ``failed`` says which could not be written and why.

    Raises
    ------
    QueryError
        If the region has no pixels in these years.
    CatalogError, DatasetError, StorageError
        If the catalogue, the dataset or the folder cannot be used.

    Examples
    --------
    >>> region("/srv/tessera", (0.1, 52.1, 0.2, 52.2), "cambridge", years=[2024]).files  # doctest: +SKIP
    """
    wanted = _years(years)
    options = Options(
        region=shape_of(area),
        years=None if wanted is None else frozenset(wanted),
        dataset=dataset,
        format=kind,
        dtype=dtype,
        bands=tuple(bands),
        workers=workers,
        max_scale=max_scale,
        skip_failed=skip_failed,
        force=force,
        name=name,
        grid_aligned=grid_aligned,
    )
    return get(fspath(catalog), Path(out), options, no_progress)


def shape_of(area: Area) -> BaseGeometry:
    """Return a region, whatever it is given as."""
    if isinstance(area, BaseGeometry):
        return area
    if isinstance(area, tuple):
        return region_of(",".join(repr(float(degrees)) for degrees in area))
    return region_of(fspath(area))


def labels_of(at: At) -> Points:
    """Return points, whatever they are given as."""
    if isinstance(at, str | PathLike):
        return read_points(fspath(at))
    if isinstance(at, tuple) and len(at) == 2:
        lon, lat = (np.asarray(x, np.float64) for x in at)
        if lon.ndim != 1 or lon.shape != lat.shape:
            raise QueryError(
                f"expected longitudes and latitudes of equal length, found {lon.shape}, {lat.shape}"
            )
        return points_of(Layer("points", pa.table({"lon": lon, "lat": lat}), CRS84))
    return points_of(_frame(at, "points"))


def _polygons_of(fields: Fields) -> Polygons:
    if isinstance(fields, str | PathLike):
        return read_polygons(fspath(fields))
    if hasattr(fields, "to_wkb") and hasattr(fields, "crs"):
        return polygons_of(_frame(fields, "polygons"))
    wkb = pa.array(shapely.to_wkb(np.asarray(list(fields), object)), pa.binary())
    return polygons_of(Layer("polygons", pa.table({"polygon": np.arange(len(wkb))}), CRS84, wkb))


def _frame(frame: Any, name: str) -> Layer:
    """Return a GeoDataFrame as a layer."""
    if not (hasattr(frame, "to_wkb") and hasattr(frame, "crs") and hasattr(frame, "columns")):
        raise QueryError(
            f"{name}: expected a file, coordinates or a GeoDataFrame, found {type(frame).__name__}"
        )
    wkb = pa.array(shapely.to_wkb(frame.geometry.to_numpy()), pa.binary())
    others = frame.drop(columns=frame.geometry.name)
    columns = pa.Table.from_pandas(others, preserve_index=not len(others.columns))
    return Layer(name, columns, frame.crs, wkb)


def _years(years: Iterable[int] | None) -> tuple[int, ...] | None:
    return None if years is None else tuple(years)


def is_remote(reader: Reader) -> bool:
    """Return whether a server reads the pixels.

    Raises
    ------
    QueryError
        If it is none of the readers.
    """
    if reader not in ("here", "server"):
        raise QueryError(f"reader: expected here or server, found '{reader}'")
    return reader == "server"


def _table[Y: OfYear](years: Iterable[Y], rows: RowMaker[Y]) -> pa.Table:
    batches = (rows.batch(found, np.arange(len(found.at))) for found in years)
    return pa.Table.from_batches(batches, rows.schema)
