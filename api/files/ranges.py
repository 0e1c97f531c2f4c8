"""HTTP's rules for reading a part of something: ranges, validators, cross-origin headers.

One function, :func:`respond`, answers GET and HEAD for any :class:`Content` (a file, a generated
document) as RFC 9110 says: sections 8.8 (validators), 13 (preconditions, in the order of 13.2.2)
and 14 (ranges, multipart). It knows nothing of paths or files; ``api/files/folder.py`` does.

Where the RFC leaves a choice:

* A ``Range`` in other units is ignored (it must be); a malformed ``bytes`` range is refused with
  416, because the alternative is 110 MB that nobody asked for.
* Of several ranges those that cannot be satisfied are dropped, and overlapping ones are merged, so
  a response is never longer than the file plus its part headers. More than ``max_ranges`` is 416.
  GDAL asks for at most 250 at a time (``GDAL_HTTP_MULTIRANGE=SINGLE_GET``), but understands the
  answer only with a capital ``Content-Type``, as nginx has it; uvicorn and HTTP/2 write names in
  small letters. It then falls back to one range per request.
* ``Range`` on HEAD is ignored: the RFC defines it for GET only.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Protocol

import anyio
import anyio.lowlevel
import anyio.to_thread
import orjson
from starlette.types import Receive, Scope, Send

from catalog_builder.errors import TesseraError

CHUNK = 256 * 1024
"""Bytes per read and per ASGI message: what one slow client can hold in memory."""
MAX_RANGES = 256
"""Ranges in one request."""
_SETTLED_SECONDS = 10
"""How long ago a file must have changed for its Last-Modified to be said."""

Headers = list[tuple[bytes, bytes]]

CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified, Location",
    ),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    (b"x-content-type-options", b"nosniff"),
]
"""Sent with every answer: a browser may read ranges of public data from any page."""

_PREFLIGHT: Headers = [
    (b"allow", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, If-Range,"
        b" Cache-Control, Content-Type, Accept, Authorization",
    ),
    (b"access-control-max-age", b"86400"),
    (b"content-length", b"0"),
]

_CONDITIONAL = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
# At most 18 digits: beyond any file, and int() refuses absurdly long numbers with an error.
_SPAN = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


class ContentChangedError(TesseraError):
    """A file that was written to, or became shorter, while it was being sent."""


class RangeError(TesseraError, ValueError):
    """A Range header that is malformed, asks too much, or lies wholly outside the content (416)."""


class Span(NamedTuple):
    """A half-open interval of bytes, [start, stop)."""

    start: int
    stop: int


class Content(Protocol):
    """Something with a length and a strong validator, whose bytes can be read anywhere."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def etag(self) -> str:
        """Strong entity tag, with its quotes."""

    @property
    def modified(self) -> int | None:
        """When it changed, in seconds since 1970, or None."""

    def read_now(self, span: Span) -> bytes | None:
        """Return the bytes if they are at hand without waiting for a disk; None if not."""

    def read(self, span: Span) -> bytes:
        """Return the bytes, waiting if need be; raise :class:`ContentChangedError` if it changed."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small generated body: a :class:`Content` whose validator is its hash."""

    body: bytes
    modified: int | None = None

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.body)

    @property
    def etag(self) -> str:
        """Hash of the body."""
        return f'"{hashlib.blake2b(self.body, digest_size=16).hexdigest()}"'

    def read_now(self, span: Span) -> bytes:
        """Return the bytes."""
        return self.body[span.start : span.stop]

    read = read_now


def parse_range(header: str, size: int, max_ranges: int = MAX_RANGES) -> list[Span] | None:
    """Return the byte ranges of a ``Range`` header over content of ``size`` bytes.

    Returns
    -------
    list of Span or None
        In the order asked for, or sorted where overlapping ones had to be merged. None if the header
        is to be ignored, because its unit is not bytes.

    Raises
    ------
    RangeError
        If the header is malformed, has more than ``max_ranges`` ranges, or none can be satisfied.

    Examples
    --------
    >>> parse_range("bytes=0-9, -5", 100)
    [Span(start=0, stop=10), Span(start=95, stop=100)]
    """
    unit, equals, text = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    parts = [p for p in (part.strip(" \t") for part in text.split(",")) if p]
    if not parts or len(parts) > max_ranges:
        raise RangeError(f"expected 1 to {max_ranges} byte ranges, found {len(parts)}")
    spans: list[Span] = []
    for part in parts:
        match = _SPAN.fullmatch(part)
        if match is None or part == "-":
            raise RangeError(f"malformed byte range '{part[:60]}'")
        first, last = match.groups()
        if not first:  # suffix: the last n bytes
            span = Span(max(size - int(last), 0), size)
        elif last and int(last) < int(first):
            raise RangeError(f"byte range '{part}' ends before it starts")
        else:
            span = Span(int(first), min(int(last) + 1, size) if last else size)
        if span.start < span.stop:
            spans.append(span)
    if not spans:
        raise RangeError(f"no byte range within the {size} bytes of the content")
    return _merge_overlaps(spans)


