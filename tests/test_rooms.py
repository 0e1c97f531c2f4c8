"""What import-linter does not see of the rooms: files that are opened, and how much is in a room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("catalog_builder", "api")
OPENING = {"open", "fdopen", "read_bytes", "read_text", "write_bytes", "write_text", "fromfile", "memmap"}
"""Names of functions and methods that open files."""


def _called(path: Path) -> set[str]:
    """Return the names of everything that a module calls, methods too."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        f.attr if isinstance(f, ast.Attribute) else f.id
        for f in calls
        if hasattr(f, "attr") or hasattr(f, "id")
    }


@pytest.mark.parametrize("room", ["catalog_builder/convert/encode"])
def test_pure_rooms_open_nothing(room: str) -> None:
    modules = list((ROOT / room).glob("*.py"))
    assert len(modules) > 1
    assert {path.name: found for path in modules if (found := _called(path) & OPENING)} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_at_most_nine_things_in_a_room(package: str) -> None:
    """The top of a package aside, which lists its rooms."""
    full = {}
    for folder in (ROOT / package).rglob("*/"):
        things = [
            path.name
            for path in folder.iterdir()
            if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
        ]
        found = sorted(set(things) - {"__init__.py", "__main__.py"})
        if len(found) > 9 and folder != ROOT / package:
            full[str(folder.relative_to(ROOT))] = found
    assert full == {}
