"""Staged files and their publication: nothing is visible before it is complete."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.storage.headers import IMMUTABLE, media_type

STAGING = ".staging"
"""Hidden folder below the output for files that are not whole yet."""
ABANDONED = 24 * 3600.0
"""Seconds without a sign of life after which a run is taken for dead."""


@contextmanager
def staging(options: ConvertOptions) -> Iterator[Path]:
    """Lend a private folder on the output's own disk (a temporary one for S3), removed afterwards."""
    if storage.scheme(options.out):
        with tempfile.TemporaryDirectory(prefix="tessera-cog-") as temporary:
            yield Path(temporary)
        return
    run = options.run or f"single-{os.getpid()}"
    parent = storage.local_path(options.out) / STAGING / run
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not options.run:
            for empty in (parent, parent.parent):
                with suppress(OSError):
                    empty.rmdir()


def shared_folder(options: ConvertOptions) -> Path | None:
    """Return the folder that the processes of a run share; it may not exist yet, and is removed with the run.

    It is on the output's own disk; if that is in S3, each machine has one in its temporary folder. None if
    there can be none.
    """
    if not options.run:
        return None
    if not storage.scheme(options.out):
        return storage.local_path(options.out) / STAGING / options.run
    root = _of_this_machine()
    return None if root is None else root / options.run


def forget_run(options: ConvertOptions) -> None:
    """Remove what a run with output in S3 keeps on this machine; other outputs have it beside them."""
    if storage.scheme(options.out) and (folder := shared_folder(options)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


def _of_this_machine() -> Path | None:
    """Return this user's own folder for runs with output in S3; what killed runs left in it is removed."""
    root = Path(tempfile.gettempdir()) / f"tessera-stac-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        about = root.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
            return None  # somebody else's: anybody may write to a temporary folder
        for folder in root.iterdir():
            with suppress(OSError):
                alive = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - alive > ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return None
    return root


@contextmanager
def staged_file(path: Path, options: ConvertOptions) -> Iterator[BinaryIO]:
    """Lend a new staged file to write to; when the block ends it is flushed to disk, if that is wanted."""
    with path.open("xb") as stream:
        yield stream
        if options.durable:
            stream.flush()
            os.fsync(stream.fileno())


def stage_published(staged: Path, there: FileRow, wanted: FileRow, options: ConvertOptions) -> None:
    """Stage a published file for a second name: by a hard link, or in S3 by a copy to its name at once.

    Parameters
    ----------
    staged
        Its name in the staging folder, for :func:`publish`.
    there, wanted
        The same file under the name that it has, and the one that it shall have too.
    """
    source, target = (storage.join(options.out, file.path) for file in (there, wanted))
    if storage.scheme(target):
        present = storage.s3.objects.head(target)
        if present is None or present.sha256 != wanted.sha256:
            kind = media_type(target)
            storage.s3.put.copy(
                source, target, sha256=wanted.sha256, content_type=kind, cache_control=IMMUTABLE
            )
        return
    try:
        os.link(storage.local_path(source), staged)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        with staged_file(staged, options) as stream, storage.local_path(source).open("rb") as file:
            shutil.copyfileobj(file, stream)


def publish(folder: Path, row: LedgerRow, options: ConvertOptions) -> None:
    """Give the staged files their names, in an order in which no file names one that is not there."""
    for role, file in row.files.items():
        staged = folder / role
        target = storage.join(options.out, file.path)
        if storage.scheme(target):
            if not staged.exists():
                continue  # copied inside the store
            storage.put_file(staged, target, cache_control=IMMUTABLE, immutable=True)
            continue
        final = storage.local_path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)
