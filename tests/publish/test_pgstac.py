"""What goes into pgSTAC comes out of it: a real PostgreSQL, loaded once, twice, in part, and after a kill."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from catalog_builder.catalog import CatalogFolder
from catalog_builder.errors import StorageError
from catalog_builder.publish.extract import Extract, extracts
from catalog_builder.publish.pgstac import load_pgstac
from tests.catalogs import build_from, patch, write_manifest
from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import psql, running

# One database for all of them, in one test process.
pytestmark = pytest.mark.xdist_group("pgstac")
_NUMBERS = count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Mapping[str, str]]:
    need_postgres()
    # PostgreSQL runs as another user, who may not look into pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="tessera-pgstac-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            yield env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: Mapping[str, str]) -> str:
    name = f"stac{next(_NUMBERS)}"
    psql(postgres, f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Extract]:
    home = tmp_path_factory.mktemp("pgstac")
    for year in (2022, 2023, 2024):
        write_manifest(home / "m", year, [*patch(0, 52, 5, 4), *patch(-180, -1, 3, 2)])
    build_from(home / "c", home / "m", url="https://stac.example.org")
    build_from(
        home / "c",
        write_manifest(home / "b", 2024, patch(0, 52, 5, 4)),
        url="https://stac.example.org",
        dataset="v1.1-cam",
    )
    return extracts(CatalogFolder(home / "c").open_index())


def _dsn(env: Mapping[str, str], database: str) -> str:
    return f"postgresql://{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/{database}"


def _stored(env: Mapping[str, str], database: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return every item as pgSTAC gives it, whole."""
    sql = "SET search_path TO pgstac, public; SELECT content_hydrate(items) FROM items"
    found = [json.loads(line) for line in psql(env, sql, database).splitlines()]
    return {(i["collection"], i["id"]): i for i in found}


def _expected(parts: list[Extract]) -> dict[tuple[str, str], dict[str, Any]]:
    items = [orjson.loads(t) for part in parts for rows in part.pages() for t in part.texts(rows)]
    for item in items:
        item["links"] = []
    return {(i["collection"], i["id"]): i for i in items}


def test_items_come_out_as_they_went_in(
    postgres: Mapping[str, str], database: str, parts: list[Extract]
) -> None:
    dsn, expected = _dsn(postgres, database), _expected(parts)
    with pytest.raises(StorageError, match="--migrate"):
        load_pgstac(dsn, parts)
    done = load_pgstac(dsn, parts, migrate=True)
    assert (done.items, done.loaded, done.removed) == (len(expected), len(expected), 0)
    assert _stored(postgres, database) == expected
    sql = "SELECT collection, lower(constraint_dtrange)::date FROM pgstac.partition_sys_meta ORDER BY 1, 2"
    assert psql(postgres, sql, database).split() == [
        "tessera-v1|2022-01-01",
        "tessera-v1|2023-01-01",
        "tessera-v1|2024-01-01",
        "tessera-v1.1-cam|2024-01-01",
    ]
    done = load_pgstac(dsn, parts)
    assert (done.items, done.loaded, done.removed) == (len(expected), 0, 0), "once more loads nothing"
    assert _stored(postgres, database) == expected
    with pytest.raises(StorageError, match="duplicate key"):
        load_pgstac(dsn, parts, method="insert", force=True)
    titles = psql(postgres, "SELECT content->>'title' FROM pgstac.collections ORDER BY id", database)
    assert titles.splitlines() == [p.document()["title"] for p in parts]


def test_a_load_that_was_cut_short_is_completed(
    postgres: Mapping[str, str], database: str, parts: list[Extract]
) -> None:
    dsn, expected = _dsn(postgres, database), _expected(parts)

    def stop(_: str, done: int, of: int) -> None:
        if done > parts[0].count(2022):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_pgstac(dsn, parts, migrate=True, report=stop)
    some = _stored(postgres, database)
    assert 0 < len(some) < len(expected)
    assert all(expected[key] == item for key, item in some.items())
    load_pgstac(dsn, parts)
    assert _stored(postgres, database) == expected


def test_no_database(postgres: Mapping[str, str], parts: list[Extract]) -> None:
    with pytest.raises(StorageError, match='database "nowhere" does not exist'):
        load_pgstac(_dsn(postgres, "nowhere"), parts)
    with pytest.raises(StorageError, match="pgSTAC: connection"):
        load_pgstac("postgresql://127.0.0.1:1/x", parts)
