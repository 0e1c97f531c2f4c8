"""Staging folders of runs that share an output: dead ones are removed, those at work never."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.staging import ABANDONED, publish, shared_folder, staging
from catalog_builder.convert.workers import run_lock
from catalog_builder.convert.workers.run_lock import machine, staging_of
from tests.convert.making import convert_one, write_pair
from tests.support.waiting import until


def _left(out: Path, host: str, age: float = 0.0) -> Path:
    """Make what a run leaves that was killed some seconds ago."""
    root, name = out / ".staging", f"20260101T000000Z-{host}-{age:08.0f}"
    (root / name / "tmp").mkdir(parents=True)
    lock = root / f"{name}.lock"
    lock.touch()
    for path in (lock, root / name):
        os.utime(path, (time.time() - age,) * 2)
    return root / name


@pytest.mark.service
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from catalog_builder.convert.plan.job import ConvertOptions;"
        "from catalog_builder.convert.workers.run_lock import staging_of;"
        "c = staging_of(ConvertOptions(sys.argv[1])); o = c.__enter__();"
        "os.mkdir(f'{sys.argv[1]}/.staging/{o.run}'); print(o.run, flush=True); input()"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    folder = tmp_path / ".staging" / process.stdout.readline().strip()
    with staging_of(ConvertOptions(str(tmp_path))):
        assert folder.exists(), "it is at work"
    process.kill()
    process.communicate()
    with staging_of(ConvertOptions(str(tmp_path))):
        assert not folder.exists()
    assert not (tmp_path / ".staging").exists()


@pytest.mark.parametrize(
    ("host", "age", "stays"),
    [
        pytest.param("0th3rh0s", 0, True, id="another machine's, whose lock does not reach us"),
        pytest.param("0th3rh0s", ABANDONED + 60, False, id="another machine's, silent for a day"),
        pytest.param(machine(), 0, False, id="our own, with a free lock"),
    ],
)
def test_whose_staging_is_removed(tmp_path: Path, host: str, age: float, *, stays: bool) -> None:
    folder = _left(tmp_path, host, age)
    with staging_of(ConvertOptions(str(tmp_path))):
        assert folder.exists() == stays
        assert folder.with_name(f"{folder.name}.lock").exists() == stays


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lustre without its option: signs of life decide, even on one machine."""

    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    fresh = _left(tmp_path, machine())
    old = _left(tmp_path, machine(), ABANDONED + 60)
    with staging_of(ConvertOptions(str(tmp_path))) as options:
        assert options.run
        assert (fresh.exists(), old.exists()) == (True, False)


def test_a_run_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "TOUCH_EVERY", 0.01)
    with staging_of(ConvertOptions(str(tmp_path))) as options:
        lock = tmp_path / ".staging" / f"{options.run}.lock"
        os.utime(lock, (0, 0))
        until(lambda: lock.stat().st_mtime > 1e9)


def test_what_a_worker_made_after_its_run_was_over(tmp_path: Path) -> None:
    folder = _left(tmp_path, "0th3rh0s", ABANDONED + 60)
    folder.with_name(f"{folder.name}.lock").unlink()
    new = tmp_path / ".staging" / "20260102T000000Z-00000000"
    new.mkdir()
    with staging_of(ConvertOptions(str(tmp_path))):
        assert (folder.exists(), new.exists()) == (False, True)


def test_runs_that_begin_and_end_at_once(tmp_path: Path) -> None:
    """One removes the empty folder as another makes its lock in it."""
    without: list[str] = []

    def often() -> None:
        for _ in range(100):
            with staging_of(ConvertOptions(str(tmp_path))) as options:
                if not (tmp_path / ".staging" / f"{options.run}.lock").exists():
                    without.append(options.run)

    threads = [threading.Thread(target=often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert without == []
    assert not (tmp_path / ".staging").exists()


def test_a_tile_published_by_two_workers_at_once(tmp_path: Path) -> None:
    """A worker that was cut off, not dead, publishes its tile beside the one that did it again."""
    npy = write_pair(tmp_path / "src")
    row = convert_one(npy, tmp_path / "once").row
    out = tmp_path / "out"
    options = ConvertOptions(str(out), durable=False, run="a-run")
    stop, broken = threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            for role, file in row.files.items():
                whole = (tmp_path / "once" / file.path).read_bytes()
                path = out / file.path
                if path.exists() and path.read_bytes() != whole:
                    broken.append(role)

    def again() -> None:
        for _ in range(20):
            with _staged(tmp_path / "once", options) as folder:
                publish(folder, row, options)

    @contextmanager
    def _staged(once: Path, options: ConvertOptions) -> Iterator[Path]:
        with staging(options) as folder:
            for role, file in row.files.items():
                (folder / role).write_bytes((once / file.path).read_bytes())
            yield folder

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=again) for _ in range(2)]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert broken == []
    assert {f.path: (out / f.path).read_bytes() for f in row.files.values()} == {
        f.path: (tmp_path / "once" / f.path).read_bytes() for f in row.files.values()
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that this user's runs with output in S3 have on this machine."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"tessera-stac-{os.getuid()}"


def test_a_run_with_output_in_s3_leaves_nothing(temporary: Path) -> None:
    with staging_of(ConvertOptions("s3://tiles/cogs")) as options:
        folder = shared_folder(options)
        assert folder == temporary / options.run
        (folder / "chunks").mkdir(parents=True)
        assert temporary.stat().st_mode & 0o777 == 0o700
    assert not temporary.exists()


def test_what_killed_runs_left_is_removed_and_what_others_use_is_not(temporary: Path) -> None:
    ages = {"dead": ABANDONED + 60, "busy": ABANDONED + 60, "young": 60}
    for name, age in ages.items():
        chunks = temporary / name / "chunks"
        chunks.mkdir(parents=True)
        temporary.chmod(0o700)
        for path in (chunks, chunks.parent) if name != "busy" else (chunks.parent,):
            os.utime(path, (time.time() - age,) * 2)
    assert shared_folder(ConvertOptions("s3://tiles/cogs", run="mine")) == temporary / "mine"
    assert sorted(path.name for path in temporary.iterdir()) == ["busy", "young"]


@pytest.mark.parametrize("how", ["open to others", "a link"])
def test_a_folder_that_others_may_have_made_is_not_used(temporary: Path, tmp_path: Path, how: str) -> None:
    if how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        temporary.symlink_to(tmp_path / "elsewhere")
    else:
        temporary.mkdir()
        temporary.chmod(0o777)
    assert shared_folder(ConvertOptions("s3://tiles/cogs", run="mine")) is None
