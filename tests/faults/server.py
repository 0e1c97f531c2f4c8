"""A real ``tessera-stac serve`` in processes of its own, and raw sockets to treat it badly with."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Served:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> httpx.Response:
        """Ask once, on a connection of its own."""
        return httpx.get(self.url + path, timeout=30, trust_env=False)

    def wait(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.get("/_mgmt/ping").is_success
            return False

        until(answers, "the server does not answer")

    def workers(self) -> list[int]:
        """Return the process ids that serve, from the parent's children."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(stat[1]) == self.process.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def serving(catalog: Path, *options: str, port: int | None = None, **environment: str) -> Iterator[Served]:
    """Run ``tessera-stac serve`` and wait until it answers; it is killed at the end."""
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "catalog_builder.cli",
        "serve",
        str(catalog),
        "--port",
        str(port),
        *options,
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    served = Served(process, port)
    try:
        served.wait()
        yield served
    finally:
        process.kill()
        process.wait()


def raw(port: int, data: bytes, seconds: float = 20) -> bytes:
    """Send bytes as they are and return everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as sock:
        sock.sendall(data)
        return until_closed(sock)


def until_closed(sock: socket.socket) -> bytes:
    """Return everything that comes until the server closes; an answer is not one packet."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            answer += part
    return answer
