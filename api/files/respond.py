"""HTTP responses with range support: ranges, validators, cross-origin headers.

One function, :func:`respond`, handles GET and HEAD for any :class:`Content` (a file, a generated
document) as RFC 9110 says: sections 8.8 (validators), 13 (preconditions, in the order of 13.2.2)
and 14 (ranges, multipart). It knows nothing of paths or files; ``api/files/folder.py`` does.

Where the RFC leaves a choice:

* A ``Range`` in other units is ignored (it must be); a malformed ``bytes`` range is refused with
  416, because the alternative is 110 MB that nobody asked for.
* Of several ranges those that cannot be satisfied are dropped, and overlapping ones are merged, so
  a response is never longer than the file plus its part headers. More than ``max_ranges`` is 416.
  GDAL asks for at most 250 at a time (``GDAL_HTTP_MULTIRANGE=SINGLE_GET``), but understands the
  response only with a capital ``Content-Type``, as nginx sends it; uvicorn and HTTP/2 write names in
  small letters. It then falls back to one range per request.
* ``Range`` on HEAD is ignored: the RFC defines it for GET only.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from itertools import chain

import anyio
import anyio.lowlevel
import anyio.to_thread
from starlette.types import Receive, Scope, Send

from api.files.ranges import (
    MAX_RANGES,
    Content,
    ContentChangedError,
    RangeError,
    Span,
    content_range,
    multipart,
    parse_range,
)
from api.files.sending import CORS, Headers, send_error, send_whole
from catalog_builder.errors import UnreadableError

CHUNK = 256 * 1024
"""Bytes per read and per ASGI message: what one slow client can hold in memory."""
_SETTLED_SECONDS = 10
"""How long ago a file must have changed for Last-Modified to be sent."""

_CONDITIONAL = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)


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
    cut: Callable[[Span], Iterable[Span]] | None = None,
    whole: bool = False,
    in_memory: bool = False,
) -> None:
    """Respond to a GET or HEAD for some content.

    Parameters
    ----------
    cut
        Where to cut a long span into the parts that are read and sent one after another; by default every
        :data:`CHUNK` bytes.
    whole
        Ignore a range from the first byte on, as any server may, of a document that is always read to its
        end: GDAL requests 16 kB, and keeps what it gets if that is at most ten times as much.
    in_memory
        The bytes are in memory until they are sent, whatever is done: send them as one message, which is
        counted as a whole.

    Raises
    ------
    ContentChangedError, UnreadableError
        If the content changed or turned out to be damaged after the response had started. The server then
        closes the connection, so the client sees a response that is shorter than announced, not wrong bytes.
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
            await send_whole(send, refused, headers)
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
        if whole and spans and spans[0].start == 0:
            spans = None
    pieces: list[bytes | Span]
    if spans is None:
        status, pieces = 200, [Span(0, content.size)]
        headers.append(kind)
    elif len(spans) == 1:
        status, pieces = 206, [spans[0]]
        headers += [kind, (b"content-range", content_range(spans[0], content.size).encode())]
    else:
        status = 206
        boundary = secrets.token_hex(13)
        pieces = multipart(spans, content.size, media_type, boundary)
        headers.append((b"content-type", f"multipart/byteranges; boundary={boundary}".encode()))
    length = sum(len(p) if isinstance(p, bytes) else p.stop - p.start for p in pieces)
    headers.append((b"content-length", str(length).encode()))
    if head or not length:
        await send_whole(send, status, headers)
    elif length <= CHUNK or in_memory:
        # Read before responding: then a file that just shrank, or a store that is away, is a clean 503.
        try:
            body = await _bytes(pieces, content, limiter)
        except (ContentChangedError, UnreadableError) as error:
            await send_failure(scope, send, error)
            return
        await send_whole(send, status, headers, body)
    else:
        cuts = (part for piece in pieces for part in _parts(piece, cut or _chunks))
        parts = ([part] for part in cuts) if cut else _together(cuts)
        try:
            first = await _bytes(next(parts), content, limiter)
        except (ContentChangedError, UnreadableError) as error:
            await send_failure(scope, send, error)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await _stream(chain(([first],), parts), content, receive, send, limiter)