def _merge_overlaps(spans: list[Span]) -> list[Span]:
    """Merge spans that share a byte; keep the order of those that do not."""
    ordered = sorted(spans)
    if all(a.stop <= b.start for a, b in pairwise(ordered)):
        return spans
    merged = [ordered[0]]
    for span in ordered[1:]:
        if span.start < merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


async def respond(
    scope: Scope,
    receive: Receive,
    send: Send,
    content: Content,
    *,
    media_type: str,
    cache_control: str,
    max_ranges: int = MAX_RANGES,
    limiter: anyio.CapacityLimiter | None = None,
) -> None:
    """Answer a GET or HEAD for some content.

    Raises
    ------
    ContentChangedError
        If the content changed after the answer had begun. The server then closes the connection,
        so the client sees a response that is shorter than announced, not wrong bytes.
    """
    asked = {k: v.decode("latin-1") for k, v in scope["headers"] if k in _CONDITIONAL}
    headers: Headers = [
        *CORS,
        (b"accept-ranges", b"bytes"),
        (b"etag", content.etag.encode()),
        (b"cache-control", cache_control.encode()),
    ]
    date = _last_modified(content)
    if date is not None:
        headers.append((b"last-modified", date.encode()))
    if asked:
        refused = _precondition(asked, content, date)
        if refused is not None:
            await _send(send, refused, headers)
            return
    kind = (b"content-type", media_type.encode())
    head = scope["method"] == "HEAD"
    spans: list[Span] | None = None
    if b"range" in asked and not head and _if_range(asked, content, date):
        try:
            spans = parse_range(asked[b"range"], content.size, max_ranges)
        except RangeError as error:
            unsatisfied = (b"content-range", f"bytes */{content.size}".encode())
            await send_error(scope, send, 416, "RangeNotSatisfiable", str(error), [unsatisfied])
            return
    pieces: list[bytes | Span]
    if spans is None:
        status, pieces = 200, [Span(0, content.size)]
        headers.append(kind)
    elif len(spans) == 1:
        status, pieces = 206, [spans[0]]
        headers += [kind, (b"content-range", _content_range(spans[0], content.size).encode())]
    else:
        status = 206
        boundary = secrets.token_hex(13)
        pieces = _multipart(spans, content.size, media_type, boundary)
        headers.append((b"content-type", f"multipart/byteranges; boundary={boundary}".encode()))
    length = sum(len(p) if isinstance(p, bytes) else p.stop - p.start for p in pieces)
    headers.append((b"content-length", str(length).encode()))
    if head or not length:
        await _send(send, status, headers)
    elif length <= CHUNK:
        # Read before answering: then a file that just shrank is a clean 503.
        try:
            body = b"".join([await _bytes(piece, content, limiter) for piece in pieces])
        except ContentChangedError as error:
            await send_error(scope, send, 503, "ContentChanged", str(error), [(b"retry-after", b"1")])
            return
        await _send(send, status, headers, body)
    else:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await _stream(pieces, content, receive, send, limiter)


async def _bytes(piece: bytes | Span, content: Content, limiter: anyio.CapacityLimiter | None) -> bytes:
    """Return a piece's bytes: at once if they are in memory, else from a thread."""
    if isinstance(piece, bytes):
        return piece
    found = content.read_now(piece)
    if found is None:
        found = await anyio.to_thread.run_sync(content.read, piece, limiter=limiter)
    return found


async def _stream(
    pieces: Iterable[bytes | Span],
    content: Content,
    receive: Receive,
    send: Send,
    limiter: anyio.CapacityLimiter | None,
) -> None:
    """Send pieces in chunks until they are sent or the client is gone."""
    changed: ContentChangedError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            # uvicorn's send() says nothing when the client has gone: only receive() tells
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            for piece in pieces:
                for part in _chunks(piece):
                    body = await _bytes(part, content, limiter)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    # neither a read at hand nor a send() that is buffered lets others run
                    await anyio.lowlevel.checkpoint()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ContentChangedError as error:
            changed = error  # raised below: inside the group it would come out as an ExceptionGroup
        tasks.cancel_scope.cancel()
    if changed is not None:
        raise changed


def _chunks(piece: bytes | Span) -> Iterable[bytes | Span]:
    """Cut a span into chunks; bytes stay whole."""
    if isinstance(piece, bytes):
        return (piece,)
    return (Span(at, min(at + CHUNK, piece.stop)) for at in range(piece.start, piece.stop, CHUNK))


