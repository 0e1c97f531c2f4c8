"""Staged files and their publication: nothing is visible before it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from catalog_builder import storage
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.storage.headers import IMMUTABLE

STAGING = ".staging"
"""Hidden folder below the output for files that are not whole yet."""


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


@contextmanager
def staged_file(path: Path, options: ConvertOptions) -> Iterator[BinaryIO]:
    """Lend a new staged file to write to; when the block ends it is flushed to disk, if that is wanted."""
    with path.open("xb") as stream:
        yield stream
        if options.durable:
            stream.flush()
            os.fsync(stream.fileno())


def publish(folder: Path, row: LedgerRow, options: ConvertOptions) -> None:
    """Give the staged files their names, in an order in which no file names one that is not there."""
    for role, file in row.files.items():
        staged = folder / role
        target = storage.join(options.out, file.path)
        if storage.scheme(target):
            storage.put_file(staged, target, cache_control=IMMUTABLE, immutable=True)
            continue
        final = storage.local_path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(final)
