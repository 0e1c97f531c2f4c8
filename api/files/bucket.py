"""Files in S3 as served by this server: by redirect, or by relaying the bytes.

A redirect costs this server nothing, and GDAL and browsers follow it. To the bucket's public URL it
is a 301, the only one that GDAL remembers; to a presigned URL, which expires, a 302. A HEAD is handled
here, because a URL that is signed for GET is not signed for HEAD.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
from starlette.types import Receive, Scope, Send

from api.access import Access
from api.files.folder import CacheControl, visible
from api.files.ranges import ContentChangedError, Span
from api.files.respond import respond
from api.files.sending import only_reading, route_path, send_error, send_not_found, send_redirect
from api.request.hrefs import presigned
from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.storage.headers import media_type
from catalog_builder.storage.s3.presign import period

READ_AHEAD = 4 << 20
"""Bytes requested at a time for sequential reads."""
THREADS = 32
"""Maximum number of concurrent requests to S3."""
_HEADS = 10_000
"""Number of cached sizes of immutable files."""
REDIRECT_SECONDS = 3600
"""How long a redirect to a public URL may be cached."""


@dataclass(slots=True)
class ObjectContent:
    """An object as it was when it was requested: a :class:`api.files.ranges.Content`."""

    address: str
    size: int
    etag: str
    modified: int | None = None
    _ahead: tuple[int, bytes] = field(default=(0, b""))

    def read_now(self, span: Span) -> None:
        """Return nothing: everything waits for the store."""

    def read(self, span: Span) -> bytes:
        """Return the bytes; call it from a thread.

        Raises
        ------
        ContentChangedError
            If the object has changed, or the store does not respond.
        """
        at, data = self._ahead
        if not at <= span.start <= span.stop <= at + len(data):
            # a read that continues the last one is part of a long response: fetch it in large pieces
            reads_on = span.start == at + len(data) and at + len(data) > 0
            stop = min(max(span.stop, span.start + READ_AHEAD), self.size) if reads_on else span.stop
            try:
                data = storage.s3.objects.read_range(self.address, span.start, stop, self.etag)
            except StorageError as error:
                raise ContentChangedError(str(error)) from error
            at = span.start
            self._ahead = (at, data)
        return data[span.start - at : span.stop - at]


class BucketFiles:
    """An ASGI app that serves the objects below an s3 URL.

    Parameters
    ----------
    home
        ``s3://bucket/prefix``; nothing outside of it and no hidden name is served.
    access
        How.
    presign_seconds
        Lifetime of presigned URLs in seconds.
    cache_control
        From a path below ``home`` to its Cache-Control.
    """

    def __init__(self, home: str, access: Access, presign_seconds: int, cache_control: CacheControl) -> None:
        self._home = home
        self._access = access
        self._seconds = presign_seconds
        self._cache_control = cache_control
        self._heads: OrderedDict[str, storage.s3.objects.Head] = OrderedDict()
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if await only_reading(scope, send):
            path = visible(route_path(scope), scope.get("raw_path") or b"")
            if path is None:
                await send_not_found(scope, send, "no such file")
            else:
                await self.serve(path, scope, receive, send)

    async def serve(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a GET or HEAD for an object, given its path relative to the home."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(THREADS)
        address = f"{self._home}/{path}"
        # A VRT is small and refers to its neighbours: it is served next to them.
        if scope["method"] == "GET" and self._access != "proxy" and not path.endswith(".vrt"):
            await self._redirect(address, scope, send)
            return
        control = self._cache_control(path)
        try:
            head = self._heads.get(path) if "immutable" in control else None
            if head is None:
                head = await anyio.to_thread.run_sync(storage.s3.objects.head, address, limiter=self._limiter)
        except StorageError as error:
            await self._unavailable(error, scope, send)
            return
        if head is None:
            await send_not_found(scope, send, "no such file")
            return
        if "immutable" in control:
            self._heads[path] = head
            if len(self._heads) > _HEADS:
                self._heads.popitem(last=False)
        await respond(
            scope,
            receive,
            send,
            ObjectContent(address, head.size, head.tag),
            media_type=media_type(path),
            cache_control=control,
            limiter=self._limiter,
        )

    async def _redirect(self, address: str, scope: Scope, send: Send) -> None:
        if self._access == "https":
            control = f"public, max-age={REDIRECT_SECONDS}"
            await send_redirect(send, storage.https_address(address), control)
            return
        try:
            when = period(self._seconds)
            location = presigned(address, when)
        except StorageError as error:
            await self._unavailable(error, scope, send)
            return
        # a second less: a response must not be used when its URL has expired
        control = f"private, max-age={max(when.left - 1, 0)}"
        await send_redirect(send, location, control, permanent=False)

    async def _unavailable(self, error: StorageError, scope: Scope, send: Send) -> None:
        await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"5")])
