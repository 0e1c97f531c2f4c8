"""A server that is killed, or beset by 10,000 connections or by slow clients, while others ask."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner

from api.app import create_app
from api.server import PatientProtocol
from api.settings import Settings
from catalog_builder.build.validate import validate_catalog
from catalog_builder.cli.main import app
from tests.faults.forks import ROUNDS
from tests.faults.server import Served, raw, serving, until_closed
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server, serve
from tests.support.needs import lacks
from tests.support.ports import free_port
from tests.support.waiting import ended, until

CONNECTIONS = 10_000


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fire")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 5, 5)))
    (folder / "catalog" / "cogs").mkdir()
    (folder / "catalog" / "cogs" / "large.tif").write_bytes(bytes(8_000_000))
    return folder / "catalog"


def test_killed_workers_are_replaced_and_a_killed_parent_leaves_none(tmp_path: Path) -> None:
    """Under load, and while the catalogue is built anew beside it."""
    catalog = tmp_path / "catalog"
    manifests = [write_manifest(tmp_path / str(n), 2024, patch(0, 52, n, 4)) for n in (4, 5)]
    build_from(catalog, manifests[0])
    rng, answers, stop = random.Random(0), [], threading.Event()

    def load(served: Served) -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError):  # of the worker that was killed
                answers.append(served.get("/search?limit=2"))

    with serving(catalog, "--workers", "2") as served:
        threads = [threading.Thread(target=load, args=(served,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for n in range(max(ROUNDS // 2, 2)):
                until(lambda: len(served.workers()) == 2)
                victim = rng.choice(served.workers())
                time.sleep(rng.uniform(0, 0.3))
                os.kill(victim, signal.SIGKILL)
                build_from(catalog, manifests[(n + 1) % 2])
                assert served.get("/").status_code == 200
                until(lambda gone=victim: len(set(served.workers()) - {gone}) == 2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {a.status_code for a in answers} == {200}
        assert {a.json()["numberMatched"] for a in answers} <= {16, 20}
        workers = served.workers()
        served.process.send_signal(signal.SIGKILL)
        served.process.wait()
        until(lambda: all(ended(pid) for pid in workers))
        before = (catalog / "index.sqlite").read_bytes()
        with serving(catalog, port=served.port) as again:  # the port is free
            assert again.get("/search?limit=1").json()["numberMatched"] in (16, 20)
        assert (catalog / "index.sqlite").read_bytes() == before
        assert validate_catalog(catalog).sound


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "catalog_builder.cli", *map(str, arguments)]


def test_a_port_in_use_is_one_line_before_any_work(catalog: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for verb in (
            ("serve", catalog),
            ("serve", "nothing is opened"),
            ("demo", "--folder", tmp_path / "f"),
        ):
            done = subprocess.run(_command(*verb, "--port", port), capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert done.stderr == f"error: 127.0.0.1:{port}: cannot listen there (Address already in use)\n"
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "http"])
def test_a_port_that_does_not_exist_is_refused(catalog: Path, port: str) -> None:
    done = CliRunner().invoke(app, ["serve", str(catalog), "--port", port])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--port" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_0_prints_the_port_that_it_is(catalog: Path, host: str) -> None:
    command = _command("serve", catalog, "--host", host, "--port", 0)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(" on ")[1].strip()
        until(lambda: _reachable(f"{url}_mgmt/ready"))
        process.terminate()
        assert process.wait(30) in (0, -15)
    assert urlsplit(url).hostname == host
    assert urlsplit(url).port


def _reachable(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _allow(files: int) -> None:
    """Let this process and its children have so many open files; skip where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(hard, files)))
    except (ValueError, PermissionError):
        lacks(f"at most {hard} files may be open")


