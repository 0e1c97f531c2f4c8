"""Pools: work that is bounded in number and time, and never begun for a client that has left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message

from api.http.work.pool import Pool
from api.http.work.waiting import BusyError, ClientGoneError, Deadline
from catalog_builder.errors import QueryTimeoutError


def run[T](make: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await make()

    return asyncio.run(main())


async def leaves() -> Message:
    await asyncio.sleep(0.05)
    return {"type": "http.disconnect"}


async def stays() -> Message:
    await asyncio.sleep(3600)
    return {"type": "http.disconnect"}


class Gate:
    """Work that takes until it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = threading.Event()

    def __call__(self, _: Deadline) -> int:
        self.begun += 1
        self.open.wait(20)
        return self.begun


def test_a_result_and_an_error_come_back() -> None:
    async def ask() -> None:
        pool = Pool("tests", threads=1, waiting=0, seconds=5)
        assert await pool.run(lambda until: until.left > 4, stays)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda _: 1 // 0, stays)
        assert await pool.run(lambda _: 3) == 3, "an error must give its place back"

    run(ask)


def test_beyond_the_queue_it_is_refused_at_once_and_places_come_back() -> None:
    async def ask() -> None:
        pool, gate = Pool("tests", threads=2, waiting=3, seconds=20), Gate()
        five = [asyncio.ensure_future(pool.run(gate)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert gate.begun == 2, "two threads"
        started = time.monotonic()
        with pytest.raises(BusyError, match="busy with other tests"):
            await pool.run(gate)
        assert time.monotonic() - started < 0.1
        gate.open.set()
        await asyncio.gather(*five)
        assert gate.begun == 5
        await pool.run(gate)

    run(ask)


def test_what_waits_is_never_begun_when_its_client_leaves() -> None:
    async def ask() -> None:
        pool, gate, later = Pool("tests", threads=1, waiting=1, seconds=20), Gate(), Gate()
        first = asyncio.ensure_future(pool.run(gate, stays))
        await asyncio.sleep(0.05)
        with pytest.raises(ClientGoneError):
            await pool.run(later, leaves)
        waiting = asyncio.ensure_future(pool.run(lambda _: "place", stays))  # its place is free again
        await asyncio.sleep(0)
        gate.open.set()
        assert await waiting == "place"
        await first
        assert later.begun == 0

    run(ask)


def test_what_runs_learns_that_its_client_has_left_and_keeps_its_place_until_it_ends() -> None:
    seen = threading.Event()

    def reads(until: Deadline) -> None:
        try:
            while True:
                until.check()
                time.sleep(0.01)
        except QueryTimeoutError:
            time.sleep(0.3)
            seen.set()
            raise

    async def ask() -> None:
        pool = Pool("tests", threads=1, waiting=0, seconds=20)
        with pytest.raises(ClientGoneError):
            await pool.run(reads, leaves)
        with pytest.raises(BusyError):
            await pool.run(lambda _: None, stays)
        assert await asyncio.to_thread(seen.wait, 5)
        await asyncio.sleep(0.05)
        await pool.run(lambda _: None, stays)

    run(ask)


def test_the_deadline_counts_the_wait_and_ends_it() -> None:
    async def ask() -> None:
        pool, gate = Pool("tests", threads=1, waiting=1, seconds=0.2), Gate()
        started = time.monotonic()
        found = await asyncio.gather(pool.run(gate), pool.run(gate), return_exceptions=True)
        assert [type(each) for each in found] == [QueryTimeoutError] * 2
        assert time.monotonic() - started < 2
        gate.open.set()
        await asyncio.sleep(0.1)
        assert gate.begun == 1, "the second had no time left when the thread was free"

    run(ask)
