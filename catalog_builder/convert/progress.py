"""Progress of a run: a bar with rate and time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from catalog_builder.convert.ledger.rows import LedgerRow

_EVERY = 10.0
"""Seconds between lines in a log."""


class Reporter(Protocol):
    """Receives all events of a run."""

    def start(self, total: int) -> None:
        """Begin with a number of jobs."""

    def say(self, text: str) -> None:
        """Show a line."""

    def done(self, row: LedgerRow) -> None:
        """Count a finished job, and show it if it failed."""

    def skipped(self, n: int) -> None:
        """Count jobs that were done already."""

    def workers(self, n: int) -> None:
        """Learn how many workers live, of a cluster where that changes."""

    def stop(self) -> None:
        """Clean up."""


class Quiet:
    """Shows failures only."""

    _workers = ""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def start(self, total: int) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def done(self, row: LedgerRow) -> None:
        """Show a failure."""
        if not row.ok:
            print(failure_line(row), file=self._stream, flush=True)

    def skipped(self, n: int) -> None:
        """Show nothing."""

    def workers(self, n: int) -> None:
        """Keep the number, for those who show it."""
        self._workers = f", {n:,} worker{'' if n == 1 else 's'}"

    def stop(self) -> None:
        """Show nothing."""


class Lines(Quiet):
    """Plain lines for a log: failures at once, progress every ten seconds."""

    def start(self, total: int) -> None:
        """Begin."""
        self._total, self._count, self._bytes = total, 0, 0
        self._skipped = 0
        self._begin = self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Show a line."""
        print(text, file=self._stream, flush=True)

    def done(self, row: LedgerRow) -> None:
        """Count a job; show a failure at once, and how far it is now and then."""
        super().done(row)
        self._count += 1
        self._bytes += row.bytes_in
        now = time.monotonic()
        if row.note:
            self.say(f"note: {row.job}: {row.note}")
        if now - self._last >= _EVERY:
            self._last = now
            self.say(self._line(now))

    def skipped(self, n: int) -> None:
        """Count jobs that were done already."""
        self._skipped += n

    def _line(self, now: float) -> str:
        seconds = now - self._begin
        left = (self._total - self._skipped - self._count) * seconds / max(self._count, 1)
        return (
            f"{self._count + self._skipped:,} of {self._total:,} tiles, {self._count / seconds:.2f} tiles/s,"
            f" {self._bytes / seconds / 1e6:.0f} MB/s read{self._workers}, {duration(left)} left"
        )


class Bar(Quiet):
    """A progress bar."""

    def start(self, total: int) -> None:
        """Begin."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress: Progress = Progress(
            TextColumn("converting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("·"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(file=self._stream, highlight=False, soft_wrap=True),
        )
        self._task: TaskID = self._progress.add_task("converting", total=total, rate="")
        self._begin, self._count, self._bytes, self._failed = time.monotonic(), 0, 0, 0
        self._progress.start()

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        self._progress.console.print(text, markup=False)

    def done(self, row: LedgerRow) -> None:
        """Move the bar; show a failure above it."""
        if not row.ok:
            self._failed += 1
            self._progress.console.print(failure_line(row), style="red", markup=False)
        elif row.note:
            self._progress.console.print(f"note: {row.job}: {row.note}", markup=False)
        self._count += 1
        self._bytes += row.bytes_in
        seconds = max(time.monotonic() - self._begin, 1e-3)
        rate = f"{self._count / seconds:.2f} tiles/s {self._bytes / seconds / 1e6:.0f} MB/s{self._workers}"
        if self._failed:
            rate += f" · {self._failed} failed"
        self._progress.update(self._task, advance=1, rate=rate)

    def skipped(self, n: int) -> None:
        """Move the bar over jobs that were done already."""
        self._progress.update(self._task, advance=n)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()


def reporter(*, quiet: bool = False, stream: TextIO | None = None) -> Reporter:
    """Return what suits the stream (by default stderr)."""
    stream = stream or sys.stderr
    if quiet:
        return Quiet(stream)
    return Bar(stream) if stream.isatty() else Lines(stream)


def failure_line(row: LedgerRow) -> str:
    """Format a failure."""
    return f"failed: {row.job}: {row.reason}"


def duration(seconds: float) -> str:
    """Format a duration.

    >>> duration(3725)
    '1 h 02 min'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(n: float) -> str:
    """Format a number of bytes.

    >>> size(12_300_000_000)
    '12.3 GB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n < 1000 or unit == "TB":
            return f"{n:.3g} {unit}" if n < 100 else f"{n:.0f} {unit}"
        n /= 1000
    raise AssertionError("unreachable")


def earlier_views(n: int) -> str:
    """Return a line about tiles that are done and whose float32 views are of an earlier form.

    >>> earlier_views(1)
    '1 of those done already has float32 views of an earlier form, which are wrong in mosaics: --redo view'
    """
    have = "has" if n == 1 else "have"
    return (
        f"{n:,} of those done already {have} float32 views of an earlier form, which are wrong in mosaics:"
        " --redo view"
    )


def without_statistics(n: int) -> str:
    """Return a line about tiles that are done and have no statistics of their codes.

    >>> without_statistics(1)
    '1 of those done already has no statistics of its codes in the item: --redo statistics'
    """
    have, its = ("has", "its") if n == 1 else ("have", "their")
    return f"{n:,} of those done already {have} no statistics of {its} codes in the item: --redo statistics"


def earlier_layouts(n: int) -> str:
    """Return a line about tiles that are done and have the blocks of earlier versions.

    >>> earlier_layouts(2)
    '2 of those done already have the larger blocks of earlier versions, slower to read: --redo layout'
    """
    have = "has" if n == 1 else "have"
    return (
        f"{n:,} of those done already {have} the larger blocks of earlier versions, slower to read:"
        " --redo layout"
    )


def misread(n: int) -> str:
    """Return a line about tiles that are done and that some readers misread.

    >>> misread(1)
    '1 of those done already has a predictor that async-geotiff and lazycogs undo wrongly: --redo predictor'
    """
    have = "has" if n == 1 else "have"
    return (
        f"{n:,} of those done already {have} a predictor that async-geotiff and lazycogs undo wrongly:"
        " --redo predictor"
    )
