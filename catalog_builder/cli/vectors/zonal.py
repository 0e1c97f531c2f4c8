"""The command that gets statistics of vectors in polygons: ``zonal``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from catalog_builder.cli.options import AsJson, Catalog, Dask, Quiet, Years, parse_years
from catalog_builder.cli.vectors.table_options import (
    CorruptFrom,
    Force,
    Layer,
    Readers,
    TableBands,
    TableDataset,
    TableOut,
)
from catalog_builder.errors import QueryError


def zonal(
    fields: Annotated[
        str,
        typer.Argument(
            help="Polygons: GeoPackage, GeoJSON, FlatGeobuf, shapefile, KML or GeoParquet, in any CRS.",
            metavar="FIELDS",
        ),
    ],
    catalog: Catalog,
    out: TableOut,
    stat: Annotated[
        str, typer.Option(help="Some of mean, std, count, median, min, max and sum.", metavar="NAMES")
    ] = "mean",
    years: Years = None,
    dataset: TableDataset = None,
    bands: TableBands = "0-127",
    all_touched: Annotated[
        bool, typer.Option("--all-touched", help="Count each pixel that is touched in full.")
    ] = False,
    centre: Annotated[
        bool, typer.Option("--centre", help="Count each pixel in full whose centre is inside.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
    columns: Annotated[
        bool,
        typer.Option("--columns", help="A column for each dimension, mean_b000 and so on, instead of lists."),
    ] = False,
    max_scale: CorruptFrom = 1.0,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the polygons, such as EPSG:27700. Default: as the file says.")
    ] = None,
    layer: Layer = None,
    workers: Readers = 4,
    dask: Dask = None,
    force: Force = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Get statistics of the vectors in polygons as a table: a row for each polygon and year, with its status.

    Each pixel counts once, by the share of it that is covered. A tile that cannot be read costs the polygons
    that touch it, which have the status 'unreadable'; the same command again reads only those.
    """
    from catalog_builder import console
    from catalog_builder.cli.vectors.report import finish
    from catalog_builder.item.bands_view import parse_bands
    from catalog_builder.vectors.tables.read import read_polygons
    from catalog_builder.vectors.zonal.rows import ZonalRowOptions
    from catalog_builder.vectors.zonal.run import zonal_to_file
    from catalog_builder.vectors.zonal.zonal import ZonalOptions

    if all_touched and centre:
        raise QueryError("--all-touched and --centre: only one of them may be given")
    wanted = parse_years(years)
    names: Any = tuple(name.strip() for name in stat.split(","))
    options = ZonalOptions(
        years=None if wanted is None else tuple(sorted(wanted)),
        dataset=dataset,
        bands=parse_bands(bands),
        statistics=names,
        coverage="all-touched" if all_touched else "centre" if centre else "exact",
        max_scale=max_scale,
    )
    rows = ZonalRowOptions(dtype=dtype, columns=columns)  # type: ignore[arg-type]
    found = read_polygons(fields, crs=crs, layer=layer)
    with console.progress("tile-years", quiet=quiet) as progress:
        report = zonal_to_file(
            catalog, found, out, options, rows, workers=workers, dask=dask, force=force, progress=progress
        )
    finish(report, as_json=as_json)
