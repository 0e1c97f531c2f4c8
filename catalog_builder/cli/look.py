"""The commands that inspect a catalogue: ``info``, ``coverage``, ``validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog_builder.errors import DatasetError, QueryError

if TYPE_CHECKING:
    from catalog_builder.catalog.index.reader import Index
    from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.cli.options import (
    AsJson,
    CatalogArg,
    Quiet,
    Region,
    RegionLayer,
    Years,
    parse_region,
    parse_years,
)


def info(catalog: CatalogArg, as_json: AsJson = False) -> None:
    """Summarise the contents of a catalogue."""
    import json

    from catalog_builder import console
    from catalog_builder.catalog.open import open_index

    index = open_index(catalog)
    data, lines = [], []
    for record in index.collections.values():
        document = json.loads(index.documents[record.id])
        coverage = document["tessera:coverage"]
        data.append(
            {
                "collection": record.id,
                "title": record.dataset.title,
                "version": record.dataset.version,
                "variant": record.dataset.variant,
                "synthetic": record.dataset.is_synthetic,
                "bbox": document["extent"]["spatial"]["bbox"][0],
                "years": list(record.years),
                "coverage": coverage,
                "source_root": record.source_root,
                "data": record.addresses.data,
            }
        )
        west, south, east, north = document["extent"]["spatial"]["bbox"][0]
        lines += [
            f"{record.id}: {record.dataset.title}",
            f"  {record.n_items:,} tile-years of {record.n_tiles:,} tiles,"
            f" {west:g}..{east:g} E, {south:g}..{north:g} N",
            f"  all years {coverage['full']:,}, only {record.years[-1]} {coverage['latest']:,},"
            f" some years {coverage['partial']:,}",
            *(f"  {y}: {n:>10,}" for y, n in zip(record.years, record.counts, strict=True)),
            f"  source files: {record.source_root}",
        ]
    console.result("\n".join(lines), data, as_json=as_json)


def _collection(index: Index, name: str | None) -> CollectionRecord:
    """Return the requested collection: the named one, or the only or first real one."""
    from catalog_builder.tile.datasets import dataset as find

    if name is None:
        real = [r for r in index.collections.values() if not r.dataset.is_synthetic]
        return (real or list(index.collections.values()))[0]
    wanted = find(name).collection_id
    if wanted not in index.collections:
        raise DatasetError(f"no collection {wanted} in this catalogue: it has {', '.join(index.collections)}")
    return index.collections[wanted]


def coverage(
    catalog: CatalogArg,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the map to: an image (.png) or a page (.html).", metavar="FILE"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Collection to use. Default: the first real one.")
    ] = None,
    years: Years = None,
    region: Region = None,
    layer: RegionLayer = None,
    width: Annotated[int, typer.Option(help="Width of the map in pixels.")] = 1800,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show which tiles exist for which years: a table, and a map in upstream's colours."""
    from dataclasses import asdict

    from catalog_builder import console
    from catalog_builder.catalog.coverage.page import coverage_html, grid_of
    from catalog_builder.catalog.coverage.picture import coverage_png
    from catalog_builder.catalog.coverage.table import coverage_table, touching
    from catalog_builder.catalog.open import open_index

    index = open_index(catalog)
    record = _collection(index, dataset)
    wanted = parse_years(years)
    shown = [y for y in record.years if wanted is None or y in wanted]
    if not shown:
        raise QueryError(f"--years: {record.id} has {', '.join(map(str, record.years))}")
    cell, mask = index.coverage(record.ordinal)
    shape = parse_region(region, layer)
    if out is not None:
        title = record.dataset.title
        if out.suffix.lower() in (".html", ".htm"):
            coverage_html(out, [(record.id, title, grid_of(cell, mask, shown, shape))])
        else:
            coverage_png(out, cell, mask, shown, region=shape, title=title, width=width)
        if not quiet:
            console.say(f"map: {out}")
    if shape is not None:
        mask = mask[touching(cell, shape)]
    table = coverage_table(mask, shown)
    lines = [f"{record.id}: {table.n_tile_years:,} tile-years of {table.n_tiles:,} tiles"]
    lines += [f"  {year}: {n:>10,}" for year, n in table.years.items()]
    meanings = {"full": "all years", "latest": f"only {shown[-1]}", "partial": "other years"}
    lines += [f"  {meanings[name]:<12}{n:>10,}" for name, n in table.classes.items()]
    lines += [f"  {n:>10,} tiles have {_years_text(combination)}" for combination, n in table.combinations]
    console.result("\n".join(lines), {"collection": record.id, **asdict(table)}, as_json=as_json)


def _years_text(years: tuple[int, ...]) -> str:
    """Write years as ranges: 2017-2020, 2024."""
    parts: list[list[int]] = []
    for year in years:
        if parts and year == parts[-1][1] + 1:
            parts[-1][1] = year
        else:
            parts.append([year, year])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts)


def validate(
    path: Annotated[
        str, typer.Argument(help="A catalogue, or the output of `convert`: a folder or an s3:// URL.")
    ],
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Compare every pixel of the COGs with its source.")
    ] = True,
    workers: Annotated[int | None, typer.Option(help="Number of processes for the tiles.", min=1)] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check a catalogue: index, parquet, STAC, and the checksums and pixels of the COGs."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from catalog_builder import console, storage
    from catalog_builder.build.validate import CatalogReport, report_data, report_text, validate_catalog
    from catalog_builder.catalog.open import is_catalog
    from catalog_builder.convert.tile.verify import validate_results

    with (
        console.progress("tiles", quiet=quiet) as report,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):

        def tell(done: int, of: int, _: object) -> None:
            report("checking tiles", done, of)

        if is_catalog(path) or not storage.is_dir(storage.join(path, "ledger")):
            found = validate_catalog(path, pixels=pixels, executor=pool, progress=tell)
        else:
            tiles = validate_results(path, pixels=pixels, executor=pool, progress=tell)
            found = CatalogReport((), tiles)
    console.result(report_text(found), report_data(found), as_json=as_json)
    if not found.sound:
        raise typer.Exit(1)
