"""The commands for synthetic tiles: ``sample`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog_builder.cli.options import AsJson, Quiet
from catalog_builder.cli.serve import Host, Port, listen, serve_on, settings_of
from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    from catalog_builder.synthetic.sample import TileOfYear
    from catalog_builder.synthetic.stores.sample import StoreContainer


def sample(
    out: Annotated[Path, typer.Argument(help="Folder to write to.", metavar="FOLDER")],
    tile: Annotated[
        list[str] | None,
        typer.Option(
            help="Tile and year, 'grid_0.15_52.05_2024'; can be repeated. Default: six near Cambridge, as a"
            " store four near the poles."
        ),
    ] = None,
    container: Annotated[
        str,
        typer.Option(
            help="npy: pairs of files; zarr: upstream's Zarr v3 store; icechunk: a repository, its registry."
        ),
    ] = "npy",
    seed: Annotated[int, typer.Option(help="Random seed of the synthetic world.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Number of processes.", min=1)] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Generate realistic synthetic tiles in upstream's own formats (not TESSERA data)."""
    from catalog_builder import console
    from catalog_builder.synthetic.sample import DEFAULT_SET, sample_set
    from catalog_builder.synthetic.stores.sample import STORE_CONTAINERS

    wanted = _tile_years(tile or [])
    for store in STORE_CONTAINERS:
        if container == store:
            _sample_store(out, store, wanted, seed, workers, quiet=quiet, as_json=as_json)
            return
    if container != "npy":
        expected = ", ".join(("npy", *STORE_CONTAINERS))
        raise QueryError(f"--container: expected one of {expected}, found '{container}'")
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


def _tile_years(texts: list[str]) -> list[TileOfYear]:
    """Read the option ``--tile``."""
    from catalog_builder.tile.grid import TileId

    wanted = []
    for text in texts:
        name, _, year = text.rpartition("_")
        if not year.isdigit():
            raise QueryError(f"--tile: expected a tile and year such as grid_0.15_52.05_2024, found '{text}'")
        wanted.append((TileId.from_name(name), int(year)))
    return wanted


def _sample_store(
    out: Path,
    container: StoreContainer,
    wanted: list[TileOfYear],
    seed: int,
    workers: int | None,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the tiles as a store."""
    from catalog_builder import console
    from catalog_builder.synthetic.stores.sample import DEFAULT_STORE_SET, sample_store

    with console.progress("tiles and shards", quiet=quiet) as report:
        made = sample_store(
            out,
            container,
            tile_years=wanted or DEFAULT_STORE_SET,
            seed=seed,
            workers=workers,
            progress=report,
        )
    names = [f"{tile.name}_{year}" for tile, year in made.tile_years]
    text = f"{made.store}: {', '.join(names)}; {made.n_bytes:,} bytes"
    console.result(
        f"{text}\n{made.folder}: synthetic tiles, not TESSERA data",
        {
            "synthetic": True,
            "root": str(made.folder),
            "store": str(made.store),
            "registry": str(made.registry) if made.registry.is_dir() else None,
            "land": str(made.land),
            "tiles": names,
        },
        as_json=as_json,
    )


def demo(
    folder: Annotated[Path, typer.Option(help="Folder for the catalogue and the tiles.")] = Path(".run"),
    host: Host = "127.0.0.1",
    port: Port = 8000,
    quiet: Quiet = False,
) -> None:
    """Build a sample catalogue from real manifests, generate a few synthetic tiles, and serve both."""
    from catalog_builder.console import say
    from catalog_builder.synthetic.demo import greeting, prepare

    settings = settings_of(str(folder))
    sock, url = listen(host, port)
    catalog = prepare(folder, url, quiet=quiet)
    say(greeting(url))
    serve_on(sock, settings, str(catalog), host)
