"""``tessera-stac``: one thin function per verb.

Heavy imports are made inside the functions, so that ``--help`` answers at once. Exit codes: 0 all
good, 1 something failed (and what), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from catalog_builder.convert.cli import convert
from catalog_builder.errors import DatasetError, GridError, QueryError, TesseraError

if TYPE_CHECKING:
    from catalog_builder.build.run import BuildReport
    from catalog_builder.catalog.index.reader import Index
    from catalog_builder.catalog.index.record import CollectionRecord
    from catalog_builder.tile.grid import Bounds

app = typer.Typer(
    name="tessera-stac",
    help="TESSERA embeddings as a STAC catalogue of Cloud Optimized GeoTIFFs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors and the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CatalogArg = Annotated[
    str, typer.Argument(help="The catalogue: a folder, or its s3:// address.", metavar="CATALOG")
]
Years = Annotated[str | None, typer.Option(help="Years to keep: '2024', '2017-2020' or '2017,2024'.")]
Bbox = Annotated[
    str | None,
    typer.Option(help="Box to keep: west,south,east,north in degrees; west > east crosses the antimeridian."),
]


def main() -> NoReturn:
    """Run the command line; a failure is one line on stderr, never a traceback."""
    from catalog_builder.console import say

    try:
        app(standalone_mode=True)
    except (DatasetError, GridError, QueryError) as exc:
        say(f"error: {exc}")
        sys.exit(2)
    except TesseraError as exc:
        say(f"error: {exc}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("interrupted; what was finished is kept")
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output left (| head): not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


@app.callback()
def _root() -> None:
    """Commands share nothing; this makes `tessera-stac` a group."""


def parse_years(text: str | None) -> frozenset[int] | None:
    """Parse ``2024``, ``2017-2020``, ``2017,2019-2021``.

    Raises
    ------
    QueryError
        If the text has another form.
    """
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()) or (last and int(last) < int(first)):
            raise QueryError(f"--years: expected '2024', '2017-2020' or '2017,2024', found '{text}'")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def parse_bbox(text: str | None) -> Bounds | None:
    """Parse ``west,south,east,north``; west > east crosses the antimeridian.

    Raises
    ------
    QueryError
        If it is not four numbers on the globe.
    """
    from catalog_builder.tile.grid import Bounds, split_antimeridian

    if text is None:
        return None
    try:
        west, south, east, north = (float(p) for p in text.split(","))
    except ValueError:
        raise QueryError(f"--bbox: expected west,south,east,north in degrees, found '{text}'") from None
    split_antimeridian(west, south, east, north)
    return Bounds(west, south, east, north)


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Manifests of any format, archives or folders of them, a folder or bucket of the data,"
            " http(s) or s3 addresses. Merged in order, later wins.",
            metavar="SOURCE...",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="The catalogue, made or updated: a folder, or an s3:// address.", metavar="CATALOG"
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Which dataset the sources describe.")] = "v1",
    years: Years = None,
    bbox: Bbox = None,
    update: Annotated[
        bool, typer.Option("--update", help="Keep present tile-years that the sources do not list.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first problem in a manifest.")
    ] = False,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="Fill what a later source does not say (hashes, sizes) from an earlier one, unless they"
            " contradict. A tile republished with the same size would keep its old hash.",
        ),
    ] = False,
    url: Annotated[
        str, typer.Option(help="Address the catalogue will be served at, for its static files.")
    ] = ".",
    source_root: Annotated[
        str | None,
        typer.Option(help="Where the .npy files are: folder or address. Default: where they are published."),
    ] = None,
    landmask_root: Annotated[
        str | None, typer.Option(help="Where the landmask files are: folder or address.")
    ] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Address of the converted COGs. Default: served from CATALOG/cogs.")
    ] = None,
    ledger: Annotated[
        list[str] | None,
        typer.Option(
            help="Ledger of `convert`: which tiles are COGs; repeat for more. Default: CATALOG/cogs."
        ),
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Another place of the COGs, as lab=https://data.example.org/cogs/v1; repeat for more.",
            metavar="NAME=ADDRESS",
        ),
    ] = None,
    source_mirror: Annotated[
        list[str] | None,
        typer.Option(help="Another place of the source files; repeat for more.", metavar="NAME=ADDRESS"),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Turn tile manifests into a catalogue, in a folder or in S3, or bring it up to date."""
    from catalog_builder import console
    from catalog_builder.build.run import BuildOptions
    from catalog_builder.build.run import build as run
    from catalog_builder.item.addresses import parse_mirrors
    from catalog_builder.tile.datasets import dataset as find

    options = BuildOptions(
        dataset=find(dataset),
        years=parse_years(years),
        bounds=parse_bbox(bbox),
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
    )
    with console.progress("tile-years", quiet=quiet) as report:
        done = run(sources, out, options, report)
    for problem in done.problems.kept if not quiet else []:
        console.say(f"problem: {problem}")
    for note in done.problems.notes if not quiet else []:
        console.say(f"note: {note}")
    console.result(_build_text(done, out), _build_data(done), as_json=as_json)


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
        if s.rows != s.new  # a merge is news only where sources overlap
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


