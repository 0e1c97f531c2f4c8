"""Where jobs run: processes of our own, or any ``concurrent.futures.Executor``; Dask is in ``cluster.py``."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from catalog_builder.convert.plan.job import ConvertOptions

RECYCLE = 200
"""Jobs per process before it is replaced: what libraries leak stays bounded."""
_MB = 1 << 20


class WorkerDiedError(Exception):
    """A job that ended the process it ran in, every time."""

    def __init__(self, message: str = "its worker died: killed, or out of memory") -> None:
        super().__init__(message)


class Workers(Protocol):
    """Runs functions somewhere; what not every kind needs does nothing here."""

    @property
    def window(self) -> int:
        """How many jobs to have submitted at a time; may change."""

    @property
    def live(self) -> int | None:
        """How many workers there are, where that can change."""
        return None

    def begin(self, options: ConvertOptions) -> None:
        """Prepare for jobs with these options; the staging folder of their run is there.

        Raises
        ------
        ClusterError
            If no worker can do them.
        """
        return

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a picklable function."""

    def watch(self) -> list[str]:
        """Look after the workers, called again and again; return what there is to say about them.

        Raises
        ------
        ClusterError
            If nothing can be run any more.
        """
        return []

    def withdraw(self) -> None:
        """Cancel jobs that have not begun, where they might wait for long."""
        return

    def full(self) -> bool:
        """Whether to wait until nothing runs, and call :meth:`renew`, before submitting more."""
        return False

    def renew(self) -> None:
        """Replace what may be worn out or broken; nothing runs."""
        return

    def kill(self) -> None:
        """Stop at once, in the middle of jobs."""

    def close(self) -> None:
        """Wait for what runs and release everything."""


class ProcessWorkers(Workers):
    """A pool of fresh processes (spawned: forking a process that has threads can hang)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._given = 0

    @property
    def window(self) -> int:
        """One running and one waiting job per process."""
        return self.count * 2

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function in a process."""
        # Processes are started by submit(). A Ctrl-C reaches the whole group; ignoring it is inherited.
        with _ignoring_interrupt():
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    self.count, get_context("spawn"), initializer=start_worker, initargs=(os.getpid(),)
                )
            future = self._pool.submit(function, *args)
        self._given += 1
        return future

    def full(self) -> bool:
        """Whether the processes have done their share."""
        return self._given >= RECYCLE * self.count

    def renew(self) -> None:
        """Start afresh with the next job."""
        self.close()

    def kill(self) -> None:
        """End the processes that this pool started."""
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Wait for the processes to end."""
        pool, self._pool, self._given = self._pool, None, 0
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


class ExecutorWorkers(Workers):
    """Any executor: threads, MPI's, this process itself."""

    def __init__(self, executor: Executor, window: int) -> None:
        self._executor = executor
        self._window = window

    @property
    def window(self) -> int:
        """As given."""
        return self._window

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function on the executor."""
        return self._executor.submit(function, *args)

    def kill(self) -> None:
        """Drop what has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Release the executor."""
        self._executor.shutdown(wait=True)


class Inline(Executor):
    """Runs everything at once in this process, for tests and for debugging."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def start_worker(parent: int) -> None:
    """Prepare a process: it finishes its tile on Ctrl-C, and does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GDAL_NUM_THREADS"):
        os.environ[name] = "1"

    def watch() -> None:
        # A parent that was killed cannot tell; its queue stays open in our siblings.
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _ignoring_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def memory_per_worker(options: ConvertOptions, *, geotiff: bool, pixels: int = 1115 * 1114) -> int:
    """Return what one worker needs at its peak, bytes, for rasters of so many pixels.

    Measured peaks plus a tenth; the default raster is the largest there is, at the equator.
    """
    per_pixel = _FLOAT if options.profile == "float32" else _NATIVE
    return 180 * _MB + pixels * (per_pixel + (_TIFF if geotiff else 0))


# Bytes per pixel of 128 bands at the peak of a conversion, beside what the libraries take.
_NATIVE, _FLOAT, _TIFF = 420, 1700, 200


def default_workers(options: ConvertOptions, *, geotiff: bool) -> int:
    """Return how many processes the machine has cores and memory for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = available_memory()
    if free is None:
        return cores
    return max(1, min(cores, int(0.8 * free / memory_per_worker(options, geotiff=geotiff))))


def available_memory() -> int | None:
    """Return bytes that may be used: of the machine, or of the container it is in."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    with contextlib.suppress(OSError, ValueError):
        limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        found.append(limit - used)
    return min(found, default=None) if found else None


def _number(path: str) -> int:
    return int(Path(path).read_text())
