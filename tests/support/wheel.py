"""The wheel as a user installs it: alone, with what it declares, in an environment of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.environments import CACHE, uv

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel in its environment."""

    wheel: Path
    home: Path

    @property
    def program(self) -> Path:
        """``tessera-stac``."""
        return self.home / "bin" / "tessera-stac"

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return self.home / "bin" / "python"

    def run(self, folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``tessera-stac`` in a folder, without anything of the checkout in its environment."""
        return subprocess.run(
            [self.program, *map(str, arguments)],
            cwd=folder,
            env=self.environment(**env),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def environment(self, **env: str) -> dict[str, str]:
        """Return the environment of a user's shell."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        return {**kept, **env}


def installed_wheel(folder: Path) -> Installed:
    """Build the wheel of this checkout and install it alone, with the versions of the lock.

    What it depends on is installed once per lock and list of dependencies, and kept in .cache: the
    dependencies are those that the wheel itself names, without any extra.
    """
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        needed = re.findall(r"^Requires-Dist: (.+)$", archive.read(name).decode(), re.MULTILINE)
    core = sorted(line for line in needed if "extra ==" not in line)
    pins = "\n".join(re.findall(r"^[\w.-]+(?:\[[^]]+\])?==[^ \\]+", _lock(), re.MULTILINE))
    key = hashlib.sha256("\n".join([sys.version, pins, *core]).encode()).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    home = CACHE / f"wheel-{key}"
    with (CACHE / "wheel.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # several test processes may want it at once
        install = ("pip", "install", "--python", home / "bin" / "python")
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            uv("venv", "--python", sys.executable, home)
            (home / "constraints.txt").write_text(pins)
            uv(*install, "--constraint", home / "constraints.txt", *core)
            (home / "ready").touch()
        uv(*install, "--no-deps", "--reinstall", wheel)
    return Installed(wheel, home)


def _lock() -> str:
    return (ROOT / "requirements.lock").read_text()
