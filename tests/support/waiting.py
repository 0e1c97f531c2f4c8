"""Waiting for what comes about by itself, by condition: a length of time is too short on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0
"""Seconds that anything has; a test that passes needs a fraction of it."""


def until[T](condition: Callable[[], T | None], what: object = "it does not come about") -> T:
    """Return what a condition is, when it holds.

    Raises
    ------
        AssertionError: It does not hold in time; ``what`` says what was waited for.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def ended(pid: int) -> bool:
    """Return whether a process is over, though its parent may not have taken note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def group(leader: int) -> list[int]:
    """Return the processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if int(pgrp) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found
