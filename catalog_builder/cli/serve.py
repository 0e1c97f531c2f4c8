"""The command ``serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from catalog_builder.errors import QueryError


def serve(
    catalog: Annotated[
        str | None,
        typer.Argument(
            help="The catalogue: a folder or an s3:// URL. With TESSERA_STAC_BACKEND=pgstac it is optional"
            " and only its COGs are used.",
            metavar="CATALOG",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="PORT")] = 8000,
    workers: Annotated[int, typer.Option(help="Number of server processes.", min=1)] = 1,
    root_path: Annotated[str, typer.Option(help="Path prefix that a proxy strips.")] = "",
) -> None:
    """Serve a catalogue: STAC API, COGs and published arrays by range requests, and the browser."""
    import tempfile

    from api import server
    from api.catalogue.memory import set_up_malloc
    from api.http.metrics import FOLDER
    from api.readers.door import Door, has_readers
    from api.settings import from_environment
    from catalog_builder.catalog.digest import check_digest
    from catalog_builder.catalog.open import open_index
    from catalog_builder.console import say
    from catalog_builder.storage import scheme

    set_up_malloc()
    if root_path:
        os.environ["TESSERA_STAC_ROOT_PATH"] = root_path
    settings = from_environment()
    if has_readers(settings):
        Door(settings)  # one clear error now, instead of one in every worker
    on_database = os.environ.get("TESSERA_STAC_BACKEND") == "pgstac"
    if catalog is None and not on_database:
        raise QueryError("CATALOG: give the catalogue to serve, or set TESSERA_STAC_BACKEND=pgstac")
    if not on_database and catalog is not None:
        check_digest(open_index(catalog).path)  # one clear error now, instead of one in every worker
    sock = server.listen(host, port)
    if catalog is not None:
        os.environ["TESSERA_STAC_CATALOG"] = catalog if scheme(catalog) else str(Path(catalog).absolute())
    say(f"serving {'pgSTAC' if on_database else catalog} on http://{host}:{port}{root_path}/")
    with tempfile.TemporaryDirectory(prefix="tessera-stac-metrics-", ignore_cleanup_errors=True) as shared:
        if workers > 1:
            os.environ.setdefault(
                FOLDER, shared
            )  # each worker counts there, and any of them can report for all
        server.run(sock, workers, settings)
