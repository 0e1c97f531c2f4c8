"""Responses as bytes: documents with validators, errors with reasons."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import anyio.to_thread
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.catalogue.snapshot import Snapshot
from api.http.links import JSON
from api.http.work.waiting import client_gone
from api.settings import Settings
from catalog_builder.storage.s3.presign import Period

ERRORS: dict[int, tuple[str, str]] = {
    400: ("BadRequest", "A parameter is unknown or malformed; the description says which and why."),
    401: ("Unauthorized", "The credentials are wrong, or missing where nothing is public."),
    404: ("NotFound", "There is no such collection, item or page."),
    405: ("MethodNotAllowed", "The path does not support this method."),
    408: ("RequestTimeout", "The body did not arrive in time."),
    409: ("SourceMismatch", "A file of the item is damaged, or is not what the catalogue says it is."),
    413: ("PayloadTooLarge", "The request is larger than the server accepts: its body, or what it asks for."),
    414: ("URITooLong", "The query string is longer than the server accepts; use POST."),
    415: ("UnsupportedMediaType", "The body is compressed; the server accepts only uncompressed bodies."),
    429: ("TooManyRequests", "The client sends more requests than it may; `Retry-After` says when it may."),
    500: ("InternalError", "An error of the server; quote the request id."),
    503: (
        "Unavailable",
        "The search needs more time than a request may take, and it says how to narrow it; or the index"
        " cannot be read.",
    ),
}  # fmt: skip
"""Status to its code and meaning."""


def error(status: int, description: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``{"code", "description"}`` with a status."""
    body = orjson.dumps({"code": ERRORS.get(status, ("Error", ""))[0], "description": description})
    # An error must not outlive its cause in a cache.
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, JSON)


def dumps(value: Any) -> bytes:
    """Return a value as JSON."""
    return orjson.dumps(value)


PART_BYTES = 256 * 1024
"""Size of the parts of a long response: what a slow client holds in memory."""


_MAKING = anyio.CapacityLimiter(1)
"""Parts are made one at a time, whatever the number of clients: a second thread would not make them sooner,
since Python runs one at a time, but every search would wait for it too."""


class PartsResponse(Response):
    """A long response that is made part by part, each when the client has read the one before.

    Parameters
    ----------
    parts
        Makes the parts; it is called in threads, one at a time.
    held
        Bytes that it holds meanwhile.
    headers, kind
        Of the response.
    """

    def __init__(self, parts: Iterator[bytes], held: int, headers: Mapping[str, str], kind: str) -> None:
        super().__init__(None, 200, headers, kind)
        del self.headers["content-length"]
        self._parts = parts
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts until the client has left."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope.get("tessera.head"):
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["http_version"] == "1.0":  # knows no chunks
            body = await anyio.to_thread.run_sync(lambda: b"".join(self._parts))
            length = (b"content-length", str(len(body)).encode())
            await send({**start, "headers": [*self.raw_headers, length]})
            await send({"type": "http.response.body", "body": body})
            return
        gone = asyncio.ensure_future(client_gone(receive))
        try:
            await send({**start, "tessera.held": self.held})
            while not gone.done():
                part = await anyio.to_thread.run_sync(next, self._parts, None, limiter=_MAKING)
                await send({"type": "http.response.body", "body": part or b"", "more_body": part is not None})
                if part is None:
                    return
        finally:
            gone.cancel()


class _Validators:
    """ETag and Cache-Control of one response."""

    etag: str

    def __init__(self, request: Request, settings: Settings, period: Period | None = None) -> None:
        self._readable = request.method in ("GET", "HEAD")
        self._asked = request.headers.get("if-none-match") if self._readable else None
        seconds = settings.cache_seconds
        if period is not None:
            # A cached copy at the end of its life must still have half of its URLs' lifetime left.
            seconds = max(min(seconds, period.left - period.seconds // 2), 0)
        # presigned URLs are only for the client that requested them
        who = "public" if period is None else "private"
        self._control = f"{who}, max-age={seconds}" if seconds else "no-cache"

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a successful response."""
        if not self._readable:
            return {"cache-control": "no-store"}
        return {"etag": self.etag, "cache-control": self._control}

    def not_modified(self) -> Response | None:
        """Return a 304 if the client already has this response."""
        if self._asked is None:
            return None
        tags = {tag.strip().removeprefix("W/") for tag in self._asked.split(",")}
        if "*" in tags or self.etag.removeprefix("W/") in tags:
            return Response(status_code=304, headers=self.headers)
        return None

    @staticmethod
    def tag(seen: bytes) -> str:
        """Return the ETag for the inputs of a response; weak, because the response may be compressed."""
        return f'W/"{hashlib.blake2b(seen, digest_size=12).hexdigest()}"'


class Caching(_Validators):
    """The validators of one request: its ETag is derived from the catalogue's build and the request."""

    def __init__(
        self, request: Request, snapshot: Snapshot, settings: Settings, period: Period | None = None
    ) -> None:
        super().__init__(request, settings, period)
        scope = request.scope
        seen = f"{snapshot.generation} {scope['tessera.root']} {scope['path']} {period or ''} ".encode()
        self.etag = self.tag(seen + scope["query_string"])

    def respond(self, body: bytes, kind: str) -> Response:
        """Return a document."""
        return Response(body, 200, self.headers, kind)

    def respond_in_parts(self, parts: Iterator[bytes], held: int, kind: str) -> Response:
        """Return a long document that is made while it is sent."""
        return PartsResponse(parts, held, self.headers, kind)


class ContentCaching(_Validators):
    """The validators of a response that may change at any time: its ETag is derived from its content."""

    def respond(self, body: bytes, kind: str) -> Response:
        """Return a document, or a 304 if the client already has it."""
        self.etag = self.tag(body)
        return self.not_modified() or Response(body, 200, self.headers, kind)
