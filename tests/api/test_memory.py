"""A server keeps to few arenas of memory, unless its operator says otherwise."""

from __future__ import annotations

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
