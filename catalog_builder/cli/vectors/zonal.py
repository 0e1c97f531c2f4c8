"""The command that gets statistics of vectors in polygons: ``zonal``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from catalog_builder.cli.options import AsJson, Catalog, Dask, Quiet, parse_years
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
    out: Annotated[
        Path,
        typer.Option(help="File to write: .parquet (GeoParquet), .arrow, .csv or .npy.", metavar="FILE"),
    ],
    stat: Annotated[
        str, typer.Option(help="Some of mean, std, count, median, min, max and sum.", metavar="NAMES")
    ] = "mean",
    years: Annotated[
        str | None, typer.Option(help="Years: '2024', '2017-2020' or '2017,2024'. Default: all.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset. Default: the first real one.")] = None,
    bands: Annotated[str, typer.Option(help="Dimensions, counted from 0, such as '0,1,5-7'.")] = "0-127",
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
    max_scale: Annotated[
        float, typer.Option(help="Pixels with this scale or a greater one are corrupt and have no data.")
    ] = 1.0,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the polygons, such as EPSG:27700. Default: as the file says.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of a file that has several.")] = None,
    workers: Annotated[int, typer.Option(help="Number of threads that read tiles.", min=1)] = 4,
    dask: Dask = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
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
