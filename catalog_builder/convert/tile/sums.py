"""The SHA-256 that a source must have: as its manifest says, else as the file of sums beside it does."""

from __future__ import annotations

import time
from functools import lru_cache

from catalog_builder import storage
from catalog_builder.convert.plan.job import SourceFile
from catalog_builder.errors import ConvertError
from catalog_builder.manifests.text import read_sums

_FRESH = 600
"""Seconds for which what a remote file of sums says is kept."""


def stated_sum(file: SourceFile) -> tuple[str, str]:
    """Return the SHA-256 that is stated of a file, and what states it; both empty if nothing does.

    Upstream's server has a file ``SHA256`` in the folder of each tile-year and ``SHA256SUM`` among the
    landmasks. One that does not list the file says nothing of it.

    Raises
    ------
    ConvertError
        If the file of sums names the file, but gives no SHA-256.
    StorageError
        If it cannot be read.
    """
    if file.sha256:
        return file.sha256, "the manifest"
    if not file.sums:
        return "", ""
    name = file.address.rpartition("/")[2]
    sums, others = _sums(file.sums, _version(file.sums))
    if name in sums:
        return sums[name], file.sums
    for number, line in others:
        if name in line.split() or f"*{name}" in line.split():
            raise ConvertError(
                f"{file.sums} line {number}: expected '<SHA-256> {name}', found '{line[:160]}'"
            )
    return "", ""


def _version(address: str) -> object:
    if storage.scheme(address):
        return int(time.monotonic() / _FRESH)
    if why := storage.local.oddity(address):
        raise ConvertError(f"{address}: {why}")
    info = storage.local_path(address).stat()
    return info.st_mtime_ns, info.st_size, info.st_ino


@lru_cache(maxsize=16)
def _sums(address: str, version: object) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """Read a file of sums; that of the landmasks may have a million lines, which all tiles share."""
    return read_sums(storage.read_bytes(address))
