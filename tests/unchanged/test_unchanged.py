"""Nothing that users get changes while code is moved: files, commands' output and responses, byte for byte.

Elsewhere tests compare with an oracle or a rule. This one compares with our own output of an earlier day,
because that is what it is for; :mod:`tests.unchanged.make` says when that may be made anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unchanged.make import everything
from tests.unchanged.record import differences, read_reference, report


def test_what_users_get_is_what_it_was(tmp_path: Path) -> None:
    made_with, before = read_reference()
    found = differences(before, everything(tmp_path))
    if found:
        pytest.fail(report(made_with, found), pytrace=False)
