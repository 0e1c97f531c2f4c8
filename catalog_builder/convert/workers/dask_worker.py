"""What runs on the workers of a Dask cluster: a call, after a look whether this worker is fit for it."""

from __future__ import annotations

import contextlib
import pickle
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from catalog_builder import storage
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.staging import STAGING
from catalog_builder.errors import TesseraError
from catalog_builder.version import full_version

CODE = full_version()
"""The code that this process runs; taken as it is loaded, since files change under a long-running worker."""
_PROBE = ".tessera-writable"
"""Object that workers put below an S3 prefix before their first tile."""


class UnfitWorkerError(Exception):
    """A worker that can convert no tile of a run: its address, and why."""

    def __init__(self, worker: str, reason: str) -> None:
        super().__init__(worker, reason)  # both, or it could not be pickled
        self.worker, self.reason = worker, reason


class Call:
    """A call that is made where its pickle is read, and stands for what it returns."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._function, self._args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._function, self._args


@dataclass(frozen=True, slots=True)
class PickledOptions:
    """Options on their way to a worker."""

    data: bytes


@lru_cache(maxsize=4)
def _unpickle(data: bytes) -> ConvertOptions:
    found: ConvertOptions = pickle.loads(data)  # noqa: S301 - from our own client, as everything Dask moves
    return found


def on_worker(version: str, payload: bytes) -> Any:
    """Run a call of :meth:`DaskWorkers.submit` on a worker that is fit for it.

    Raises
    ------
    UnfitWorkerError
        If this worker cannot do it.
    """
    from distributed import get_worker

    if reason := unfit(version, None):
        raise UnfitWorkerError(get_worker().address, reason)
    function, packed = pickle.loads(payload)  # noqa: S301
    args = [_unpickle(a.data) if isinstance(a, PickledOptions) else a for a in packed]
    for options in (a for a in args if isinstance(a, ConvertOptions)):
        if reason := _cannot_write(options.out, options.run):
            raise UnfitWorkerError(get_worker().address, reason)
    return function(*args)


def unfit(version: str, options: ConvertOptions | None) -> str:
    """Return why this process cannot convert for a client of that version, or an empty text."""
    if version != CODE:
        return f"it has tessera-stac {CODE}, not {version}"
    return "" if options is None else _cannot_write(options.out, options.run)


@lru_cache(maxsize=8)
def _cannot_write(out: str, run: str) -> str:
    """Return why files cannot be published from here; asked once per process, run and output."""
    if not run:
        return ""  # only reads
    if storage.scheme(out):
        try:
            with tempfile.NamedTemporaryFile() as probe:
                storage.put_file(probe.name, storage.join(out, _PROBE))
        except TesseraError as error:
            return str(error)
        return ""
    root = storage.local_path(out)
    # The lock of the run is made by the client: another folder of the same name does not have it.
    if not (root / STAGING / f"{run}.lock").exists():
        return f"{out}: the output of this run is not visible there: it needs a disk that all workers share"
    try:
        folder = root / STAGING / run
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"{out}: {error.strerror or error}"
    return ""


def dask_setup(worker: Any) -> None:
    """Let a local worker finish its tile on Ctrl-C, which reaches the whole group of processes."""
    with contextlib.suppress(ValueError):  # not its main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