@app.command()
def info(catalog: CatalogArg, as_json: AsJson = False) -> None:
    """Say what a catalogue holds."""
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
    """Return the collection a user means: the one named, or the only or first real one."""
    from catalog_builder.tile.datasets import dataset as find

    if name is None:
        real = [r for r in index.collections.values() if not r.dataset.is_synthetic]
        return (real or list(index.collections.values()))[0]
    wanted = find(name).collection_id
    if wanted not in index.collections:
        raise DatasetError(f"no collection {wanted} in this catalogue: it has {', '.join(index.collections)}")
    return index.collections[wanted]


@app.command()
def coverage(
    catalog: CatalogArg,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the map here: a picture (.png) or a page (.html).", metavar="FILE"),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Which collection; default the first real one.")] = None,
    years: Years = None,
    region: Annotated[
        str | None,
        typer.Option(help="Only this part: west,south,east,north in degrees, or a GeoJSON file or address."),
    ] = None,
    width: Annotated[int, typer.Option(help="Width of the map in pixels.")] = 1800,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Show which tiles have which years: a table, and a map in upstream's colours."""
    from dataclasses import asdict

    from catalog_builder import console
    from catalog_builder.catalog.coverage.page import coverage_html, grid_of
    from catalog_builder.catalog.coverage.picture import coverage_png
    from catalog_builder.catalog.coverage.table import coverage_table, touching
    from catalog_builder.catalog.open import open_index
    from catalog_builder.tile.region import region_from

    index = open_index(catalog)
    record = _collection(index, dataset)
    wanted = parse_years(years)
    shown = [y for y in record.years if wanted is None or y in wanted]
    if not shown:
        raise QueryError(f"--years: {record.id} has {', '.join(map(str, record.years))}")
    cell, mask = index.coverage(record.ordinal)
    shape = region_from(region) if region is not None else None
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


