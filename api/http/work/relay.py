"""Requests answered by another process, which yields the processor to this one and can be killed.

The process (:mod:`api.relayed`) is the same application without its front: a request has been let in, its
reader is known, and limits, encoding and counts are done here, as for every other. It starts with the first
request for it.

Requests reach it as connections, passed along a socket; when that is closed, because this process has ended
in whatever way, it ends too. What it sends is passed on as it comes, so that a client that reads slowly
slows it down. A client that leaves closes the connection. A request whose response has not begun when its
time is over, although what works on it should have said so by then, has the process killed: nothing else
ends a read of GDAL that waits for a remote host. Others that it was working on get 503 then, and the next
request starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.http.work.frames import read_frame, write_frame
from api.http.work.waiting import ERROR_KEY, BusyError, ClientGoneError, client_gone
from api.readers.reader import ASKING
from catalog_builder.errors import QueryTimeoutError

LOG = logging.getLogger("tessera_stac")

READY = b"r"
"""What the process says once it accepts requests."""
_GRACE_SECONDS = 5.0
"""How long after its deadline a request may take to say that it is over."""
_START_SECONDS = 60.0
"""How long the process may take to start."""
_AGAIN_SECONDS = 10.0
"""How long after it could not start it is not tried again."""
_PASSED = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string",
    "headers", "client", "server",
)  # fmt: skip
"""Of a request's scope; and all of ours."""


class Relay:
    """Passes requests to a process, which it starts and ends.

    Parameters
    ----------
    of
        What is done there, for messages: ``searches``.
    most
        How many requests may be there without a response that has begun; further ones get 503.
    waits
        Whether requests wait for the process while it starts; otherwise they are answered here meanwhile.
    """

    def __init__(self, of: str, most: int, *, waits: bool) -> None:
        self._of = of
        self._most = most
        self._waits = waits
        self._process: _Process | None = None
        self._failed = -_AGAIN_SECONDS
        self.asked = 0
        """Requests there whose response has not begun."""

    async def answer(self, request: Request, seconds: float) -> Response | None:
        """Return what relays a request; None if it is to be answered here: the process is not there.

        Parameters
        ----------
        request
            Its body, if it has one, is read.
        seconds
            Time until its response must have begun.

        Raises
        ------
        BusyError
            If there are too many.
        """
        if self._process is None or self._process.has_ended:
            if time.monotonic() - self._failed < _AGAIN_SECONDS:
                return None
            self._process = _Process()
        process = self._process
        if not process.started.done() and not self._waits:
            return None
        try:
            await asyncio.shield(process.started)
        except OSError as error:
            LOG.warning("no process for %s, they are answered here: %s", self._of, error)
            self._failed = time.monotonic()
            return None
        if self.asked >= self._most:
            raise BusyError(f"the server is busy with other {self._of}; try again")
        body = await request.body() if request.method == "POST" else b""
        return _Relayed(self, process, body, seconds)


class _Relayed(Response):
    """A response that another process makes."""

    def __init__(self, relay: Relay, process: _Process, body: bytes, seconds: float) -> None:
        super().__init__()
        self._relay = relay
        self._process = process
        self._asked_body = body
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what the process sends, until the client has left."""
        asked = {key: scope[key] for key in _PASSED if key in scope}
        asked["root_path"] = scope.get(
            "app_root_path", scope["root_path"]
        )  # not that of an app mounted in ours
        asked |= {key: value for key, value in scope.items() if key.startswith("tessera.")}
        who = ASKING.get()
        request = (asked, self._asked_body, (who.name, who.may_see))
        gone = asyncio.ensure_future(client_gone(receive))
        try:
            async with self._process.connection() as (reader, writer):
                self._relay.asked += 1
                try:
                    until = time.monotonic() + self._seconds + _GRACE_SECONDS
                    await write_frame(writer, request)
                    first = await self._next(reader, gone, until)
                    message = await self._next(reader, gone, until)
                finally:
                    self._relay.asked -= 1
                if (kind := first.pop(ERROR_KEY, None)) is not None:
                    scope[ERROR_KEY] = kind
                await send(first)
                await send(message)
                with contextlib.suppress(ClientGoneError):  # in the middle of its response
                    while message.get("more_body"):
                        message = await self._next(reader, gone)
                        await send(message)
        except EOFError as error:
            raise BusyError("the process that made the response has ended; try again") from error
        finally:
            gone.cancel()

    async def _next(
        self, reader: asyncio.StreamReader, gone: asyncio.Future[None], until: float | None = None
    ) -> dict[str, Any]:
        """Return the next message.

        Raises
        ------
        EOFError
            If the process has ended.
        ClientGoneError
            If the client has left.
        QueryTimeoutError
            If none comes in time: the process has been killed.
        """
        coming = asyncio.ensure_future(read_frame(reader))
        left = None if until is None else max(until - time.monotonic(), 0)
        try:
            await asyncio.wait((coming, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return dict(coming.result())
        finally:
            coming.cancel()
        if gone.done():
            raise ClientGoneError("the client has left")
        self._process.kill()
        raise QueryTimeoutError("this takes longer than a request may")


class _Process:
    """A process that answers requests."""

    def __init__(self) -> None:
        self._control, self._theirs = socket.socketpair()
        self._control.setblocking(False)
        self._running: subprocess.Popen[bytes] | None = None
        self._killed = False
        self.started = asyncio.ensure_future(self._start())
        """Done once it accepts requests; an OSError if it does not."""

    @property
    def has_ended(self) -> bool:
        """Whether it has to be started again."""
        failed = self.started.done() and self.started.exception() is not None
        return failed or self._killed or (self._running is not None and self._running.poll() is not None)

    def kill(self) -> None:
        """End it at once."""
        self._killed = True
        self._control.close()
        if self._running is not None:
            self._running.kill()
            # Not here: what waits for a disk that does not answer cannot even be killed.
            threading.Thread(target=self._running.wait, daemon=True).start()

    async def _start(self) -> None:
        with self._theirs as theirs:
            self._running = await asyncio.to_thread(_run, theirs)
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                said = await asyncio.get_running_loop().sock_recv(self._control, len(READY))
        if said != READY:
            self.kill()
            raise OSError("it does not start; what it said is in the log")

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Context of a new connection to it."""
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        with theirs:
            try:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            except BlockingIOError as error:
                mine.close()
                raise BusyError("the server is busy; try again") from error
            except OSError as error:
                mine.close()
                raise EOFError("it has ended") from error
        reader, writer = await asyncio.open_unix_connection(sock=mine)
        try:
            yield reader, writer
        finally:
            writer.close()


def _run(control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process: the same Python with the same modules and settings."""
    # Its folder is not where modules are looked for, unless it is here too (-P).
    command = [sys.executable, "-P", "-m", "api.relayed", str(control.fileno())]
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        command,
        pass_fds=[control.fileno()],
        env={**environment, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
    )
