"""Where jobs run: processes of our own, a Dask cluster, or any ``concurrent.futures.Executor``."""

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

from catalog_builder.convert.job import Options
from catalog_builder.errors import ConvertError

RECYCLE = 200
"""Jobs per process before it is replaced: what libraries leak stays bounded."""
_MB = 1 << 20


class Workers(Protocol):
    """Runs functions somewhere."""

    @property
    def window(self) -> int:
        """How many jobs to have submitted at a time."""

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a picklable function."""

    def full(self) -> bool:
        """Whether to wait until nothing runs, and call :meth:`renew`, before submitting more."""

    def renew(self) -> None:
        """Replace what may be worn out or broken; nothing runs."""

    def kill(self) -> None:
        """Stop at once, in the middle of jobs."""

    def close(self) -> None:
        """Wait for what runs and release everything."""


class ProcessWorkers:
    """A pool of fresh processes (spawned: forking a process that has threads can hang)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._given = 0

    @property
    def window(self) -> int:
        """One job in hand and one waiting for each process."""
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


class ExecutorWorkers:
    """Any executor: Dask's, threads, MPI's."""

    def __init__(self, executor: Executor, window: int, closer: Callable[[], None] | None = None) -> None:
        self._executor = executor
        self._window = window
        self._closer = closer

    @property
    def window(self) -> int:
        """As given."""
        return self._window

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a function on the executor."""
        return self._executor.submit(function, *args)

    def full(self) -> bool:
        """Never: an executor looks after itself."""
        return False

    def renew(self) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """Drop what has not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._closer is not None:
            self._closer()

    def close(self) -> None:
        """Release the executor."""
        self._executor.shutdown(wait=True)
        if self._closer is not None:
            self._closer()


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


def dask_workers(address: str) -> ExecutorWorkers:
    """Return the workers of a Dask cluster by its scheduler's address (or a scheduler file).

    Raises
    ------
    ConvertError
        If Dask is not installed or the cluster cannot be reached.
    """
    try:
        from distributed import Client as _Client
    except ImportError as error:
        raise ConvertError("--dask needs Dask: pip install 'tessera-stac[dask]'") from error
    if address.endswith(".json") and not Path(address).is_file():
        raise ConvertError(f"{address}: no such scheduler file, so no Dask scheduler answers")
    Client: Any = _Client  # noqa: N806 - it ships no types
    try:
        client = (
            Client(scheduler_file=address, timeout="20s")
            if address.endswith(".json")
            else Client(address, timeout="20s")
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ConvertError(f"{address}: no Dask scheduler answers ({error})") from error
    threads = sum(client.nthreads().values())
    return ExecutorWorkers(client.get_executor(), window=2 * max(threads, 1) + 2, closer=client.close)


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


def memory_per_worker(options: Options, *, geotiff: bool, pixels: int = 1115 * 1114) -> int:
    """Return what one worker needs at its peak, bytes, for rasters of so many pixels.

    Measured peaks plus a tenth; the default raster is the largest there is, at the equator.
    """
    per_pixel = _FLOAT if options.profile == "float32" else _NATIVE
    return 180 * _MB + pixels * (per_pixel + (_TIFF if geotiff else 0))


# Bytes per pixel of 128 bands at the peak of a conversion, beside what the libraries take.
_NATIVE, _FLOAT, _TIFF = 420, 1700, 200


def default_workers(options: Options, *, geotiff: bool) -> int:
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
