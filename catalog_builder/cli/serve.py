"""The command ``serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog_builder import storage
from catalog_builder.errors import QueryError

if TYPE_CHECKING:
    import socket

    from api.settings import Settings

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(help="Port to listen on; 0 for a free one.", envvar="PORT", min=0, max=65_535)
]


def serve(
    catalog: Annotated[
        str | None,
        typer.Argument(
            help="The catalogue: a folder or an s3:// URL. With TESSERA_STAC_BACKEND=pgstac it is optional"
            " and only its COGs are used.",
            metavar="CATALOG",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(help="Number of server processes.", min=1)] = 1,
    root_path: Annotated[str, typer.Option(help="Path prefix that a proxy strips.")] = "",
) -> None:
    """Serve a catalogue: STAC API, COGs and published arrays by range requests, and the browser."""
    from api import server

    settings = settings_of(catalog, root_path)
    # Next: that the port is taken shall be known before anything is opened.
    serve_on(server.listen(host, port), settings, catalog, host, workers, root_path)


def settings_of(catalog: str | None, root_path: str = "") -> Settings:
    """Return the settings of the environment, checked, for a server of a catalogue.

    Raises
    ------
    QueryError
        If there is neither a catalogue nor a database.
    CatalogError
        If a setting is wrong.
    StorageError
        If the URL of the catalogue contains credentials or a query.
    """
    from api.readers.door import Door, has_readers
    from api.settings import from_environment

    if root_path:
        os.environ["TESSERA_STAC_ROOT_PATH"] = root_path
    settings = from_environment()
    if has_readers(settings):
        Door(settings)  # one clear error now, instead of one in every worker
    if catalog is not None and storage.scheme(catalog):
        storage.check_base(catalog, "CATALOG")
    if catalog is None and not _on_database():
        raise QueryError("CATALOG: give the catalogue to serve, or set TESSERA_STAC_BACKEND=pgstac")
    return settings


def _on_database() -> bool:
    return os.environ.get("TESSERA_STAC_BACKEND") == "pgstac"


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a socket bound to a host and port, and the URL of what will be served on it."""
    from api import server

    sock = server.listen(host, port)
    return sock, _url(sock, host)


def _url(sock: socket.socket, host: str) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def serve_on(
    sock: socket.socket,
    settings: Settings,
    catalog: str | None,
    host: str,
    workers: int = 1,
    root_path: str = "",
) -> None:
    """Serve a catalogue on a bound socket, until the process is told to stop.

    Raises
    ------
    CatalogError
        If the catalogue cannot be opened, or is damaged.
    """
    import tempfile

    from api import server
    from api.catalogue.memory import set_up_malloc
    from api.http.metrics import FOLDER
    from catalog_builder.catalog.digest import check_digest
    from catalog_builder.catalog.open import open_index
    from catalog_builder.console import say
    from catalog_builder.storage import scheme

    set_up_malloc()
    on_database = _on_database()
    if not on_database and catalog is not None:
        check_digest(open_index(catalog).path)  # one clear error now, instead of one in every worker
    if catalog is not None:
        os.environ["TESSERA_STAC_CATALOG"] = catalog if scheme(catalog) else str(Path(catalog).absolute())
    say(f"serving {'pgSTAC' if on_database else catalog} on {_url(sock, host)}{root_path}/")
    with tempfile.TemporaryDirectory(prefix="tessera-stac-metrics-", ignore_cleanup_errors=True) as shared:
        if workers > 1:
            os.environ.setdefault(
                FOLDER, shared
            )  # each worker counts there, and any of them can report for all
        server.run(sock, workers, settings)
