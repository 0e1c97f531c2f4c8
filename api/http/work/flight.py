"""Bytes that are held for clients, counted; see :mod:`api.http.work`."""

from __future__ import annotations

import asyncio
import time

COUNTED = 64 * 1024
"""Less than this is not counted: uvicorn buffers as much for each connection without waiting."""
_PATIENCE_SECONDS = 2.0
"""How long a client may have read too slowly before it is dropped for others."""


class Flight:
    """The budget of a server process, in bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0
        """Bytes in flight."""

    def take(self, size: int) -> bool:
        """Count bytes; False if there is no room for them now. One response always fits."""
        if self.held and self.held + size > self._most:
            SLOW.drop(self.held + size - self._most)
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """Count bytes no more."""
        self.held -= size


class SlowReaders:
    """Connections of this process whose clients read more slowly than the server writes.

    The server's protocol enters them here; without it, under another server, nobody is dropped.
    """

    def __init__(self) -> None:
        self._since: dict[asyncio.Transport, float] = {}

    def begin(self, transport: asyncio.Transport) -> None:
        """Note a connection whose buffer is full."""
        self._since.setdefault(transport, time.monotonic())

    def end(self, transport: asyncio.Transport) -> None:
        """Note that it has room again, or is closed."""
        self._since.pop(transport, None)

    def drop(self, size: int) -> None:
        """Close the slowest connections, until their buffers hold as many bytes."""
        late = time.monotonic() - _PATIENCE_SECONDS
        for transport, since in list(self._since.items()):  # in the order in which they fell behind
            if size <= 0 or since > late:
                break
            size -= transport.get_write_buffer_size()
            transport.abort()


SLOW = SlowReaders()
"""Of this process."""
