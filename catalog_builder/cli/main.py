"""``tessera-stac``: assembles the commands of the command line.

Heavy imports are made inside the functions, so that ``--help`` is fast. Exit codes: 0
success, 1 something failed (and what), 2 usage error.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from catalog_builder.cli.build import build, export
from catalog_builder.cli.convert import convert
from catalog_builder.cli.look import coverage, info, validate
from catalog_builder.cli.serve import serve
from catalog_builder.cli.synthetic import demo, sample
from catalog_builder.cli.vectors.get import get, preview
from catalog_builder.cli.vectors.points import points
from catalog_builder.cli.vectors.zonal import zonal
from catalog_builder.errors import DatasetError, GridError, QueryError, TesseraError

app = typer.Typer(
    name="tessera-stac",
    help="TESSERA embeddings as a STAC catalogue of Cloud Optimized GeoTIFFs.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


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
        say("interrupted; finished work is kept")
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output has gone (| head): not our failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _say_version(asked: bool) -> None:
    if asked:
        from catalog_builder.version import described

        typer.echo(f"tessera-stac {described()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and the commit.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options shared by all commands."""


# In the order in which --help lists them.
for _verb in (
    build,
    info,
    coverage,
    preview,
    serve,
    export,
    sample,
    demo,
    get,
    points,
    zonal,
    validate,
    convert,
):
    app.command()(_verb)
