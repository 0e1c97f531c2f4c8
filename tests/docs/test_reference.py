"""What the Python reference names is there, and says what it is."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
NAMES = re.findall(r"^::: (\S+)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert resolve_name(name).__doc__
