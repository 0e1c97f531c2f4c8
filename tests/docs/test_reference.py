"""What the Python reference names is there, and says what it is."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from catalog_builder import public

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
NAMES = re.findall(r"^::: (\S+)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists_and_has_a_docstring(name: str) -> None:
    assert resolve_name(name).__doc__


def test_all_that_tessera_stac_has_is_in_the_reference() -> None:
    listed = {id(resolve_name(name)) for name in NAMES}
    assert [name for name in public.__all__ if id(getattr(public, name)) not in listed] == []