@app.command()
def preview(
    catalog: Annotated[
        str,
        typer.Argument(
            help="A catalogue folder, its s3:// address, or the address of its API.", metavar="CATALOG"
        ),
    ],
    region: Annotated[
        str,
        typer.Option(help="What to show: west,south,east,north in degrees, or a GeoJSON file or shapefile."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: a picture (.png, .tif) or a web map in one file (.html).", metavar="FILE"
        ),
    ],
    year: Annotated[int | None, typer.Option(help="Default: the newest that the region has.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Which collection; default the first real one.")] = None,
    size: Annotated[int, typer.Option(help="Longest side in pixels.")] = 2048,
    open_it: Annotated[bool, typer.Option("--open", help="Open the file when it is written.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Draw a region in false colour: one PCA for all tiles, read from overviews only."""
    from catalog_builder import console
    from catalog_builder.tile.region_file import region_of
    from catalog_builder.vectors.preview import preview as draw
    from catalog_builder.vectors.preview import write_preview

    with console.progress("tiles", quiet=quiet) as report:
        picture = draw(catalog, region_of(region), year=year, dataset=dataset, size=size, progress=report)
    write_preview(picture, out)
    if picture.left_out and not quiet:
        console.say(f"note: {picture.left_out} tiles are not converted and not on this machine: left out")
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


@app.command()
def serve(
    catalog: Annotated[
        str | None,
        typer.Argument(
            help="The catalogue: a folder or an s3:// address. With TESSERA_STAC_BACKEND=pgstac only its"
            " COGs, and not needed.",
            metavar="CATALOG",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="PORT")] = 8000,
    workers: Annotated[int, typer.Option(help="Server processes.", min=1)] = 1,
    root_path: Annotated[str, typer.Option(help="Path prefix that a proxy strips.")] = "",
) -> None:
    """Serve a catalogue: STAC API, data by ranges, the raw lane and the browser, on one port."""
    import tempfile

    from api import serving
    from api.memory import set_up_malloc
    from api.metrics import FOLDER
    from api.settings import Settings
    from catalog_builder.catalog.digest import check_digest
    from catalog_builder.catalog.open import open_index
    from catalog_builder.console import say
    from catalog_builder.storage import scheme

    set_up_malloc()
    on_database = os.environ.get("TESSERA_STAC_BACKEND") == "pgstac"
    if catalog is None and not on_database:
        raise QueryError("CATALOG: say which catalogue to serve, or set TESSERA_STAC_BACKEND=pgstac")
    if not on_database and catalog is not None:
        check_digest(open_index(catalog).path)  # a clear error now, not in every worker
    sock = serving.listen(host, port)
    if catalog is not None:
        os.environ["TESSERA_STAC_CATALOG"] = catalog if scheme(catalog) else str(Path(catalog).absolute())
    if root_path:
        os.environ["TESSERA_STAC_ROOT_PATH"] = root_path
    say(f"serving {'pgSTAC' if on_database else catalog} on http://{host}:{port}{root_path}/")
    with tempfile.TemporaryDirectory(prefix="tessera-stac-metrics-", ignore_cleanup_errors=True) as shared:
        if workers > 1:
            os.environ.setdefault(FOLDER, shared)  # each counts there, any answers for all
        serving.run(sock, workers, trust_forwarded=Settings().trust_forwarded)


@app.command()
def export(
    catalog: CatalogArg,
    to: Annotated[
        str | None, typer.Option(help="ndjson, geoparquet, static (JSON files that link) or pgstac.")
    ] = None,
    pgstac: Annotated[bool, typer.Option("--pgstac", help="The same as --to pgstac.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            help="Where to: a file for ndjson (.gz and .zst are compressed, - is stdout), a folder for"
            " geoparquet and static; or an s3:// address.",
            metavar="PATH",
        ),
    ] = None,
    dsn: Annotated[
        str | None, typer.Option(help="Database for pgstac, as postgresql://user@host/db; default PGHOST...")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this collection; repeat for more.")] = None,
    years: Years = None,
    bbox: Annotated[
        str | None,
        typer.Option("--bbox", "--region", help="Only here: west,south,east,north, or a GeoJSON file."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Address the catalogue is served at. Default: as it was built.")
    ] = None,
    max_items: Annotated[int, typer.Option(help="Most items of a static tree.", min=1)] = 200_000,
    method: Annotated[
        str, typer.Option(help="pgstac, items that are there: upsert, insert, insert_ignore or delsert.")
    ] = "upsert",
    migrate: Annotated[
        bool, typer.Option("--migrate", help="pgstac: install or update pgSTAC in the database first.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="pgstac: load everything, not only what changed.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a catalogue's items for others: ndjson, stac-geoparquet, a static tree, or into pgSTAC."""
    from catalog_builder import console
    from catalog_builder.catalog.extract import extracts
    from catalog_builder.catalog.open import open_index
    from catalog_builder.publish.export import FORMATS
    from catalog_builder.publish.export import export as run
    from catalog_builder.tile.region import region_from

    if (to is None) != pgstac:
        raise QueryError(f"--to: expected one of {', '.join(FORMATS)}, once")
    to = to or "pgstac"
    parts = extracts(
        open_index(catalog),
        url=url,
        collections=dataset,
        years=parse_years(years),
        region=region_from(bbox) if bbox is not None else None,
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


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="FOLDER")],
    tile: Annotated[
        list[str] | None,
        typer.Option(
            help="Tile and year, 'grid_0.15_52.05_2024'; repeat for more. Default: six near Cambridge."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another world for another number.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes.", min=1)] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make realistic synthetic tiles in upstream's own formats (not TESSERA data)."""
    from catalog_builder import console
    from catalog_builder.synthetic.sample import DEFAULT_SET, sample_set
    from catalog_builder.tile.grid import TileId

    wanted = []
    for text in tile or []:
        name, _, year = text.rpartition("_")
        if not year.isdigit():
            raise QueryError(f"--tile: expected a tile and year as in grid_0.15_52.05_2024, found '{text}'")
        wanted.append((TileId.from_name(name), int(year)))
    with console.progress("tiles", quiet=quiet) as report:
        made = sample_set(
            out,
            tile_years=wanted or DEFAULT_SET,
            seed=seed,
            workers=workers,
            progress=lambda done, of, _: report("making tiles", done, of),
        )
    text = "\n".join(f"{w.tile.name}_{w.year}: {w.n_bytes:,} bytes" for w in made.written)
    console.result(
        f"{text}\n{out}: synthetic tiles, not TESSERA data",
        {
            "synthetic": True,
            "root": str(made.root),
            "tiles": [f"{w.tile.name}_{w.year}" for w in made.written],
        },
        as_json=as_json,
    )


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the catalogue and the tiles go.")] = Path(".run"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="PORT")] = 8000,
    quiet: Quiet = False,
) -> None:
    """Build a sample catalogue from real manifests, make a few synthetic tiles, and serve both."""
    from catalog_builder.console import say
    from catalog_builder.synthetic.demo import greeting, prepare

    url = f"http://{host}:{port}"
    catalog = prepare(folder, url, quiet=quiet)
    say(greeting(url))
    serve(str(catalog), host=host, port=port, workers=1, root_path="")


@app.command()
def get(
    catalog: Annotated[
        str,
        typer.Argument(
            help="A catalogue folder, its s3:// address, or the address of a STAC API.", metavar="CATALOG"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to; it holds one dataset.", metavar="FOLDER")],
    region_file: Annotated[
        str | None, typer.Option(help="GeoJSON or shapefile (.shp, .zip) of the region.", metavar="FILE")
    ] = None,
    bbox: Annotated[str | None, typer.Option(help="The region as west,south,east,north in degrees.")] = None,
    year: Annotated[int | None, typer.Option(help="One year.")] = None,
    years: Annotated[
        str | None, typer.Option(help="Several: '2017-2020' or '2017,2024'. Default all.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Which dataset; default the first real one.")] = None,
    kind: Annotated[str, typer.Option("--format", help="geotiff, cog, netcdf, zarr or npy.")] = "geotiff",
    dtype: Annotated[
        str, typer.Option(help="float32 values, or int8 codes with their scales beside them.")
    ] = "float32",
    bands: Annotated[str, typer.Option(help="Dimensions, counted from 0: '0,1,5-7'.")] = "0-127",
    tiles: Annotated[
        bool, typer.Option("--tiles", help="One file per tile and year, not one per UTM zone and year.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Tiles that are read at once.", min=1)] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be read.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fetch the embeddings of a region: only the bytes that it touches, clipped and put together."""
    from catalog_builder import console
    from catalog_builder.get.command import options_from, report_data, report_text
    from catalog_builder.vectors.run import get as run

    chosen = frozenset({year}) if year is not None else parse_years(years)
    if year is not None and years is not None:
        raise QueryError("--year and --years: only one of them may be given")
    options = options_from(
        region_file, bbox, chosen, dataset, kind, dtype, bands, tiles=tiles, workers=workers
    )
    with console.progress("tile-years", quiet=quiet) as report:
        done = run(catalog, out, options, report, dry_run=dry_run)
    for name, reason in done.failed.items():
        console.say(f"failed: {name}: {reason}")
    console.result(
        report_text(done, out, dry_run=dry_run), report_data(done, dry_run=dry_run), as_json=as_json
    )
    if done.failed:
        raise typer.Exit(1)


@app.command()
def validate(
    path: Annotated[
        str, typer.Argument(help="A catalogue, or what `convert` wrote to: a folder or an s3:// address.")
    ],
    pixels: Annotated[
        bool, typer.Option("--pixels/--no-pixels", help="Compare every pixel of the COGs with its source.")
    ] = True,
    workers: Annotated[int | None, typer.Option(help="Processes for the tiles.", min=1)] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Check that a catalogue is sound: index, parquet, STAC, and the COGs' checksums and pixels."""
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


# The converter's verb lives with the converter; importing it costs nothing heavy.
app.command()(convert)

if __name__ == "__main__":
    main()
