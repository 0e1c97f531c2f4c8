"""Run many conversions: skip what is done, keep a bounded number in hand, write every result down.

A run can be stopped or killed at any moment. What is finished is in the ledger, what is not lies in a
hidden staging folder that the next run removes, and the next run goes on with the rest.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from catalog_builder import storage
from catalog_builder.convert.job import Job, Options
from catalog_builder.convert.ledger import LEDGER, LedgerRow, LedgerWriter, latest, now, read_rows
from catalog_builder.convert.progress import Quiet, Reporter
from catalog_builder.convert.publish import STAGING
from catalog_builder.convert.source import Plan
from catalog_builder.convert.tile import Result, convert_tile
from catalog_builder.convert.workers import Workers
from catalog_builder.errors import StorageError

_TICK = 0.5


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did."""

    total: int
    """Jobs of the plan."""
    converted: int
    skipped: int
    """Done by an earlier run, and unchanged since."""
    failed: tuple[LedgerRow, ...]
    bytes_in: int
    bytes_out: int
    seconds: float
    interrupted: bool
    """Whether it was asked to stop; jobs that had begun were finished."""
    profiles: dict[str, int]
    """Converted tiles by profile."""

    @property
    def exit_code(self) -> int:
        """0 all good, 1 some tiles failed, 130 interrupted."""
        return 130 if self.interrupted else 1 if self.failed else 0