def _multipart(spans: Sequence[Span], size: int, media_type: str, boundary: str) -> list[bytes | Span]:
    """Interleave spans with the part headers of ``multipart/byteranges``."""
    pieces: list[bytes | Span] = []
    for i, span in enumerate(spans):
        pieces.append(
            f"{'' if i == 0 else chr(13) + chr(10)}--{boundary}\r\n"
            f"Content-Type: {media_type}\r\nContent-Range: {_content_range(span, size)}\r\n\r\n".encode()
        )
        pieces.append(span)
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces


def _content_range(span: Span, size: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def _last_modified(content: Content) -> str | None:
    """Return the HTTP date to say; None if it changed just now, or in the future.

    Last-Modified must not be later than Date (RFC 9110, 8.8.2.1), and servers renew theirs now and then.
    """
    if content.modified is None or content.modified > time.time() - _SETTLED_SECONDS:
        return None
    return _http_date(content.modified)


@lru_cache(4096)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _precondition(asked: dict[bytes, str], content: Content, date: str | None) -> int | None:
    """Return 412 or 304 where a precondition says so (RFC 9110, 13.2.2), else None.

    ``date`` is the Last-Modified that is said: clients send it as it is, and it need not be parsed.
    """
    if b"if-match" in asked:
        if not _lists(asked[b"if-match"], content.etag, weak=False):
            return 412
    elif (
        (limit := asked.get(b"if-unmodified-since"))
        and content.modified is not None
        and limit != date
        and _after(content.modified, limit)
    ):
        return 412
    if b"if-none-match" in asked:
        return 304 if _lists(asked[b"if-none-match"], content.etag, weak=True) else None
    since = asked.get(b"if-modified-since")
    if since is not None and content.modified is not None:
        return 304 if since == date or _after(content.modified, since) is False else None
    return None


def _if_range(asked: dict[bytes, str], content: Content, date: str | None) -> bool:
    """Whether the range still applies: no If-Range, or a strong validator that is ours."""
    validator = asked.get(b"if-range")
    return validator is None or validator in (content.etag, date)


def _lists(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of entity tags holds ours, or is ``*``."""
    tags = {tag.strip() for tag in header.split(",")}
    return "*" in tags or etag in tags or (weak and f"W/{etag}" in tags)


def _after(modified: int, date: str) -> bool | None:
    """Whether a change came after an HTTP date; None if that is no date (then it is ignored)."""
    try:
        limit = parsedate_to_datetime(date)
        return None if limit.tzinfo is None else modified > limit.timestamp()
    except (OverflowError, ValueError):
        return None


async def send_error(
    scope: Scope,
    send: Send,
    status: int,
    code: str,
    description: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send ``{"code": …, "description": …}``, the form that stac-fastapi gives its errors."""
    body = orjson.dumps({"code": code, "description": description})
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    # an error must not outlive its cause in a cache
    lines = [*CORS, kind, length, (b"cache-control", b"no-store"), *headers]
    await _send(send, status, lines, b"" if scope["method"] == "HEAD" else body)


async def send_not_found(scope: Scope, send: Send, description: str) -> None:
    """Send 404 with its reason."""
    await send_error(scope, send, 404, "NotFoundError", description)


async def only_reading(scope: Scope, send: Send) -> bool:
    """Answer OPTIONS (CORS preflight), refuse what writes and WebSockets; True if the caller is to answer."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return False
    method = scope["method"]
    if method in ("GET", "HEAD"):
        return True
    if method == "OPTIONS":
        await _send(send, 200, [*CORS, *_PREFLIGHT])
    else:
        allow = (b"allow", b"GET, HEAD, OPTIONS")
        await send_error(scope, send, 405, "MethodNotAllowed", f"{method} is not supported here", [allow])
    return False


async def send_redirect(send: Send, location: str, cache_control: str, *, permanent: bool = True) -> None:
    """Send 301: of all redirects GDAL remembers only this one, and reads the other ranges from there.

    Permanent means as long as ``cache_control`` says, for caches that keep to the RFC; else it is a 302.
    """
    lines = [
        *CORS,
        (b"location", location.encode("ascii")),
        (b"cache-control", cache_control.encode()),
        (b"content-length", b"0"),
    ]
    await _send(send, 301 if permanent else 302, lines)


async def _send(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def route_path(scope: Scope) -> str:
    """Return the request's path below where this app is mounted, percent-decoded, from its ``/`` on.

    Behind a proxy that strips its prefix, ``root_path`` is that prefix and the mount, while the path
    holds the mount only; otherwise it holds both.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    mount = root.removeprefix(scope.get("app_root_path", ""))
    for prefix in (root, mount):
        if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
            return path[len(prefix) :]
    return path


def public_path(scope: Scope) -> str:
    """Return the request's path as the client wrote it: with the prefix that a proxy stripped."""
    path: str = scope["path"]
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path if path.startswith(root) else root + path