async def send_failure(scope: Scope, send: Send, error: ContentChangedError | UnreadableError) -> None:
    """Say that nothing can be sent: what is damaged stays so, what changed may be there the next time."""
    if isinstance(error, UnreadableError):
        await send_error(scope, send, 409, "SourceMismatch", str(error))
    else:
        await send_error(scope, send, 503, "ContentChanged", str(error), [(b"retry-after", b"1")])


async def _bytes(
    pieces: Sequence[bytes | Span], content: Content, limiter: anyio.CapacityLimiter | None
) -> bytes:
    """Return pieces joined: at once if all are in memory, else what is not from one thread."""
    found = [piece if isinstance(piece, bytes) else content.read_now(piece) for piece in pieces]

    missing = [piece for piece, part in zip(pieces, found, strict=True) if part is None]
    if missing:
        read = iter(await anyio.to_thread.run_sync(_read, missing, content, limiter=limiter))
        found = [next(read) if part is None else part for part in found]
    return b"".join(part for part in found if part is not None)


def _read(spans: Sequence[bytes | Span], content: Content) -> list[bytes]:
    return [content.read(span) for span in spans if isinstance(span, Span)]


def _together(parts: Iterable[bytes | Span]) -> Iterator[list[bytes | Span]]:
    """Yield small parts together: each message is a call of the system, here and at the client."""
    batch: list[bytes | Span] = []
    size = 0
    for part in parts:
        length = len(part) if isinstance(part, bytes) else part.stop - part.start
        if batch and size + length > CHUNK:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += length
    yield batch


async def _stream(
    parts: Iterable[Sequence[bytes | Span]],
    content: Content,
    receive: Receive,
    send: Send,
    limiter: anyio.CapacityLimiter | None,
) -> None:
    """Send parts until they are sent or the client is gone."""
    changed: ContentChangedError | UnreadableError | None = None
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            # uvicorn's send() says nothing when the client has gone: only receive() tells
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            for part in parts:
                body = await _bytes(part, content, limiter)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                # neither a read at hand nor a send() that is buffered lets others run
                await anyio.lowlevel.checkpoint()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ContentChangedError, UnreadableError) as error:
            changed = error  # raised below: inside the group it would come out as an ExceptionGroup
        tasks.cancel_scope.cancel()
    if changed is not None:
        raise changed


def _parts(piece: bytes | Span, cut: Callable[[Span], Iterable[Span]]) -> Iterable[bytes | Span]:
    """Cut a span; bytes stay whole."""
    return (piece,) if isinstance(piece, bytes) else cut(piece)


def _chunks(span: Span) -> Iterable[Span]:
    """Cut a span into chunks."""
    return (Span(at, min(at + CHUNK, span.stop)) for at in range(span.start, span.stop, CHUNK))


def _last_modified(content: Content) -> str | None:
    """Return the Last-Modified date to send; None if it changed just now, or in the future.

    Last-Modified must not be later than Date (RFC 9110, 8.8.2.1), and servers renew theirs now and then.
    """
    if content.modified is None or content.modified > time.time() - _SETTLED_SECONDS:
        return None
    return _http_date(content.modified)


@lru_cache(4096)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _precondition(asked: dict[bytes, str], content: Content, date: str | None) -> int | None:
    """Return 412 or 304 according to the preconditions (RFC 9110, 13.2.2), otherwise None.

    ``date`` is the Last-Modified that is said: clients send it as it is, and it need not be parsed.
    """
    if b"if-match" in asked:
        if not lists(asked[b"if-match"], content.etag, weak=False):
            return 412
    elif (
        (limit := asked.get(b"if-unmodified-since"))
        and content.modified is not None
        and limit != date
        and _after(content.modified, limit)
    ):
        return 412
    if b"if-none-match" in asked:
        return 304 if lists(asked[b"if-none-match"], content.etag, weak=True) else None
    since = asked.get(b"if-modified-since")
    if since is not None and content.modified is not None:
        return 304 if since == date or _after(content.modified, since) is False else None
    return None


def _if_range(asked: dict[bytes, str], content: Content, date: str | None) -> bool:
    """Whether the range still applies: no If-Range, or a strong validator that is ours."""
    validator = asked.get(b"if-range")
    return validator is None or validator in (content.etag, date)


def lists(header: str, etag: str, *, weak: bool) -> bool:
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
