"""Files of one folder over HTTP with range support: the part of the API that clients read pixels from.

Starlette's ``FileResponse`` supports ranges too. This exists because reading small ranges is what the
project is for, and because ``FileResponse`` opens, reads and closes in worker threads: of 16 kB ranges
of a cached file, 8 connections, one uvicorn worker, it serves 1,500 per second, this 10,000 and nginx
20,000. It also mishandles some valid requests: several ranges of which one lies outside, a range
in another unit, a range on HEAD.

A range that lies in the page cache is read on the event loop, with ``RWF_NOWAIT``, so the kernel
refuses where it would have to wait for a disk; then, and on file systems and platforms that know
no such flag, a thread reads it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import anyio
from starlette.types import Receive, Scope, Send

from api.files.ranges import MAX_RANGES, ContentChangedError, Document, Span
from api.files.respond import respond
from api.files.sending import only_reading, public_path, route_path, send_error, send_not_found
from catalog_builder.storage.headers import IMMUTABLE, REVALIDATE, media_type

CacheControl = Callable[[str], str]
"""From a file's path below the root (``a/b.tif``) to its Cache-Control."""

READ_THREADS = 16
"""Threads for reads that must wait for a disk: apart from those that searches run in."""

# Linux: fail instead of waiting for a disk. 0 where the platform has no such thing.
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)

_NOT_FOUND = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO)
)
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))


def immutable_where(pattern: str) -> CacheControl:
    r"""Return a policy: immutable where a path matches the regular expression, else revalidated.

    >>> immutable_where(r"v\d+/.*\.tif")("v3/a.tif") == IMMUTABLE
    True
    """
    matches = re.compile(pattern).fullmatch
    return lambda path: IMMUTABLE if matches(path) else REVALIDATE


