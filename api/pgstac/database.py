"""The database: connections with a time limit, and conversion of its errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import asyncpg
from stac_fastapi.pgstac.db import con_init
from starlette.requests import Request

from api.settings import Settings
from catalog_builder.errors import QueryError, QueryTimeoutError, UnavailableError

CONNECT_SECONDS = 5.0
"""How long to wait for the database to accept a connection."""
_SERVER_SETTINGS = {
    "search_path": "pgstac,public",
    "application_name": "tessera-stac",
    # A search that writes fails on a replica, and two of them wait for each other.
    "pgstac.readonly": "true",
    # Compiling a query costs more than most of these queries take.
    "jit": "off",
    "timezone": "UTC",
}
_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke in the middle of an exchange
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
"""The database restarts, or cannot be reached."""

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class Database:
    """A pool of connections to a database with pgSTAC."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Make the pool; connections are made when they are needed, so the database may be down."""
        self._pool = asyncpg.create_pool(
            self._settings.pgstac_dsn or None,
            min_size=0,
            max_size=self._settings.pgstac_connections,
            timeout=CONNECT_SECONDS,
            # one that was idle longer may have been cut off by something in between
            max_inactive_connection_lifetime=300,
            init=con_init,
            server_settings=_SERVER_SETTINGS,
        )
        await self._pool

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self, seconds: float, wait: float | None = None) -> AsyncIterator[Any]:
        """Yield a connection in a read-only transaction with a time limit.

        ``wait`` is how long to wait for a connection that is free, if not as long.
        """
        if self._pool is None:
            raise UnavailableError("the database is not connected yet; try again")
        began = time.monotonic()
        try:
            connection = await self._pool.acquire(timeout=max(seconds if wait is None else wait, 0.05))
        except TimeoutError:
            raise UnavailableError("the database does not respond, or is busy; try again") from None
        try:
            async with connection.transaction(readonly=True):
                waited = 0.0 if wait is not None else time.monotonic() - began
                left = max(seconds - waited, 0.001)
                await connection.execute(f"SET LOCAL statement_timeout = {max(int(left * 1000), 1)}")
                yield connection
        except asyncpg.InternalClientError:
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    @asynccontextmanager
    async def of_request(self, _request: Request, _mode: str = "r") -> AsyncIterator[Any]:
        """Yield a connection to stac-fastapi-pgstac, within the time of :meth:`within`."""
        deadline = _deadline.get()
        seconds = self._settings.search_seconds if deadline is None else deadline - time.monotonic()
        async with self.connection(seconds) as connection:
            yield connection

    async def within[T](self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        """Do work with the database under a time limit; once more if a connection was lost.

        Raises
        ------
        QueryTimeoutError
            If it takes too long.
        QueryError
            If the database rejects a value, or a page's position in the order no longer exists.
        UnavailableError
            If the database cannot be reached.
        """
        token = _deadline.set(time.monotonic() + seconds)
        try:
            try:
                return await _translated(work)
            except UnavailableError:
                # After a restart every idle connection is dead: one is found out, the next is new.
                return await _translated(work)
        finally:
            _deadline.reset(token)


async def _translated[T](work: Callable[[], Awaitable[T]]) -> T:
    try:
        return await work()
    except asyncpg.QueryCanceledError:
        raise QueryTimeoutError(
            "the search takes longer than the server allows; narrow it by collection, time or area"
        ) from None
    except asyncpg.RaiseError as error:  # pgSTAC's own messages
        raise QueryError(_words(error)) from None
    except asyncpg.DataError as error:
        raise QueryError(f"filter: cannot be computed ({error})") from None
    except _LOST as error:
        reason = str(error) or type(error).__name__
        raise UnavailableError(f"the database cannot be reached ({reason}); try again") from error


def _words(error: asyncpg.RaiseError) -> str:
    text = str(error)
    if "using token" in text or "paging token" in text:
        return "token: the item it refers to no longer exists; start again without a token"
    return f"the search cannot be executed: {text}"
