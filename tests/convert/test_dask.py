"""Real Dask clusters: workers killed, tiles that kill, workers that cannot do it, a scheduler gone, Ctrl-C.

Each scenario of ``dask_run.py`` is a program of its own, with its own scheduler and worker processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from catalog_builder import __version__
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.dask_start import connect
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.errors import ConvertError
from catalog_builder.version import full_version
from tests.convert.making import contents, write_column
from tests.support.waiting import group, until

pytestmark = pytest.mark.service

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def _start(scenario: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("dask_run.py")), scenario, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENV, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


def _finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, err
    _assert_none_left(process)
    return json.loads(out), err


def _assert_none_left(process: subprocess.Popen[str]) -> None:
    """Assert that no process outlives its run, but for the moment that it takes to see that it is over."""
    until(lambda: not group(process.pid))


def _inline(source: Path, out: Path) -> Path:
    run(plan([str(source)], Wanted()), ConvertOptions(str(out)), ExecutorWorkers(Inline(), 1))
    return out


def test_a_worker_killed_in_the_middle(tmp_path: Path) -> None:
    source = write_column(tmp_path / "src", years=(2023, 2024))
    said, noise = _finish(_start("killed", tmp_path))
    assert (said["converted"], said["failed"]) == (6, {})
    assert contents(tmp_path / "out") == contents(_inline(source, tmp_path / "inline"))
    begun = [mark.name.rpartition("-") for mark in (tmp_path / "out" / "attempts").iterdir()]
    (victim,) = {tile for tile, _, pid in begun if pid == str(said["killed"])}
    assert len([1 for tile, _, _ in begun if tile == victim]) == 2, "its tile was begun again, by another"
    assert len({pid for _, _, pid in begun}) == 3, "the dead process was replaced"
    assert any("1 worker gone" in line for line in said["said"]), said
    assert said["page"], "the address that is printed shows the workers"
    assert noise == ""


def test_a_tile_that_kills_every_worker_is_one_failure(tmp_path: Path) -> None:
    said, noise = _finish(_start("poisoned", tmp_path))
    assert said["converted"] == 11
    assert list(said["failed"]) == ["tile-3"]
    assert "its worker died: killed, or out of memory; tried 4 times" in said["failed"]["tile-3"]
    assert len(list((tmp_path / "out" / "attempts").glob("tile-3-*"))) == 4
    assert noise.splitlines() == [f"failed: tile-3: {said['failed']['tile-3']}"]
    assert not (tmp_path / "out" / ".staging").exists()


def test_a_result_that_is_lost_on_the_way_is_no_failure_of_its_tile(tmp_path: Path) -> None:
    """As when the scheduler dies while one is fetched; one that never arrives is a failure, and named."""
    said, _ = _finish(_start("mislaid", tmp_path))
    assert said["converted"] == 5
    assert list(said["failed"]) == ["tile-2"]
    assert "lost on the way" in said["failed"]["tile-2"]


def test_workers_that_join_are_used_if_they_can_be(tmp_path: Path) -> None:
    said, _ = _finish(_start("joining", tmp_path))
    assert said["failed"] == {}
    assert said["converted"] == said["attempts"], "what a worker could not begin was given to another"
    assert "0 workers" in said["about"]
    assert said["windows"] == [4, 8], "more tiles are handed out when three threads have come"
    lines = "\n".join(said["said"])
    assert "no workers: waiting for some to join" in lines
    assert "is not used: tessera-stac is not installed there" in lines
    others = re.findall(r"is not used: it has tessera-stac (\S+), not (\S+)", lines)
    assert {ours for _, ours in others} == {full_version()}
    commit, _, code = full_version().rpartition(".")
    theirs = {version for version, _ in others}
    assert len(theirs) == len(others) == 3
    assert any(version.startswith("0.0.1+") for version in theirs)
    assert f"{__version__}+gc0c0c0c0c0c0.{code}" in theirs, "the same code of another commit"
    assert any(version.startswith(f"{commit}.") for version in theirs), "the same commit with a change"
    assert said["live"][0] == 0
    assert said["live"][-1] == 1


def test_workers_that_do_not_see_the_output_are_one_message(tmp_path: Path) -> None:
    said, _ = _finish(_start("elsewhere", tmp_path))
    assert "no worker of the Dask cluster can be used" in said["error"]
    assert "it needs a disk that all workers share" in said["error"]
    assert said["rows"] == 0, "and no failures"


def test_a_scheduler_that_dies_is_one_message_and_a_rerun_goes_on(tmp_path: Path) -> None:
    said, _ = _finish(_start("orphaned", tmp_path))
    assert "the Dask scheduler has gone away" in said["error"]
    assert f"{said['kept']} tiles were converted" in said["error"]
    assert said["kept"] >= 3
    assert (said["skipped"], said["converted"]) == (said["kept"], 40 - said["kept"])


def test_a_scheduler_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    said, _ = _finish(_start("restarted", tmp_path))
    assert (said["converted"], said["failed"]) == (24, {})
    assert any("does not respond: waiting for it" in line for line in said["said"])


def test_ctrl_c_finishes_the_tiles_in_hand(tmp_path: Path) -> None:
    process = _start("interrupted", tmp_path)
    _until_begun(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    said, noise = _finish(process)
    attempts = list((tmp_path / "out" / "attempts").iterdir())
    assert (said["code"], said["failed"]) == (130, {})
    # What had begun was finished, and little more begun: a worker may take a tile as it is taken back.
    assert said["converted"] <= len(attempts) <= said["converted"] + 2 < 100
    assert len(latest(read_rows(tmp_path / "out" / "ledger"))) == said["converted"]
    assert noise == ""


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    process = _start("interrupted", tmp_path)
    _until_begun(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, noise = process.communicate(timeout=60)
    assert noise.strip().endswith("KeyboardInterrupt"), "which the command line turns into a line"
    assert "distributed" not in noise
    _assert_none_left(process)


def _until_begun(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list((folder / "out" / "attempts").glob("*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from catalog_builder.cli import main; main()", "convert", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENV)


def test_dask_local_on_the_command_line(tmp_path: Path) -> None:
    source = write_column(tmp_path / "src")
    done = _cli(str(source), "--out", str(tmp_path / "out"), "--dask", "local", "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["converted"] == 3
    assert "2 workers, each one thread" in done.stderr
    assert "dashboard: http://127.0.0.1:" in done.stderr
    assert len(done.stderr.splitlines()) == 1, "no noise of Dask's"
    assert contents(tmp_path / "out") == contents(_inline(source, tmp_path / "inline"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--dask", "local", "--workers", "0"), "--workers: a local Dask cluster needs at least one"),
        (("--dask", "tcp://127.0.0.1:1", "--workers", "2"), "--workers and --dask: give only one of the two"),
        (("--dask", "tls://127.0.0.1:1"), "tls://127.0.0.1:1: no Dask scheduler responds"),
        (("--dask", "nonsense://x"), "nonsense://x: no Dask scheduler responds"),
    ],
)
def test_bad_addresses_are_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    write_column(tmp_path / "src")
    failed = _cli(str(tmp_path / "src"), "--out", str(tmp_path / "out"), *arguments)
    assert failed.returncode in (1, 2)
    assert expected in failed.stderr
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert not (tmp_path / "out").exists()


def test_no_scheduler_file_is_one_line() -> None:
    with pytest.raises(ConvertError, match="no Dask scheduler responds"):
        connect("/no/such/scheduler.json")
