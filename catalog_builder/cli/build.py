"""The commands that build and export a catalogue: ``build`` and ``export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog_builder.cli.options import (
    AsJson,
    CatalogArg,
    Quiet,
    Region,
    RegionLayer,
    Years,
    parse_area,
    parse_region,
    parse_years,
)
from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    from catalog_builder.build.report import BuildReport


def build(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Manifests in any format, archives or folders of them, a folder or bucket of the data,"
            " http(s) or s3 URLs, a Zarr store or an Icechunk repository. Merged in order; later sources"
            " win.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(help="Catalogue to create or update: a folder or an s3:// URL.", metavar="CATALOG"),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="Dataset to read; rows of others are left out. One that is not known is named as upstream"
            " names its directory, v<version>-<variant>."
        ),
    ] = "v1",
    years: Years = None,
    region: Region = None,
    layer: RegionLayer = None,
    update: Annotated[
        bool, typer.Option("--update", help="Keep existing tile-years that the sources do not list.")
    ] = False,
    allow_removals: Annotated[
        bool,
        typer.Option(
            "--allow-removals",
            help="Remove what the sources no longer list, however much it is. A source that is damaged or"
            " incomplete removes nothing even so.",
        ),
    ] = False,
    removal_limit: Annotated[
        float,
        typer.Option(
            help="Percentage of the collection's tile-years that a build may remove without"
            " --allow-removals.",
            min=0,
            max=100,
            metavar="PERCENT",
        ),
    ] = 5,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on the first problem in a manifest.")
    ] = False,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="Fill in hashes and sizes that a later source lacks from an earlier one, unless they"
            " conflict. A tile republished with the same size would keep its old hash.",
        ),
    ] = False,
    url: Annotated[
        str, typer.Option(help="URL that the catalogue will be served at, for its static files.")
    ] = ".",
    source_root: Annotated[
        str | None,
        typer.Option(help="Folder or URL of the .npy files. Default: where they are published."),
    ] = None,
    landmask_root: Annotated[str | None, typer.Option(help="Folder or URL of the landmask files.")] = None,
    data_root: Annotated[
        str | None, typer.Option(help="URL of the converted COGs. Default: served from CATALOG/cogs.")
    ] = None,
    ledger: Annotated[
        list[str] | None,
        typer.Option(
            help="Ledger written by `convert`, which lists the COGs; can be repeated. Default: CATALOG/cogs."
        ),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Mirror of the COGs, such as lab=https://data.example.org/cogs/v1; can be repeated.",
            metavar="NAME=URL",
        ),
    ] = None,
    source_mirror: Annotated[
        list[str] | None,
        typer.Option(help="Mirror of the source files; can be repeated.", metavar="NAME=URL"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Create a catalogue from tile manifests, or update it, in a folder or in S3."""
    from catalog_builder import console
    from catalog_builder.build.options import BuildOptions
    from catalog_builder.build.run import build as run
    from catalog_builder.item.addresses import parse_mirrors
    from catalog_builder.manifests.problems import UNREAD
    from catalog_builder.tile.datasets import dataset as find

    options = BuildOptions(
        dataset=find(dataset),
        years=parse_years(years),
        bounds=parse_area(region, layer),
        update=update,
        strict=strict,
        complete=complete,
        url=url,
        source_root=source_root,
        landmask_root=landmask_root,
        data_root=data_root,
        mirrors=parse_mirrors(mirror or (), "--mirror"),
        source_mirrors=parse_mirrors(source_mirror or (), "--source-mirror"),
        ledgers=tuple(ledger) if ledger else None,
        removal_limit=removal_limit / 100,
        allow_removals=allow_removals,
        is_dataset_said=getattr(ctx.get_parameter_source("dataset"), "name", "") != "DEFAULT",
    )
    with console.progress("tile-years", quiet=quiet) as report:
        done = run(sources, out, options, report)
    for problem in done.problems.kept if not quiet else []:
        console.say(f"problem: {problem}")
    for note in done.problems.notes if not quiet else []:
        console.say(f"note: {note}")
    console.result(_build_text(done, out), _build_data(done), as_json=as_json)
    if (unread := done.problems.first(UNREAD)) is not None:
        console.say(f"error: incomplete, since a source was not read to its end: {unread}")
        raise typer.Exit(1)


