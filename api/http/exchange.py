"""The sending side of a request: headers of every response, encoding, and bytes that are in flight."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio.to_thread
import brotli  # type: ignore[import-untyped]
import zstandard
from starlette.types import Message, Send

from api.http.cors import VARY, allow_headers
from api.http.responses import PART_BYTES, error
from api.http.work.flight import COUNTED, Flight
from api.http.work.waiting import BusyError
from api.settings import Settings

_CORS: list[tuple[bytes, bytes]] = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"ETag, Link, Content-Length, Content-Encoding, Retry-After, X-Request-Id",
    ),
    (b"x-content-type-options", b"nosniff"),
]
_RETRY_SECONDS = b"5"
_MIN_COMPRESSED = 1000
"""Bytes below which compressing costs more than it saves."""
_LONG = 500_000
"""Bytes from which on a body is compressed in a thread: below, that takes about as long as the thread."""
_COMPRESSIBLE = (
    b"application/json",
    b"application/geo+json",
    b"application/schema+json",
    b"application/vnd.oai",
    b"text/",
)


class _Brotli:
    """brotli's compressor with the names of the others' methods."""

    def __init__(self) -> None:
        self._brotli = brotli.Compressor(quality=1)

    def compress(self, part: bytes) -> bytes:
        return bytes(self._brotli.process(part))

    def flush(self) -> bytes:
        return bytes(self._brotli.finish())


class _Compressor(Protocol):
    """Compresses a body part by part."""

    def compress(self, part: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


# A page of 100 items, 470 kB: zstd 0.12 ms to 11 kB, brotli 0.17 ms to 14 kB, gzip 1.1 ms to 24 kB.
# Higher levels cost more than they save on anything but a modem.
_ENCODINGS: tuple[tuple[bytes, Callable[[int], _Compressor]], ...] = (
    (b"zstd", lambda size: zstandard.ZstdCompressor(1).compressobj(size)),
    (b"br", lambda _: _Brotli()),
    (b"gzip", lambda _: zlib.compressobj(1, wbits=31)),
)


FULL = "the server holds as much for its clients as it may; try again"


class Exchange:
    """The sending side of one request."""

    def __init__(
        self,
        settings: Settings,
        headers: Mapping[bytes, bytes],
        method: str,
        request_id: bytes,
        send: Send,
        raw: bool,
        flight: Flight,
    ) -> None:
        self._send = send
        self._flight = flight
        self._encoder: _Compressor | None = None
        self.refused = False
        """Whether the client was sent 503 instead of its response, because there was no room for it."""
        self.held = 0
        """Bytes counted as in flight."""
        self._request_id = request_id
        self._head = method == "HEAD"
        self._asked = headers.get(b"access-control-request-headers", b"")
        self._accepts = headers.get(b"accept-encoding", b"") if settings.compress else b""
        self._start: Message | None = None
        self.raw = raw
        self.status = 500
        """The status until something else was sent."""
        self.sent = 0
        self.started = False
        """Whether anything has been sent to the client."""
        self.origin = b""
        """Scheme and host of the service: redirects within it are sent without them."""
        self.prefix = b""
        """Path of the service."""
        self.is_private = False
        """Whether responses depend on who asks, so that no cache may give one reader's to another."""
        self.always: list[tuple[bytes, bytes]] = []
        """Headers of every response."""

    async def preflight(self, allowed: bytes) -> None:
        """Respond to OPTIONS of a path that allows some methods."""
        self.status = 204
        lines = [
            *_CORS,
            (b"allow", allowed),
            (b"access-control-allow-methods", allowed),
            allow_headers(self._asked),
            (b"access-control-max-age", b"86400"),
            VARY,
            (b"x-request-id", self._request_id),
        ]
        await self._send({"type": "http.response.start", "status": 204, "headers": lines})
        await self._send({"type": "http.response.body", "body": b""})

    def hold(self, size: int) -> bool:
        """Count more bytes as in flight until the request has ended; False if there is no room for them."""
        if not self._flight.take(size):
            return False
        self.held += size
        return True

    def hold_body(self, size: int) -> None:
        """Count a request's body, of which ``size`` bytes have been read.

        Raises
        ------
        BusyError
            If there is no room for it.
        """
        if size > COUNTED and not self.hold(size - self.held):
            raise BusyError(FULL)

    async def send(self, message: Message) -> None:
        """Pass a message on, with headers, encoding and without a body as the request needs.

        Raises
        ------
        BusyError
            If there is no room for the body: 503 has been sent instead of it.
        """
        if message["type"] == "http.response.start":
            self.status = message["status"]
            sent = [self._changed(pair) for pair in message["headers"]]
            message["headers"] = sent + self._own(sent)
            self._start = message  # until the first part of the body has arrived
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            start, self._start = self._start, None
            size = PART_BYTES + start.pop("tessera.held", 0) if more else len(body)
            if size > COUNTED and not self._head and not self.hold(size):
                await self._refuse()
            self.started = True
            if not self.raw:
                body = await self._encoded(start, body, more)
            await self._send(start)
        else:
            body = await self._compressed(body, more)
        await self._send_body(b"" if self._head else body, more)

    def _own(self, sent: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers of every response that it does not have yet."""
        own, names = [*self.always, (b"x-request-id", self._request_id)], {name for name, _ in sent}
        if self.status == 503 and b"retry-after" not in names:
            own.append((b"retry-after", _RETRY_SECONDS))
        # Files have their own; what refuses them, such as a pool that is full, does not know of them.
        return own if b"access-control-allow-origin" in names else own + _CORS

    async def _refuse(self) -> None:
        self.refused, self.started, self.status = True, True, 503
        response = error(503, FULL, {"retry-after": "1"})
        headers = [*response.raw_headers, *self._own(response.raw_headers)]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._head else response.body})
        raise BusyError(FULL)

    async def _send_body(self, body: bytes, more: bool) -> None:
        """Send a body or a part of one; a long body in parts, until the client has read the last."""
        self.sent += len(body)
        if len(body) > COUNTED and not more:
            # The server waits for the client before a message, not after it: the last one is empty.
            for at in range(0, len(body), PART_BYTES):
                part = memoryview(body)[at : at + PART_BYTES]
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _changed(self, header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """Return a header; a redirect within the service without scheme and host, which clients forge."""
        name, value = header
        if self.is_private and name == b"cache-control":
            return name, value.replace(b"public", b"private")
        if name != b"location" or not value.startswith(self.origin + b"/"):
            return header
        # Two slashes would begin with a host.
        path = b"/" + value[len(self.origin) :].lstrip(b"/")
        # The framework does not know a prefix that the proxy strips.
        inside = not self.prefix or path.startswith(self.prefix + b"/")
        return name, path if inside else self.prefix + path

    async def _encoded(self, start: Message, body: bytes, more: bool) -> bytes:
        """Return the body in an encoding that the client accepts, and set the headers."""
        headers = start["headers"]
        named = dict(headers)
        if not named.get(b"content-type", b"").startswith(_COMPRESSIBLE) or b"content-encoding" in named:
            return body
        headers.append((b"vary", b"Accept-Encoding"))
        encoding = _best(self._accepts) if more or len(body) >= _MIN_COMPRESSED else None
        if encoding is None:
            return body
        name, compressor = encoding
        # some decoders of zstd want to know the size: it is not known of what comes in parts
        self._encoder = compressor(-1 if more else len(body))
        body = await self._compressed(body, more)
        length = [] if more else [(b"content-length", str(len(body)).encode())]
        start["headers"] = [(k, v) for k, v in headers if k != b"content-length"] + [
            *length,
            (b"content-encoding", name),
        ]
        return body

    async def _compressed(self, body: bytes, more: bool) -> bytes:
        """Return what the encoder, if there is one, makes of a body or a part of one."""
        if (encoder := self._encoder) is None:
            return body

        def compress() -> bytes:
            return encoder.compress(body) + (b"" if more else encoder.flush())

        return compress() if len(body) < _LONG else await anyio.to_thread.run_sync(compress)


def _best(accepts: bytes) -> tuple[bytes, Callable[[int], _Compressor]] | None:
    """Return the first of our encodings listed in an Accept-Encoding header.

    ``*`` alone gets no compression: some clients send it (such as pystac in stac-api-validator) that
    cannot decode anything, and it permits the identity encoding.
    """
    if not accepts:
        return None
    allowed = {}
    for part in accepts.lower().split(b","):
        name, _, weight = part.partition(b";")
        allowed[name.strip()] = weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return next((e for e in _ENCODINGS if allowed.get(e[0], False)), None)
