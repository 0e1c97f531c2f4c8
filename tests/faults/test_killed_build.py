"""Whenever a build is killed, the catalogue is the old one or the new one, whole."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pystac
import pytest

from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.search.selection import Selection
from tests.faults.forks import Runner, runner
from tests.support.catalogs import build_from, patch, write_manifest

OLD, NEW = 12, 30


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with runner("tests.faults.killed_build") as made:
        yield made


def _items(catalog: Path) -> int:
    """Return how many items the catalogue has, after checking that all of its parts agree."""
    index = CatalogFolder(catalog).open_index()
    (collection,) = pystac.Catalog.from_file(str(catalog / "catalog.json")).get_collections()
    (record,) = index.collections.values()
    n = index.count(Selection([record.ordinal])).n
    files = sorted((catalog / record.id / "items").glob("year=*/items.parquet"))
    assert sum(pq.ParquetFile(f).metadata.num_rows for f in files) == n == record.n_items
    assert [f.parent.name for f in files] == [f"year={y}" for y in record.years]
    assert collection.extra_fields["tessera:coverage"]["items"] == n
    return n


def test_killed_at_any_file_operation(tmp_path: Path, run: Runner) -> None:
    tiles = patch(0, 52, 4, 3)
    write_manifest(tmp_path / "old", 2023, tiles)
    for year in (2023, 2024):
        write_manifest(tmp_path / "new", year, patch(0, 52, 5, 3))
    # two builds, so that the killed one also has an older version to clear away at its end
    build_from(tmp_path / "first", write_manifest(tmp_path / "older", 2023, tiles[:5]))
    build_from(tmp_path / "first", tmp_path / "old")

    def fresh() -> Path:
        catalog = tmp_path / "catalog"
        shutil.rmtree(catalog, ignore_errors=True)
        shutil.copytree(tmp_path / "first", catalog, symlinks=True)
        assert _items(catalog) == OLD
        for version in (catalog / ".versions").iterdir():
            os.utime(version, (0, 0))  # on a slow machine too each build clears away the same
        return catalog

    events = run.good(0, tmp_path / "new", fresh()).said.split()
    assert events.count("os.rename") >= 2
    # every operation that moves a name into place, and a sample of the others
    fatal = [i for i, e in enumerate(events, 1) if e in ("os.rename", "os.symlink")] + [len(events)]
    fatal += range(1, len(events) + 1, max(len(events) // 8, 1))
    outcomes = set()
    for n in sorted(set(fatal)):
        catalog = fresh()
        assert run.run(n, tmp_path / "new", catalog).code == -signal.SIGKILL
        outcomes.add(_items(catalog))
        for version in (catalog / ".versions").iterdir():
            os.utime(version, (0, 0))  # as if no server could be using it any more
        build_from(catalog, tmp_path / "new")
        assert _items(catalog) == NEW
        versions = [p.name for p in (catalog / ".versions").iterdir() if p.is_dir()]
        assert len(versions) <= 2, "what the killed build left is cleared away"
    assert outcomes == {OLD, NEW}


def test_killed_during_the_very_first_build(tmp_path: Path, run: Runner) -> None:
    write_manifest(tmp_path / "new", 2024, patch(0, 52, 5, 6))
    events = run.good(0, tmp_path / "new", tmp_path / "probe").said.split()
    for n in range(1, len(events) + 1, max(len(events) // 4, 1)):
        catalog = tmp_path / f"catalog{n}"
        assert run.run(n, tmp_path / "new", catalog).code == -signal.SIGKILL
        build_from(catalog, tmp_path / "new")
        assert _items(catalog) == NEW
