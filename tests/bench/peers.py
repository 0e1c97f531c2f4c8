"""The servers that ours is compared with, on the same million items, loaded once and kept."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.pgstac.load import load_pgstac
from tests.bench.planet import CACHE, europe_catalog
from tests.bench.serve import Server
from tests.conformance.pgstac_server import pgstac_command, pgstac_settings
from tests.conformance.postgres import psql, running
from tests.support.environments import environment
from tests.support.ports import free_port

DATABASE = "stac"
RUSTAC_LOCK = Path(__file__).parent / "rustac.lock"


@contextmanager
def pgstac_database() -> Iterator[tuple[Mapping[str, str], str]]:
    """Run PostgreSQL with the million items in pgSTAC; lend its environment, and what loading took."""
    home = CACHE / f"pgstac-{europe_catalog().name}"
    loaded = home / "loaded"
    with running(home, shared_buffers="1GB") as env:
        if not loaded.exists():
            psql(env, f"DROP DATABASE IF EXISTS {DATABASE}")
            psql(env, f"CREATE DATABASE {DATABASE}")
            start = time.perf_counter()
            dsn = f"postgresql://{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/{DATABASE}"
            parts = extracts(CatalogFolder(europe_catalog()).open_index())
            load_pgstac(dsn, parts, method="insert", migrate=True)
            seconds = time.perf_counter() - start
            psql(env, "VACUUM ANALYZE", DATABASE)
            size = int(psql(env, f"SELECT pg_database_size('{DATABASE}')"))
            loaded.write_text(f"{seconds:,.0f} s, {size / 1e6:,.0f} MB on disk")
        yield env, loaded.read_text()


def pgstac(env: Mapping[str, str]) -> Server:
    """Run stac-fastapi-pgstac with one worker."""
    port = free_port()
    return Server(pgstac_command(port), port, **pgstac_settings(env, DATABASE))


def tessera_on_pgstac(env: Mapping[str, str]) -> Server:
    """Run our own server on the same database, with one worker."""
    port = free_port()
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", "--port", port]
    dsn = f"postgresql://{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/{DATABASE}"
    return Server(command, port, TESSERA_STAC_BACKEND="pgstac", TESSERA_STAC_PGSTAC_DSN=dsn)


def rustac(parquet: str) -> Server:
    """Run ``rustac serve`` with DuckDB on stac-geoparquet.

    It installs DuckDB's extensions from the network when it starts, unless they lie where DuckDB looks
    for installed ones: they are put there from their wheel. Its other engine keeps items in memory, which
    took 51 kB for each of these (0.5 GB for 10,000): a million do not fit here.
    """
    python = environment(RUSTAC_LOCK)
    (bundled,) = python.parents[1].glob("lib/*/site-packages/rustac_duckdb_extensions/extensions")
    home = python.parents[1] / "home"
    installed = home / ".duckdb" / "extensions"
    if not installed.exists():
        shutil.copytree(bundled, installed)
    port = free_port()
    command = [python.parent / "rustac", "serve", "-a", f"127.0.0.1:{port}", "--use-duckdb", "true", parquet]
    return Server(command, port, HOME=str(home))
