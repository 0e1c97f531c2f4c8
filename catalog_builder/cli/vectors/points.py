"""The command that gets vectors at points: ``points``."""

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

LABELS = "CSV, GeoJSON, GeoPackage, FlatGeobuf, shapefile, KML or GeoParquet"


def points(
    labels: Annotated[str, typer.Argument(help=f"Points: {LABELS}, in any CRS.", metavar="LABELS")],
    catalog: Catalog,
    out: TableOut,
    years: Years = None,
    dataset: TableDataset = None,
    bands: TableBands = "0-127",
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
    max_scale: CorruptFrom = 1.0,
    lon: Annotated[
        str | None, typer.Option(help="Column of longitudes, or x. Default: found by its name.")
    ] = None,
    lat: Annotated[
        str | None, typer.Option(help="Column of latitudes, or y. Default: found by its name.")
    ] = None,
    crs: Annotated[
        str | None, typer.Option(help="CRS of the points, such as EPSG:27700. Default: as the file says.")
    ] = None,
    layer: Layer = None,
    workers: Readers = 4,
    dask: Dask = None,
    force: Force = False,
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
