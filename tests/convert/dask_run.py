"""Runs on real Dask clusters, one per scenario: ``dask_run.py SCENARIO FOLDER``, answering JSON.

A program of its own, because Dask asks the system for its outward address at start, which the tests forbid.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow, now
from catalog_builder.convert.plan.job import ConvertOptions, Job, SourceFile
from catalog_builder.convert.plan.sources import Plan, Wanted, plan
from catalog_builder.convert.progress import Quiet
from catalog_builder.convert.run import run
from catalog_builder.convert.tile.convert import Result, convert_tile
from catalog_builder.convert.workers import dask_start
from catalog_builder.convert.workers.dask_start import connect, start_local
from catalog_builder.errors import ClusterError
from catalog_builder.version import PACKAGE, RECORD, commit
from tests.support.ports import free_port
from tests.support.waiting import until

POISON = "tile-3"


# --- jobs -------------------------------------------------------------------------------------------


def numbered(n: int, until: Callable[[], bool] = lambda: False) -> Plan:
    """Return a plan of jobs that are no files, which may end early."""
    numbers = takewhile(lambda i: not until(), range(n))
    return Plan(n, lambda: (Job("geotiff", SourceFile(f"tile-{i}")) for i in numbers))


def _mark(job: Job, options: ConvertOptions) -> Path:
    """Write down that this process begins with a job."""
    folder = Path(options.out) / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{job.id.replace('/', '_')}-{os.getpid()}"
    mark.touch()
    return mark


def nap(job: Job, options: ConvertOptions) -> Result:
    """Take a moment."""
    _mark(job, options)
    time.sleep(0.3)
    digest = options.digest_for("")
    return Result(LedgerRow(job.id, "ok", fingerprint=job.fingerprint, options=digest, finished=now()))


def slow(job: Job, options: ConvertOptions) -> Result:
    """Convert after a moment."""
    _mark(job, options)
    time.sleep(0.5)
    return convert_tile(job, options)


def poison(job: Job, options: ConvertOptions) -> Result:
    """End the process on one of the jobs, as the kernel does when memory is short."""
    if job.id == POISON:
        _mark(job, options)
        os.kill(os.getpid(), signal.SIGKILL)
    return nap(job, options)


@dataclass(frozen=True)
class Unreadable(Result):
    """A result that cannot be read where it arrives, for so many times."""

    counted: str = ""
    times: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self.row, self.counted, self.times)


def _read(row: LedgerRow, counted: str, times: int) -> Result:
    """Read a result, after failing: a file's length is how often it did."""
    with Path(counted).open("ab") as file:
        if file.tell() < times:
            file.write(b"x")
            raise OSError("lost on the way")
    return Result(row)


def unread(job: Job, options: ConvertOptions) -> Result:
    """Send results of which one cannot be read at first, and one never."""
    times = {"tile-1": 2, "tile-2": 1000}.get(job.id, 0)
    counted = str(_mark(job, options).parent.parent / f"{job.id}.unread")
    return Unreadable(nap(job, options).row, counted=counted, times=times)


# --- scenarios --------------------------------------------------------------------------------------


class Said(Quiet):
    """Keeps what a run says."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.lines: list[str] = []
        self.live: list[int] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def workers(self, n: int) -> None:
        if self.live[-1:] != [n]:
            self.live.append(n)


def killed(folder: Path) -> dict[str, Any]:
    """Kill a worker in the middle of a tile."""
    said, out = Said(), folder / "out"
    workers, about = start_local(2, 1 << 30)
    page = urllib.request.urlopen(about.split()[1]).read().decode()
    pids: list[int] = []

    def kill() -> None:
        while not pids:
            time.sleep(0.02)
            pids.extend(int(p.name.rpartition("-")[2]) for p in (out / "attempts").glob("*"))
        os.kill(pids[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    report = run(
        plan([str(folder / "src")], Wanted()), ConvertOptions(str(out)), workers, convert=slow, report=said
    )
    return _answer(report, said) | {"killed": pids[0], "page": "Workers" in page}


def poisoned(folder: Path) -> dict[str, Any]:
    """Let one tile kill every worker it is given to."""
    said = Said()
    workers, _ = start_local(2, 1 << 30)
    report = run(numbered(12), ConvertOptions(str(folder / "out")), workers, convert=poison, report=said)
    return _answer(report, said)


def mislaid(folder: Path) -> dict[str, Any]:
    """Lose results between their end and the client."""
    said = Said()
    workers, _ = start_local(2, 1 << 30)
    report = run(numbered(6), ConvertOptions(str(folder / "out")), workers, convert=unread, report=said)
    return _answer(report, said)


def joining(folder: Path) -> dict[str, Any]:
    """Begin without workers; then one comes that can do it, and some that cannot."""
    said, out = Said(), folder / "out"
    lacks = "import sys; sys.modules['catalog_builder'] = None"
    older = "import catalog_builder; catalog_builder.__version__ = '0.0.1'"
    unfit = (lacks, older, _checkout(folder / "commit", head="c0" * 20), _checkout(folder / "change", "#"))

    def seen() -> bool:
        return sum("is not used" in line for line in said.lines) == len(unfit)

    with _scheduler(folder) as file, ExitStack() as started:
        workers, about = connect(file)
        windows = [workers.window]

        def join() -> None:
            until(lambda: any("waiting" in line for line in said.lines))
            started.enter_context(_worker(file, 3))
            until(lambda: workers.live == 1)
            windows.append(workers.window)
            for first in unfit:
                started.enter_context(_worker(file, 1, first))

        thread = threading.Thread(target=join)
        thread.start()
        report = run(numbered(500, seen), ConvertOptions(str(out)), workers, convert=nap, report=said)
        thread.join()
    attempts = len(list((out / "attempts").iterdir()))
    return _answer(report, said) | {"about": about, "windows": windows, "attempts": attempts}


def _checkout(folder: Path, more: str = "", head: str | None = None) -> str:
    """Copy the package, of another commit or with a change; return what makes a worker use the copy."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", RECORD))
    with (folder / PACKAGE.name / "errors.py").open("a") as file:
        file.write(more)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text(f"{head or commit()}\n")
    return f"import sys; sys.path.insert(0, {str(folder)!r})"


