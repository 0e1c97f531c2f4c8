"""stac-fastapi-pgstac in a process of its own, on a pgSTAC database of ours."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from api.server import IDLE_SECONDS
from tests.conformance.postgres import missing
from tests.support.environments import environment
from tests.support.needs import lacks
from tests.support.ports import free_port

LOCK = Path(__file__).parent / "pgstac.lock"


def pgstac_python() -> Path:
    """Return the Python of the peer's environment."""
    return environment(LOCK, "version-parser")


def need_postgres() -> None:
    """Skip the test where PostgreSQL is not installed; fail it in CI, which must have it."""
    if reason := missing():
        lacks(reason)


def pgstac_command(port: int) -> list[str]:
    """Return what runs the server with one worker."""
    return [
        str(pgstac_python()), "-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app",
        "--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning",
        "--timeout-keep-alive", str(IDLE_SECONDS),
    ]  # fmt: skip


def pgstac_settings(env: Mapping[str, str], database: str) -> dict[str, str]:
    """Return the server's environment; hydrating in the API is the faster way, and keeps nulls."""
    return {**env, "PGDATABASE": database, "USE_API_HYDRATE": "true"}


@contextmanager
def serve_pgstac(env: Mapping[str, str], database: str) -> Iterator[str]:
    """Run the server; lend its address."""
    port = free_port()
    mine = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    process = subprocess.Popen(
        pgstac_command(port),
        env={**mine, **pgstac_settings(env, database)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/search?limit=1", process)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Wait until an address answers well."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                answer.read()
                return
        except OSError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{url} does not answer: {exc}") from exc
            time.sleep(0.01)
