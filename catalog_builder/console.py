"""Output of the command line: progress, results, errors. Everything except results goes to stderr.

On a terminal progress is a bar; in a log it is a plain line now and then, so that a batch job's
output stays readable.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

PLAIN_SECONDS = 5.0
"""Seconds between two progress lines in a log."""


class Progress(Protocol):
    """Reports the current activity, how much is done, and the total (0 if unknown)."""

    def __call__(self, what: str, done: int, of: int) -> None:
        """Report progress."""


def no_progress(what: str, done: int, of: int) -> None:
    """Ignore progress: the default wherever progress is reported."""


@contextlib.contextmanager
def progress(unit: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Yield a progress reporter: a rich bar on a terminal, plain lines otherwise, nothing if quiet."""
    if quiet:
        yield no_progress
    elif sys.stderr.isatty():
        with _bar(unit) as report:
            yield report
    else:
        yield _Lines(unit)


@contextlib.contextmanager
def _bar(unit: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Left

    with Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        Left(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of or None)
            bar.update(tasks[what], completed=done, total=of or None)

        yield report


class _Lines:
    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._what = ""
        self._since = self._said = time.monotonic()
        self._from = 0

    def __call__(self, what: str, done: int, of: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._since, self._from, self._said = what, now, done, now
            return
        if now - self._said < PLAIN_SECONDS and done != of:
            return
        self._said = now
        rate = (done - self._from) / max(now - self._since, 1e-9)
        left = f", {(of - done) / rate:,.0f} s left" if of and rate > 0 and done < of else ""
        total = f" of {of:,}" if of else ""
        say(f"{what}: {done:,}{total} {self._unit}, {rate:,.0f}/s{left}")


def say(text: str) -> None:
    """Print a line for the user, to stderr."""
    print(text, file=sys.stderr, flush=True)


def result(text: str, data: Any, *, as_json: bool) -> None:
    """Print a command's result to stdout: text for people, or JSON for programs."""
    print(json.dumps(data, indent=2, default=str) if as_json else text, flush=True)
