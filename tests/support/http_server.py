"""Any ASGI app under uvicorn on a free loopback port, with an exact log of what was asked of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server import IDLE_SECONDS
from tests.support.ports import free_port
from tests.support.waiting import until


@dataclass(slots=True)
class Request:
    """One request, and what was answered."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0
    """Bytes of body that the app sent."""


@dataclass(slots=True)
class Server:
    """A running server."""

    port: int
    log: list[Request] = field(default_factory=list)
    """Every request since the start or the last :meth:`clear`, in order of arrival."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def clear(self) -> None:
        self.log.clear()

    def count(self, method: str | None = None) -> int:
        return sum(method in (None, r.method) for r in self.log)

    @property
    def sent(self) -> int:
        return sum(r.sent for r in self.log)


def logged(app: ASGIApp, log: list[Request]) -> ASGIApp:
    """Note each request; bytes are counted before they are sent, so a client is never ahead of the log."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        asked = headers.get(b"range")
        entry = Request(scope["method"], scope["path"], asked.decode() if asked else None)
        log.append(entry)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
            else:
                entry.sent += len(message.get("body", b""))
            await send(message)

        await app(scope, receive, noting)

    return wrapped


@contextmanager
def serve(app: ASGIApp, **config: object) -> Iterator[Server]:
    """Run an app in a thread for the length of a ``with`` block.

    ``config`` goes to :class:`uvicorn.Config`.
    """
    # With the protocol named, asyncio sets TCP_NODELAY; without it each answer waits 40 ms for an ACK.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    server = Server(free_port())
    sock.bind(("127.0.0.1", server.port))
    options = {
        "lifespan": "off",
        "log_level": "critical",
        "access_log": False,
        # As we serve; after uvicorn's 5 s a client on a busy machine may ask in the moment it closes.
        "timeout_keep_alive": IDLE_SECONDS,
        **config,
    }
    running = uvicorn.Server(uvicorn.Config(logged(app, server.log), **options))  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: asyncio.run(running.serve([sock])), daemon=True)
    thread.start()
    until(lambda: running.started or not thread.is_alive())
    assert running.started, "the test server did not start"
    try:
        yield server
    finally:
        running.should_exit = True
        running.force_exit = True  # GDAL keeps connections open
        thread.join(20)
        sock.close()
