"""Arguments and options that commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from catalog_builder.errors import GridError, QueryError

if TYPE_CHECKING:
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
Years = Annotated[str | None, typer.Option(help="Years to include: '2024', '2017-2020' or '2017,2024'.")]
Bbox = Annotated[
    str | None,
    typer.Option(
        help="Bounding box: west,south,east,north in degrees; west > east crosses the antimeridian."
    ),
]


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
        digits = text.isascii() and first.isdigit() and (not last or last.isdigit())
        if not digits or (last and int(last) < int(first)):
            raise QueryError(f"--years: expected '2024', '2017-2020' or '2017,2024', found '{text}'")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def parse_bbox(text: str | None) -> Bounds | None:
    """Parse ``west,south,east,north``; west > east crosses the antimeridian.

    Raises
    ------
    QueryError
        If it is not four numbers in range, or six with heights.
    """
    if text is None:
        return None
    from catalog_builder.tile.regions.bbox import read_bbox, read_numbers

    try:
        bounds, _ = read_bbox(read_numbers(text))
    except GridError as error:
        raise QueryError(f"--bbox: {error}") from None
    except ValueError:
        raise QueryError(f"--bbox: expected west,south,east,north in degrees, found '{text}'") from None
    return bounds