def elsewhere(folder: Path) -> dict[str, Any]:
    """Write to a folder that the workers do not see: a relative one, and they run in another."""
    os.chdir(folder)
    with _scheduler(folder) as file, _worker(file, 1, cwd="/"):
        workers, _ = connect(file)
        until(lambda: bool(workers.watch()) or workers.live > 0)
        try:
            run(numbered(24), ConvertOptions("out"), workers, convert=nap)
        except ClusterError as error:
            return {"error": str(error), "rows": len(list(read_rows(folder / "out" / "ledger")))}
    return {}


def orphaned(folder: Path) -> dict[str, Any]:
    """Kill the scheduler in the middle."""
    dask_start.ANSWER = 1.0
    out = folder / "out"
    with _scheduler(folder) as file, _worker(file, 2):
        workers, _ = connect(file)
        pid = int((folder / "scheduler.pid").read_text())

        def kill() -> None:
            until(lambda: len(_ledger(out)) >= 3)
            os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        try:
            run(numbered(40), ConvertOptions(str(out)), workers, convert=nap)
        except ClusterError as error:
            said = str(error)
    kept = len(_ledger(out))
    report = run(numbered(40), ConvertOptions(str(out)), start_local(2, 1 << 30)[0], convert=nap)
    return {"error": said, "kept": kept, "skipped": report.skipped, "converted": report.converted}


def restarted(folder: Path) -> dict[str, Any]:
    """Kill the scheduler in the middle, and start another at its address."""
    said, out = Said(), folder / "out"
    port = free_port()
    with ExitStack() as started:
        first = ExitStack()
        file = first.enter_context(_scheduler(folder, port))
        started.enter_context(_worker(file, 2))
        workers, _ = connect(file)

        def replace() -> None:
            until(lambda: len(_ledger(out)) >= 3)
            first.close()
            until(lambda: any("does not respond" in line for line in said.lines))
            started.enter_context(_worker(started.enter_context(_scheduler(folder, port)), 2))

        thread = threading.Thread(target=replace)
        thread.start()
        report = run(numbered(24), ConvertOptions(str(out)), workers, convert=nap, report=said)
        thread.join()
    return _answer(report, said)


def interrupted(folder: Path) -> dict[str, Any]:
    """Work until a Ctrl-C comes."""
    said = Said()
    workers, _ = start_local(2, 1 << 30)
    report = run(numbered(200), ConvertOptions(str(folder / "out")), workers, convert=nap, report=said)
    return _answer(report, said) | {"code": report.exit_code}


def _answer(report: Any, said: Said) -> dict[str, Any]:
    failed = {row.job: row.reason for row in report.failed}
    return {"converted": report.converted, "failed": failed, "said": said.lines, "live": said.live}


def _ledger(out: Path) -> dict[str, LedgerRow]:
    with contextlib.suppress(Exception):
        return latest(read_rows(out / "ledger"))
    return {}


@contextmanager
def _scheduler(folder: Path, port: int = 0) -> Iterator[str]:
    """Run a scheduler of its own; give its scheduler file."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    command = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port)]
    with _process([*command, "--no-dashboard", "--scheduler-file", str(file)]) as process:
        (folder / "scheduler.pid").write_text(str(process.pid))
        until(lambda: file.exists() and bool(file.read_text()))
        yield str(file)


@contextmanager
def _worker(file: str, threads: int, first: str = "", cwd: str | None = None) -> Iterator[None]:
    """Run a worker of its own, after a line of Python."""
    code = f"{first}\nfrom distributed.cli.dask_worker import main\nmain()"
    arguments = ["--scheduler-file", file, "--no-nanny", "--no-dashboard", "--nthreads", str(threads)]
    with _process(
        ["-c", code, *arguments, "--host", "127.0.0.1", "--local-directory", str(Path(file).parent)], cwd
    ):
        yield


@contextmanager
def _process(arguments: list[str], cwd: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, **quiet)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    # Functions are sent by name, and a worker's __main__ is another.
    from tests.convert import dask_run

    print(json.dumps(getattr(dask_run, sys.argv[1])(Path(sys.argv[2]))))
