"""The systemd units: verified by systemd's own tool, and their commands run with their environment."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import httpx
import pytest

from tests.deploy.processes import DEPLOY, ROOT, serving, tessera_stac
from tests.support.catalogs import patch, truncate, write_manifest
from tests.support.needs import program
from tests.support.ports import free_port
from tests.support.waiting import until

UNITS = DEPLOY / "systemd"
SERVE, BUILD = "tessera-stac.service", "tessera-stac-build.service"
INSTALLED = "/opt/tessera-stac/bin/tessera-stac"

NO_NEW_CODE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE: what MemoryDenyWriteExecute= does, on Linux 6.3
os.execv(sys.argv[1], sys.argv[1:])
"""


def _unit(name: str) -> dict[str, list[str]]:
    """Return a unit's settings; each may be given several times."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (UNITS / name).read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[key].append(value)
    return found


def _environment(unit: dict[str, list[str]]) -> dict[str, str]:
    """Return Environment= and then EnvironmentFile=, our example of it."""
    lines = [*unit["Environment"], *(UNITS / "tessera-stac.env").read_text().splitlines()]
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _command(unit: dict[str, list[str]]) -> list[str]:
    """Return ExecStart's arguments as systemd makes them: $NAME is split at blanks, ${NAME} is not."""
    values = _environment(unit)
    words: list[str] = []
    for word in shlex.split(unit["ExecStart"][0]):
        if split := re.fullmatch(r"\$(\w+)", word):
            words += values[split[1]].split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], word))
    assert words.pop(0) == INSTALLED
    return words


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copy the units, with a program in place of ours, which is not installed where they say."""
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, "/bin/true"))
    return tmp_path


def test_systemd_accepts_them(units: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    files = [units / SERVE, units / BUILD, units / "tessera-stac-build.timer"]
    done = subprocess.run([analyze, "verify", "--man=no", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search("tessera-stac.*:", done.stderr), done.stderr  # unknown settings are warnings only
    (calendar,) = _unit("tessera-stac-build.timer")["OnCalendar"]
    assert subprocess.run([analyze, "calendar", calendar], capture_output=True).returncode == 0
    broken = units / SERVE
    broken.write_text(broken.read_text().replace("ProtectClock=", "ProtectClok="))
    assert "ProtectClok" in subprocess.run([analyze, "verify", broken], capture_output=True, text=True).stderr


@pytest.mark.parametrize("name", [SERVE, BUILD])
def test_they_are_hardened(units: Path, name: str) -> None:
    """Exposure 2.0 of 10 at most; nginx.service of Debian has 9.6."""
    analyze = program("systemd-analyze", "systemd")
    command = [analyze, "security", "--offline=yes", "--threshold=20", units / name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_only_the_build_may_write(units: Path) -> None:
    assert _unit(SERVE)["ReadWritePaths"] == []
    assert _unit(BUILD)["ReadWritePaths"] == ["/srv/tessera/catalog"]
    for name in (SERVE, BUILD):
        assert _unit(name)["ProtectSystem"] == ["strict"]
        assert _unit(name)["User"] == ["tessera"]


def test_they_build_and_serve(tmp_path: Path) -> None:
    port = free_port()
    here = {"/srv/tessera": str(tmp_path), "8000": str(port)}

    def command(name: str) -> list[str]:
        words = _command(_unit(name))
        for old, new in here.items():
            words = [w.replace(old, new) for w in words]
        return [sys.executable, "-c", NO_NEW_CODE, *tessera_stac(*words)]

    (tmp_path / "manifests").mkdir()
    write_manifest(tmp_path / "manifests", 2024, patch(0, 52, 4, 3))
    done = subprocess.run(command(BUILD), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    with serving(command(SERVE), port) as running:
        assert httpx.get(f"{running.url}/search?sortby=-id").json()["numberMatched"] == 12
        assert httpx.get(f"{running.url}/coverage").status_code == 200
        write_manifest(tmp_path / "manifests", 2023, patch(0, 52, 4, 3))
        assert subprocess.run(command(BUILD), capture_output=True, cwd=ROOT).returncode == 0

        def found() -> int:
            return int(httpx.get(f"{running.url}/search?limit=1").json()["numberMatched"])

        # each worker looks once a second, and any of them may answer
        until(lambda: all(found() == 24 for _ in range(10)))
        before = (tmp_path / "catalog" / ".current").readlink()
        for damage in (truncate, Path.unlink):
            damage(tmp_path / "manifests" / "registry_2023.txt")
            failed = subprocess.run(command(BUILD), capture_output=True, text=True, cwd=ROOT)
            assert failed.returncode == 1, failed.stdout
            assert "unchanged" in failed.stderr
            assert (tmp_path / "catalog" / ".current").readlink() == before
        assert found() == 24
