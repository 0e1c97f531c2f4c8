"""The commands that fetch pixels: ``get`` and ``preview``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catalog_builder.cli.options import (
    AsJson,
    Quiet,
    Region,
    RegionLayer,
    Years,
    needed_region,
    parse_years,
)


def preview(
    catalog: Annotated[
        str,
        typer.Argument(help="A catalogue folder, its s3:// URL, or the URL of its API.", metavar="CATALOG"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: an image (.png, .tif) or a self-contained web map (.html).", metavar="FILE"
        ),
    ],
    region: Region = None,
    layer: RegionLayer = None,
    years: Annotated[
        list[str] | None,
        typer.Option(
            "--years",
            "--year",
            help="Year; of several, such as '2017-2020', the newest that the region has. Default: all.",
            metavar="YEARS",
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Collection to use. Default: the first real one.")
    ] = None,
    size: Annotated[int, typer.Option(help="Length of the longer side in pixels.")] = 2048,
    open_it: Annotated[bool, typer.Option("--open", help="Open the file once it is written.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Render a region in false colour: one PCA for all tiles, read from overviews only."""
    from catalog_builder import console
    from catalog_builder.vectors.preview import preview as draw
    from catalog_builder.vectors.preview import write_preview

    with console.progress("tiles", quiet=quiet) as report:
        picture = draw(
            catalog,
            needed_region(region, layer),
            years=parse_years(years),
            dataset=dataset,
            size=size,
            progress=report,
        )
    write_preview(picture, out)
    if picture.left_out and not quiet:
        console.say(
            f"note: {picture.left_out} tiles of {picture.year} are left out: not converted, and not arrays on"
            " this machine"
        )
    height, width, _ = picture.pixels.shape
    console.result(
        f"{out}: {picture.tiles} tiles of {picture.year}, {width} x {height} pixels",
        {
            "file": str(out),
            "year": picture.year,
            "tiles": picture.tiles,
            "left_out": picture.left_out,
            "width": width,
            "height": height,
            "bbox": list(picture.degrees),
            "fitted": picture.fitted,
        },
        as_json=as_json,
    )
    if open_it:
        typer.launch(out.absolute().as_uri())


def get(
    catalog: Annotated[
        str,
        typer.Argument(
            help="A catalogue folder, its s3:// URL, or the URL of a STAC API.", metavar="CATALOG"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; it holds one dataset.", metavar="FOLDER")],
    region: Region = None,
    layer: RegionLayer = None,
    years: Years = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset. Default: the first real one.")] = None,
    kind: Annotated[str, typer.Option("--format", help="geotiff, cog, netcdf, zarr or npy.")] = "geotiff",
    dtype: Annotated[
        str, typer.Option(help="float32 values, or int8 codes with their scales in a separate file.")
    ] = "float32",
    bands: Annotated[str, typer.Option(help="Dimensions, counted from 0, such as '0,1,5-7'.")] = "0-127",
    tiles: Annotated[
        bool,
        typer.Option(
            "--tiles", help="Write one file per tile and year instead of one per UTM zone and year."
        ),
    ] = False,
    crs: Annotated[
        str | None,
        typer.Option(help="One file per year in this CRS, such as EPSG:4326, across zones."),
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Size of a pixel in units of the CRS, of one file per year.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="One file per year on exactly the grid of this raster.", metavar="RASTER"),
    ] = None,
    one_file: Annotated[
        bool, typer.Option("--one-file", help="One file per year across zones, in the main zone.")
    ] = False,
    resampling: Annotated[
        str | None,
        typer.Option(help="nearest, bilinear, cubic, cubic_spline, lanczos or average. Default: nearest."),
    ] = None,
    grid_aligned: Annotated[
        bool,
        typer.Option("--grid-aligned", help="Give all years one shape and transform, so that they stack."),
    ] = False,
    max_scale: Annotated[
        float | None,
        typer.Option(
            help="Pixels with this scale or a greater one are corrupt and have no data."
            " Default: they are kept, and counted from 1.0 on."
        ),
    ] = None,
    max_memory: Annotated[
        float, typer.Option(help="GB that a COG, NetCDF or Zarr may take in memory, in which it is made.")
    ] = 4.0,
    name: Annotated[
        str, typer.Option(help="Beginning of the files' names, to tell regions apart. Default: the dataset.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of another region, or with other options.")
    ] = False,
    skip_failed: Annotated[
        bool,
        typer.Option(
            "--skip-failed", help="Write files without the tiles that cannot be read, which are listed."
        ),
    ] = False,
    workers: Annotated[int, typer.Option(help="Number of tiles read at the same time.", min=1)] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be read.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the embeddings of a region: reads only the bytes it needs, clips and mosaics them."""
    from catalog_builder import console
    from catalog_builder.cli.vectors.get_options import options_from, report_data, report_text, warp_from
    from catalog_builder.vectors.regions.run import get as run

    options = options_from(
        needed_region(region, layer),
        kind,
        dtype,
        bands,
        years=parse_years(years),
        dataset=dataset,
        tiles=tiles,
        workers=workers,
        max_bytes=int(max_memory * 1e9),
        max_scale=max_scale,
        skip_failed=skip_failed,
        force=force,
        name=name,
        grid_aligned=grid_aligned,
        one_file=one_file,
        warp=warp_from(crs, resolution, like, resampling, one_file=one_file),
    )
    with console.progress("tile-years", quiet=quiet) as report:
        done = run(catalog, out, options, report, dry_run=dry_run)
    for output, reason in done.failed.items():
        console.say(f"failed: {output}: {reason}")
    for item, reason in done.skipped.items():
        console.say(f"skipped: {item}: {reason}")
    console.result(
        report_text(done, out, dry_run=dry_run), report_data(done, dry_run=dry_run), as_json=as_json
    )
    if done.failed or done.skipped:
        raise typer.Exit(1)
