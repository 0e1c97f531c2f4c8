"""Clients that ask for much and do not read it: a worker's memory and its other clients."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.server import Served, serving
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.waiting import until

SECONDS = float(os.environ.get("TESSERA_SLOW_SECONDS", "60"))
MOST_MEMORY = 400 << 20
HUGE = ("/search?limit=10000&view=bands", "/search?limit=10000", "/collections/tessera-v1/items?limit=10000")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slow")
    tiles = patch(0, 40, 110, 100)
    build_from(
        folder / "catalog", write_manifest(folder, 2024, tiles), source_root="https://tiles.example.org/v1"
    )
    (folder / "catalog" / "cogs").mkdir()
    (folder / "catalog" / "cogs" / "large.tif").write_bytes(bytes(50_000_000))
    return folder / "catalog"


def memory(pid: int) -> int:
    """Return a process' largest resident memory so far in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) << 10


def not_reading(served: Served, path: str, version: str = "1.1") -> socket.socket:
    """Ask, and read nothing; the window is small, so that the server holds what it made."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", served.port))
    client.sendall(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    return client


def test_ten_clients_that_do_not_read(catalog: Path) -> None:
    with (
        serving(catalog) as served,
        contextlib.ExitStack() as stack,
        httpx.Client(base_url=served.url, timeout=30) as other,
    ):
        other.get("/search?limit=10")
        quiet = _pings(other, 3)
        for n in range(10):
            stack.enter_context(not_reading(served, HUGE[n % len(HUGE)]))
        slow = _pings(other, SECONDS)
        most = memory(served.process.pid)
        figures = f"{most >> 20} MB, ping {slow * 1000:.0f} ms (quiet {quiet * 1000:.0f} ms)"
        print(f"ten clients that do not read, {SECONDS:g} s: {figures}")
        assert most < MOST_MEMORY
        assert slow < max(0.1, 4 * quiet), "a machine that is busy with other things is slow by itself"


def _pings(client: httpx.Client, seconds: float) -> float:
    """Return the time that 99 of 100 pings take, with searches between them."""
    pings, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        assert client.get("/_mgmt/ping").status_code == 200
        pings.append(time.monotonic() - started)
        assert client.get("/search?limit=10").status_code == 200
        time.sleep(0.1)
    return sorted(pings)[-1 - len(pings) // 100]


def test_many_more_are_refused_or_dropped_and_others_are_served(catalog: Path) -> None:
    """Pages and files at once, far beyond the budget: 503 with a time to retry, then room again."""
    with (
        serving(catalog, TESSERA_STAC_MAX_BYTES_IN_FLIGHT="20000000") as served,
        contextlib.ExitStack() as stack,
        httpx.Client(base_url=served.url, timeout=30) as other,
    ):
        for n in range(60):
            path = "/data/cogs/large.tif" if n % 2 else HUGE[n % 3]
            stack.enter_context(not_reading(served, path))
        refused = [a for _ in range(20) if (a := other.get("/search?limit=600")).status_code == 503]
        assert all("retry-after" in a.headers for a in refused)
        assert all("try again" in a.json()["description"] for a in refused)
        # those that have read nothing for two seconds make room for those that read
        until(lambda: other.get("/search?limit=600").status_code == 200)
        assert memory(served.process.pid) < MOST_MEMORY


def test_a_client_that_stops_reading_is_dropped(catalog: Path) -> None:
    with serving(catalog, TESSERA_STAC_STALL_SECONDS="1") as served:
        for path in ("/data/cogs/large.tif", HUGE[0]):
            with not_reading(served, path) as client:
                time.sleep(3)
                client.settimeout(10)
                received = 0
                with contextlib.suppress(ConnectionResetError):
                    while part := client.recv(1 << 20):
                        received += len(part)
                assert received < 10_000_000, "the rest was never sent"


def test_a_client_that_reads_slowly_but_steadily_is_served(catalog: Path) -> None:
    """It stalls for less than the limit each time."""
    with serving(catalog, TESSERA_STAC_STALL_SECONDS="1.5") as served:
        with not_reading(served, "/search?limit=700") as client:
            client.settimeout(10)
            body = b""
            while not body.endswith(b"\r\n0\r\n\r\n"):
                time.sleep(0.05)
                part = client.recv(1 << 16)
                assert part, "the connection was closed"
                body += part
        assert body.count(b'"type":"Feature"') == 700
