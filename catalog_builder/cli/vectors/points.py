"""The command that gets vectors at points: ``points``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from catalog_builder.cli.options import AsJson, Catalog, Dask, Quiet, parse_years

LABELS = "CSV, GeoJSON, GeoPackage, FlatGeobuf, shapefile, KML or GeoParquet"


def points(
    labels: Annotated[str, typer.Argument(help=f"Points: {LABELS}, in any CRS.", metavar="LABELS")],
    catalog: Catalog,
    out: Annotated[
        Path,
        typer.Option(help="File to write: .parquet (GeoParquet), .arrow, .csv or .npy.", metavar="FILE"),
    ],
    years: Annotated[
        str | None, typer.Option(help="Years: '2024', '2017-2020' or '2017,2024'. Default: all.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset. Default: the first real one.")] = None,
    bands: Annotated[str, typer.Option(help="Dimensions, counted from 0, such as '0,1,5-7'.")] = "0-127",
    dtype: Annotated[
        str, typer.Option(help="float32, float16, or int8 codes with a column of scales.")
    ] = "float32",
    columns: Annotated[
        bool,
        typer.Option("--columns", help="A column for each dimension, b000 and so on, instead of lists."),
    ] = False,
    nearest: Annotated[
        float,
        typer.Option(
            help="Metres: where the pixel has no data, take the nearest one that has, up to this far away."
        ),
    ] = 0.0,
    window: Annotated[
        int, typer.Option(help="The mean of K x K pixels around the point; K is odd.", metavar="K")
    ] = 1,
    max_scale: Annotated[
        float, typer.Option(help="Pixels with this scale or a greater one are corrupt and have no data.")
    ] = 1.0,
    lon: Annotated[
        str | None, typer.Option(help="Column of longitudes, or x. Default: found by its name.")
    ] = None,
    lat: Annotated[
        str | None, typer.Option(help="Column of latitudes, or y. Default: found by its name.")
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the points, such as EPSG:27700. Default: as the file says.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of a file that has several.")] = None,
    workers: Annotated[int, typer.Option(help="Number of threads that read tiles.", min=1)] = 4,
    dask: Dask = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Get the vectors at points as a table: a row for each point and year, with its status.

    A tile that cannot be read costs its own points, which have the status 'unreadable'; the same command
    again reads only those.
    """
    from catalog_builder import console
    from catalog_builder.cli.vectors.report import finish
    from catalog_builder.item.bands_view import parse_bands
    from catalog_builder.vectors.points.options import PointOptions
    from catalog_builder.vectors.points.rows import RowOptions
    from catalog_builder.vectors.points.run import points_to_file
    from catalog_builder.vectors.tables.read import read_points

    wanted = parse_years(years)
    options = PointOptions(
        years=None if wanted is None else tuple(sorted(wanted)),
        dataset=dataset,
        bands=parse_bands(bands),
        nearest=nearest,
        window=window,
        max_scale=max_scale,
    )
    rows: Any = RowOptions(dtype=dtype, columns=columns)  # type: ignore[arg-type]
    found = read_points(labels, lon=lon, lat=lat, crs=crs, layer=layer)
    with console.progress("tile-years", quiet=quiet) as progress:
        report = points_to_file(
            catalog, found, out, options, rows, workers=workers, dask=dask, force=force, progress=progress
        )
    finish(report, as_json=as_json)
