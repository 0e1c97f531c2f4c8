"""``tessera-stac convert``: a thin function; everything heavy is imported inside it."""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from catalog_builder.cli.options import layer_option, region_option
from catalog_builder.convert.encode.blocks import BLOCK_SIZE, OVERVIEW_BLOCK_SIZE
from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    from catalog_builder.convert.plan.estimate import Estimate


class Profile(StrEnum):
    """Output profiles."""

    native = "native"
    float32 = "float32"


class GridChoice(StrEnum):
    """Pixel grids."""

    utm = "utm"
    source = "source"


class Overviews(StrEnum):
    """Overview methods."""

    average = "average"
    nearest = "nearest"


class Interleave(StrEnum):
    """Orders of samples in a file."""

    tile = "tile"
    band = "band"
    pixel = "pixel"


class Redo(StrEnum):
    """What to convert again."""

    predictor = "predictor"
    view = "view"
    statistics = "statistics"
    layout = "layout"


class Compression(StrEnum):
    """Codecs."""

    zstd = "zstd"
    deflate = "deflate"
    none = "none"


_WHICH, _WHO, _ENCODING = (
    "Which sources",
    "Workers and ledger",
    "Encoding (keep the defaults unless a reader or a disk needs otherwise)",
)
"""Headings in --help, for what most conversions do without."""


