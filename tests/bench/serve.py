"""A server under measurement: started in a process of its own, asked over keep-alive connections."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.ports import free_port


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: GET, or POST if there is a body."""

    path: str
    body: bytes | None = None
    range: str | None = None
    """A Range header; the answer is then 206."""

    @classmethod
    def post(cls, body: Mapping[str, Any]) -> Self:
        return cls("/search", json.dumps(body).encode())


class Server:
    """A process that answers HTTP on a loopback port; the start-up ends with its first good answer."""

    def __init__(
        self, command: Sequence[object], port: int, probe: str = "/search?limit=1", **environment: str
    ) -> None:
        self.port = port
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )
        while True:
            try:
                self.connection = self.connect()
                self.get(probe)
                break
            except (OSError, http.client.HTTPException):
                if self.process.poll() is not None:
                    raise RuntimeError(f"{command[0]} ended: {self.process.returncode}") from None
                time.sleep(0.01)
        self.start_up = time.perf_counter() - start

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, ask: Ask, connection: http.client.HTTPConnection | None = None, **headers: str) -> bytes:
        connection = connection or self.connection
        try:
            status, body = self._ask(ask, connection, headers)
        except ConnectionError:
            connection.close()  # idle for longer than the server keeps connections
            status, body = self._ask(ask, connection, headers)
        assert status == (206 if ask.range else 200), (ask, body[:500])
        return body

    @staticmethod
    def _ask(
        ask: Ask, connection: http.client.HTTPConnection, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if ask.body is None:
            ranged = {"range": ask.range} if ask.range else {}
            connection.request("GET", ask.path, headers={**headers, **ranged})
        else:
            connection.request("POST", ask.path, ask.body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()

    def get(self, path: str, **headers: str) -> bytes:
        return self.ask(Ask(path), **headers)

    def memory_mb(self) -> float:
        """Resident memory, with what is mapped of files."""
        return self._status("VmRSS")

    def own_memory_mb(self) -> float:
        """Memory without the mapped index, which is the system's cache."""
        return self._status("RssAnon")

    def _status(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def tessera(catalog: Path, workers: int = 1) -> Server:
    """Run ``tessera-stac serve``."""
    port = free_port()
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", catalog, "--port", port]
    return Server([*command, "--workers", workers], port)


@dataclass(frozen=True, slots=True)
class Rate:
    """What clients saw."""

    per_second: float
    median_ms: float
    p95_ms: float


def measure(server: Server, asks: Sequence[Ask], clients: int, seconds: float, warm: int = 3) -> Rate:
    """Let clients ask one request after another for some seconds, each from its own place in the list."""
    for ask in asks[:warm]:
        server.ask(ask)
    times: list[float] = []
    failed: list[BaseException] = []
    barrier = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        try:
            connection = server.connect()
            connection.connect()
            at = number * len(asks) // clients
            barrier.wait()
            while time.perf_counter() < until:
                start = time.perf_counter()
                server.ask(asks[at % len(asks)], connection)
                times.append(time.perf_counter() - start)
                at += 1
            connection.close()
        except BaseException as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    until = float("inf")
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    until = start + seconds
    barrier.wait()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    passed = time.perf_counter() - start
    times.sort()
    return Rate(len(times) / passed, statistics.median(times) * 1e3, times[int(len(times) * 0.95)] * 1e3)
