"""``docs/faults.md`` is true: each row names tests that exist, and no fault of the list is left out."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = (
    "kill -9 of build", "kill -9 of convert", "kill -9 of serve", "kill -9 of export", "disk full",
    "S3 errors and slow responses", "PostgreSQL restarting under load", "corrupted index", "corrupted COG",
    "a catalogue of a newer version", "clock skew", "10,000 open connections", "slow clients",
    "path traversal",
    "oversized JSON", "nested JSON", "hostile CQL2", "header injection through Forwarded",
)  # fmt: skip


def _rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "faults.md").read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return cells[1:]


def _tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_each_row_names_tests_that_exist() -> None:
    named = set()
    for row in _rows():
        assert len(row) == 5, row
        assert all(row), row
        for test in row[4].split(", "):
            file, _, name = test.strip("`").partition("::")
            assert name in _tests(ROOT / file), test
            named.add((file, name))
    # and the other way: a test of a fault is in the table
    for path in (ROOT / "tests" / "faults").glob("test_hostile_*.py"):
        missing = {n for n in _tests(path) if (f"tests/faults/{path.name}", n) not in named}
        assert missing <= {"test_what_is_meant_is_served"}


def test_every_fault_has_a_row() -> None:
    assert set(FAULTS) <= {row[0] for row in _rows()}
