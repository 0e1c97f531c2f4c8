"""kill -9 at random moments, many rounds: what is there is whole, and a rerun gives what it would have.

``FAULT_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog_builder.build.validate import validate_catalog
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.tile.grid import TileId
from tests.convert.making import YEAR, sample, write_pair
from tests.faults.forks import ROUNDS, Runner, delays, runner
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.waiting import group, until

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with runner() as made:
        yield made


def _content(folder: Path) -> dict[str, bytes]:
    """Return every visible file's bytes, and those of the version in force."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in _files(folder)}


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in entry.relative_to(folder).parts)
        if entry.is_file() and not hidden:
            yield entry
        elif entry.is_symlink() and not hidden and entry.is_dir():
            yield from (p for p in entry.rglob("*") if p.is_file())


def _whole(catalog: Path) -> int:
    """Return how many items a catalogue has; it must be sound."""
    report = validate_catalog(catalog)
    assert report.sound, report
    return sum(
        int(f.what.split(": ")[1].split()[0].replace(",", "")) for f in report.findings if "items" in f.what
    )


@pytest.mark.parametrize("flags", [(), ("--update",)], ids=["build", "build --update"])
def test_build_killed_at_random_moments(tmp_path: Path, run: Runner, flags: tuple[str, ...]) -> None:
    old = write_manifest(tmp_path / "old", 2023, patch(0, 52, 4, 4))
    new = tmp_path / "new"
    write_manifest(new, 2023, patch(0, 52, 6, 4), salt="x")
    write_manifest(new, 2024, patch(3, 52, 4, 4))
    build_from(tmp_path / "before", old)
    shutil.copytree(tmp_path / "before", tmp_path / "expected", symlinks=True)
    seconds = run.good("build", new, "--out", tmp_path / "expected", *flags).seconds
    before, expected = _whole(tmp_path / "before"), _whole(tmp_path / "expected")
    wanted = _content(tmp_path / "expected")
    killed = 0
    for n, delay in enumerate(delays(seconds, ROUNDS)):
        catalog = tmp_path / f"round{n}"
        shutil.copytree(tmp_path / "before", catalog, symlinks=True)
        killed += run.run("build", new, "--out", catalog, *flags, delay=delay).killed
        assert _whole(catalog) in (before, expected)
        run.good("build", new, "--out", catalog, *flags)
        assert _content(catalog) == wanted
        left = [p.name for p in (catalog / ".versions").iterdir() if not p.name.isdigit()]
        assert left == [".lock"]
        shutil.rmtree(catalog)
    assert killed


@pytest.mark.parametrize(
    ("kind", "out"),
    [("ndjson", "items.ndjson.zst"), ("geoparquet", "tree"), ("static", "tree")],
)
def test_export_killed_at_random_moments(tmp_path: Path, run: Runner, kind: str, out: str) -> None:
    """Over an earlier export: each file is the old one or the new one, whole."""
    build_from(tmp_path / "a", write_manifest(tmp_path / "m", 2023, patch(0, 52, 5, 5)), url="http://host")
    build_from(tmp_path / "b", write_manifest(tmp_path / "n", 2023, patch(0, 52, 8, 5)), url="http://host")
    run.good("export", tmp_path / "a", "--to", kind, "--out", tmp_path / "before" / out)
    shutil.copytree(tmp_path / "before", tmp_path / "expected")
    seconds = run.good("export", tmp_path / "b", "--to", kind, "--out", tmp_path / "expected" / out).seconds
    before, wanted = _content(tmp_path / "before"), _content(tmp_path / "expected")
    killed = 0
    for n, delay in enumerate(delays(seconds, ROUNDS)):
        place = tmp_path / f"round{n}"
        shutil.copytree(tmp_path / "before", place)
        killed += run.run("export", tmp_path / "b", "--to", kind, "--out", place / out, delay=delay).killed
        for name, data in _content(place).items():
            assert data in (before.get(name), wanted.get(name)), name
        run.good("export", tmp_path / "b", "--to", kind, "--out", place / out)
        assert _content(place) == wanted
        assert not [p for p in place.rglob("*") if ".partial" in p.name]
        shutil.rmtree(place)
    assert killed


def test_convert_killed_at_random_moments(tmp_path: Path, run: Runner) -> None:
    """The parent of a pool of processes is killed again and again; every file that is named is whole."""
    source, out = tmp_path / "source", tmp_path / "out"
    made = sample()
    tiles = [TileId(lat_i=8995, lon_i=605 + 600 * i) for i in range(4)]
    for tile in tiles:
        write_pair(source, type(made)(tile, YEAR, made.codes, made.scales, made.landmask))
    arguments = ("convert", source, "--workers", 2, "--quiet", "--out")
    seconds = run.good(*arguments, tmp_path / "expected").seconds
    wanted = {k: v for k, v in _content(tmp_path / "expected").items() if not k.startswith("ledger")}
    groups = set()

    def wait() -> None:
        """Wait for the workers of killed runs: they finish a rename that was begun."""
        until(lambda: not any(map(group, groups)), "workers outlive their parent")

    for delay in delays(seconds, max(ROUNDS // 3, 2)):
        done = run.run(*arguments, out, delay=delay)
        if done.killed:
            groups.add(done.group)
        if (out / "ledger").is_dir():
            assert validate_results(str(out), pixels=False).sound
        for name, data in _content(out).items():
            assert name.startswith("ledger") or data == wanted[name]
        if not done.killed or len(_content(out)) > len(wanted):
            wait()
            shutil.rmtree(out)
    wait()
    run.good(*arguments, out)
    assert {k: v for k, v in _content(out).items() if not k.startswith("ledger")} == wanted
    assert validate_results(str(out)).sound
    assert not (out / ".staging").exists()
    assert groups
