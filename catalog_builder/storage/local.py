"""Files and folders of the local machine."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catalog_builder.errors import StorageError
from catalog_builder.storage.address import Entry, fail


def size(path: Path) -> int | None:
    """Return the bytes of a file; None if there is none."""
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        fail(path, error)
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def list_files(root: Path) -> Iterator[Entry]:
    """List every visible file below a folder; see :func:`catalog_builder.storage.list_files`."""
    # (path on disk, path below the root, real paths of the links above it)
    waiting: list[tuple[str, str, frozenset[str]]] = [(str(root), "", frozenset())]
    while waiting:
        folder, below, links = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: e.name)
            folders = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    above = links
                    if entry.is_symlink():
                        real = os.path.realpath(entry.path)
                        if real in links or Path(folder).resolve().is_relative_to(real):
                            continue
                        above = links | {real}
                    folders.append((entry.path, f"{below}{entry.name}/", above))
                    continue
                try:
                    info = entry.stat()
                except FileNotFoundError:  # a dangling link, or removed meanwhile
                    continue
                yield Entry(below + entry.name, info.st_size, int(info.st_mtime))
        except OSError as error:
            fail(folder, error)
        waiting.extend(reversed(folders))


@contextmanager
def in_one_step(target: Path, *, lone: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yield a hidden path beside the target, and rename what was written there to the target on exit.

    If the block raises, the target is unchanged and nothing else is left behind.

    Parameters
    ----------
    target
        A file; or a folder, if the block creates one, which then replaces an earlier folder.
    lone
        No other process writes the target. The hidden name is then always the same, so what a
        process that was killed left behind is replaced by the next attempt.
    durable
        Whether to flush it to disk, so that it is complete even after a power failure.

    Raises
    ------
    OSError
        As it comes.
    """
    token = "" if lone else f".{uuid.uuid4().hex[:12]}"
    # keeps the suffix, from which some writers choose their format
    path = target.with_name(f".{target.stem[:100]}{token}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if lone:
            _remove(path)
        yield path
        if durable:
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file():
                    sync(file)
        if path.is_dir() and target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    except BaseException:
        with suppress(OSError):
            _remove(path)
        raise
    if durable:
        with suppress(OSError):  # some systems cannot open folders; nothing more can be done there
            sync(target.parent)


@contextmanager
def write_atomic(target: Path, *, lone: bool = False) -> Iterator[Path]:
    """Yield a path as :func:`in_one_step` does, and raise failures as StorageError."""
    try:
        with in_one_step(target, lone=lone) as path:
            yield path
    except BrokenPipeError:  # not an error of this file: the reader of the progress output has gone
        raise
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error.strerror or error})") from error


def put(local: Path, target: Path) -> None:
    """Copy a file to its destination atomically."""
    with write_atomic(target) as temporary:
        shutil.copyfile(local, temporary)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
