"""The staging folder of a run, and the lock that keeps it from the runs beside it.

Runs of one machine or of many share an output: array jobs, Dask workers, a rerun while the first still
works. Each has ``.staging/<run>`` and ``.staging/<run>.lock``, and removes what dead runs left:

- Of this machine, which its name tells, a run is dead when nobody holds its lock; the kernel lets go of it
  with the process.
- Of another machine a free lock says nothing: not every shared disk carries locks across (Lustre without
  ``flock``, NFS with ``local_lock``, most FUSE). Its lock is touched every minute instead, and it is dead
  when it was not touched for a day, by the clock of the disk they share.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from catalog_builder import storage
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.staging import ABANDONED, STAGING, forget_run

TOUCH_EVERY = 60.0
"""Seconds between signs of life."""
_LOCK = ".lock"


@contextmanager
def staging_of(options: ConvertOptions) -> Iterator[ConvertOptions]:
    """Name the run, and keep its staging folder locked; those of runs that died are removed."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{machine()}-{secrets.token_hex(4)}"
    named = replace(options, run=name)
    if storage.scheme(options.out):
        try:
            yield named
        finally:
            forget_run(named)
        return
    root = storage.local_path(options.out) / STAGING
    path = root / f"{name}{_LOCK}"
    over = threading.Event()
    lock: int | None = None
    touching = threading.Thread(target=_touch, args=(path, over), daemon=True)
    try:
        # A target that cannot be written is every tile's failure, with its reason.
        with suppress(OSError):
            lock = _make_lock(path)
            touching.start()
            _remove_dead(root, path)
        yield named
    finally:
        over.set()
        shutil.rmtree(root / name, ignore_errors=True)
        with suppress(OSError):
            path.unlink()
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            root.rmdir()


@cache
def machine() -> str:
    """Return 8 hex digits of what tells this running system from others: its locks reach all of it."""
    try:
        system = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        system = platform.node()
    return hashlib.sha256(system.encode()).hexdigest()[:8]


def _make_lock(path: Path) -> int:
    """Make a lock and hold it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Between two steps another run may end and remove the empty folder, or take the lock for a dead
        # run's and remove it.
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with suppress(OSError):  # a disk without locks: signs of life must do
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink and path.exists():
                return lock
            os.close(lock)


def _touch(path: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH_EVERY):
        with suppress(OSError):
            os.utime(path)


def _remove_dead(root: Path, own: Path) -> None:
    """Remove what killed runs left."""
    now = own.stat().st_mtime  # the disk's clock, not ours
    for path in root.glob(f"*{_LOCK}"):
        with suppress(OSError):
            if path != own:
                _remove_if_dead(path, now)
    for folder in root.iterdir():
        # What a worker made that was cut off from its run, and went on when the run was over.
        with suppress(OSError):
            lock = folder.with_name(f"{folder.name}{_LOCK}")
            old = now - folder.stat().st_mtime > ABANDONED
            if folder.is_dir() and old and not lock.exists():
                shutil.rmtree(folder, ignore_errors=True)


def _remove_if_dead(path: Path, now: float) -> None:
    abandoned = now - path.stat().st_mtime > ABANDONED
    with path.open("rb") as lock:
        if f"-{machine()}-" in path.name:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            except OSError:  # a disk without locks
                if not abandoned:
                    return
            if not os.fstat(lock.fileno()).st_nlink:
                return  # removed as we took it; the name may be a new one's
        elif not abandoned:
            return
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.unlink()
