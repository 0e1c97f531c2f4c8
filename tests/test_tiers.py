"""The fast tier is what it says: a test that needs more than its own process is marked, or fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiers

ROOT = Path(__file__).parents[1]
MORE = {
    "process": "import subprocess\ndef test_it():\n    subprocess.run(['true'])",
    "pool": """
from concurrent.futures import ProcessPoolExecutor
def test_it():
    with ProcessPoolExecutor(1) as pool:
        pool.submit(abs, 1).result()""",
    "port": "import socket\ndef test_it():\n    with socket.socket() as s:\n        s.bind(('127.0.0.1', 0))",
    "fixture": """
import pytest, subprocess
@pytest.fixture(scope='module')
def thing():
    return subprocess.run(['true'])
def test_it(thing):
    pass""",
}
ENOUGH = "def test_it():\n    assert 1 + 1 == 2"
BY_FIXTURE = """
import pytest, subprocess
@pytest.fixture
def server():
    return subprocess.run(['true'])
@pytest.fixture
def client(server):
    return server
def test_it(client):
    pass"""


def _summary(folder: Path, text: str, expression: str) -> str:
    """Run one module under the project's configuration; return pytest's last line."""
    (folder / "test_one.py").write_text(text + "\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        "--tb=line",
    ]
    options = ["-p", "tests.support.tiers", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", expression]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options, folder], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.service
@pytest.mark.parametrize("what", MORE)
def test_what_needs_more_and_does_not_say_it_fails(tmp_path: Path, what: str) -> None:
    said = _summary(tmp_path, MORE[what], "not bench")
    assert re.search(r"1 (failed|error)", said), said
    assert "mark it with pytest.mark.service" in said
    marked = MORE[what].replace("def test_it", "@__import__('pytest').mark.service\ndef test_it")
    assert "1 passed" in _summary(tmp_path, marked, "not bench")
    assert "1 deselected" in _summary(tmp_path, marked, "not service")


@pytest.mark.service
def test_what_needs_no_more_is_in_the_fast_tier(tmp_path: Path) -> None:
    assert "1 passed" in _summary(tmp_path, ENOUGH, "not service")


@pytest.mark.service
def test_a_fixture_marks_who_uses_it(tmp_path: Path) -> None:
    assert "1 passed" in _summary(tmp_path, BY_FIXTURE, "service")
    assert "1 deselected" in _summary(tmp_path, BY_FIXTURE, "not service")


def test_the_folders_and_fixtures_exist() -> None:
    texts = [p.read_text() for p in (ROOT / "tests").rglob("*.py")]
    for name in tiers.FIXTURES:
        assert any(re.search(rf"@pytest\.fixture[^\n]*\ndef {name}\(", t) for t in texts), name
    for name in tiers.FOLDERS:
        assert any((tiers.TESTS / name).glob("test_*.py")), name
