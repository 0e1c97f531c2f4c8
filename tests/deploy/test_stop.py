"""How the server is stopped: every file that stops it waits longer than it does, and it keeps its time."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.server import CLOSING_SECONDS
from api.settings import PREFIX, Settings
from tests.deploy.container_files import DOCKERFILE, compose
from tests.deploy.kustomize import pod_templates, render
from tests.deploy.processes import DEPLOY, ROOT, tessera_stac, wait_for
from tests.faults.server import until_closed
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.ports import free_port
from tests.support.waiting import ended, until

STOP = f"{PREFIX}STOP_SECONDS"
LIMIT: int = Settings.model_fields["stop_seconds"].default
LARGE = 48_000_000
"""Bytes of the download: far more than the kernel's buffers hold, which outlive the process."""


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s?", text)
    assert found, text
    return int(found[1])


def _systemd() -> dict[str, int]:
    (found,) = re.findall(
        r"^TimeoutStopSec=(\S+)$", (DEPLOY / "systemd/tessera-stac.service").read_text(), re.M
    )
    return {"systemd": _seconds(found)}


def _compose() -> dict[str, int]:
    """Return the times of the servers, and of nginx, whose downloads are the same."""
    services = compose(CATALOG="/srv/catalog")["services"]
    serving = {n: s for n, s in services.items() if n == "nginx" or s.get("command", [""])[0] == "serve"}
    assert serving.keys() == {"nginx", "api", "api-pgstac"}
    return {f"compose, {name}": _seconds(s["stop_grace_period"]) for name, s in serving.items()}


def _kubernetes() -> dict[str, int]:
    """Return what is left of the times after preStop, in every overlay."""
    found = {}
    for plan in sorted((DEPLOY / "kubernetes").rglob("kustomization.yaml")):
        for pod in (t["spec"] for m in render(plan.parent) for t in pod_templates(m)):
            for container in (c for c in pod["containers"] if c["args"][0] == "serve"):
                sleep, before = container["lifecycle"]["preStop"]["exec"]["command"]
                assert sleep == "sleep"
                found[f"Kubernetes, {plan.parent.name}"] = pod["terminationGracePeriodSeconds"] - int(before)
    assert len(found) == 3, "the base and two overlays"
    return found


def _docker() -> dict[str, int]:
    """Return the time of the advice in the Dockerfile: an image cannot say it, and Docker's own is 10 s."""
    commands = re.findall(r"^# docker run .*$", DOCKERFILE.read_text(), re.M)
    assert commands
    return {c: _seconds(re.findall(r"--stop-timeout (\d+)", c)[0]) for c in commands}


@pytest.mark.parametrize("times", [_systemd, _compose, _kubernetes, _docker])
def test_what_stops_the_server_waits_longer_than_the_server(times: Callable[[], dict[str, int]]) -> None:
    for where, seconds in times().items():
        assert seconds > LIMIT + CLOSING_SECONDS, where


def test_the_figure_is_said_once() -> None:
    """The documentation says the setting's default; no file of deploy/ sets or says another."""
    assert f"for up to {LIMIT} s (`{STOP}`)" in (ROOT / "docs" / "operations.md").read_text()
    for path in (p for p in DEPLOY.rglob("*") if p.is_file()):
        text = path.read_text()
        assert not re.search(rf"{STOP}\W{{1,4}}\d", text), path
        assert not re.search(r"waits? for (up to )?\d+ s", text), path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stop")
    made = folder / "catalog"
    build_from(made, write_manifest(folder, 2024, patch(0, 52, 4, 3)), source_root="s3://bucket/source")
    (made / "cogs").mkdir()
    (made / "cogs" / "large.tif").write_bytes(os.urandom(LARGE))
    return made


@dataclass(slots=True)
class Stopped:
    """A server, and how it ends."""

    process: subprocess.Popen[str]
    port: int

    def connect(self) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # else the kernel takes megabytes ahead
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def stop(self) -> float:
        """Tell every process to stop, as systemd does; return when."""
        os.killpg(self.process.pid, signal.SIGTERM)
        return time.monotonic()

    def wait(self, told: float) -> tuple[float, str]:
        """Wait for the end; return how long it took, and what was said."""
        said = self.process.communicate(timeout=60)[1]
        return time.monotonic() - told, said


