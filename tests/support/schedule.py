"""Which test process does what, and when: a file is one piece of work, and what takes long comes first.

pytest-xdist hands out single tests, so that every process makes the fixtures of every module. Here the
tests of a file stay together, as those of an ``xdist_group`` do, and fixtures of modules are made once.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

LONG = (
    "pgstac",
    "pictures",
    "readers",
    "tests/unchanged/test_unchanged.py",
    "tests/conformance/test_stac_api_validator.py",
    "tests/faults/test_convert_faults.py",
    "tests/faults/test_hostile_half_hour.py",
    "tests/faults/test_kill_at_random.py",
    "tests/faults/test_killed_build.py",
    "tests/faults/test_killed_export.py",
    "tests/scale/test_registry.py",
    "tests/scale/test_soak.py",
)
"""Groups and files that take a minute or so, with few tests: begun last, they would run alone at the end."""


def unit(nodeid: str) -> str:
    """Return the piece of work that a test belongs to: its group, or its file."""
    test, at, group = nodeid.rpartition("@")
    # the mark may be in a parameter too
    return group if at and "]" not in group and "::" in test else nodeid.partition("::")[0]


def long_first(items: list[pytest.Item]) -> None:
    """Sort tests by their pieces of work: those of :data:`LONG`, then those with the most tests."""
    sizes = Counter(unit(item.nodeid) for item in items)
    places = {name: place for place, name in enumerate(LONG)}

    def place(item: pytest.Item) -> tuple[int, int, str]:
        name = unit(item.nodeid)
        return places.get(name, len(LONG)), -sizes[name], name

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keep the tests of a file together, in the order of collection."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling

    class FileScheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return FileScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Use one process more than there are cores: tests wait for disks, clocks and other programs, too."""
    return len(os.sched_getaffinity(0)) + 1