class Done:
    """What earlier runs did, to skip it."""

    def __init__(self, ledger: str, options: Options) -> None:
        self._options = options
        self._rows: dict[str, LedgerRow] = {}
        # A folder that is not there is no ledger yet; a store that does not answer may have one.
        with suppress(StorageError) if not storage.scheme(ledger) else nullcontext():
            # Statistics are half of a row and not needed here.
            self._rows = latest(replace(r, statistics="") for r in read_rows(ledger))

    def __contains__(self, job: Job) -> bool:
        """Whether a job is done, from these sources with these options, and its files are there."""
        row = self._rows.get(job.id)
        if row is None or not row.ok:
            return False
        if row.fingerprint != job.fingerprint or row.options != self._options.digest_for(row.dataset):
            return False
        if self._options.verify and not row.verified:
            return False
        if storage.scheme(self._options.out):
            return True  # asking for five objects a tile-year costs more than it finds; `validate` does
        root = storage.local_path(self._options.out)
        return all(_size(root / file.path) == file.size for file in row.files.values())

    def rows(self) -> list[LedgerRow]:
        """Return the last row of every job."""
        return list(self._rows.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


@dataclass(slots=True)
class _Tally:
    """Counts of a run."""

    converted: int = 0
    skipped: int = 0
    failed: list[LedgerRow] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    profiles: dict[str, int] = field(default_factory=dict)

    def add(self, row: LedgerRow) -> None:
        self.bytes_in += row.bytes_in
        if row.ok:
            self.converted += 1
            self.bytes_out += row.bytes_out
            self.profiles[row.profile] = self.profiles.get(row.profile, 0) + 1
        else:
            self.failed.append(row)


def run(
    plan: Plan,
    options: Options,
    workers: Workers,
    *,
    ledger: str | None = None,
    label: str = "run",
    report: Reporter | None = None,
    force: bool = False,
    convert: Callable[[Job, Options], Result] = convert_tile,
) -> RunReport:
    """Convert the jobs of a plan.

    Parameters
    ----------
    plan
        What to convert.
    options
        How; its ``run`` is set here.
    workers
        Where; closed at the end.
    ledger
        Where the ledger is; by default ``<out>/ledger``.
    label
        Part of the name of this run's ledger file (the shard).
    report
        Told what happens.
    force
        Convert also what is done already.
    convert
        The job, replaced in tests.

    Raises
    ------
    StorageError
        If the ledger cannot be written at all, or the target is a store that would overwrite files that
        must not change.
    """
    report = report or Quiet()
    ledger = ledger or storage.join(options.out, LEDGER)
    begin = time.perf_counter()
    tally = _Tally()
    if storage.scheme(options.out) == "s3":
        storage.s3_put.check_conditions(options.out)
    done = Done(ledger, options)
    with _staging_of(options) as options, LedgerWriter(ledger, label) as writer, _stopping(report) as stop:
        report.start(plan.total)
        loop = _Loop(options, workers, writer, report, tally, convert)
        try:
            loop.run(_remaining(plan, done if not force else None, tally, report), stop)
        except BaseException:
            workers.kill()
            raise
        else:
            workers.close()
        finally:
            report.stop()
    return RunReport(
        total=plan.total,
        converted=tally.converted,
        skipped=tally.skipped,
        failed=tuple(tally.failed),
        bytes_in=tally.bytes_in,
        bytes_out=tally.bytes_out,
        seconds=time.perf_counter() - begin,
        interrupted=stop.is_set(),
        profiles=tally.profiles,
    )


def _remaining(plan: Plan, done: Done | None, tally: _Tally, report: Reporter) -> Iterator[Job]:
    for job in plan.jobs():
        if done is not None and job in done:
            tally.skipped += 1
            report.skipped(1)
        else:
            yield job


class _Loop:
    """Keeps a bounded number of jobs in hand and writes their results down."""

    def __init__(
        self,
        options: Options,
        workers: Workers,
        writer: LedgerWriter,
        report: Reporter,
        tally: _Tally,
        convert: Callable[[Job, Options], Result],
    ) -> None:
        self.options, self.workers, self.writer = options, workers, writer
        self.report, self.tally, self.convert = report, tally, convert
        self.running: dict[Future[Result], Job] = {}
        # Jobs that ran when a worker died. One of them may have killed it, so each is tried alone.
        self.suspects: deque[Job] = deque()

    def run(self, jobs: Iterator[Job], stop: threading.Event) -> None:
        exhausted = False
        while True:
            while self._may_submit(stop) and not (exhausted and not self.suspects):
                job = self.suspects.popleft() if self.suspects and not self.running else None
                if job is None:
                    job = next(jobs, None)
                    exhausted = job is None
                if job is not None:
                    self._submit(job)
            if not self.running:
                if self.workers.full():
                    self.workers.renew()
                    continue
                return
            finished, _ = wait(self.running, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in finished:
                self._collect(future)

    def _may_submit(self, stop: threading.Event) -> bool:
        if stop.is_set() or self.workers.full():
            return False
        # A suspect runs alone.
        limit = 1 if self.suspects or self._alone else self.workers.window
        return len(self.running) < limit

    _alone = False

    def _submit(self, job: Job) -> None:
        try:
            self.running[self.workers.submit(self.convert, job, self.options)] = job
        except BrokenExecutor:
            self.workers.renew()
            self.running[self.workers.submit(self.convert, job, self.options)] = job

    def _collect(self, future: Future[Result]) -> None:
        job = self.running.pop(future, None)
        if job is None:
            return
        try:
            row = future.result().row
        except BrokenExecutor:
            self._broken(job)
            return
        except CancelledError:
            row = failure(job, "cancelled before it began")
        except Exception as error:  # the executor's own: a lost worker, a result that cannot travel
            row = failure(job, f"{type(error).__name__}: {error}")
        self._alone = False
        self._write(row)

    def _broken(self, job: Job) -> None:
        """Find out with whose job in hand a worker died."""
        others = list(self.running.values())
        self.running.clear()
        self.workers.renew()
        if not others and self._alone:
            self._alone = False
            self._write(failure(job, "its worker died: killed, or out of memory"))
            return
        self.suspects.extend([job, *others])
        self._alone = True

    def _write(self, row: LedgerRow) -> None:
        try:
            self.writer.append(row)
        except StorageError as error:
            row = replace(
                row,
                status="failed",
                reason=f"converted, but not in the ledger: {error}" if row.ok else row.reason,
            )
        self.tally.add(row)
        self.report.done(row)


def failure(job: Job, reason: str) -> LedgerRow:
    """Return the row of a job that its worker could not report."""
    return LedgerRow(
        job=job.id,
        status="failed",
        reason=" ".join(reason.split()),
        dataset=job.dataset or "",
        lat_i=job.tile.lat_i if job.tile else None,
        lon_i=job.tile.lon_i if job.tile else None,
        year=job.year,
        kind=job.kind,
        fingerprint=job.fingerprint,
        finished=now(),
    )


# --- stopping, staging ------------------------------------------------------------------------------


@contextmanager
def _stopping(report: Reporter) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM, which batch systems send) into a wish, the second into an end."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        report.say("stopping: the tiles in hand are being finished; once more stops at once")

    before: dict[int, Any] = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _staging_of(options: Options) -> Iterator[Options]:
    """Name the run, and keep its staging folder locked; those of runs that died are removed."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
    named = replace(options, run=name)
    if storage.scheme(options.out):
        yield named
        return
    root = storage.local_path(options.out) / STAGING
    lock: int | None = None
    path = root / f"{name}.lock"
    try:
        # A target that cannot be written is every tile's failure, with its reason.
        with suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            _remove_dead(root)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield named
    finally:
        shutil.rmtree(root / name, ignore_errors=True)
        with suppress(OSError):
            path.unlink()
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            root.rmdir()


def _remove_dead(root: Path) -> None:
    """Remove what killed runs left: their locks are free."""
    for path in root.glob("*.lock"):
        with suppress(OSError), path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()
