"""Environments of their own for other programs, made once from a hash-pinned lock and kept in .cache.

What we compare with has dependencies that must not meet ours: an older GDAL, a validator, a server.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.needs import program

CACHE = Path(__file__).parents[2] / ".cache"


def environment(lock: Path, *sources: str) -> Path:
    """Return the Python of an environment with exactly what a lock lists.

    Parameters
    ----------
    lock
        Requirements with hashes.
    sources
        Packages that exist as source only; all others must be wheels.
    """
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    home = CACHE / f"{lock.stem}-{key}"
    python = home / "bin" / "python"
    with (CACHE / f"{lock.stem}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # several test processes may want it at once
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            binary = ["--only-binary", ":all:", *(["--no-binary", ",".join(sources)] if sources else [])]
            uv("venv", "--python", sys.executable, home)
            uv("pip", "install", "--python", python, "--require-hashes", *binary, "--requirement", lock)
            (home / "ready").touch()
    return python


def uv(*arguments: object) -> None:
    """Run uv, in a fifth of pip's time, most of which compiles modules that nobody imports."""
    command = [sys.executable, "-m", "uv", "--quiet", "--no-config", *arguments]
    subprocess.run(command, check=True)


def node_environment(folder: Path) -> Path:
    """Return a copy of a folder with a ``package-lock.json``, with what that lists installed beside it."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    key = hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    home = CACHE / f"{folder.parent.name}-{folder.name}-{key}"
    with (CACHE / f"{folder.parent.name}-{folder.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for path in files:
                shutil.copy(path, home)
            npm = program("npm", "npm")
            subprocess.run(
                [npm, "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=home, check=True
            )
            (home / "ready").touch()
    return home
