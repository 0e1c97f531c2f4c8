"""Tests of a file or a group go to one process, and the longest ones first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.schedule import LONG, unit

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/a/test_b.py::test_c", "tests/a/test_b.py"),
        ("tests/a/test_b.py::TestC::test_d[x::y]", "tests/a/test_b.py"),
        ("tests/a/test_b.py::test_c[x@y]", "tests/a/test_b.py"),
        ("tests/a/test_b.py::test_c@group", "group"),
        ("tests/a/test_b.py::test_c[x@y]@group", "group"),
    ],
)
def test_the_piece_of_work_of_a_test(nodeid: str, expected: str) -> None:
    assert unit(nodeid) == expected


def test_what_is_long_is_there() -> None:
    texts = [path.read_text() for path in TESTS.rglob("*.py")]
    for name in LONG:
        found = (TESTS.parent / name).is_file() if "/" in name else f'xdist_group("{name}")' in "".join(texts)
        assert found, name
