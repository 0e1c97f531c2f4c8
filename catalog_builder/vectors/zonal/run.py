"""From a file of polygons to a table of statistics; what could not be read is read again by the next run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import shapely

from catalog_builder.console import Progress, no_progress
from catalog_builder.vectors.points.run import pool_of
from catalog_builder.vectors.points.table import State, TableReport, write_table
from catalog_builder.vectors.tables.read import Polygons
from catalog_builder.vectors.tables.write import format_of
from catalog_builder.vectors.zonal.rows import ZonalRowOptions, ZonalRows
from catalog_builder.vectors.zonal.zonal import Zonal, ZonalOptions


def zonal_to_file(
    catalog: str,
    polygons: Polygons,
    out: Path,
    options: ZonalOptions,
    rows: ZonalRowOptions,
    *,
    workers: int = 4,
    dask: str | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> TableReport:
    """Write statistics of the vectors in polygons: a row for each year and polygon, in the order of the file.

    Values are dequantised before they are averaged. A pixel counts once, in the tile whose cell its centre is
    in, with the share of it that the polygon covers. If tiles could not be read, a file beside the table says
    which rows they are; the same call again reads those only.

    Parameters
    ----------
    catalog
        A catalogue folder, its s3 URL, or the URL of a tessera-stac API.
    polygons
        See :func:`catalog_builder.vectors.tables.read.read_polygons`.
    out
        ``.parquet`` (GeoParquet), ``.arrow``, ``.csv`` or ``.npy``.
    options, rows
        What is computed, and how it is written.
    workers, dask
        As of :func:`catalog_builder.vectors.points.run.pool_of`.
    force
        Replace an existing file.
    progress
        Told of tile-years.

    Raises
    ------
    QueryError
        If there are no polygons, a median is asked for of one that is too large, or the file exists already
        and is complete or of another request.
    StorageError
        If the file cannot be written.
    CatalogError, DatasetError
        As :func:`catalog_builder.vectors.find.find_cells`.
    """
    written = ZonalRows(polygons, options, rows, format_of(out))
    digest = hashlib.sha256(f"{catalog} {options} {rows} {polygons.columns.schema}".encode())
    for geometry in shapely.to_wkb(polygons.geometry):
        digest.update(geometry)
    state = State(out, digest.hexdigest()[:32])
    again = None if force else state.load()
    with pool_of(workers, dask) as pool:
        zonal = Zonal.of(catalog, polygons.geometry, options, pool, progress)
        return write_table(zonal, written, state, again)
