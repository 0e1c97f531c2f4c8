"""Runs: skipping, changed sources, shards at once, executors, estimates, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.catalog.basis import store_basis
from catalog_builder.convert import run as run_module
from catalog_builder.convert.api import prepare
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.convert.plan.estimate import estimate
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile.convert import Result, convert_tile
from catalog_builder.convert.tile.verify import validate_results
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline, ProcessWorkers
from tests.convert.making import COLUMN as TILES
from tests.convert.making import POLAR, YEAR, contents, sample_basis, write_column


def _run(source: Path, out: Path, **options: object) -> RunReport:
    force = bool(options.pop("force", False))
    wanted = Wanted(**options.pop("wanted", {}))  # type: ignore[arg-type]
    return run(
        plan([str(source)], wanted),
        ConvertOptions(str(out), **options),  # type: ignore[arg-type]
        ExecutorWorkers(Inline(), 1),
        force=force,
    )


def _files(out: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(out)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.rglob("*.tif")}


def test_a_rerun_skips_what_is_done(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    first = _run(source, out)
    assert (first.converted, first.skipped, first.exit_code) == (3, 0, 0)
    before = _files(out)
    again = _run(source, out)
    assert (again.converted, again.skipped) == (0, 3)
    assert _files(out) == before
    assert not (out / ".staging").exists()
    assert len(list((out / "ledger").iterdir())) == 1, "a run that did nothing leaves no ledger file"


def test_a_rerun_redoes_what_changed_or_is_gone(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    _run(source, out)
    npy = next(source.rglob(f"{TILES[1].name}_scales.npy"))
    scales = np.load(npy)
    np.save(npy, scales * 2)
    rows = latest(read_rows(out / "ledger"))
    gone = out / rows[f"synthetic/{YEAR}/{TILES[2].name}"].files["scales"].path
    gone.unlink()
    again = _run(source, out)
    assert (again.converted, again.skipped) == (2, 1)
    assert gone.exists()
    changed = latest(read_rows(out / "ledger"))[f"synthetic/{YEAR}/{TILES[1].name}"]
    old = rows[f"synthetic/{YEAR}/{TILES[1].name}"]
    assert changed.content != old.content
    assert (out / old.files["scales"].path).exists(), "paths are immutable: readers of the old one go on"
    assert validate_results(str(out)).sound


def test_other_options_are_another_result(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    _run(source, out)
    assert _run(source, out, block_size=256).converted == 3
    assert _run(source, out, block_size=256, verify=True).converted == 3, "not verified before"
    assert _run(source, out, block_size=256, verify=True).skipped == 3
    assert _run(source, out, block_size=256, force=True).converted == 3


def test_failures_do_not_stop_the_others(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    bad = next(source.rglob(f"{TILES[0].name}.npy"))
    bad.write_bytes(bad.read_bytes()[:-5])
    report = _run(source, out)
    assert (report.converted, len(report.failed), report.exit_code) == (2, 1, 1)
    assert "truncated" in report.failed[0].reason
    row = latest(read_rows(out / "ledger"))[f"synthetic/{YEAR}/{TILES[0].name}"]
    assert (row.status, row.reason) == ("failed", report.failed[0].reason)
    assert _run(source, out).exit_code == 1, "a failed tile is tried again"


@pytest.mark.service
@pytest.mark.parametrize(
    "make", [lambda: ProcessWorkers(2), lambda: ExecutorWorkers(ThreadPoolExecutor(2), 4)]
)
def test_every_executor_gives_the_same_files(
    tmp_path: Path, make: Callable[[], ProcessWorkers | ExecutorWorkers]
) -> None:
    source = write_column(tmp_path / "src")
    _run(source, tmp_path / "inline")
    report = run(plan([str(source)], Wanted()), ConvertOptions(str(tmp_path / "out")), make())
    assert report.converted == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "inline")


def _die(job: Job, options: ConvertOptions) -> Result:
    """Convert, but die on one tile: the job of a worker that the kernel kills."""
    if job.tile == TILES[1]:
        os.kill(os.getpid(), 9)
    return convert_tile(job, options)


@pytest.mark.service
def test_a_worker_that_dies_costs_its_own_tile_only(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    report = run(plan([str(source)], Wanted()), ConvertOptions(str(out)), ProcessWorkers(2), convert=_die)
    assert report.converted == 2
    assert [(r.tile, "worker died" in r.reason) for r in report.failed] == [(TILES[1], True)]
    assert not (out / ".staging").exists()


def _empty(job: Job, options: ConvertOptions) -> Result:
    return Result(LedgerRow(job.id, "ok", finished="x"))


@pytest.mark.service
def test_processes_are_replaced_after_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_column(tmp_path / "src")
    monkeypatch.setattr("catalog_builder.convert.workers.processes.RECYCLE", 1)
    report = run(
        plan([str(source)], Wanted()),
        ConvertOptions(str(tmp_path / "out")),
        ProcessWorkers(1),
        convert=_empty,
    )
    assert report.converted == 3


def test_a_ledger_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_column(tmp_path / "src")
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if data.startswith(b'{"job"'):
            return real(handle, data[:100])
        return real(handle, data)

    monkeypatch.setattr(os, "write", full)
    report = _run(source, tmp_path / "out")
    assert len(report.failed) == 3
    assert "not in the ledger" in report.failed[0].reason
    monkeypatch.undo()
    assert list(read_rows(tmp_path / "out" / "ledger")) == []
    assert _run(source, tmp_path / "out").converted == 3


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    with LedgerWriter(tmp_path) as writer:
        writer.append(LedgerRow("a", "ok", finished="1"))
        writer.append(LedgerRow("b", "failed", reason="x", finished="1"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'{"job": "c", "status": "o')
    with LedgerWriter(tmp_path) as writer:
        writer.append(replace(LedgerRow("b", "ok"), finished="2"))
    rows = latest(read_rows(tmp_path))
    assert {k: r.status for k, r in rows.items()} == {"a": "ok", "b": "ok"}


def test_estimate_from_defaults_and_from_the_ledger(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    found = plan([str(source)], Wanted())
    options = ConvertOptions(str(out))
    ledger = str(out / "ledger")
    first = estimate(found, options, 2, ledger)
    assert (first.to_do, first.done, first.measured) == (3, 0, False)
    assert first.bytes_in == sum(j.bytes_in for j in found.jobs())
    report = _run(source, out)
    after = estimate(found, options, 2, ledger)
    assert (after.to_do, after.done, after.measured, after.seconds) == (0, 3, True, 0)
    again = estimate(found, options, 1, ledger, force=True)
    assert again.bytes_out == pytest.approx(report.bytes_out, rel=0.01)


def test_an_estimate_knows_the_stored_colours(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    with prepare([str(source)], ConvertOptions(str(out)), workers=0, quiet=True) as conversion:
        assert conversion.run(visual=False).converted == 3
        store_basis(str(out), sample_basis())
        found = conversion.estimate()
        assert (found.to_do, found.done, found.other_colours) == (0, 3, 3), "they get images alone"
        found = conversion.estimate(visual=False)
        assert (found.to_do, found.done, found.other_colours) == (0, 3, 0), "a run without colours"
        assert conversion.run().coloured == 3
    with prepare([str(source)], ConvertOptions(str(out)), workers=0, quiet=True) as conversion:
        for visual in (True, False):
            found = conversion.estimate(visual=visual)
            assert (found.to_do, found.done, found.other_colours) == (0, 3, 0), "images are no less than none"


def _cli(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    code = (
        "import typer; from catalog_builder.cli.convert import convert;"
        "app = typer.Typer(pretty_exceptions_enable=False); app.command()(convert); app()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.service
def test_command_line(tmp_path: Path) -> None:
    source, out = write_column(tmp_path / "src"), tmp_path / "out"
    dry = _cli(str(source), "--out", str(out), "--dry-run", "--json")
    assert json.loads(dry.stdout)["to_do"] == 3
    assert not (out / "synthetic").exists()
    done = _cli(str(source), "--out", str(out), "--fit-visual", "--verify", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["converted"], said["profiles"]) == (3, {"native": 3})
    assert "each one thread and at most" in done.stderr
    assert (out / "synthetic" / "visual_basis.json").exists()
    assert len(list(out.rglob("*_thumbnail.png"))) == 3
    next(source.rglob("*_scales.npy")).unlink()
    failed = _cli(str(source), "--out", str(out), "-q", "--workers", "0")
    assert failed.returncode == 1
    assert "no such file" in failed.stderr
    assert "1 failed of 3" in failed.stdout


@pytest.mark.service
def test_help_is_quick() -> None:
    began = time.perf_counter()
    found = _cli("--help")
    seconds = time.perf_counter() - began
    assert "--fit-visual" in found.stdout
    heavy = "any(m in sys.modules for m in ('rasterio', 'numpy', 'pyarrow'))"
    probe = f"import sys; import catalog_builder.cli.convert; print({heavy})"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "False\n"
    assert seconds < 5  # the real limit is in the benchmarks; this machine may be busy


def test_remaining_is_lazy(tmp_path: Path) -> None:
    """A plan of millions is not made into a list: jobs are taken as workers get free."""
    taken: list[int] = []

    def jobs():  # type: ignore[no-untyped-def]
        for i in range(1000):
            taken.append(i)
            yield Job("npy", _file(i), _file(i), None, "v1", POLAR, 2017)

    def look(job: Job, options: ConvertOptions) -> Result:
        assert len(taken) - int(job.main.address) < 10
        return Result(LedgerRow(job.id, "ok"))

    found = run_module.Plan(1000, jobs)
    workers = ExecutorWorkers(ThreadPoolExecutor(2), 4)
    assert run(found, ConvertOptions(str(tmp_path)), workers, convert=look).converted == 1000


def _file(i: int):  # type: ignore[no-untyped-def]
    from catalog_builder.convert.plan.job import SourceFile

    return SourceFile(str(i))
