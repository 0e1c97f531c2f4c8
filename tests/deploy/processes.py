"""The server and nginx as they are deployed: in processes of their own, on free ports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.pgstac_server import wait_for
from tests.support.ports import free_port
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tessera_stac(*arguments: object) -> list[str]:
    """Return the command line of ``tessera-stac`` in this environment."""
    return [sys.executable, "-m", "catalog_builder.cli", *map(str, arguments)]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    url: str
    pid: int

    def workers(self) -> list[int]:
        """Return the processes that serve: those with an index open that no worker has started."""
        return [pid for pid in self._readers() if not is_relayed(pid)]

    def relayed(self) -> list[int]:
        """Return the processes that workers have started for what takes long and that have an index open."""
        return [pid for pid in self._readers() if is_relayed(pid)]

    def _readers(self) -> list[int]:
        return [pid for pid in (self.pid, *_descendants(self.pid)) if open_indexes(pid)]


@contextmanager
def serving(
    command: Sequence[object], port: int, ready: str = "/_mgmt/ready", **env: str
) -> Iterator[Running]:
    """Run a server's command line; lend it when it is ready, stop it as systemd and containers do."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}{ready}", process)
        yield Running(url, process.pid)
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15), "a stop is graceful"


@contextmanager
def serve_catalog(catalog: Path, *arguments: object, workers: int = 1, **env: str) -> Iterator[Running]:
    """Run ``tessera-stac serve`` on a free port; lend it when all workers are there."""
    port = free_port()
    command = tessera_stac("serve", catalog, "--port", port, "--workers", workers, *arguments)
    with serving(command, port, **env) as running:
        until(lambda: len(running.workers()) >= workers, "fewer workers than asked for")
        yield running


def _descendants(pid: int) -> Iterator[int]:
    children: list[int] = []
    with suppress(OSError):  # it ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    for child in children:
        yield child
        yield from _descendants(child)


def is_relayed(pid: int) -> bool:
    """Return whether a process answers what a worker passes on to it: ``api.relayed``."""
    try:
        return b"api.relayed" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it ended
        return False


def open_indexes(pid: int) -> set[str]:
    """Return the index files that a process has open, those that were deleted too; none if it is over."""
    found = set()
    descriptors: list[Path] = []
    with suppress(OSError):
        descriptors += Path(f"/proc/{pid}/fd").iterdir()
    for fd in descriptors:
        with suppress(OSError):  # closed meanwhile
            target = str(fd.readlink())
            if "index.sqlite" in target:
                found.add(target)
    return found
