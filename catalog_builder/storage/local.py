"""Files and folders of this machine."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
def write_atomic(target: Path) -> Iterator[Path]:
    """Lend a hidden name beside the target; flush it to disk and rename it when the block ends."""
    # keeps the suffix, by which some writers choose their format
    path = target.with_name(f".{target.stem[:100]}.{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield path
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        fail(target, error)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def put(local: Path, target: Path) -> None:
    """Copy a file to its place in one step."""
    with write_atomic(target) as temporary:
        shutil.copyfile(local, temporary)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some systems cannot open folders; there it is as good as it gets."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
