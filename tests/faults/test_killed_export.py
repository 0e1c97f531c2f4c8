"""When the export of a static tree is killed, every link leads to a whole file; a new run heals it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.faults.forks import Runner, runner
from tests.support.catalogs import build_from, patch, write_manifest


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with runner("tests.faults.killed_export") as made:
        yield made


def _reachable(path: Path) -> int:
    """Return how many items can be reached; fails at a link that leads nowhere or to half a file."""
    document = orjson.loads(path.read_bytes())
    below = [x["href"] for x in document["links"] if x["rel"] in ("child", "item")]
    return sum(_reachable(path.parent / href) for href in below) + (document["type"] == "Feature")


def _files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_killed_at_any_rename(tmp_path: Path, run: Runner) -> None:
    # The new tree lacks tiles and a year of the old one, and has others: it writes, replaces and removes.
    write_manifest(tmp_path / "old", 2022, patch(0, 52, 2, 2))
    write_manifest(tmp_path / "old", 2023, patch(0, 52, 3, 3))
    write_manifest(tmp_path / "new", 2023, patch(0, 52, 2, 4), salt="x")
    write_manifest(tmp_path / "new", 2024, patch(6, 52, 2, 2))
    for name in ("old", "new"):
        build_from(tmp_path / f"{name}-catalog", tmp_path / name, url="http://host")
    before, whole = tmp_path / "before", tmp_path / "whole"
    run.good(0, tmp_path / "old-catalog", before)
    run.good(0, tmp_path / "new-catalog", whole)
    shutil.copytree(before, tmp_path / "probe")
    steps = int(run.good(0, tmp_path / "new-catalog", tmp_path / "probe").said)
    assert _files(tmp_path / "probe") == _files(whole)
    for n in sorted({*range(1, steps + 1, max(steps // 10, 1)), steps - 1, steps}):
        out = tmp_path / f"killed{n}"
        shutil.copytree(before, out)
        assert run.run(n, tmp_path / "new-catalog", out).code == -signal.SIGKILL
        assert _reachable(out / "catalog.json") >= 4
        run.good(0, tmp_path / "new-catalog", out)
        assert _files(out) == _files(whole)


def test_killed_first_export_can_go_on(tmp_path: Path, run: Runner) -> None:
    build_from(tmp_path / "c", write_manifest(tmp_path / "m", 2024, patch(0, 52, 2, 2)), url="http://host")
    assert run.run(3, tmp_path / "c", tmp_path / "out").code == -signal.SIGKILL
    assert not (tmp_path / "out" / "catalog.json").exists()
    run.good(0, tmp_path / "c", tmp_path / "out")
    assert _reachable(tmp_path / "out" / "catalog.json") == 4
