"""``tessera-stac convert``: a thin function; everything heavy is imported inside it."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    from catalog_builder.convert.plan.estimate import Estimate
    from catalog_builder.convert.plan.job import Options
    from catalog_builder.convert.plan.sources import Plan
    from catalog_builder.convert.run import RunReport
    from catalog_builder.convert.workers.processes import Workers


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


class Compression(StrEnum):
    """Codecs."""

    zstd = "zstd"
    deflate = "deflate"
    none = "none"


def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="GeoTIFFs or .npy pairs: files, folders, glob patterns, s3:// or http(s) addresses,"
            " manifests, or a catalogue folder.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// address for the COGs. Default for a catalogue: its cogs folder."),
    ] = None,
    profile: Annotated[
        Profile,
        typer.Option(help="native: int8 codes and scales, lossless and small. float32: plain values."),
    ] = Profile.native,
    grid: Annotated[
        GridChoice,
        typer.Option(help="utm: the 10 m lattice the pixels lie on. source: the published corner."),
    ] = GridChoice.utm,
    overviews: Annotated[
        Overviews, typer.Option(help="average: mean vectors. nearest: real vectors only.")
    ] = Overviews.average,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of the sources, where they do not say it themselves.")
    ] = None,
    years: Annotated[
        str | None, typer.Option(help="Years to convert: '2024', '2017-2020' or '2017,2024'.")
    ] = None,
    bbox: Annotated[
        str | None, typer.Option(help="Box to convert: west,south,east,north in degrees.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Of a catalogue: only tile-years that have no COG yet.")
    ] = False,
    source_root: Annotated[
        str | None, typer.Option(help="Where a manifest's .npy files are. Default: where they are published.")
    ] = None,
    landmask_root: Annotated[str | None, typer.Option(help="Where the landmask files are.")] = None,
    year: Annotated[int | None, typer.Option(help="Year of .npy files whose folder does not say it.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes. Default: as cores and memory allow. 0 works in this process.", min=0),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            help="Run on a Dask cluster: its scheduler's address (tcp://, tls://) or scheduler file;"
            " 'local' starts one on this machine."
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="i/N: the i-th of N disjoint parts, i from 0 to N-1. array/N: i from the environment of an"
            " array job (Slurm, AWS Batch, Kubernetes)."
        ),
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="Folder of the ledger. Default: OUT/ledger.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Reopen every result and compare every pixel with the source.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Convert again what is done already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many tiles, how many bytes and how long; do nothing.")
    ] = False,
    fit_visual: Annotated[
        bool,
        typer.Option(
            "--fit-visual", help="First fit the false colours on a sample of the sources, and keep them."
        ),
    ] = False,
    visual: Annotated[
        bool,
        typer.Option(
            "--visual/--no-visual", help="Make false colour and thumbnail where colours are fitted."
        ),
    ] = True,
    block_size: Annotated[int, typer.Option(help="Rows and columns of a block.")] = 128,
    interleave: Annotated[Interleave, typer.Option(help="Order of the samples in a file.")] = Interleave.tile,
    compression: Annotated[Compression, typer.Option(help="Codec.")] = Compression.zstd,
    level: Annotated[int, typer.Option(help="Level of the codec.")] = 1,
    predictor: Annotated[
        int | None,
        typer.Option(
            help="1 none (for async-geotiff), 2 for codes, 3 for floats. Default: by data.", min=1, max=3
        ),
    ] = None,
    sync: Annotated[
        bool, typer.Option("--sync/--no-sync", help="Flush every file to the disk before it gets its name.")
    ] = True,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only failures and the result.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn GeoTIFFs or .npy pairs into Cloud Optimized GeoTIFFs, verified and resumable."""
    from dataclasses import replace

    from catalog_builder import console, storage
    from catalog_builder.cli.options import parse_bbox, parse_years
    from catalog_builder.convert import progress
    from catalog_builder.convert.plan.estimate import estimate
    from catalog_builder.convert.plan.job import Options
    from catalog_builder.convert.plan.sources import Wanted
    from catalog_builder.convert.plan.sources import plan as make_plan
    from catalog_builder.convert.run import run
    from catalog_builder.item.roles import LEDGER
    from catalog_builder.tile.datasets import dataset as find

    part = parse_shard(shard)
    target = _target(sources, out)
    if dask is not None and not storage.scheme(target):
        target = str(storage.local_path(target).absolute())  # workers have folders of their own
    options = Options(
        out=target,
        profile=profile.value,
        grid=grid.value,
        overviews=overviews.value,
        block_size=block_size,
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
        bounds=parse_bbox(bbox),
        missing=missing,
        source_root=source_root,
        landmask_root=landmask_root,
        year=year,
        shard=part,
    )
    plan = make_plan(sources, wanted)
    report = progress.reporter(quiet=quiet)
    notes = [] if quiet else list(plan.notes)
    for note in notes:
        console.say(f"note: {note}")
    where = ledger or storage.join(target, LEDGER)
    pool, count, about = _workers(plan, options, workers, dask)
    try:
        if dry_run:
            found = estimate(plan, options, count, where, force=force)
            console.result(_estimate_text(found, count), _data(found) | {"workers": count}, as_json=as_json)
            return
        if not quiet:
            console.say(about)
        options = replace(
            options,
            bases=_bases(plan, options, pool, fit=fit_visual, quiet=quiet) if visual or fit_visual else (),
        )
        label = f"shard-{part[0]}-of-{part[1]}" if part else "run"
        done = run(plan, options, pool, ledger=where, label=label, report=report, force=force)
    finally:
        pool.close()
    console.result(_report_text(done, target, where), _report_data(done, target, where), as_json=as_json)
    raise typer.Exit(done.exit_code)