def _memory(pid: int) -> int:
    """Return a process' resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_ten_thousand_open_connections(catalog: Path) -> None:
    """Each has had an answer and is kept; the server answers others, in bounded memory, and lets go."""
    _allow(CONNECTIONS * 5 // 4)
    with serving(catalog) as served, contextlib.ExitStack() as stack:
        expected = served.get("/search?limit=3").content
        before = _memory(served.process.pid)
        request = b"GET /_mgmt/ping HTTP/1.1\r\nHost: x\r\n\r\n"
        opened = []
        for n in range(CONNECTIONS):
            # more than one client address: a client has 28,000 ports in all
            sock = socket.create_connection(
                ("127.0.0.1", served.port), timeout=60, source_address=(f"127.0.0.{2 + n % 4}", 0)
            )
            opened.append(stack.enter_context(sock))
            sock.sendall(request)
        assert all(sock.recv(12) == b"HTTP/1.1 200" for sock in opened)
        for _ in range(20):
            assert served.get("/search?limit=3").content == expected
        assert len(os.listdir(f"/proc/{served.process.pid}/fd")) > CONNECTIONS  # noqa: PTH208
        used = _memory(served.process.pid) - before
        print(f"{used / CONNECTIONS:.0f} bytes a connection")
        assert used < CONNECTIONS * 50_000
        stack.close()
        until(lambda: len(os.listdir(f"/proc/{served.process.pid}/fd")) < 200)  # noqa: PTH208
        assert served.get("/search?limit=3").content == expected


def test_connections_beyond_the_limit_are_refused_and_files_run_out(catalog: Path) -> None:
    """With 256 descriptors: a clear 503 beyond 128 connections; nothing dies, and it recovers."""
    command = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
        "from catalog_builder.cli import main; main()"
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", str(catalog), "--port", str(port)], stderr=subprocess.DEVNULL
    )
    served = Served(process, port)
    try:
        served.wait()
        with contextlib.ExitStack() as stack:
            idle = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                for _ in range(300)
            ]
            refused = [s for s in idle[128:] if _is_refused(s)]
            assert len(refused) > 100
        until(lambda: served.get("/search?limit=1").status_code == 200)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def _is_refused(sock: socket.socket) -> bool:
    try:
        answer = until_closed(sock)
    except TimeoutError:
        return False
    return answer.startswith(b"HTTP/1.1 503 ") and b"too many connections" in answer


class Impatient(PatientProtocol):
    head_seconds = 0.6


@pytest.fixture(scope="module")
def impatient(catalog: Path) -> Iterator[Server]:
    """Serve the application with short limits: a test need not wait for half a minute."""
    with serve(create_app(catalog, Settings(body_seconds=0.6)), http=Impatient) as running:
        yield running


def test_slow_heads_are_408(impatient: Server) -> None:
    """A byte now and then (slowloris), nothing at all, and blank lines after an answer."""
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as sock:
        answer = _drip(sock, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 10_000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive in time" in answer
    assert raw(impatient.port, b"").startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as sock:
        sock.sendall(b"GET /_mgmt/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"PONG" not in answer:
            answer += sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in _drip(sock, b"\r\n" * 10_000)
    assert httpx.get(f"{impatient.url}/search?limit=1").status_code == 200


def _drip(sock: socket.socket, data: bytes) -> bytes:
    """Send a byte at a time until the server answers; return all it says until it closes."""
    sock.settimeout(0.05)
    for n in range(len(data)):
        with contextlib.suppress(OSError):
            sock.send(data[n : n + 1])
        with contextlib.suppress(TimeoutError):
            answer = sock.recv(65536)
            sock.settimeout(20)
            return answer + until_closed(sock)
    raise AssertionError("the server waits for ever")


def test_a_slow_body_is_408(impatient: Server) -> None:
    head = b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=20) as sock:
        sock.sendall(head)
        answer = _drip(sock, b" " * 5000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 0.6 s" in answer
        assert b"connection: close" in answer.lower()
    assert httpx.get(f"{impatient.url}/search?limit=1").status_code == 200


def test_a_head_without_end_is_431(impatient: Server) -> None:
    answer = raw(impatient.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"a" * 400_000)
    assert answer.startswith(b"HTTP/1.1 431 ") or not answer  # the answer may be lost with the connection
    assert httpx.get(f"{impatient.url}/search?limit=1").status_code == 200


def test_slow_readers_hold_little_and_others_are_served(catalog: Path) -> None:
    """Clients that ask for 8 MB of pixels, or for a large page, and read nothing of it."""
    with serving(catalog) as served, contextlib.ExitStack() as stack:
        expected = served.get("/search?limit=3").content
        served.get("/data/cogs/large.tif")
        before = _memory(served.process.pid)
        for path in ("/data/cogs/large.tif", "/search?limit=500"):
            for _ in range(100):
                sock = socket.create_connection(("127.0.0.1", served.port), timeout=20)
                stack.enter_context(sock)
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(10):
            assert served.get("/search?limit=3").content == expected
        grown = _memory(served.process.pid) - before
        # 100 whole files would be 800 MB
        assert grown < 200_000_000, grown


def test_the_kernel_drops_clients_that_stop_reading(catalog: Path) -> None:
    """Uvicorn has no such limit: the listening socket gives it to each connection."""
    from api.server import STALLED_SECONDS, listen

    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        lacks("no TCP_USER_TIMEOUT on this system")
    with listen("127.0.0.1", 0) as sock:
        sock.listen()
        with socket.create_connection(sock.getsockname()):
            connection, _ = sock.accept()
            with connection:
                found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert found == STALLED_SECONDS * 1000
