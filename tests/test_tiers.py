"""The fast tier is what it says: a test that needs more than its own process is marked, or fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

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


Outcomes = dict[str, dict[str, str]]
"""By the expression of markers, what became of each module's test, and what was said of it."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run all modules under the project's configuration, once for each expression."""
    folder = tmp_path_factory.mktemp("tiers")
    modules = MORE | {"enough": ENOUGH, "by_fixture": BY_FIXTURE}
    for name, text in MORE.items():
        marked = text.replace("def test_it", "@__import__('pytest').mark.service\ndef test_it")
        modules[f"marked_{name}"] = marked
    for name, text in modules.items():
        (folder / f"test_{name}.py").write_text(text + "\n")
    return {e: _outcomes(folder, modules, e) for e in ("not bench", "service", "not service")}


def _outcomes(folder: Path, modules: Iterable[str], expression: str) -> dict[str, str]:
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder]
    plugins = ["-p", "tests.support.tiers", "-p", "no:cacheprovider", "-p", "no:xdist"]
    report = folder.parent / f"{expression}.xml"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *plugins, "--junit-xml", report, "-m", expression, folder],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    found = dict.fromkeys(modules, "deselected")
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  (our own)
        (*_, name) = case.attrib["classname"].split(".")
        problems = [f"{problem.tag} {problem.text}" for problem in case]
        found[name.removeprefix("test_")] = "\n".join(problems) or "passed"
    return found


@pytest.mark.service
@pytest.mark.parametrize("what", MORE)
def test_what_needs_more_and_does_not_say_it_fails(outcomes: Outcomes, what: str) -> None:
    said = outcomes["not bench"][what]
    assert re.match(r"failure|error", said), said
    assert "mark it with pytest.mark.service" in said
    assert outcomes["not bench"][f"marked_{what}"] == "passed"
    assert outcomes["not service"][f"marked_{what}"] == "deselected"


@pytest.mark.service
def test_what_needs_no_more_is_in_the_fast_tier(outcomes: Outcomes) -> None:
    assert outcomes["not service"]["enough"] == "passed"


@pytest.mark.service
def test_a_fixture_marks_who_uses_it(outcomes: Outcomes) -> None:
    assert outcomes["service"]["by_fixture"] == "passed"
    assert outcomes["not service"]["by_fixture"] == "deselected"


def test_the_folders_and_fixtures_exist() -> None:
    texts = [p.read_text() for p in (ROOT / "tests").rglob("*.py")]
    for name in tiers.FIXTURES:
        assert any(re.search(rf"@pytest\.fixture[^\n]*\ndef {name}\(", t) for t in texts), name
    for name in tiers.FOLDERS:
        assert any((tiers.TESTS / name).glob("test_*.py")), name
