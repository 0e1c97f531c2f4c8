"""The output of a static tree: a folder or an S3 prefix with many small files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Protocol

import orjson

from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.storage.headers import MEDIA_BYTES

MARK = ".tessera-stac-tree"
"""Marker of an unfinished export, left behind if it is killed before the root was written."""
ROOT = "catalog.json"
_AT_ONCE = 16
"""Concurrent puts: each takes a round trip."""


class TreePlace(Protocol):
    """The output for the files of a tree, by relative path."""

    def put(self, path: str, data: bytes, media_type: str) -> None:
        """Write a complete file, unless it is unchanged; it exists after :meth:`settle`."""

    def settle(self) -> None:
        """Wait until all files have been written."""

    def remove_others(self, written: set[str]) -> None:
        """Remove the files of an earlier tree."""


def tree_place(out: Path | str) -> TreePlace:
    """Return the output at a local path or s3 URL: new, empty, or with an earlier tree.

    Raises
    ------
    StorageError
        If it contains something else: the export removes files it does not know.
    """
    place: _Folder | _Prefix
    place = _Prefix(str(out)) if storage.scheme(out) else _Folder(storage.local_path(out))
    if not place.is_empty() and not (_is_ours(place.read(ROOT)) or place.read(MARK) is not None):
        raise StorageError(f"{out}: exists, and is not a static tree from an earlier export")
    place.put(MARK, b"", MEDIA_BYTES)
    place.settle()
    return place


def _is_ours(root: bytes | None) -> bool:
    try:
        return root is not None and orjson.loads(root)["tessera:tree"] is True
    except (ValueError, KeyError, TypeError):
        return False


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def is_empty(self) -> bool:
        return not self._root.exists() or (self._root.is_dir() and not any(self._root.iterdir()))

    def read(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except OSError:
            return None

    def put(self, path: str, data: bytes, media_type: str) -> None:
        target = self._root / path
        with suppress(FileNotFoundError):
            if target.read_bytes() == data:
                return
        # many small files: flushing each would take as long as a spinning disk has turns
        with storage.local.in_one_step(target, lone=True, durable=False) as part:
            part.write_bytes(data)

    def settle(self) -> None:
        """Nothing to wait for: files are written immediately."""

    def remove_others(self, written: set[str]) -> None:
        for folder, _, names in os.walk(self._root, topdown=False):
            here = Path(folder)
            for name in names:
                if (here / name).relative_to(self._root).as_posix() not in written:
                    (here / name).unlink()
            if not any(here.iterdir()):
                here.rmdir()


class _Prefix:
    def __init__(self, address: str) -> None:
        if storage.scheme(address) != "s3":
            raise StorageError(f"{address}: cannot write to an http(s) URL; give a path or an s3:// URL")
        self._address = address.rstrip("/")
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._waiting: list[Future[None]] = []

    @cached_property
    def _there(self) -> dict[str, str]:
        """ETags by path: of a file put in one piece, its MD5, unless the bucket encrypts with a key."""
        return storage.s3.objects.list_tags(self._address)

    def is_empty(self) -> bool:
        return not self._there

    def read(self, path: str) -> bytes | None:
        if path not in self._there:
            return None
        return storage.read_bytes(storage.join(self._address, path))

    def put(self, path: str, data: bytes, media_type: str) -> None:
        if self._there.get(path) == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return
        if len(self._waiting) >= 50 * _AT_ONCE:
            self.settle()
        self._waiting.append(self._pool.submit(self._put, path, data, media_type))

    def _put(self, path: str, data: bytes, media_type: str) -> None:
        with tempfile.NamedTemporaryFile(prefix="tessera-put-") as file:
            Path(file.name).write_bytes(data)
            storage.put_file(file.name, storage.join(self._address, path), content_type=media_type)

    def settle(self) -> None:
        for future in self._waiting:
            future.result()
        self._waiting.clear()

    def remove_others(self, written: set[str]) -> None:
        gone = sorted(set(self._there) - written)
        storage.s3.objects.remove([storage.join(self._address, path) for path in gone])
