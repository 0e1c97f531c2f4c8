"""Newline-delimited JSON: one item a line, in the order of the index."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import zstandard

from catalog_builder import storage
from catalog_builder.catalog.extract import Extract, Progress, quiet
from catalog_builder.errors import StorageError

STDOUT = "-"


def write_ndjson(out: str, parts: Sequence[Extract], report: Progress = quiet) -> int:
    """Write items, one a line; return how many.

    Parameters
    ----------
    out
        File or s3 address to write, compressed if its name ends in ``.gz`` or ``.zst``; ``-`` is standard
        output.
    parts
        Which items.
    report
        Told the progress.

    Raises
    ------
    StorageError
        If the file cannot be written. What was there before is then as it was: the new file takes its
        place in one step when it is complete.
    """
    of, done = sum(p.count() for p in parts), 0
    with _target(out) as stream:
        for part in parts:
            for rows in part.pages():
                # a template's texts hold no newline: JSON escapes it
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
    with replaced(out, "application/x-ndjson") as part, part.open("wb") as file:
        match path.suffix:
            case ".gz":
                with gzip.GzipFile(path.stem, "wb", 6, file, mtime=0) as stream:
                    yield stream  # type: ignore[misc]
            case ".zst":
                with zstandard.ZstdCompressor(level=6).stream_writer(file, closefd=False) as stream:
                    yield stream
            case _:
                yield file


@contextlib.contextmanager
def replaced(target: Path | str, media_type: str | None = None) -> Iterator[Path]:
    """Lend a name beside ``target``; rename it to ``target`` when the block ends without an error.

    Of an s3 address it is the name of a temporary file, which is put there.

    A process that is killed leaves the file of that name behind; the next export writes over it.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    if storage.scheme(target):
        with storage.write_atomic(target, content_type=media_type) as part:
            yield part
        return
    path = storage.local_path(target)
    part = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise StorageError(f"{path}: cannot be written ({exc.strerror or exc})") from exc