@contextmanager
def _serving(catalog: Path, workers: int, **environment: str) -> Iterator[Stopped]:
    port = free_port()
    process = subprocess.Popen(
        tessera_stac("serve", catalog, "--port", port, "--workers", workers),
        env={**os.environ, **environment},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/_mgmt/ready", process)
        yield Stopped(process, port)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _begin(sock: socket.socket, path: str) -> bytearray:
    """Ask for a file, and return what came of its body with the head."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, begun = b"", b""
    while not begun:
        head += sock.recv(65_536)
        _, _, begun = head.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {LARGE}\r\n".encode() in head.lower()
    return bytearray(begun)


def _read(sock: socket.socket, body: bytearray, seconds: float, size: int = LARGE) -> None:
    """Read on, evenly, until there are ``size`` bytes or the server closes."""
    began, first = time.monotonic(), len(body)
    while len(body) < size:
        due = first + (size - first) * (time.monotonic() - began) / seconds
        if len(body) >= due:
            time.sleep(0.02)
        elif part := sock.recv(65_536):
            body += part
        else:
            return


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_download_is_finished(catalog: Path, workers: int) -> None:
    """With the default limit: one that takes 11 s after the stop is whole, then the process ends."""
    with _serving(catalog, workers) as server, server.connect() as sock:
        body = _begin(sock, "/data/cogs/large.tif")
        told = server.stop()
        _read(sock, body, 9, LARGE - 12_000_000)
        assert server.process.poll() is None
        with pytest.raises(ConnectionRefusedError):
            server.connect()
        _read(sock, body, 2)
        took, said = server.wait(told)
    assert bytes(body) == (catalog / "cogs" / "large.tif").read_bytes()
    assert 10 < took < LIMIT
    assert "exceeded" not in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_download_beyond_the_limit_is_cut(catalog: Path, workers: int) -> None:
    with _serving(catalog, workers, **{STOP: "2"}) as server, server.connect() as sock:
        body = _begin(sock, "/data/cogs/large.tif")
        told = server.stop()
        # Watched beside the reading: what the kernel holds still comes after the process has ended.
        with ThreadPoolExecutor(1) as pool:
            end = pool.submit(server.wait, told)
            _read(sock, body, 60)
            cut = time.monotonic() - told
            took, said = end.result()
    assert 0 < len(body) < LARGE, "less than the Content-Length: no client takes it for the file"
    assert 2 <= took < 2 + CLOSING_SECONDS
    assert cut >= 2
    assert "timeout graceful shutdown exceeded" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_thread_that_waits_does_not_hold_the_end(catalog: Path, workers: int) -> None:
    """It waits for a store that accepts and never answers, which would take a minute and retries."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
            f"{PREFIX}S3_ACCESS": "proxy",
            STOP: "1",
        }
        with _serving(catalog, workers, **environment) as server, server.connect() as sock:
            name = "grid_0.05_52.05"
            sock.sendall(f"GET /source/v1/2024/{name}/{name}.npy HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            silent.settimeout(20)
            waiting, _ = silent.accept()
            told = server.stop()
            took, said = server.wait(told)
            waiting.close()
            answer = until_closed(sock)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nretry-after: 1\r\n" in answer
    assert b"the server is stopping, try again" in answer
    assert 1 <= took < 1 + CLOSING_SECONDS
    assert "Traceback" not in said


def test_a_worker_whose_parent_was_killed_keeps_the_time(catalog: Path) -> None:
    with _serving(catalog, 2, **{STOP: "2"}) as server, server.connect() as sock:
        body = _begin(sock, "/data/cogs/large.tif")
        workers = [int(p) for p in _children(server.process.pid)]
        assert len(workers) >= 2
        os.kill(server.process.pid, signal.SIGKILL)
        told = time.monotonic()

        def end() -> float:
            until(lambda: all(ended(pid) for pid in workers))
            return time.monotonic() - told

        with ThreadPoolExecutor(1) as pool:
            took = pool.submit(end)
            _read(sock, body, 60)
            assert 0 < len(body) < LARGE
            assert 2 <= took.result() < 2 + CLOSING_SECONDS


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
