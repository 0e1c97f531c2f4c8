"""What a person sees of a run, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from catalog_builder.cli.convert import parse_shard
from catalog_builder.convert import progress
from catalog_builder.convert.ledger.rows import LedgerRow, SourceRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.workers.processes import available_memory, default_workers, memory_per_worker
from catalog_builder.errors import QueryError

GOOD = LedgerRow("v1/2024/grid_0.15_52.05", "ok", sources=(SourceRow("main", "a", 100_000_000, "", False),))
BAD = LedgerRow("v1/2024/grid_0.25_52.05", "failed", reason="a.npy: truncated: [10] bytes")
ODD = LedgerRow("v1/2024/grid_0.35_52.05", "ok", note="kept as float32")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _show(stream: io.StringIO, *, quiet: bool = False) -> str:
    report = progress.reporter(quiet=quiet, stream=stream)
    report.start(4)
    report.skipped(1)
    report.say("hello")
    for row in (GOOD, BAD, ODD):
        report.done(row)
    report.stop()
    return stream.getvalue()


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    shown = _show(Terminal())
    assert "4/4" in shown
    assert "tiles/s" in shown
    assert "1 failed" in shown
    assert "failed: v1/2024/grid_0.25_52.05: a.npy: truncated: [10] bytes" in shown


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    lines = _show(io.StringIO()).splitlines()
    assert lines[0] == "hello"
    assert lines[1].startswith("2 of 4 tiles, ")
    assert lines[1].endswith(" left")
    assert "failed: v1/2024/grid_0.25_52.05: a.npy: truncated: [10] bytes" in lines
    assert "note: v1/2024/grid_0.35_52.05: kept as float32" in lines


def test_quiet_shows_failures_only() -> None:
    assert _show(io.StringIO(), quiet=True).splitlines() == [progress.failure_line(BAD)]


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (999, "999 B"), (12_300, "12.3 kB"), (4.2e13, "42 TB")])
def test_sizes(n: float, text: str) -> None:
    assert progress.size(n) == text


def test_shards() -> None:
    assert parse_shard("0/4") == (0, 4)
    assert parse_shard(None) is None
    for wrong in ("4/4", "1", "a/b", "-1/4", "1/0"):
        with pytest.raises(QueryError, match="--shard"):
            parse_shard(wrong)


def test_workers_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ConvertOptions("out")
    need = memory_per_worker(options, geotiff=False)
    assert (
        need
        < memory_per_worker(options, geotiff=True)
        < memory_per_worker(ConvertOptions("out", profile="float32"), geotiff=True)
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr("catalog_builder.convert.workers.processes.available_memory", lambda: 10 * need)
    assert default_workers(options, geotiff=False) == 8
    monkeypatch.setattr("catalog_builder.convert.workers.processes.available_memory", lambda: need // 10)
    assert default_workers(options, geotiff=False) == 1


def test_memory_is_known_here() -> None:
    free = available_memory()
    assert free is None or free > 1 << 20
