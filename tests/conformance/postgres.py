"""A PostgreSQL of our own: started in a folder, on a free loopback port, stopped with everything it began."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.ports import free_port

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
"""Where Debian's package postgresql-15 puts its programs."""
_EXTENSION = Path("/usr/share/postgresql/15/extension/postgis.control")
_USER = "postgres"


def missing() -> str | None:
    """Return what is not installed, None if everything is."""
    if not (PROGRAMS / "initdb").exists():
        return "PostgreSQL 15 is not installed (Debian: postgresql-15)"
    if not _EXTENSION.exists():
        return "PostGIS is not installed (Debian: postgresql-15-postgis-3)"
    return None


@contextmanager
def running(
    folder: Path, shared_buffers: str = "256MB", port: int | None = None
) -> Iterator[Mapping[str, str]]:
    """Run PostgreSQL on ``folder``, made if it is not there; lend the environment that reaches it.

    The folder must lie where the user ``postgres`` may look, if this process is root's.
    """
    data = folder / "data"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            shutil.chown(folder, _USER, _USER)
        making = folder / "making"
        shutil.rmtree(making, ignore_errors=True)
        _run("initdb", "-D", str(making), "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-U", _USER)
        making.rename(data)
    port = port or free_port()
    options = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": shared_buffers,
        "work_mem": "64MB",
        "maintenance_work_mem": "512MB",
        "max_wal_size": "8GB",
        "random_page_cost": "1.1",
        # Nothing here must survive a power cut.
        "fsync": "off",
    }
    flags = [part for k, v in options.items() for part in ("-c", f"{k}={v}")]
    log = (folder / "log").open("ab")
    (data / "postmaster.pid").unlink(missing_ok=True)  # of a run that was killed
    process = subprocess.Popen(
        _as_user(str(PROGRAMS / "postgres"), "-D", str(data), *flags), stdout=log, stderr=log, cwd="/"
    )
    env = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": _USER, "PGPASSWORD": "x"}
    try:
        deadline = time.monotonic() + 60
        while _run("pg_isready", "-q", check=False, **env):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start; see {folder / 'log'}")
            time.sleep(0.05)
        yield {**env, "POSTGRES_PID": (data / "postmaster.pid").read_text().split()[0]}
    finally:
        # SIGINT is PostgreSQL's fast stop; the process we started may be runuser, so ask the server itself.
        pid = data / "postmaster.pid"
        if process.poll() is None:
            with suppress(FileNotFoundError, ProcessLookupError):  # it is over; runuser may not know it yet
                os.kill(int(pid.read_text().split()[0]), signal.SIGINT)
        process.wait(60)
        log.close()


def psql(env: Mapping[str, str], sql: str, database: str = "postgres") -> str:
    """Run SQL; return its answer as plain text."""
    found = subprocess.run(
        [PROGRAMS / "psql", "-qtAX", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def _as_user(*command: str) -> list[str]:
    """Return a command as it must be run: PostgreSQL refuses to be root."""
    return ["runuser", "-u", _USER, "--", *command] if os.getuid() == 0 else list(command)


def _run(program: str, *arguments: str, check: bool = True, **env: str) -> int:
    command = _as_user(str(PROGRAMS / program), *arguments)
    found = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, cwd="/")
    if check and found.returncode:
        raise RuntimeError(f"{program}: {found.stderr or found.stdout}")
    return found.returncode