@dataclass(frozen=True, slots=True)
class FileContent:
    """An open regular file as it was when it was opened: a :class:`api.files.ranges.Content`."""

    fd: int
    size: int
    mtime_ns: int

    @property
    def etag(self) -> str:
        """Modification time and size, as nginx has it: equal on mirrors that keep times."""
        return f'"{self.mtime_ns:x}-{self.size:x}"'

    @property
    def modified(self) -> int:
        """When it changed, in seconds since 1970."""
        return self.mtime_ns // 1_000_000_000

    def read_now(self, span: Span) -> bytes | None:
        """Return the bytes if they are all in the page cache, otherwise None."""
        if not _NOWAIT:
            return None
        buffer = bytearray(span.stop - span.start)
        try:
            done = os.preadv(self.fd, [buffer], span.start, _NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: tmpfs, NFS
            return None
        if done != len(buffer):
            return None  # in memory in part only, or the file shrank: read() tells which
        self._check()
        return bytes(buffer)

    def read(self, span: Span) -> bytes:
        """Return the bytes; call it from a thread.

        Raises
        ------
        ContentChangedError
            If the file is shorter than it was, or was written to since it was opened.
        """
        parts, at = [], span.start
        while at < span.stop:
            part = os.pread(self.fd, span.stop - at, at)
            if not part:
                break
            parts.append(part)
            at += len(part)
        self._check()
        if at < span.stop:
            raise ContentChangedError(f"the file ends at byte {at}, expected {self.size} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self) -> None:
        now = os.fstat(self.fd)
        if now.st_size != self.size or now.st_mtime_ns != self.mtime_ns:
            raise ContentChangedError("the file changed while it was being read, try again")


@contextmanager
def open_below(root: str, path: str) -> Iterator[FileContent]:
    """Open a regular file below a folder; symlinks are followed, but not out of the folder.

    Parameters
    ----------
    root
        The folder's real path, without symlinks.
    path
        Path below it, ``/``-separated, as :func:`visible` passed it.

    Raises
    ------
    FileNotFoundError
        If there is no such regular file that this process may read, or it lies outside the folder.
    OSError
        If the process has no file descriptor left, or the device fails.
    """
    full = f"{root}/{path}"
    try:
        # O_NONBLOCK: opening a FIFO would wait for its writer
        fd = os.open(full, os.O_RDONLY | os.O_NONBLOCK)
    except UnicodeEncodeError as error:  # no file can have such a name
        raise FileNotFoundError(path) from error
    except OSError as error:
        if error.errno in _NOT_FOUND:
            raise FileNotFoundError(path) from error
        raise
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or not _real_path(fd, full).startswith(f"{root}/"):
            raise FileNotFoundError(path)
        yield FileContent(fd, info.st_size, info.st_mtime_ns)
    finally:
        os.close(fd)


def _real_path(fd: int, full: str) -> str:
    """Return the real path of an open file, from its descriptor, so that no rename can interfere."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    except OSError:  # not Linux
        return os.path.realpath(full)


def visible(path: str, raw_path: bytes = b"") -> str | None:
    """Return a request's path relative to the root, or None if it must not be served.

    Rejected are: empty, ``.``, ``..`` and hidden segments, backslashes, control characters, and an
    encoded slash, which a proxy in front may have read in another way than we do.

    >>> visible("/v1/a.tif")
    'v1/a.tif'
    """
    below = path.removeprefix("/")
    if "\\" in below or "\x7f" in below or any(c < " " for c in below):
        return None
    if b"%" in raw_path and b"%2f" in raw_path.lower():
        return None
    if any(not segment or segment.startswith(".") for segment in below.split("/")):
        return None
    return below


def _listing(root: str, path: str) -> list[str] | None:
    """Return a line for each visible file of a folder below the root; None if there is no such folder."""
    folder = os.path.realpath(f"{root}/{path}")
    lines = []
    try:
        if not folder.startswith(f"{root}/"):
            return None
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.startswith(".") or not entry.is_file():
                    continue
                info = entry.stat()
                date = time.strftime("%d-%b-%Y %H:%M", time.gmtime(info.st_mtime))
                name = escape(entry.name)
                lines.append(f'<a href="{quote(entry.name)}">{name}</a> {date} {info.st_size:>15}')
    except OSError:
        return None
    return lines


class RangedFiles:
    """An ASGI app that serves the files below one folder by range, to any origin.

    Mount it with ``app.mount("/data", RangedFiles(folder))``, outside of any middleware that
    compresses. GET, HEAD and OPTIONS; single, suffix, open and several ranges; strong ETags and
    Last-Modified. A folder is 404, unless it is ``listed``. Hidden names are 404, but a visible
    symlink may lead to them as long as it stays below the folder.

    Parameters
    ----------
    root
        The folder. It may itself be reached through symlinks; they are resolved once.
    cache_control
        A Cache-Control for all, or a function of the path below the root.
    max_ranges
        Maximum number of ranges in one request.
    listed
        Regular expression of the folders (paths below the root) whose files are listed at their
        address with a slash: GDAL asks for that before it looks for sidecar files one by one.
    """

    def __init__(
        self,
        root: Path | str,
        cache_control: CacheControl | str = REVALIDATE,
        *,
        max_ranges: int = MAX_RANGES,
        listed: str | None = None,
    ) -> None:
        self._listed = None if listed is None else re.compile(listed).fullmatch
        self.root = os.path.realpath(root)
        self._cache_control: CacheControl = (
            cache_control if callable(cache_control) else lambda _path: cache_control
        )
        self._max_ranges = max_ranges
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if await only_reading(scope, send):
            asked = route_path(scope)
            path = visible(asked.removesuffix("/"), scope.get("raw_path") or b"")
            if path is not None and asked.endswith("/"):
                await self._list(path, scope, receive, send)
            elif path is None:
                await send_not_found(scope, send, "no such file")
            else:
                await self.serve(path, scope, receive, send)

    async def _list(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Return a page that lists a folder's files, in nginx's format; 404 if it is not listed."""
        lines = None
        if self._listed is not None and self._listed(path):
            lines = await anyio.to_thread.run_sync(_listing, self.root, path)
        if lines is None:
            await send_not_found(scope, send, "no such file")
            return
        title = f"Index of {escape(public_path(scope).rstrip('/'))}"
        body = (
            f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1><hr><pre>\n"
            + "\n".join(lines)
            + "\n</pre><hr></body>\n</html>\n"
        )
        kind = media_type("index.html")
        await respond(
            scope, receive, send, Document(body.encode()), media_type=kind, cache_control=REVALIDATE
        )

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a GET or HEAD with a file, given its path below the root; 404 if there is none."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(READ_THREADS)
        try:
            with open_below(self.root, path) as content:
                await respond(
                    scope,
                    receive,
                    send,
                    content,
                    media_type=media_type(path),
                    cache_control=self._cache_control(path),
                    max_ranges=self._max_ranges,
                    limiter=self._limiter,
                )
        except FileNotFoundError:
            await send_not_found(scope, send, "no such file")
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            busy = "the server has too many files open, try again"
            await send_error(scope, send, 503, "Busy", busy, [(b"retry-after", b"1")])
