"""A catalogue is backed up while builds go on, and what is restored elsewhere is sound and the same."""

from __future__ import annotations

import filecmp
import os
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.build.validate import validate_catalog
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.schema import SCHEMA_VERSION
from catalog_builder.tile.datasets import dataset
from tests.deploy.processes import DEPLOY, ROOT, serve_catalog, tessera_stac
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import converted

pytestmark = pytest.mark.xdist_group("nginx")

SCRIPT = DEPLOY / "backup.sh"


def _back_up(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", SCRIPT, source, target], capture_output=True, text=True)


def _items(catalog: Path) -> int:
    report = validate_catalog(catalog, pixels=False)
    assert report.sound, report
    return sum(r.n_items for r in CatalogFolder(catalog).open_index().collections.values())


def test_backed_up_while_builds_go_on(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    sizes = (4, 5, 6, 7)
    manifests = [write_manifest(tmp_path / str(n), 2024, patch(0, 52, n, 3)) for n in sizes]
    build_from(catalog, manifests[0])
    stop, built = threading.Event(), []

    def keep_building() -> None:
        while not stop.is_set():
            build_from(catalog, manifests[len(built) % len(manifests)])
            built.append(1)

    builder = threading.Thread(target=keep_building)
    builder.start()
    try:
        found = []
        for turn in range(8):
            target = tmp_path / ("backup" if turn % 2 else f"backup{turn}")  # a new one, and the same again
            done = _back_up(catalog, target)
            assert done.returncode == 0, done.stderr
            found.append(_items(target))
    finally:
        stop.set()
        builder.join()
    assert len(built) >= 2
    # a catalogue that began anew has the same numbers of versions
    for n in (0, 3):
        other = tmp_path / f"other{n}"
        build_from(other, manifests[n])
        assert _back_up(other, tmp_path / "same").returncode == 0
        assert _items(tmp_path / "same") == 3 * sizes[n]
    assert set(found) <= {3 * n for n in sizes}
    assert not list(catalog.glob(".backup-*")), "nothing of a backup stays behind"
    assert len(list((tmp_path / "backup" / ".versions").iterdir())) == 1


def test_restored_elsewhere_everything_is_the_same(tmp_path: Path) -> None:
    tiles = converted()
    for source, target in (
        (tiles.catalog, tmp_path / "backup"),
        (tmp_path / "backup", tmp_path / "restored"),
    ):
        done = _back_up(source, target)
        assert done.returncode == 0, done.stderr
    restored = tmp_path / "restored"
    report = validate_catalog(restored, pixels=True)
    assert report.sound
    assert report.tiles is not None
    assert report.tiles.pixels == 3
    names = sorted(p.relative_to(tiles.catalog) for p in (tiles.catalog / "cogs").rglob("*") if p.is_file())
    _, different, missing = filecmp.cmpfiles(tiles.catalog, restored, [str(n) for n in names], shallow=False)
    assert (different, missing) == ([], [])
    with serve_catalog(tiles.catalog) as before, serve_catalog(restored) as after:
        asked = "/search?sortby=id"
        host = {"host": "stac.test"}
        was = httpx.get(f"{before.url}{asked}", headers=host)
        now = httpx.get(f"{after.url}{asked}", headers=host)
        assert now.json()["numberMatched"] == 4
        assert now.text == was.text
        assert now.headers["etag"] == was.headers["etag"], "caches need not ask again"


def test_what_need_not_be_backed_up_is_built_again(tmp_path: Path) -> None:
    """Manifests (here: the listing of the tiles) and cogs with its ledger are enough."""
    tiles = converted()
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    subprocess.run(["cp", "-a", tiles.catalog / "cogs", catalog], check=True)
    options = BuildOptions(dataset("synthetic"), url="http://cat", source_root=str(tiles.embeddings))
    build([str(tiles.embeddings.parent)], catalog, options)
    ids = {}
    for name, folder in (("was", tiles.catalog), ("now", catalog)):
        command = tessera_stac("export", folder, "--to", "ndjson", "--out", "-", "--url", "http://cat")
        lines = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
        ids[name] = sorted(line.partition('"assets"')[0] for line in lines.splitlines())
        assert lines.count("embeddings.tif") >= 3
    assert len(ids["now"]) == len(ids["was"]) == 4


def test_wrong_use_is_told(tmp_path: Path) -> None:
    done = _back_up(tmp_path, tmp_path / "x")
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert not (tmp_path / "x").exists()


def test_an_index_of_another_version_is_refused_with_advice(tmp_path: Path) -> None:
    """After an upgrade that changes the schema: the server says what to do, and a build mends it."""
    import sqlite3

    catalog = tmp_path / "catalog"
    manifest = write_manifest(tmp_path, 2024, patch(0, 52, 4, 3))
    build_from(catalog, manifest)
    with sqlite3.connect((catalog / "index.sqlite").resolve()) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(SCHEMA_VERSION - 1),))
    done = subprocess.run(tessera_stac("serve", catalog), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert f"index schema {SCHEMA_VERSION - 1}, this program reads {SCHEMA_VERSION}" in line
    assert "tessera-stac build" in line
    build_from(catalog, manifest)
    assert _items(catalog) == 12
    assert os.access(SCRIPT, os.X_OK)
