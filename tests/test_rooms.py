"""What import-linter does not see of the rooms: files that are opened, and how much is in a room."""

from __future__ import annotations

import ast
import tomllib
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


def _pure_modules() -> list[Path]:
    """Return the files of what import-linter's contract says is pure."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pure,) = (c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "pure")
    found: list[Path] = []
    for name in pure["source_modules"]:
        place = ROOT / name.replace(".", "/")
        found += place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    return found


def test_pure_modules_open_nothing() -> None:
    modules = _pure_modules()
    assert len(modules) > 5
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
