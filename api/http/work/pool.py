"""Work in threads, with a bounded queue and a deadline; see :mod:`api.http.work`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from api.http.work.relay import Relay
from api.http.work.waiting import BusyError, ClientGoneError, Deadline, client_gone
from api.settings import Settings
from catalog_builder.errors import QueryTimeoutError

T = TypeVar("T")

CHUNKS_WAITING = 1024
"""Chunks of arrays that may wait for a thread, or for room in memory."""
_GRACE_SECONDS = 0.5
"""How long work that runs may take to see that its time is over."""


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
    relay
        What has its requests answered elsewhere; None: they all are answered here.
    """

    def __init__(
        self, of: str, threads: int, waiting: int, seconds: float, relay: Relay | None = None
    ) -> None:
        self._of = of
        self._seconds = seconds
        self._places = threading.Semaphore(threads + waiting)
        self._executor = ThreadPoolExecutor(threads, of.replace(" ", "-"))
        self._relay = relay

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

    async def elsewhere(self, request: Request, waits: int = 1) -> Response | None:
        """Return what has a request answered by another process; None if it is to be answered here.

        Parameters
        ----------
        request
            Its body, if it has one, is read.
        waits
            How many times in turn it may take as long as work in this pool.
        """
        return None if self._relay is None else await self._relay.answer(request, waits * self._seconds)

    def _leave(self, _: Future[Any]) -> None:
        self._places.release()


class Work:
    """The pools of a server process, and the processes that have part of their work.

    Parameters
    ----------
    settings
        Of the server.
    relays
        Whether there are such processes: one for searches that take long, one that reads pixels.
    """

    def __init__(self, settings: Settings, *, relays: bool = False) -> None:
        waiting, seconds = settings.max_waiting, settings.search_seconds
        long = pixels = None
        if relays:
            drawn = settings.drawing_threads + settings.vector_threads + settings.chunk_threads
            long = Relay("searches", 2 * waiting + settings.threads + 1, waits=False)
            pixels = Relay("images and vectors", 2 * waiting + CHUNKS_WAITING + drawn, waits=True)
        self.searches = Pool("searches", settings.threads, waiting, seconds, long)
        """Searches that are not short, aggregations, large geometries."""
        self.pages = Pool("pages of many items", 1, waiting, seconds, long)
        """Pages of thousands of items: one at a time, since several would hold up every search."""
        self.drawings = Pool(
            "images and documents", settings.drawing_threads, waiting, settings.drawing_seconds, pixels
        )
        """Previews, map tiles, coverage, generated documents of direct access."""
        self.vectors = Pool(
            "requests for vectors", settings.vector_threads, waiting, settings.vector_seconds, pixels
        )
        """Vectors at points and in polygons, which take longer than images and must not keep them waiting."""
        self.chunks = Pool(
            "chunks of arrays", settings.chunk_threads, CHUNKS_WAITING, settings.chunk_seconds, pixels
        )
        """Chunks of the zones' arrays: a reader asks for hundreds, and not every one asks again."""
