"""Newline-delimited JSON: one item per line, in the order of the index."""

from __future__ import annotations

import contextlib
import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import zstandard

from catalog_builder import storage
from catalog_builder.catalog.extract import Extract
from catalog_builder.console import Progress, no_progress

STDOUT = "-"


def write_ndjson(out: str, parts: Sequence[Extract], report: Progress = no_progress) -> int:
    """Write items, one per line; return the number of items.

    Parameters
    ----------
    out
        File or s3 URL to write, compressed if its name ends in ``.gz`` or ``.zst``; ``-`` is standard
        output.
    parts
        The items.
    report
        Receives the progress.

    Raises
    ------
    StorageError
        If the file cannot be written. An existing file is then unchanged: the new file replaces
        it atomically once it is complete.
    """
    of, done = sum(p.count() for p in parts), 0
    with _target(out) as stream:
        for part in parts:
            for rows in part.pages():
                # rendered texts contain no newline: JSON escapes it
                stream.write("\n".join([*part.texts(rows), ""]).encode())
                done += len(rows)
                report("writing items", done, of)
    return done


@contextlib.contextmanager
def _target(out: str) -> Iterator[IO[bytes]]:
    if out == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    with (
        storage.write_atomic(out, lone=True) as part,
        part.open("wb") as file,
    ):
        match path.suffix:
            case ".gz":
                with gzip.GzipFile(path.stem, "wb", 6, file, mtime=0) as stream:
                    yield stream  # type: ignore[misc]
            case ".zst":
                with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as stream:
                    yield stream
            case _:
                yield file
