"""Byte ranges: parsing of ``Range`` headers, and the parts of multipart responses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

from catalog_builder.errors import ArrayError, StorageError, StoreError, TesseraError, UnreadableError

MAX_RANGES = 256
"""Maximum number of ranges in one request."""
# At most 18 digits: beyond any file, and int() refuses absurdly long numbers with an error.
_SPAN = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


class ContentChangedError(TesseraError):
    """A file that was modified or truncated while it was being sent."""


def failed(error: StorageError, reason: str) -> TesseraError:
    """Return the error for pixels that a container did not give: of a damaged one, or for now."""
    is_damaged = isinstance(error, ArrayError | StoreError)
    return UnreadableError(reason) if is_damaged else ContentChangedError(reason)


class RangeError(TesseraError, ValueError):
    """A Range header that is malformed, excessive, or entirely outside the content (416)."""


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
        """Return the bytes if they are available without waiting for a disk; otherwise None."""

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


def multipart(spans: Sequence[Span], size: int, media_type: str, boundary: str) -> list[bytes | Span]:
    """Interleave spans with the part headers of ``multipart/byteranges``."""
    pieces: list[bytes | Span] = []
    for i, span in enumerate(spans):
        pieces.append(
            f"{'' if i == 0 else chr(13) + chr(10)}--{boundary}\r\n"
            f"Content-Type: {media_type}\r\nContent-Range: {content_range(span, size)}\r\n\r\n".encode()
        )
        pieces.append(span)
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return pieces


def content_range(span: Span, size: int) -> str:
    """Return the ``Content-Range`` of a span of some content."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"
