"""What goes into pgSTAC comes out of it: a real PostgreSQL, loaded once, twice, in part, and after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import shapely

from catalog_builder.catalog.extract import Extract, extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.errors import StorageError
from catalog_builder.publish.pgstac.load import load_pgstac
from catalog_builder.tile.grid import TileId
from tests.conformance.postgres import psql
from tests.support.backends import EXPORTED_AT, PGSTAC_GROUP, dsn_of, new_database
from tests.support.catalogs import build_from, patch, write_manifest

pytestmark = PGSTAC_GROUP


@pytest.fixture
def database(postgres: Mapping[str, str]) -> str:
    return new_database(postgres, template=None)


@pytest.fixture
def migrated(postgres: Mapping[str, str]) -> str:
    return new_database(postgres)


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
    dsn, expected = dsn_of(postgres, database), _expected(parts)
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
    dsn, expected = dsn_of(postgres, database), _expected(parts)

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
        load_pgstac(dsn_of(postgres, "nowhere"), parts)
    with pytest.raises(StorageError, match="pgSTAC: connection"):
        load_pgstac("postgresql://127.0.0.1:1/x", parts)


def _parts(catalog: Path, **choice: Any) -> list[Extract]:
    return extracts(CatalogFolder(catalog).open_index(), url=EXPORTED_AT, **choice)


def _built(home: Path, years: dict[int, list[TileId]], salt: str = "") -> Path:
    """Build a catalogue anew from what each year is to have."""
    shutil.rmtree(home / "m", ignore_errors=True)
    for year, tiles in years.items():
        write_manifest(home / "m", year, tiles, salt)
    build_from(home / "c", home / "m")
    return home / "c"


def test_only_what_changed_is_loaded(postgres: Mapping[str, str], migrated: str, tmp_path: Path) -> None:
    dsn = dsn_of(postgres, migrated)
    many, few = patch(0, 52, 6, 5), patch(0, 52, 3, 5)
    load_pgstac(dsn, _parts(_built(tmp_path, {2022: many, 2023: many})))
    written = _written(postgres, migrated)

    # Half of 2023 goes: their neighbours in time have another list of years, and nothing else is touched.
    parts = _parts(_built(tmp_path, {2022: many, 2023: few}))
    done = load_pgstac(dsn, parts)
    assert (done.items, done.loaded, done.removed) == (45, 15, 15)
    assert _stored(postgres, migrated) == _expected(parts)
    now = _written(postgres, migrated)
    assert sum(now[key] == written[key] for key in now) == 30

    # New hashes of everything.
    parts = _parts(_built(tmp_path, {2022: many, 2023: few}, salt="republished"))
    assert load_pgstac(dsn, parts).loaded == 45
    assert _stored(postgres, migrated) == _expected(parts)

    # A whole year goes, another comes.
    parts = _parts(_built(tmp_path, {2022: few, 2024: few}, salt="republished"))
    done = load_pgstac(dsn, parts)
    assert (done.loaded, done.removed) == (30, 30)
    assert _stored(postgres, migrated) == _expected(parts)
    assert load_pgstac(dsn, parts).loaded == 0
    assert load_pgstac(dsn, parts, force=True).loaded == 30


def _written(env: Mapping[str, str], database: str) -> dict[str, str]:
    """Return the transaction that last wrote each item."""
    rows = psql(env, "SELECT id || ' ' || xmin FROM pgstac.items", database).splitlines()
    return dict(row.split() for row in rows)


def test_a_part_is_loaded_and_the_rest_stays(
    postgres: Mapping[str, str], migrated: str, tmp_path: Path
) -> None:
    dsn = dsn_of(postgres, migrated)
    tiles = patch(0, 52, 6, 5)
    catalog = _built(tmp_path, {2022: tiles, 2023: tiles})
    west = shapely.box(0.01, 52.01, 0.29, 52.49)
    assert load_pgstac(dsn, _parts(catalog, years=[2023], region=west)).loaded == 15
    assert len(_stored(postgres, migrated)) == 15
    assert load_pgstac(dsn, _parts(catalog)).loaded == 45, "those of the part are there"
    # Of a part, only what is within it is removed.
    catalog = _built(tmp_path, {2022: tiles, 2023: tiles[::30]})
    done = load_pgstac(dsn, _parts(catalog, years=[2023], region=west))
    assert (done.loaded, done.removed) == (0, 14)
    assert len(_stored(postgres, migrated)) == 60 - 14
    load_pgstac(dsn, _parts(catalog))
    assert _stored(postgres, migrated) == _expected(_parts(catalog))


def test_what_other_hands_did_is_put_right(
    postgres: Mapping[str, str], migrated: str, tmp_path: Path
) -> None:
    dsn = dsn_of(postgres, migrated)
    parts = _parts(_built(tmp_path, {2022: patch(0, 52, 3, 3)}))
    load_pgstac(dsn, parts)
    psql(postgres, "DELETE FROM pgstac.items WHERE id LIKE 'grid_0.05%'", migrated)
    assert load_pgstac(dsn, parts).loaded == 9
    assert _stored(postgres, migrated) == _expected(parts)
    psql(postgres, "SET search_path TO pgstac, public; SELECT delete_collection('tessera-v1')", migrated)
    assert psql(postgres, "SELECT count(*) FROM tessera_stac.loaded", migrated) == "0"
    assert load_pgstac(dsn, parts).loaded == 9
    assert _stored(postgres, migrated) == _expected(parts)


def test_one_load_at_a_time(postgres: Mapping[str, str], migrated: str, tmp_path: Path) -> None:
    dsn = dsn_of(postgres, migrated)
    parts = _parts(_built(tmp_path, {2022: patch(0, 52, 3, 3)}))
    refused: list[str] = []

    def again(_: str, done: int, of: int) -> None:
        if done < of:
            return
        with pytest.raises(StorageError, match="another load is running") as caught:
            load_pgstac(dsn, parts)
        refused.append(str(caught.value))

    load_pgstac(dsn, parts, report=again)
    assert refused
    assert _stored(postgres, migrated) == _expected(parts)


def test_a_user_with_pgstacs_own_roles_is_enough(
    postgres: Mapping[str, str], migrated: str, tmp_path: Path
) -> None:
    """The first load makes our tables; later ones, and servers, need no more than pgSTAC's roles."""
    parts = _parts(_built(tmp_path, {2022: patch(0, 52, 3, 3)}))
    load_pgstac(dsn_of(postgres, migrated), parts)
    name = f"loader_{migrated}"
    psql(postgres, f"CREATE USER {name}; GRANT pgstac_ingest TO {name}", migrated)
    dsn = dsn_of({**postgres, "PGUSER": name}, migrated)
    parts = _parts(_built(tmp_path, {2022: patch(0, 52, 3, 3)}, salt="new"))
    assert load_pgstac(dsn, parts).loaded == 9
    assert _stored(postgres, migrated) == _expected(parts)


def test_command_line(postgres: Mapping[str, str], database: str, tmp_path: Path) -> None:
    catalog = _built(tmp_path, {2022: patch(0, 52, 3, 3)})
    command = [sys.executable, "-m", "catalog_builder.cli", "export", str(catalog), "--url", EXPORTED_AT]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, cwd=tmp_path)

    dsn = dsn_of(postgres, database)
    assert "9 items to pgSTAC: 9 loaded" in run("--pgstac", "--migrate", "--dsn", dsn).stdout
    assert "0 loaded, 9 unchanged" in run("--to", "pgstac", "--dsn", dsn).stdout
    for wrong in ([], ["--pgstac", "--to", "ndjson"], ["--pgstac", "--out", "x", "--dsn", dsn]):
        refused = run(*wrong)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr
