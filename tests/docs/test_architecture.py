"""ARCHITECTURE.md is true: every room it names exists, every room is named, and it stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
AT_THE_TOP = {"__init__.py", "py.typed"}
"""Of a package; beside what the page names."""
EVERYBODYS = {"console.py", "errors.py", "extras.py", "version.py"}
"""Of ``catalog_builder``: the lowest layer, which is no room."""


def _named(package: str) -> set[str]:
    """Return what a package's table names in its first column: ``cli/``, ``server.py``."""
    table = PAGE.split(f"| `{package}` |", 1)[1].split("\n\n", 1)[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def _there(package: str) -> set[str]:
    """Return a package's folders, with a slash, and its modules."""
    return {
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in (ROOT / package).iterdir()
        if not entry.name.startswith(("__pycache__", "."))
        and entry.name not in AT_THE_TOP
        # built, not in git
        and entry.name not in ("browser_dist", "commit.txt")
    }


@pytest.mark.parametrize("package", ["catalog_builder", "api"])
def test_every_room_is_named_and_every_name_is_a_room(package: str) -> None:
    assert _named(package) == _there(package) - (EVERYBODYS if package == "catalog_builder" else set())


def test_files_that_are_named_exist() -> None:
    """Of a row of the tables: below its room. Anywhere else: below a package."""
    for package in ("catalog_builder", "api"):
        table = PAGE.split(f"| `{package}` |", 1)[1].split("\n\n", 1)[0]
        for line in table.splitlines()[2:]:
            _, first, rest, add, _ = line.split("|")
            rooms = [ROOT / package / name for name in re.findall(r"`([^`]+/)`", first)]
            for name in re.findall(r"`([a-z_]+(?:\.py|/))`", rest + add):
                assert any((room / name).exists() for room in rooms), line
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)`", PAGE.split("## Decisions")[1]):
        assert any((ROOT / base / name).exists() for base in ("", "catalog_builder", "api")), name
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / target).exists(), target


def test_it_fits_on_two_screens() -> None:
    assert len(PAGE.splitlines()) <= 120
    assert max(map(len, PAGE.splitlines())) <= 175
