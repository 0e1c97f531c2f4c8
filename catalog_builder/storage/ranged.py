"""Byte ranges of one file, local or remote, counted as they are read.

A local file is opened once. The redirect target of an http(s) URL is resolved once and cached; data that
source.coop publishes in S3 is read by https, which needs no credentials.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import batched
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from catalog_builder.errors import StorageError
from catalog_builder.storage import web
from catalog_builder.storage.address import fail, local_path, published_address, scheme
from catalog_builder.storage.local import open_file
from catalog_builder.storage.s3 import objects

CONNECTIONS = 16
"""Ranges that are read from a host at the same time."""
MANY = 200
"""Ranges of one request: Apache takes no more, and our own server 256."""
NEAR = 128 << 10
"""Bytes that are rather read than asked around, where a request is for one range."""
LARGE = 8 << 20
"""Bytes of ranges that are read as one."""
_ONE_AT_A_TIME: set[str] = set()
"""Hosts that were found to give one range at a time."""


@dataclass(slots=True)
class Meter:
    """Counts what was read; safe to share between threads."""

    bytes: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, n: int) -> None:
        """Count one read of ``n`` bytes."""
        with self._lock:
            self.bytes += n
            self.requests += 1


class RangedFile(Protocol):
    """One file whose ranges can be read, from several threads at once."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, if it is local."""

    def read(self, start: int, stop: int, *, counted: bool = True) -> bytes:
        """Return bytes [start, stop), all of them.

        Parameters
        ----------
        start, stop
            The range.
        counted
            Whether the meter counts it.

        Raises
        ------
        StorageError
            If they cannot be read, after several attempts where retrying may help.
        """

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return ranges [start, stop) that ascend and do not overlap, with few requests.

        Web servers are asked for many ranges at a time. Of those that give one at a time, and of object
        stores, ranges that are near each other are read as one.

        Raises
        ------
        StorageError
            As :meth:`read`.
        """


@contextmanager
def open_ranged(address: str | Path, meter: Meter | None = None) -> Iterator[RangedFile]:
    """Read ranges of a file in this block.

    Parameters
    ----------
    address
        A path, ``s3://bucket/key`` or ``http(s)://…``.
    meter
        Counts each read that succeeds.

    Raises
    ------
    StorageError
        If a local file cannot be opened; for remote files the first read raises it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a"
    >>> _ = path.write_bytes(b"0123456789")
    >>> meter = Meter()
    >>> with open_ranged(path, meter) as file:
    ...     file.read(2, 5)
    b'234'
    >>> meter.bytes, meter.requests
    (3, 1)
    """
    meter = meter or Meter()
    if scheme(address):
        yield _Remote(str(address), meter)
        return
    path = local_path(address)
    with open_file(path) as file:
        fd = file.fileno()
        yield _Local(path, fd, os.fstat(fd).st_size, meter)


@dataclass(frozen=True, slots=True)
class _Local:
    path: Path
    fd: int
    size: int
    meter: Meter

    def read(self, start: int, stop: int, *, counted: bool = True) -> bytes:
        parts, at = [], start
        try:
            while at < stop:
                part = os.pread(self.fd, stop - at, at)  # at most 2 GB a call
                if not part:
                    break
                parts.append(part)
                at += len(part)
        except OSError as error:
            fail(self.path, error)
        if at < stop:
            raise StorageError(
                f"{self.path}: bytes {start}-{stop - 1} cannot be read: the file ends at byte {at}"
            )
        if counted:
            self.meter.add(stop - start)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(*span) for span in ranges]


class _Remote:
    def __init__(self, address: str, meter: Meter) -> None:
        published = published_address(address) if address.startswith("s3://") else None
        self._address, self._asked = address, published or address
        self._target = self._asked
        """The resolved URL, so that a redirect is not followed twice."""
        self._meter = meter
        self.size = None

    def read(self, start: int, stop: int, *, counted: bool = True) -> bytes:
        target = self._target
        if target.startswith("s3://"):
            data, problem = objects.read_range(target, start, stop), ""
        else:
            data, problem, url = web.read_range(target, start, stop)[:3]
            if problem and target != self._asked:  # a presigned URL may have expired in the meantime
                data, problem, url = web.read_range(self._asked, start, stop)[:3]
            self._target = url or self._asked
        if not problem and len(data) != stop - start:
            problem = f"the response has {len(data)} bytes"
        if problem:
            raise StorageError(f"{self._address}: bytes {start}-{stop - 1} cannot be read: {problem}")
        if counted:
            self._meter.add(stop - start)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        host = urlsplit(self._target).netloc
        if len(ranges) > 1 and self._target.startswith("http") and host not in _ONE_AT_A_TIME:
            found = self._read_parts(ranges)
            if found is not None:
                return found
            _ONE_AT_A_TIME.add(host)
        joined = list(_joined(ranges))
        parts = _pool(os.getpid(), host).map(lambda span: self.read(*span), [span for span, _ in joined])
        return [
            data[start - span[0] : stop - span[0]]
            for data, (span, within) in zip(parts, joined, strict=True)
            for start, stop in within
        ]

    def _read_parts(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Return ranges from responses that hold many of them; None if the server gives no such responses."""
        groups = list(batched(ranges, MANY))
        first = self._read_group(groups[0])
        if first is None:
            return None
        others = list(_pool(os.getpid(), urlsplit(self._target).netloc).map(self._read_group, groups[1:]))
        found: list[bytes] = []
        for group in (first, *others):
            if group is None:
                return None
            found += group
        return found

    def _read_group(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        found = web.read_ranges(self._target, ranges)
        if found is None and self._target != self._asked:  # a presigned URL may have expired
            found = web.read_ranges(self._asked, ranges)
        if found is None:
            return None
        parts, size, self._target = found
        self._meter.add(size)
        return parts


def _joined(
    ranges: Sequence[tuple[int, int]],
) -> Iterator[tuple[tuple[int, int], list[tuple[int, int]]]]:
    """Yield ranges that are near each other as one, and which they are."""
    within: list[tuple[int, int]] = []
    for span in ranges:
        near = within and span[0] - within[-1][1] <= NEAR and span[1] - within[0][0] <= LARGE
        if within and not near:
            yield (within[0][0], within[-1][1]), within
            within = []
        within.append(span)
    if within:
        yield (within[0][0], within[-1][1]), within


@cache
def _pool(_pid: int, _host: str) -> ThreadPoolExecutor:
    """Return the threads that read from a host, whoever reads: so many requests at a time and no more."""
    return ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="ranges")
