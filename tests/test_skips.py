"""No test can hide: in CI, whatever does not run is a failure, by whichever way it was left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import needs

ROOT = Path(__file__).parents[1]
SKIPPED = {
    "by lacks": """
from tests.support.needs import lacks
def test_it():
    lacks('no such thing')""",
    "by a fixture": """
import pytest
from tests.support.needs import lacks
@pytest.fixture
def thing():
    lacks('no such thing')
def test_it(thing):
    pass""",
    "by a call": "import pytest\ndef test_it():\n    pytest.skip('no such thing')",
    "by a mark": "import pytest\n@pytest.mark.skip(reason='no such thing')\ndef test_it():\n    pass",
    "by a condition": """
import pytest
@pytest.mark.skipif('1', reason='no such thing')
def test_it():
    pass""",
    "by unittest": "import unittest\ndef test_it():\n    raise unittest.SkipTest('no such thing')",
    "a module": "import pytest\npytest.importorskip('no_such_module_anywhere')\ndef test_it():\n    pass",
    "expected to fail": """
import pytest
@pytest.mark.xfail(reason='no such thing')
def test_it():
    assert 0""",
}
ALWAYS = {
    "no parameters": "import pytest\n@pytest.mark.parametrize('x', [])\ndef test_it(x):\n    pass",
    "nothing awaits it": "async def test_it():\n    pass",
    "a value instead of an assertion": "def test_it():\n    return 1 == 2",
    "not collected": """
class TestIt:
    def __init__(self):
        pass
    def test_it(self):
        pass""",
}


def _outcomes(folder: Path, texts: dict[str, str], ci: str) -> dict[str, str]:
    """Run a module for each text under the project's own configuration; return what became of it."""
    names = {f"test_{n}": case for n, case in enumerate(texts)}
    for name, case in names.items():
        (folder / f"{name}.py").write_text(texts[case] + "\n")
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", folder]
    options = ["-p", "tests.support.needs", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["--continue-on-collection-errors", f"--junitxml={folder / 'report.xml'}"]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options, folder], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1, 2), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):  # noqa: S314
        module = (case.get("classname") or case.get("name") or "").split(".")[0]
        found[names[module]] = next((f"{e.tag}: {e.get('message')} {e.text}" for e in case), "passed")
    return found


@pytest.mark.service
@pytest.mark.parametrize(("ci", "outcome"), [("", "skipped"), ("true", "failure|error")])
def test_a_test_that_is_left_out_fails_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    found = _outcomes(tmp_path, SKIPPED, ci)
    assert found.keys() == SKIPPED.keys()
    for case, what in found.items():
        assert re.match(outcome, what), (case, what)
        assert re.search("no such thing|no_such_module_anywhere", what), (case, what)


@pytest.mark.service
def test_a_test_that_tests_nothing_fails_everywhere(tmp_path: Path) -> None:
    found = _outcomes(tmp_path, ALWAYS, ci="")
    assert found.keys() == ALWAYS.keys()
    for case, what in found.items():
        assert re.match("failure|error", what), (case, what)


def test_the_project_runs_under_this_rule() -> None:
    from tests import conftest

    assert conftest.pytest_runtest_makereport is needs.pytest_runtest_makereport
    assert conftest.pytest_make_collect_report is needs.pytest_make_collect_report


@pytest.mark.service
@pytest.mark.parametrize("call", ["pytest.skip('x')", "pytest.importorskip('x')", "pytest.mark.skipif(True)"])
def test_the_linter_knows_one_way_to_skip(call: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "tests/test_new.py", "-"]
    text = f"import pytest\n\n{call}\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT)
    assert "TID251" in done.stdout
    assert "tests.support.needs.lacks" in done.stdout


def test_the_real_manifests_are_looked_for_beside_the_checkout() -> None:
    beside = ROOT.parent / "shared" / "data" / "manifests-2025-07"
    assert beside == needs.SHARED
