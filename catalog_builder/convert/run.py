"""Run many conversions: skip completed ones, keep a bounded number in progress, record every result.

A run can be stopped or killed at any moment. Finished tiles are in the ledger, unfinished ones in a
hidden staging folder that the next run removes, and the next run converts the rest.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import LedgerRow, now
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.convert.plan.done import Done
from catalog_builder.convert.plan.job import ConvertOptions, Job, Redo
from catalog_builder.convert.plan.sources import Plan
from catalog_builder.convert.progress import Quiet, Reporter
from catalog_builder.convert.tile.convert import Result, begun, convert_tile
from catalog_builder.convert.workers.processes import WorkerDiedError, Workers
from catalog_builder.convert.workers.run_lock import staging_of
from catalog_builder.errors import ClusterError, StorageError
from catalog_builder.tile.files import LEDGER

_TICK = 0.5


@dataclass(frozen=True, slots=True)
class RunReport:
    """The report of a run."""

    total: int
    """Jobs of the plan."""
    converted: int
    skipped: int
    """Number done by an earlier run and unchanged since."""
    misread: int
    """Number of those whose embeddings have a predictor that some readers undo wrongly, by the ledger."""
    earlier_views: int
    """Number of those whose float32 view GDAL before 3.7 reads wrongly."""
    without_statistics: int
    """Number of those that have no statistics of their codes."""
    earlier_layouts: int
    """Number of those whose files have the blocks of an earlier version."""
    renewed: int
    """Number done by an earlier run whose float32 view alone was rewritten."""
    described: int
    """Number done by an earlier run to which the statistics of their codes were added."""
    coloured: int
    """Number done by an earlier run of which the images alone were made, from their COGs."""
    failed: tuple[LedgerRow, ...]
    lossy: tuple[LedgerRow, ...]
    """Rasters of this run whose COGs lack metadata of their sources: :attr:`LedgerRow.lost` names it."""
    bytes_in: int
    bytes_out: int
    seconds: float
    interrupted: bool
    """Whether it was told to stop; jobs in progress were finished."""
    profiles: dict[str, int]
    """Converted tiles by profile."""

    @property
    def exit_code(self) -> int:
        """0 success, 1 some tiles failed, 130 interrupted."""
        return 130 if self.interrupted else 1 if self.failed else 0


@dataclass(slots=True)
class _Tally:
    """Counts of a run."""

    converted: int = 0
    skipped: int = 0
    misread: int = 0
    earlier_views: int = 0
    without_statistics: int = 0
    earlier_layouts: int = 0
    renewed: int = 0
    described: int = 0
    coloured: int = 0
    failed: list[LedgerRow] = field(default_factory=list)
    lossy: list[LedgerRow] = field(default_factory=list)
    bytes_in: int = 0
    bytes_out: int = 0
    profiles: dict[str, int] = field(default_factory=dict)

    def add(self, row: LedgerRow) -> None:
        self.bytes_in += row.bytes_in
        if row.ok and row.only:
            self.renewed += row.only == "view"
            self.coloured += row.only == "visual"
            self.described += row.only == "statistics"
            self.bytes_out += row.bytes_out
        elif row.ok:
            self.converted += 1
            self.bytes_out += row.bytes_out
            self.profiles[row.profile] = self.profiles.get(row.profile, 0) + 1
            if row.lost:
                self.lossy.append(row)
        else:
            self.failed.append(row)


def run(
    plan: Plan,
    options: ConvertOptions,
    workers: Workers,
    *,
    ledger: str | None = None,
    label: str = "run",
    report: Reporter | None = None,
    force: bool = False,
    redo: Redo | None = None,
    convert: Callable[[Job, ConvertOptions], Result] = convert_tile,
) -> RunReport:
    """Convert the jobs of a plan.

    Parameters
    ----------
    plan
        What to convert.
    options
        How; its ``run`` is set here.
    workers
        The workers; closed at the end.
    ledger
        Location of the ledger; by default ``<out>/ledger``.
    label
        Part of the name of this run's ledger file (the shard).
    report
        Receives the events of the run.
    force
        Convert tiles again that are already done.
    redo
        Which of them to convert again; see :class:`~catalog_builder.convert.plan.done.Done`.
    convert
        The job, replaced in tests.

    Raises
    ------
    StorageError
        If the ledger cannot be written at all, or the target is a store that would overwrite files that
        must not change.
    ClusterError
        If the workers cannot continue; finished tiles are in the ledger.
    """
    report = report or Quiet()
    ledger = ledger or storage.join(options.out, LEDGER)
    begin = time.perf_counter()
    tally = _Tally()
    if storage.scheme(options.out) == "s3":
        storage.s3.put.check_conditions(options.out)
    done = Done(ledger, options, redo)
    with staging_of(options) as options, LedgerWriter(ledger, label) as writer, _stopping(report) as stop:
        report.start(plan.total)
        loop = _Loop(options, workers, writer, report, tally, convert, stop, done.after)
        try:
            workers.begin(options)
            loop.run(_remaining(plan, done if not force else None, tally, report))
        except ClusterError as error:
            workers.kill()
            raise ClusterError(
                f"{error}. {tally.converted:,} tiles were converted and are in the ledger;"
                " run the same command again for the rest"
            ) from error
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
        misread=tally.misread,
        earlier_views=tally.earlier_views,
        without_statistics=tally.without_statistics,
        earlier_layouts=tally.earlier_layouts,
        renewed=tally.renewed,
        coloured=tally.coloured,
        described=tally.described,
        failed=tuple(tally.failed),
        lossy=tuple(tally.lossy),
        bytes_in=tally.bytes_in,
        bytes_out=tally.bytes_out,
        seconds=time.perf_counter() - begin,
        interrupted=stop.is_set(),
        profiles=tally.profiles,
    )


def _remaining(plan: Plan, done: Done | None, tally: _Tally, report: Reporter) -> Iterator[Job]:
    for job in plan.jobs():
        if done is None or job not in done:
            yield job
        elif (renewal := done.to_renew(job)) is not None:
            yield renewal
        else:
            tally.skipped += 1
            tally.misread += done.is_misread(job)
            tally.earlier_views += done.has_earlier_view(job)
            tally.without_statistics += done.lacks_statistics(job)
            tally.earlier_layouts += done.has_earlier_layout(job)
            report.skipped(1)


class _Loop:
    """Keeps a bounded number of jobs in progress and records their results."""

    def __init__(
        self,
        options: ConvertOptions,
        workers: Workers,
        writer: LedgerWriter,
        report: Reporter,
        tally: _Tally,
        convert: Callable[[Job, ConvertOptions], Result],
        stop: threading.Event,
        after: Callable[[LedgerRow], LedgerRow],
    ) -> None:
        self.options, self.workers, self.writer = options, workers, writer
        self.report, self.tally, self.convert, self.stop = report, tally, convert, stop
        self.after = after
        self.running: dict[Future[Result], Job] = {}
        # Jobs that ran when a worker died. One of them may have killed it, so each is tried alone.
        self.suspects: deque[Job] = deque()

    def run(self, jobs: Iterator[Job]) -> None:
        exhausted = False
        while True:
            self._look()
            while self._may_submit() and not (exhausted and not self.suspects):
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

    def _look(self) -> None:
        for line in self.workers.watch():
            self.report.say(line)
        if self.workers.live is not None:
            self.report.workers(self.workers.live)
        if self.stop.is_set():
            self.workers.withdraw()

    def _may_submit(self) -> bool:
        if self.stop.is_set() or self.workers.full():
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
            if self.stop.is_set():
                return  # withdrawn: it is for the next run
            row = failure(job, "cancelled before it began")
        except ClusterError:
            raise
        except WorkerDiedError as error:
            row = failure(job, str(error))
        except Exception as error:  # the executor's own: a lost worker, a result that cannot travel
            said = f"{type(error).__name__}: {error}"
            row = failure(job, f"{job.main.address}: its worker could not report the result ({said})")
        self._alone = False
        self._write(row)

    def _broken(self, job: Job) -> None:
        """Find out which job was running when a worker died."""
        others = list(self.running.values())
        self.running.clear()
        self.workers.renew()
        if not others and self._alone:
            self._alone = False
            self._write(failure(job, str(WorkerDiedError())))
            return
        self.suspects.extend([job, *others])
        self._alone = True

    def _write(self, row: LedgerRow) -> None:
        row = self.after(row)
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
    return replace(begun(job), reason=" ".join(reason.split()), finished=now())


# --- stopping --------------------------------------------------------------------------------------


@contextmanager
def _stopping(report: Reporter) -> Iterator[threading.Event]:
    """Stop gracefully on the first Ctrl-C (or SIGTERM, which batch systems send), at once on the second."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        report.say("stopping: finishing the tiles in progress; interrupt again to stop at once")

    before: dict[int, Any] = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
