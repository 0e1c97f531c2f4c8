"""A server sets up the C library, unless its operator did: large blocks go back when they are freed."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from api.catalogue.memory import SETTINGS
from tests.conftest import plain_environment
from tests.support.needs import lacks

CODE = """
import json, os
from api.catalogue.memory import SETTINGS, set_up_malloc
set_up_malloc()
print(json.dumps({k: os.environ[k] for k in SETTINGS}))
"""
OURS = {variable: str(value) for variable, (_, value) in SETTINGS.items()}


@pytest.fixture(autouse=True)
def glibc() -> None:
    if platform.libc_ver()[0] != "glibc":
        lacks("not of glibc, which has these settings")


@pytest.mark.service
@pytest.mark.parametrize("given", [{}, {"MALLOC_ARENA_MAX": "7"}])
def test_an_operators_settings_are_left_alone(given: dict[str, str]) -> None:
    environment = {k: v for k, v in plain_environment().items() if k not in SETTINGS} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(done.stdout) == OURS | given


LARGE = """
from pathlib import Path
from api.catalogue.memory import set_up_malloc
set_up_malloc()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
def large():
    return bytearray(b"1") * 26_000_000
block = large()
del block  # from here on glibc would take such blocks from its heap
before = resident()
block = large()
small = bytes(2000)  # and this would lie behind it
del block
print(resident() - before)
"""


@pytest.mark.service
def test_large_blocks_go_back_when_they_are_freed() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000