def _build_text(done: BuildReport, out: str) -> str:
    lines = [
        f"{out}: {done.collection}, {done.items:,} tile-years of {done.tiles:,} tiles"
        + ("" if done.published else " (unchanged)"),
        f"  added {done.added:,}, changed {done.changed:,}, removed {done.removed:,}",
    ]
    lines += [
        f"  {y.year}: {y.items:>10,}"
        + ("" if y.untouched else f"  +{y.added:,} ~{y.changed:,} -{y.removed:,}")
        for y in sorted(done.years, key=lambda y: y.year)
    ]
    lines += [
        f"  {s.source}: {s.rows:,} rows, {s.new:,} new, {s.identical:,} identical,"
        f" {s.completed:,} completed, {s.replaced:,} replaced"
        for s in done.merge.sources
        if s.rows != s.new  # a merge is worth reporting only where sources overlap
    ]
    if done.problems.counts:
        lines.append(f"  {done.problems.summary()}")
    return "\n".join(lines)


def _build_data(done: BuildReport) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "collection": done.collection,
        "items": done.items,
        "tiles": done.tiles,
        "published": done.published,
        "added": done.added,
        "changed": done.changed,
        "removed": done.removed,
        "years": [asdict(y) for y in done.years],
        "sources": [asdict(s) for s in done.merge.sources],
        "problems": {str(k): n for k, n in done.problems.counts.items()},
    }


def export(
    catalog: CatalogArg,
    to: Annotated[
        str | None, typer.Option(help="ndjson, geoparquet, static (linked JSON files) or pgstac.")
    ] = None,
    pgstac: Annotated[bool, typer.Option("--pgstac", help="Same as --to pgstac.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="Output: a file for ndjson (.gz and .zst are compressed, - is stdout), a folder for"
            " geoparquet and static; or an s3:// URL.",
            metavar="PATH",
        ),
    ] = None,
    dsn: Annotated[
        str | None,
        typer.Option(help="Database for pgstac, such as postgresql://user@host/db. Default: PGHOST..."),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Export only this collection; can be repeated.")
    ] = None,
    years: Years = None,
    region: Region = None,
    layer: RegionLayer = None,
    url: Annotated[
        str | None, typer.Option(help="URL that the catalogue is served at. Default: as built.")
    ] = None,
    max_items: Annotated[
        int, typer.Option(help="Maximum number of items in a static tree.", min=1)
    ] = 200_000,
    method: Annotated[
        str,
        typer.Option(help="pgstac: how to treat existing items: upsert, insert, insert_ignore or delsert."),
    ] = "upsert",
    migrate: Annotated[
        bool, typer.Option("--migrate", help="pgstac: install or update pgSTAC in the database first.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="pgstac: load everything, not only changes.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Export a catalogue's items as ndjson, stac-geoparquet or a static tree, or into pgSTAC."""
    from catalog_builder import console
    from catalog_builder.catalog.extract import extracts
    from catalog_builder.catalog.open import open_index
    from catalog_builder.publish.export import FORMATS
    from catalog_builder.publish.export import export as run

    if (to is None) != pgstac:
        raise QueryError(f"--to: expected one of {', '.join(FORMATS)}, once")
    to = to or "pgstac"
    parts = extracts(
        open_index(catalog),
        url=url,
        collections=dataset,
        years=parse_years(years),
        region=parse_region(region, layer),
    )
    with console.progress("items", quiet=quiet) as report:
        done = run(
            to,
            parts,
            out,
            dsn,
            max_items=max_items,
            method=method,
            migrate=migrate,
            force=force,
            report=report,
        )
    text = f"{done.items:,} items to {out or 'pgSTAC'}" + (f": {done.note}" if done.note else "")
    if out == "-":
        console.say(text)
    else:
        console.result(text, {"to": to, "out": out, "items": done.items}, as_json=as_json)
