"""A server keeps to few arenas of memory, unless its operator says otherwise."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from api.memory import ARENAS, VARIABLE
from tests.conftest import plain_environment

CODE = f"import os; from api.memory import few_arenas; few_arenas(); print(os.environ.get({VARIABLE!r}))"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
@pytest.mark.parametrize(("given", "kept"), [({}, str(ARENAS)), ({VARIABLE: "7"}, "7")])
def test_few_arenas(given: dict[str, str], kept: str) -> None:
    environment = {k: v for k, v in plain_environment().items() if k != VARIABLE} | given
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == kept


HOLES = """
import ctypes
from pathlib import Path
from api.memory import give_back
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
blocks = [bytes(2000) for _ in range(100_000)]
del blocks[:-1]  # the last one keeps the C library from shrinking its heap
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives memory back by itself")
def test_what_was_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100_000_000
