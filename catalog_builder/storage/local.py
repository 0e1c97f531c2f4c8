"""Files and folders of the local machine."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from catalog_builder.errors import MissingFileError, StorageError
from catalog_builder.storage.address import Entry, fail

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder, not a file"),
    (stat.S_ISFIFO, "a named pipe, not a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
)


@dataclass(frozen=True, slots=True)
class Oddity:
    """An entry of a folder that is neither a file nor a folder that can be listed."""

    path: str
    reason: str
    """In a few words: ``a named pipe, not a file``."""
    is_folder: bool
    """Whether it is, or may be, a folder: what is below it is not known."""


def oddity(path: str | Path) -> str:
    """Return why a path is no file that can be read, in a few words; empty if it is a file.

    Nothing is opened: opening a named pipe waits for its writer, opening a device may do anything.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
    except OSError as error:
        return "a link that leads back to itself" if error.errno == errno.ELOOP else _words(error)
    if stat.S_ISREG(mode):
        return ""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "not a file")


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading; anything else is rejected at once.

    Raises
    ------
    MissingFileError
        If there is none.
    StorageError
        If it is something else, or cannot be read.
    """
    if found := oddity(path):
        raise (StorageError if path.exists() else MissingFileError)(f"{path}: {found}")
    try:
        # Should it have become a pipe in the meantime, opening it does not wait.
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        fail(path, error)


def _words(error: OSError) -> str:
    return (error.strerror or "cannot be read").lower()


def size(path: Path) -> int | None:
    """Return the bytes of a file; None if there is none."""
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        fail(path, error)
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def list_files(root: Path, odd: Callable[[Oddity], None] | None = None) -> Iterator[Entry]:
    """List every visible file below a folder; see :func:`catalog_builder.storage.list_files`."""
    # (path on disk, path below the root, real paths of the links above it)
    waiting: list[tuple[str, str, frozenset[str]]] = [(str(root), "", frozenset())]
    while waiting:
        folder, below, links = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: e.name)
        except OSError as error:
            if odd is None or not below:
                fail(folder, error)
            odd(Oddity(folder, f"a folder that cannot be read: {_words(error)}", is_folder=True))
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            info = _stat(entry, odd)
            if info is None:
                continue
            if stat.S_ISREG(info.st_mode):
                yield Entry(below + entry.name, info.st_size, int(info.st_mtime))
            elif stat.S_ISDIR(info.st_mode):
                above = links
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if real in links or Path(folder).resolve().is_relative_to(real):
                        continue
                    above = links | {real}
                folders.append((entry.path, f"{below}{entry.name}/", above))
            elif odd is not None:
                odd(Oddity(entry.path, oddity(entry.path), is_folder=False))
        waiting.extend(reversed(folders))


def _stat(entry: os.DirEntry[str], odd: Callable[[Oddity], None] | None) -> os.stat_result | None:
    """Return what an entry is, followed if it is a link; None if that cannot be known."""
    try:
        return entry.stat()
    except OSError as error:
        # ENOENT: a link that leads nowhere, or removed meanwhile; ELOOP: a link that leads to itself
        is_closed = error.errno not in (errno.ENOENT, errno.ELOOP)
        if is_closed and odd is None:
            fail(entry.path, error)
        if odd is not None and (is_closed or entry.is_symlink()):
            odd(Oddity(entry.path, oddity(entry.path), is_folder=is_closed))
        return None


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
