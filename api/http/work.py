"""What strangers can start, bounded: work in threads, and bytes that are held for clients.

Work must not run on the event loop, but in a few threads, with a bounded queue and a deadline.
Searches that scan, images, map tiles, aggregations and generated documents all run in a :class:`Pool`, so
what strangers can start is bounded: ``threads`` pieces run, ``waiting`` wait, and further requests are
refused with 503 at once. A client that leaves takes its request out of the queue. A piece that runs cannot be
stopped from outside: it looks at its :class:`Deadline` between reads, and keeps its place in the pool until
it has ended.

Responses, and request bodies, beyond a few kilobytes are counted from when they are in memory until the
client has read them (:class:`Flight`). Beyond the budget further ones get 503, and the clients that have read
nothing for longest are dropped, so that the next request finds room.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from starlette.types import Receive

from api.settings import Settings
from catalog_builder.errors import QueryTimeoutError, TesseraError, UnavailableError

T = TypeVar("T")

_GRACE_SECONDS = 0.5
"""How long work that runs may take to see that its time is over."""
_DRAWING_NICE = 5
"""How much drawing yields to searches where both want the same processor."""

COUNTED = 64 * 1024
"""Less than this is not counted: uvicorn buffers as much for each connection without waiting."""
CHUNKS_WAITING = 1024
"""Chunks of arrays that may wait for a thread, or for room in memory."""
_PATIENCE_SECONDS = 2.0
"""How long a client may have read too slowly before it is dropped for others."""


class BusyError(UnavailableError):
    """More requests than the server may keep at a time (HTTP 503)."""


class ClientGoneError(TesseraError):
    """The client closed the connection before its response was ready; nobody reads what is sent."""


class Deadline:
    """When a piece of work must have ended, and whether anybody still waits for it.

    Examples
    --------
    >>> Deadline(10.0).left > 9
    True
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._abandoned = False

    @property
    def left(self) -> float:
        """Seconds that are left; 0 or less once it has passed, or nobody waits for the result."""
        return 0.0 if self._abandoned else self._until - time.monotonic()

    def check(self) -> None:
        """Call this between reads.

        Raises
        ------
        QueryTimeoutError
            If no time is left.
        """
        if self.left <= 0:
            raise QueryTimeoutError("the response takes longer than a request may")

    def abandon(self) -> None:
        """Say that nobody waits for the result any more."""
        self._abandoned = True


class Pool:
    """A few threads, and a queue before them.

    Parameters
    ----------
    of
        What is done there, for messages: ``searches``.
    threads
        How many pieces of work run at a time.
    waiting
        How many may wait for a thread.
    seconds
        Time of each, with that in the queue.
    nice
        How much its threads yield to others of the process (Linux only).
    """

    def __init__(self, of: str, threads: int, waiting: int, seconds: float, nice: int = 0) -> None:
        self._of = of
        self._seconds = seconds
        self._places = threading.Semaphore(threads + waiting)
        self._executor = ThreadPoolExecutor(threads, of.replace(" ", "-"), _yield_to, (nice,))

    async def run(self, work: Callable[[Deadline], T], receive: Receive | None = None) -> T:
        """Return the result of ``work`` from a thread.

        Parameters
        ----------
        work
            Gets the deadline, and looks at it now and then.
        receive
            Of a request whose body has been read: the work is dropped when its client leaves.

        Raises
        ------
        BusyError
            If the queue is full.
        QueryTimeoutError
            If it takes longer than it may, or has not even begun by then.
        ClientGoneError
            If the client has left.
        """
        if not self._places.acquire(blocking=False):
            raise BusyError(f"the server is busy with other {self._of}; try again")
        deadline = Deadline(self._seconds)

        def in_time() -> T:
            deadline.check()  # it may have waited for too long
            return work(deadline)

        try:
            # The context says who is asking: api.readers.reader.ASKING.
            future = self._executor.submit(copy_context().run, in_time)
        except BaseException:
            self._places.release()
            raise
        # Not when the request ends: a piece that nobody waits for still needs its thread.
        future.add_done_callback(self._leave)
        result = asyncio.wrap_future(future)
        watched: list[asyncio.Future[Any]] = [result]
        if receive is not None:
            watched.append(asyncio.ensure_future(client_gone(receive)))
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(watched, timeout=deadline.left, return_when=first)
            if future.running():  # it is about to say by itself that it has no time left, and more
                await asyncio.wait(watched, timeout=_GRACE_SECONDS, return_when=first)
            if result.done():
                return result.result()
            if watched[-1].done():
                raise ClientGoneError("the client has left")
            begun = "this takes longer than a request may" if future.running() else "try again"
            raise QueryTimeoutError(f"the server is busy with other {self._of}; {begun}")
        finally:
            deadline.abandon()
            for each in watched:
                each.cancel()

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()


async def client_gone(receive: Receive) -> None:
    """Return when a request's client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _yield_to(nice: int) -> None:
    """Lower the priority of this thread alone."""
    if nice and sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + nice)


class Work:
    """The pools of a server process."""

    def __init__(self, settings: Settings) -> None:
        waiting = settings.max_waiting
        self.searches = Pool("searches", settings.threads, waiting, settings.search_seconds)
        """Searches, aggregations, large geometries."""
        self.pages = Pool("pages of many items", 1, waiting, settings.search_seconds, _DRAWING_NICE)
        """Pages of thousands of items: one at a time, since several would hold up every search."""
        self.drawings = Pool(
            "images and documents", settings.drawing_threads, waiting, settings.drawing_seconds, _DRAWING_NICE
        )
        """Previews, map tiles, coverage, generated documents of direct access."""
        self.vectors = Pool(
            "requests for vectors", settings.vector_threads, waiting, settings.vector_seconds, _DRAWING_NICE
        )
        """Vectors at points and in polygons, which take longer than images and must not keep them waiting."""
        self.chunks = Pool(
            "chunks of arrays", settings.chunk_threads, CHUNKS_WAITING, settings.chunk_seconds, _DRAWING_NICE
        )
        """Chunks of the zones' arrays: a reader asks for hundreds, and not every one asks again."""


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
