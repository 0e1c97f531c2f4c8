"""The server on both of its backends: over a catalogue's index, and over a pgSTAC that was loaded from it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.pgstac.load import load_pgstac
from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import psql, running
from tests.support.http_server import Server, serve

PGSTAC_GROUP = pytest.mark.xdist_group("pgstac")
"""One PostgreSQL for all tests, in one test process."""
BACKENDS = ["index", pytest.param("pgstac", marks=PGSTAC_GROUP)]
EXPORTED_AT = "https://stac.example.org"
"""The address that items in a database name; the server puts its own."""

_TEMPLATE = "pgstac_template"
_NUMBERS = count()

Serve = Callable[..., AbstractContextManager[Server]]
"""``serve(catalog, **settings)``: a running server of a catalogue."""


def dsn_of(env: Mapping[str, str], database: str) -> str:
    return f"postgresql://{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/{database}"


def new_database(env: Mapping[str, str], *, template: str | None = _TEMPLATE) -> str:
    """Make a database, with pgSTAC in it unless there is to be no template; return its name."""
    if template is not None and not psql(env, f"SELECT 1 FROM pg_database WHERE datname = '{template}'"):
        psql(env, f"CREATE DATABASE {template}")
        _migrate(dsn_of(env, template))
    name = f"stac{next(_NUMBERS)}"
    psql(env, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    return name


def _migrate(dsn: str) -> None:
    from pypgstac.db import PgstacDB
    from pypgstac.migrate import Migrate

    db = PgstacDB(dsn=dsn)
    Migrate(db).run_migration()
    db.disconnect()
    db.close()


def load(catalog: Path, dsn: str, **options: Any) -> Any:
    """Load a whole catalogue into a database, as ``tessera-stac export --pgstac`` does."""
    return load_pgstac(dsn, extracts(CatalogFolder(catalog).open_index(), url=EXPORTED_AT), **options)


def serve_pgstac_backend(dsn: str, catalog: Path | None, **settings: Any) -> AbstractContextManager[Server]:
    chosen = Settings(backend="pgstac", pgstac_dsn=dsn, **settings)
    return serve(create_app(catalog, chosen), lifespan="on")


@contextmanager
def pgstac_client(dsn: str, catalog: Path | None, **settings: Any) -> Iterator[httpx.Client]:
    """Run a server on a database, and lend a client of it."""
    with (
        serve_pgstac_backend(dsn, catalog, **settings) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        yield http


@pytest.fixture(scope="session")
def postgres() -> Iterator[Mapping[str, str]]:
    """Lend the environment that reaches a PostgreSQL with PostGIS."""
    need_postgres()
    # PostgreSQL runs as another user, who may not look into pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="tessera-pgstac-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            yield env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Name the backend; every test that asks for a server of it runs on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def serve_on(backend: str, request: pytest.FixtureRequest) -> Serve:
    """Lend what starts a server of a catalogue on the backend; a database is loaded once per catalogue."""
    if backend == "index":

        @contextmanager
        def over_index(catalog: Path, **settings: Any) -> Iterator[Server]:
            with serve(create_app(catalog, Settings(**settings))) as server:
                yield server

        return over_index
    env = request.getfixturevalue("postgres")
    loaded: dict[Path, str] = {}

    @contextmanager
    def over_pgstac(catalog: Path, **settings: Any) -> Iterator[Server]:
        if catalog not in loaded:
            loaded[catalog] = dsn_of(env, new_database(env))
            load(catalog, loaded[catalog])
        with serve_pgstac_backend(loaded[catalog], catalog, **settings) as server:
            yield server

    return over_pgstac