def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="GeoTIFFs or .npy pairs: files, folders, glob patterns, s3:// or http(s) URLs,"
            " manifests, or a catalogue folder.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// URL for the COGs. Default for a catalogue: its cogs folder."),
    ] = None,
    profile: Annotated[
        Profile,
        typer.Option(help="native: int8 codes and scales, lossless and small. float32: dequantised values."),
    ] = Profile.native,
    grid: Annotated[
        GridChoice,
        typer.Option(help="utm: the 10 m grid that the pixels lie on. source: the published corner."),
    ] = GridChoice.utm,
    overviews: Annotated[
        Overviews, typer.Option(help="average: mean vectors. nearest: existing vectors only.")
    ] = Overviews.average,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset to convert, of sources that hold several or state none.", rich_help_panel=_WHICH
        ),
    ] = None,
    years: Annotated[
        list[str] | None,
        typer.Option(
            "--years",
            "--year",
            help="Years: '2024', '2017-2020' or '2017-2019,2024'. Default: all. One year is also that of .npy"
            " files where no folder says any.",
            metavar="YEARS",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    region: Annotated[list[str] | None, region_option(_WHICH)] = None,
    layer: Annotated[str | None, layer_option(_WHICH)] = None,
    missing: Annotated[
        bool,
        typer.Option(
            "--missing",
            help="For a catalogue: convert only tile-years that have no COG yet.",
            rich_help_panel=_WHICH,
        ),
    ] = False,
    source_root: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL of a manifest's .npy files. Default: where they are published.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    landmask_root: Annotated[
        str | None, typer.Option(help="Folder or URL of the landmask files.", rich_help_panel=_WHICH)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of processes. Default: as cores and memory allow. 0: convert in this process.",
            min=0,
            rich_help_panel=_WHO,
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Run on a Dask cluster, given its scheduler's address (tcp://, tls://) or scheduler file;"
            " 'local' starts one on this machine.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/N: the i-th of N disjoint parts, i from 0 to N-1. array/N: i from the environment of an"
            " array job (Slurm, AWS Batch, Kubernetes).",
            rich_help_panel=_WHO,
        ),
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(help="Folder for the ledger. Default: OUT/ledger.", rich_help_panel=_WHO)
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Reopen every output and compare every pixel with the source. Rasters that are not tiles"
            " always are.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Convert tiles again that are already done.")
    ] = False,
    redo: Annotated[
        Redo | None,
        typer.Option(
            help="predictor: convert tiles again whose embeddings have a predictor, as in earlier versions:"
            " async-geotiff and lazycogs read them wrongly. view: rewrite only the float32 views of an"
            " earlier form: they are wrong in mosaics, and GDAL before 3.7 reads those of 0.1 wrongly."
            " statistics: read those of the codes, which items list, from COGs of earlier versions."
            " `validate` reports all of them. layout: convert tiles again that have the larger blocks of"
            " earlier versions, which take more bytes to read."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Report the number of tiles and bytes and the time needed; convert nothing."
        ),
    ] = False,
    fit_visual: Annotated[
        bool,
        typer.Option(
            "--fit-visual",
            help="First fit the false colours to a sample of the sources, and save them. Of tiles that are"
            " converted the images alone are made, from their COGs.",
        ),
    ] = False,
    visual: Annotated[
        bool,
        typer.Option(
            "--visual/--no-visual", help="Write false-colour images and thumbnails if colours are fitted."
        ),
    ] = True,
    block_size: Annotated[
        int,
        typer.Option(
            help="Rows and columns of a block (TIFF tile) of embeddings. Scales are in strips of 16 rows.",
            rich_help_panel=_ENCODING,
        ),
    ] = BLOCK_SIZE,
    overview_block_size: Annotated[
        int,
        typer.Option(
            help="Rows and columns of a block of overviews; the smallest overview is one block.",
            rich_help_panel=_ENCODING,
        ),
    ] = OVERVIEW_BLOCK_SIZE,
    interleave: Annotated[
        Interleave,
        typer.Option(
            help="Order of the samples in a file; band suits readers of few bands at a time.",
            rich_help_panel=_ENCODING,
        ),
    ] = Interleave.tile,
    compression: Annotated[
        Compression, typer.Option(help="Codec; deflate for readers without zstd.", rich_help_panel=_ENCODING)
    ] = Compression.zstd,
    level: Annotated[int, typer.Option(help="Compression level.", rich_help_panel=_ENCODING)] = 1,
    predictor: Annotated[
        int | None,
        typer.Option(
            help="1: none, 2: differences of integers, 3: of floats. Default: none for embeddings, 3 for"
            " scales. async-geotiff and lazycogs read planar embeddings with 2 or 3 wrongly.",
            min=1,
            max=3,
            rich_help_panel=_ENCODING,
        ),
    ] = None,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync/--no-sync",
            help="Flush every file to disk before it gets its final name.",
            rich_help_panel=_ENCODING,
        ),
    ] = True,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress, only failures and the result.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert GeoTIFFs or .npy pairs to Cloud Optimized GeoTIFFs, verified and resumable."""
    from catalog_builder import console
    from catalog_builder.cli.options import parse_area, parse_years
    from catalog_builder.convert.api import prepare, target_of
    from catalog_builder.convert.plan.job import ConvertOptions, Wanted
    from catalog_builder.tile.datasets import dataset as find

    if redo is not None and missing:
        raise QueryError("--redo and --missing: give one of the two; what is missing was never converted")
    again: Literal["predictor", "view", "statistics", "layout"] | None = None if redo is None else redo.value
    part = parse_shard(shard)
    options = ConvertOptions(
        out=target_of(sources, out),
        profile=profile.value,
        grid=grid.value,
        overviews=overviews.value,
        block_size=block_size,
        overview_block_size=overview_block_size,
        interleave=interleave.value,
        compression=compression.value,
        level=level,
        predictor=predictor,  # type: ignore[arg-type]
        verify=verify,
        durable=sync,
    )
    wanted = Wanted(
        dataset=find(dataset) if dataset is not None else None,
        years=parse_years(years),
        bounds=parse_area(region, layer),
        missing=missing,
        source_root=source_root,
        landmask_root=landmask_root,
        shard=part,
    )
    with prepare(
        sources, options, wanted, workers=workers, dask=dask, ledger=ledger, quiet=quiet
    ) as conversion:
        if dry_run:
            found = conversion.estimate(visual=visual, force=force, redo=again)
            count = conversion.workers
            console.result(_estimate_text(found, count), asdict(found) | {"workers": count}, as_json=as_json)
            return
        done = conversion.run(visual=visual, fit_visual=fit_visual, force=force, redo=again)
    console.result(conversion.text_of(done), conversion.data_of(done), as_json=as_json)
    raise typer.Exit(done.exit_code)


ARRAY_INDEX = ("SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")
"""Variables in which Slurm, AWS Batch and Kubernetes (an indexed Job) give a job its array index."""


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Parse ``3/8``: the shards of 8 are 0/8 to 7/8; ``array/8`` takes the index from the array job.

    Raises
    ------
    QueryError
        If the text has another form, or no variable gives the array index.
    """
    if text is None:
        return None
    i, _, n = text.partition("/")
    found = text
    if i == "array":
        i = next((os.environ[name] for name in ARRAY_INDEX if name in os.environ), "")
        if not i:
            raise QueryError(
                f"--shard {text}: none of {', '.join(ARRAY_INDEX)} is set, so this is not an array job"
            )
        found = f"{i}/{n}"
    if not (i.isdigit() and n.isdigit() and int(i) < int(n)):
        raise QueryError(f"--shard: expected i/N with i from 0 to N-1, found '{found}'")
    return int(i), int(n)


def _estimate_text(found: Estimate, workers: int) -> str:
    from catalog_builder.convert.progress import (
        duration,
        earlier_layouts,
        earlier_views,
        misread,
        size,
        without_statistics,
    )

    source = (
        "measured rates from this ledger"
        if found.measured
        else "documented default rates, nothing measured yet"
    )
    return (
        f"{found.to_do:,} of {found.total:,} tiles to convert ({found.done:,} already done)\n"
        f"  {size(found.bytes_in)} to read, about {size(found.bytes_out)} to write\n"
        f"  about {duration(found.seconds)} with {workers} workers ({source})"
        + (f"\n  {found.other_colours:,} of those get images from their COGs" if found.other_colours else "")
        + (f"\n  {without_statistics(found.without_statistics)}" if found.without_statistics else "")
        + (f"\n  {earlier_views(found.earlier_views)}" if found.earlier_views else "")
        + (f"\n  {earlier_layouts(found.earlier_layouts)}" if found.earlier_layouts else "")
        + (f"\n  {misread(found.misread)}" if found.misread else "")
    )
