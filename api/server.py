"""The server of ``tessera-stac serve``: uvicorn, hardened against slow, numerous or vanished clients.

uvicorn alone waits for ever for request headers, reads headers of any length, keeps the buffers of a
client that stops reading, and leaves its workers behind, with the port, when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from api.http.work.flight import SLOW
from api.settings import Settings
from catalog_builder.errors import StorageError

HEAD_SECONDS = 30.0
"""Time for the headers of a request to arrive, in seconds."""
HEAD_BYTES = 256 * 1024
"""Maximum size of the request headers: four times the longest accepted query string."""
STALLED_SECONDS = 60.0
"""How long a client may stop reading before the kernel drops the connection."""
UNSENT_BYTES = 256 * 1024
"""What the kernel takes for a client beyond what is on its way, so that the server sees who reads slowly."""
SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the interpreter from the event loop: a tenth of the default."""
IDLE_SECONDS = 75
"""How long an idle connection is kept between requests."""
CLOSING_SECONDS = 5
"""Time for the shutdown itself, once the responses in progress have ended or were cut off."""
_MOST_FILES = 65_536
_SPARE_FILES = 128
"""Minimum number of descriptors reserved for files and the index, not for connections."""

_REFUSED = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n"
    b"access-control-allow-origin: *\r\nretry-after: 5\r\n\r\n%s"
)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on connections and on the time and size of request headers."""

    head_seconds = HEAD_SECONDS
    """A class attribute, because uvicorn creates the protocols."""
    most_connections: int | None = None
    """None: derived from the limit of open files."""

    stall_seconds = STALLED_SECONDS
    """How long a client may read nothing of what waits for it."""

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _head = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it with a reason while there are too many."""
        super().connection_made(transport)
        most = self.most_connections or connections_for_files()
        if len(self.connections) > most:
            self._refuse(b"503 Service Unavailable", b"Busy", b"too many connections, try again")
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on; between requests they start new headers."""
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        if self._late is not None and not self._in_body:  # the rest of a body that was refused may be long
            self._head += len(data)
        super().data_received(data)
        if self._late is not None and self._head > HEAD_BYTES:
            self._refuse(
                b"431 Request Header Fields Too Large", b"HeadTooLong", b"the request's head is too long"
            )

    def on_headers_complete(self) -> None:
        """Stop the timer: the headers have arrived."""
        self._stop_waiting()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body has arrived too."""
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._stop_waiting()
        self._reads_again()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than the server writes."""
        super().pause_writing()
        SLOW.begin(self.transport)
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._reads_again()
        super().resume_writing()

    def _watch(self, before: int) -> None:
        self._stalled = self.loop.call_later(self.stall_seconds, self._drop_if_stalled, before)

    def _drop_if_stalled(self, before: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now < before:
            self._watch(now)
        else:
            self.transport.abort()

    def _reads_again(self) -> None:
        SLOW.end(self.transport)
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _expect_head(self) -> None:
        self._head = 0
        self._late = self.loop.call_later(
            self.head_seconds,
            self._refuse,
            b"408 Request Timeout",
            b"RequestTimeout",
            b"the request's head did not arrive in time",
        )

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, status: bytes, code: bytes, reason: bytes) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            body = b'{"code":"%s","description":"%s"}' % (code, reason)
            self.transport.write(_REFUSED % (status, len(body), body))
            self.transport.close()


def connections_for_files() -> int:
    """Return the maximum number of connections: a tenth of the descriptors is reserved for files.

    Most connections are idle. When more of them read files than there are descriptors, those are
    answered with 503 until some are free.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(files - max(_SPARE_FILES, files // 10), 50)


def raise_file_limit() -> None:
    """Raise the limit of open files to the maximum that the system allows; workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to a host and port.

    Raises
    ------
    StorageError
        If the host is not one of this machine's, or the port is in use.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named, asyncio sets TCP_NODELAY on the connections.
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_SECONDS * 1000))
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # otherwise the kernel holds megabytes for a slow client
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        sock.bind(address)
    except OSError as exc:
        raise StorageError(f"{host}:{port}: cannot listen there ({exc.strerror or exc})") from exc
    sock.set_inheritable(True)
    return sock


def application() -> Any:
    """Return the application, in a worker that exits when its parent is killed."""
    from api.app import create_app

    # Looking through the modules for what can be freed takes 0.1 s each time, during which nobody is served.
    # Not what is made from here on: a catalogue that a new build replaces is freed.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = Settings()
    PatientProtocol.stall_seconds = settings.stall_seconds  # workers are processes of their own
    parent = multiprocessing.parent_process()
    if parent is not None:
        time = settings.stop_seconds + CLOSING_SECONDS
        threading.Thread(target=_leave_with, args=(parent.sentinel, time), daemon=True).start()
    return create_app(relays=True)


def _leave_with(sentinel: int, seconds: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # finish requests in progress
    threading.Event().wait(seconds)
    os._exit(1)


class _Workers(Multiprocess):
    """uvicorn's supervisor, which closes the port when it is stopped.

    With its own socket open until the last download has ended, the kernel would accept connections that
    nobody serves: their clients would wait instead of retrying.
    """

    def terminate_all(self) -> None:
        """Close the port and tell the workers to stop."""
        for sock in self.sockets:
            sock.close()
        super().terminate_all()


def run(sock: socket.socket, workers: int, settings: Settings) -> None:
    """Serve the catalogue of the settings on a socket until stopped."""
    raise_file_limit()
    PatientProtocol.stall_seconds = settings.stall_seconds
    config = uvicorn.Config(
        "api.server:application",
        factory=True,
        http=PatientProtocol,
        workers=workers,
        # logging a line costs more than many requests: the access log is a setting of the app
        access_log=False,
        log_level="warning",
        proxy_headers=False,  # api.http.proxies decides who is believed
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    with contextlib.suppress(KeyboardInterrupt):
        if workers > 1:
            _Workers(config, sockets=[sock]).run()
        else:
            uvicorn.Server(config).run(sockets=[sock])
