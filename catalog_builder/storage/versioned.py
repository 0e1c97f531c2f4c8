"""Ranges of one version of a file: what is read in several requests is never of two versions.

The end of a file is read first, as readers of shards do, whose index stands there; it says which version
of the file there is. Later ranges are of that version, or an error.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from catalog_builder.errors import FileChangedError, StorageError
from catalog_builder.storage import web
from catalog_builder.storage.address import fail, local_path, published_address, scheme
from catalog_builder.storage.ranged import Meter
from catalog_builder.storage.s3 import objects
from catalog_builder.storage.s3.client import is_missing, is_refused_condition


class Tail(NamedTuple):
    """The end of a file."""

    data: bytes
    version: str
    """Changes when the file does; empty if its server says nothing of the kind."""


def read_tail(address: str, n: int, meter: Meter | None = None) -> Tail | None:
    """Return the last ``n`` bytes of a file, or all of a shorter one, and its version.

    Parameters
    ----------
    address
        A path, ``s3://bucket/key`` or ``http(s)://…``.
    n
        Number of bytes.
    meter
        Counts the read, if there is a file.

    Returns
    -------
    Tail or None
        None if there is no such file.

    Raises
    ------
    StorageError
        If it cannot be read, after several attempts where retrying may help.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a"
    >>> _ = path.write_bytes(b"0123456789")
    >>> end = read_tail(str(path), 3)
    >>> end.data, read_version(str(path), 2, 5, end.version)
    (b'789', b'234')
    """
    kind, found = scheme(address), None
    if not kind:
        found = _local(address, None, n)
    elif (target := _target(address)).startswith("s3://"):
        tagged = objects.read_last(target, n)
        found = None if tagged is None else Tail(tagged.data, tagged.tag)
    else:
        response = web.read_range(target, -n, None)
        if response.status not in (404, 410):
            if response.problem:
                raise StorageError(f"{address}: its last {n} bytes cannot be read: {response.problem}")
            found = Tail(response.data, _web_version(response))
    if found is not None and meter is not None:
        meter.add(len(found.data))
    return found


def read_version(address: str, start: int, stop: int, version: str, meter: Meter | None = None) -> bytes:
    """Return bytes [start, stop) of a version of a file.

    Raises
    ------
    FileChangedError
        If there is another version now, or the file is gone.
    StorageError
        If it cannot be read.
    """
    if not scheme(address):
        found = _local(address, start, stop)
    elif (target := _target(address)).startswith("s3://"):
        try:
            found = Tail(objects.read_range(target, start, stop, version), version)
        except StorageError as error:
            cause = error.__cause__ or error
            if not (is_missing(cause) or is_refused_condition(cause)):
                raise
            found = None
    else:
        response = web.read_range(target, start, stop)
        if response.problem and response.status not in (404, 410, 412, 416):
            raise StorageError(f"{address}: bytes {start}-{stop - 1} cannot be read: {response.problem}")
        found = None if response.problem else Tail(response.data, _web_version(response))
    if found is None or found.version != version:
        raise FileChangedError(f"{address}: the file has changed while it was being read")
    if len(found.data) != stop - start:
        raise StorageError(f"{address}: of bytes {start}-{stop - 1} there are {len(found.data)}")
    if meter is not None:
        meter.add(stop - start)
    return found.data


def _target(address: str) -> str:
    return (published_address(address) if address.startswith("s3://") else None) or address


def _web_version(response: web.Range) -> str:
    return f"{response.tag} {response.size}"


def _local(address: str, start: int | None, stop: int) -> Tail | None:
    """Return bytes [start, stop) of a local file, or without a start its last ``stop`` bytes."""
    path = local_path(address)
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        fail(path, error)
    try:
        about = os.fstat(fd)
        if start is None:
            start, stop = max(about.st_size - stop, 0), about.st_size
        data = os.pread(fd, stop - start, start)
    except OSError as error:
        fail(path, error)
    finally:
        os.close(fd)
    return Tail(data, f"{about.st_ino} {about.st_mtime_ns} {about.st_size}")
