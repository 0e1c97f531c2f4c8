"""A sound catalogue is called sound, and each kind of damage is found and named."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from catalog_builder.build.validate import validate_catalog
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import converted
from tests.support.forked import tessera_stac


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    for year in (2023, 2024):
        write_manifest(tmp_path / "manifests", year, patch(0, 52, 4, 3))
    build_from(tmp_path / "catalog", tmp_path / "manifests")
    return tmp_path / "catalog"


def _lose_a_row(catalog: Path) -> None:
    with sqlite3.connect(catalog / "index.sqlite") as db:
        db.execute("DELETE FROM tile WHERE key = (SELECT min(key) FROM tile)")


def _lose_an_item(catalog: Path) -> None:
    path = catalog / "tessera-v1" / "items" / "year=2024" / "items.parquet"
    table = pq.ParquetFile(path).read().slice(1)
    path.unlink()
    pq.write_table(table, path)


def _truncate(catalog: Path) -> None:
    path = catalog / "tessera-v1" / "items" / "year=2023" / "items.parquet"
    path.write_bytes(path.read_bytes()[:-9])


def _break_the_collection(catalog: Path) -> None:
    path = catalog / "tessera-v1" / "collection.json"
    document = json.loads(path.read_text())
    del document["license"]
    path.write_text(json.dumps(document))


def _lose_a_file(catalog: Path) -> None:
    (catalog / "tessera-v1" / "items" / "year=2023" / "items.parquet").unlink()


def test_a_catalogue_just_built_is_sound(catalog: Path) -> None:
    found = validate_catalog(catalog)
    assert found.sound
    assert [f.what for f in found.findings][-1] == "tessera-v1 2024: 12 items"


@pytest.mark.parametrize(
    ("damage", "where", "says"),
    [
        (_lose_a_row, "tessera-v1 2023", "record says 12"),
        (_lose_an_item, "tessera-v1 2024", "1 of the index are missing"),
        (_truncate, "tessera-v1 2023", "items.parquet"),
        (_break_the_collection, "catalog.json and collections", "license"),
        (_lose_a_file, "catalog.json and collections", "items.parquet is missing"),
    ],
)
def test_damage_is_found(catalog: Path, damage: Callable[[Path], None], where: str, says: str) -> None:
    damage(catalog)
    found = validate_catalog(catalog)
    assert not found.sound
    bad = {f.what: " ".join(f.problems) for f in found.findings if not f.sound}
    assert any(what.startswith(where) and says in problems for what, problems in bad.items()), bad


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return tessera_stac("validate", *arguments)


@pytest.mark.service
def test_the_command_checks_every_file_and_pixel_of_converted_tiles(tmp_path: Path) -> None:
    sound = _run(str(converted().catalog), "--quiet", "--json")
    report = json.loads(sound.stdout)
    assert (sound.returncode, report["sound"]) == (0, True)
    assert (report["tiles"]["checked"], report["tiles"]["pixels"]) == (3, 3)
    # one bit of one tile differs
    copy = tmp_path / "catalog"
    shutil.copytree(converted().catalog, copy, symlinks=True, copy_function=os.link)
    path = next(copy.glob("cogs/*/*/*/*_embeddings.tif"))
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.unlink()
    path.write_bytes(damaged)
    for folder in (copy, copy / "cogs"):
        found = _run(str(folder), "--no-pixels", "--quiet")
        assert found.returncode == 1
        assert path.name in found.stdout
        assert "FAIL 3 converted tiles" in found.stdout
        assert "Traceback" not in found.stderr


@pytest.mark.service
def test_a_folder_that_is_no_catalogue_is_an_error(tmp_path: Path) -> None:
    found = _run(str(tmp_path), "--quiet")
    assert (found.returncode, "not a catalogue" in found.stderr) == (1, True)