ARRAY_INDEX = ("SLURM_ARRAY_TASK_ID", "AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX")
"""Where Slurm, AWS Batch and Kubernetes (an indexed Job) tell a job which one of an array it is."""


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Parse ``3/8``: the shards of 8 are 0/8 to 7/8; ``array/8`` takes the number from an array job.

    Raises
    ------
    QueryError
        If the text has another form, or no array job says its number.
    """
    if text is None:
        return None
    i, _, n = text.partition("/")
    found = text
    if i == "array":
        i = next((os.environ[name] for name in ARRAY_INDEX if name in os.environ), "")
        if not i:
            raise QueryError(
                f"--shard {text}: none of {', '.join(ARRAY_INDEX)} is set, so this is no array job"
            )
        found = f"{i}/{n}"
    if not (i.isdigit() and n.isdigit() and int(i) < int(n)):
        raise QueryError(f"--shard: expected i/N with i from 0 to N-1, found '{found}'")
    return int(i), int(n)


def _target(sources: list[str], out: str | None) -> str:
    """Return where to write: what was given, or the cogs folder of the one catalogue that is converted."""
    if out is not None:
        return out.rstrip("/") or "/"
    from catalog_builder import storage
    from catalog_builder.catalog.folder import COGS
    from catalog_builder.catalog.open import is_catalog

    if len(sources) == 1 and is_catalog(sources[0]):
        source = sources[0]
        return storage.join(source if storage.scheme(source) else str(Path(source).absolute()), COGS)
    raise QueryError("--out: say where the COGs go; only a catalogue has a place for them")


def _workers(plan: Plan, options: Options, asked: int | None, dask: str | None) -> tuple[Workers, int, str]:
    """Return the workers, how many they are, and a line about them."""
    from catalog_builder.convert.progress import size
    from catalog_builder.convert.workers import processes as w
    from catalog_builder.convert.workers.dask_start import LOCAL, connect, start_local

    if dask is not None and dask != LOCAL:
        if asked is not None:
            raise QueryError("--workers and --dask: give one of the two; a cluster has its own workers")
        cluster, about = connect(dask)
        return cluster, max(1, cluster.live), about
    first = next(plan.jobs(), None)
    geotiff = first is not None and first.kind == "geotiff"
    if asked == 0:
        if dask is not None:
            raise QueryError("--workers: a local Dask cluster needs one or more")
        return w.ExecutorWorkers(w.Inline(), 1), 1, "working in this process"
    count = asked or min(w.default_workers(options, geotiff=geotiff), max(plan.total, 1))
    need = w.memory_per_worker(options, geotiff=geotiff)
    about = f"{count} worker{'s' if count != 1 else ''}, each one thread and at most {size(need)}"
    free = w.available_memory()
    if free is not None and count * need > free:
        about += f"; together that may be more than the {size(free)} that are free: use fewer --workers"
    if dask is not None:
        # A raster that is no tile may need more than a tile does: what is free is shared out.
        local, where = start_local(count, max(need * 5 // 4, (free or 0) * 4 // 5 // count))
        return local, count, f"Dask on this machine: {about}; {where}"
    return w.ProcessWorkers(count), count, about


def _bases(plan: Plan, options: Options, pool: Workers, *, fit: bool, quiet: bool) -> tuple[Any, ...]:
    """Return the colours that are stored, or fit them first."""
    from catalog_builder import console
    from catalog_builder.convert.encode.colours import load_basis, store_basis
    from catalog_builder.convert.tile.fit_colours import fit_visual
    from catalog_builder.tile.datasets import DATASETS

    if fit:
        for basis in fit_visual(plan, options, pool, console.say):
            where = store_basis(options.out, basis)
            if not quiet:
                share = 100 * sum(basis.explained)
                console.say(
                    f"colours of {basis.dataset}: {basis.pixels:,} pixels of {len(basis.tiles)} tiles,"
                    f" {share:.0f} % of their variance; kept in {where}"
                )
    found = (load_basis(options.out, ds.directory) for ds in DATASETS)
    return tuple(b for b in found if b is not None)


def _estimate_text(found: Estimate, workers: int) -> str:
    from catalog_builder.convert.progress import duration, size

    source = "measured by this ledger" if found.measured else "documented defaults, nothing measured yet"
    return (
        f"{found.to_do:,} of {found.total:,} tiles to convert ({found.done:,} done already)\n"
        f"  {size(found.bytes_in)} to read, about {size(found.bytes_out)} to write\n"
        f"  about {duration(found.seconds)} with {workers} workers ({source})"
    )


def _data(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)


def _report_text(done: RunReport, out: str, ledger: str) -> str:
    from catalog_builder.convert.progress import duration, size

    lines = [
        f"{out}: {done.converted:,} converted, {done.skipped:,} done already, {len(done.failed):,} failed"
        f" of {done.total:,}" + (" (interrupted)" if done.interrupted else "")
    ]
    if done.converted:
        profiles = ", ".join(f"{n:,} {name}" for name, n in sorted(done.profiles.items()))
        lines.append(
            f"  {profiles}; {size(done.bytes_in)} read, {size(done.bytes_out)} written"
            f" in {duration(done.seconds)}"
        )
    lines += [f"  failed: {row.job}: {row.reason}" for row in done.failed[:20]]
    if len(done.failed) > 20:
        lines.append(f"  … and {len(done.failed) - 20:,} more, see the ledger")
    lines.append(f"  ledger: {ledger}")
    return "\n".join(lines)


def _report_data(done: RunReport, out: str, ledger: str) -> dict[str, Any]:
    return {
        "out": out,
        "ledger": ledger,
        "total": done.total,
        "converted": done.converted,
        "skipped": done.skipped,
        "failed": [{"job": row.job, "reason": row.reason} for row in done.failed],
        "profiles": done.profiles,
        "bytes_in": done.bytes_in,
        "bytes_out": done.bytes_out,
        "seconds": round(done.seconds, 3),
        "interrupted": done.interrupted,
    }
