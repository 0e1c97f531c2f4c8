"""Arguments and options that commands share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from catalog_builder.tile.grid import Bounds

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only errors and the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CatalogArg = Annotated[
    str, typer.Argument(help="The catalogue: a folder or an s3:// URL.", metavar="CATALOG")
]
Catalog = Annotated[
    str,
    typer.Option(
        "--catalog",
        help="A catalogue folder, its s3:// URL, or the URL of a tessera-stac API.",
        envvar="TESSERA_STAC_CATALOG",
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        help="Read on a Dask cluster, given its scheduler's address (tcp://, tls://) or scheduler file;"
        " 'local' starts one on this machine."
    ),
]


def years_option(panel: str | None = None) -> Any:
    """Return the option of years, in a panel of --help."""
    return typer.Option(
        "--years",
        "--year",
        help="Years: '2024', '2017-2020' or '2017-2019,2024'. Default: all.",
        metavar="YEARS",
        rich_help_panel=panel,
    )


def region_option(panel: str | None = None) -> Any:
    """Return the option of a region, in a panel of --help."""
    return typer.Option(
        "--region",
        "--bbox",
        "--region-file",
        help="west,south,east,north in degrees (west > east crosses the antimeridian), or the path or URL of"
        " polygons: GeoJSON, GeoPackage, FlatGeobuf, shapefile, KML, GeoParquet, in any CRS, zipped or not.",
        metavar="BOX|FILE",
        rich_help_panel=panel,
    )


def layer_option(panel: str | None = None) -> Any:
    """Return the option of a region's layer, in a panel of --help."""
    return typer.Option(help="Layer of a region file that has several.", rich_help_panel=panel)


# As lists, so that an option that is given twice is not dropped without a word.
Years = Annotated[list[str] | None, years_option()]
Region = Annotated[list[str] | None, region_option()]
RegionLayer = Annotated[str | None, layer_option()]


def parse_years(given: Sequence[str] | None) -> frozenset[int] | None:
    """Parse ``2024``, ``2017-2020``, ``2017,2019-2021``, given once.

    Raises
    ------
    QueryError
        If the text has another form, or the option is given several times.
    """
    text = _once(given, "--years")
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        digits = text.isascii() and first.isdigit() and (last.isdigit() if dash else True)
        if not digits or (last and int(last) < int(first)):
            raise QueryError(f"--years: expected '2024', '2017-2020' or '2017,2024', found '{text}'")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def parse_region(given: Sequence[str] | None, layer: str | None = None) -> BaseGeometry | None:
    """Return the region of the option, OGC:CRS84; what is odd about it is said.

    Raises
    ------
    QueryError
        If it is neither a box nor a file of polygons, or given several times, or a layer without a file.
    StorageError
        If a remote file cannot be fetched.
    """
    text = _once(given, "--region")
    if text is None:
        if layer is not None:
            raise QueryError("--layer: does nothing without --region and a file")
        return None
    from catalog_builder import console
    from catalog_builder.tile.regions.region import region_of

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = region_of(text, layer)
    for warning in caught:
        console.say(f"warning: {warning.message}")
    return found


def needed_region(given: Sequence[str] | None, layer: str | None = None) -> BaseGeometry:
    """Return the region of the option, without which a command has nothing to do.

    Raises
    ------
    QueryError, StorageError
        As :func:`parse_region`; also if there is none.
    """
    found = parse_region(given, layer)
    if found is None:
        raise QueryError("a region is needed: --region west,south,east,north, or --region FILE")
    return found


def parse_area(given: Sequence[str] | None, layer: str | None = None) -> Bounds | BaseGeometry | None:
    """Return the region of the option, a box as its bounds: for what selects cells that share area with it.

    Raises
    ------
    QueryError, StorageError
        As :func:`parse_region`.
    """
    from catalog_builder.tile.regions.region import bounds_of

    text = _once(given, "--region")
    bounds = None if text is None else bounds_of(text)
    return parse_region(given, layer) if bounds is None or layer is not None else bounds


def _once(given: Sequence[str] | None, name: str) -> str | None:
    if given and len(given) > 1:
        raise QueryError(f"{name}: expected only one, found {' and '.join(given)}")
    return given[0] if given else None
