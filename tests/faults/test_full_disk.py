"""A full disk: one line that names the path and says so; what was there stays; serving needs no space."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from catalog_builder.build.validate import validate_catalog
from tests.faults.disk import disk
from tests.faults.server import serving
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.forked import tessera_stac


def _command(*args: object) -> subprocess.CompletedProcess[str]:
    done = tessera_stac(*args, seconds=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _fill(path: Path, leave: int) -> None:
    """Leave so many bytes free."""
    free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
    (path / "filling").write_bytes(bytes(max(free - leave, 0)))


@pytest.mark.parametrize("leave", [0, 60_000, 500_000])
def test_build(tmp_path: Path, leave: int) -> None:
    old = write_manifest(tmp_path / "old", 2024, patch(0, 52, 4, 4))
    new = write_manifest(tmp_path / "new", 2024, patch(0, 40, 120, 80))
    with disk(tmp_path / "disk", "size=12m") as place:
        catalog = place / "catalog"
        build_from(catalog, old)
        _fill(place, leave)
        done = _command("build", new, "--out", catalog, "--quiet")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert str(place) in done.stderr
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        report = validate_catalog(catalog)
        assert report.sound
        assert sorted(p.name for p in (catalog / ".versions").iterdir()) == [".lock", "1"]
        (place / "filling").unlink()
        again = _command("build", new, "--out", catalog, "--quiet", "--allow-removals")
        assert again.returncode == 0, again.stderr
        assert validate_catalog(catalog).sound


@pytest.mark.parametrize(
    ("kind", "out"),
    [("ndjson", "items.ndjson"), ("ndjson", "items.ndjson.zst"), ("geoparquet", "tree"), ("static", "tree")],
)
def test_export(tmp_path: Path, kind: str, out: str) -> None:
    build_from(
        tmp_path / "catalog", write_manifest(tmp_path / "m", 2024, patch(0, 52, 20, 10)), url="http://host"
    )
    with disk(tmp_path / "disk", "size=4m") as place:
        _fill(place, 20_000)
        command = ("export", tmp_path / "catalog", "--to", kind, "--out", place / out, "--quiet")
        done = _command(*command)
        assert done.returncode == 1
        assert str(place) in done.stderr
        assert "No space left on device" in done.stderr
        assert not list(place.rglob("*.partial*"))
        (place / "filling").unlink()
        assert _command(*command).returncode == 0


def test_serving_needs_no_space(tmp_path: Path) -> None:
    """The catalogue's disk may be read-only, and the temporary folder full."""
    build_from(tmp_path / "catalog", write_manifest(tmp_path / "m", 2024, patch(0, 52, 5, 4)))
    with disk(tmp_path / "disk", "size=8m") as place:
        shutil.copytree(tmp_path / "catalog", place / "catalog", symlinks=True)
        (place / "tmp").mkdir()
        _fill(place, 0)
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        full = str(place / "tmp")
        with serving(place / "catalog", TMPDIR=full, SQLITE_TMPDIR=full) as served:
            for path in (
                "/search?limit=20",
                "/search?sortby=-id",
                "/search?filter=id%20LIKE%20'%25_52%25'",
                "/aggregate",
                "/coverage",
                "/data/catalog.json",
            ):
                assert served.get(path).status_code == 200, path
