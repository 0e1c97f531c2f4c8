"""A remote file as one stream: resumed where it broke off, and verified against the server's metadata."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from catalog_builder.errors import ChecksumError
from catalog_builder.storage import retry
from catalog_builder.storage.address import CHUNK, fail


@dataclass(frozen=True, slots=True)
class Opened:
    """A response that is being read."""

    chunks: Iterator[bytes]
    tag: str
    """Identifies this version of the file; empty if unknown, and then nothing can be resumed."""
    size: int | None = None
    """Bytes of the whole file, if the server states it."""
    sha256: str = ""
    """Of the whole file, lower-case hex, if known."""


Opener = Callable[[str, int, str], Opened]
"""``opener(address, first byte, tag)``; with a tag, only that version of the file is returned."""


def stream(address: str, opener: Opener) -> BinaryIO:
    """Return a file that is read from its beginning to its end."""
    return cast(BinaryIO, io.BufferedReader(_Stream(address, opener), CHUNK))


class _Stream(io.RawIOBase):
    """A remote file as a stream of chunks, reopened at its position when the connection breaks."""

    def __init__(self, address: str, opener: Opener) -> None:
        self._address = address
        self._opener = opener
        self._position = 0
        self._rest = b""
        self._opened: Opened | None
        self._opened = self._first = opener(address, 0, "")
        self._digest = hashlib.sha256() if self._first.sha256 else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next_chunk()
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def _next_chunk(self) -> bytes:
        for attempt in range(retry.ATTEMPTS):
            try:
                if self._opened is None:
                    self._opened = self._opener(self._address, self._position, self._first.tag)
                chunk = next(self._opened.chunks, b"")
                self._check(chunk)
            except ChecksumError:
                raise
            except Exception as error:
                # a generator that raised would only say "end of file" from now on
                self._opened = None
                # without a tag, two versions of a file could be stitched together
                if attempt == retry.ATTEMPTS - 1 or not self._first.tag:
                    fail(self._address, error)
            else:
                self._position += len(chunk)
                return chunk
            retry.pause(attempt)
        raise AssertionError("unreachable")

    def _check(self, chunk: bytes) -> None:
        """Reject a premature end, and bytes that do not match the announced checksum."""
        if chunk:
            if self._digest is not None:
                self._digest.update(chunk)
            return
        size = self._first.size
        if size is not None and self._position != size:
            raise ConnectionError(f"the response ended after {self._position:,} of {size:,} bytes")
        if self._digest is not None and self._digest.hexdigest() != self._first.sha256:
            raise ChecksumError(
                f"{self._address}: SHA-256 of the bytes read is {self._digest.hexdigest()},"
                f" the store says {self._first.sha256}"
            )

    def close(self) -> None:
        closer = getattr(self._opened.chunks, "close", None) if self._opened is not None else None
        if closer is not None:
            closer()
        super().close()
