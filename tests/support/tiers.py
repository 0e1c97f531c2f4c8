"""The fast tier, which needs nothing but this process, and the marker ``service`` for all other tests.

What needs a server, a database, a browser, another program or another process is a ``service``. Folders and
fixtures that are made of such things mark their tests here; other tests say it themselves. A test that has
not said it and starts something all the same fails, in every run: so the fast tier stays what it is.
"""

from __future__ import annotations

import multiprocessing.process
import socket
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

TESTS = Path(__file__).parents[1]
FOLDERS = frozenset({"bench", "clients", "conformance", "deploy", "faults", "s3", "scale", "unchanged"})
"""Folders below ``tests`` in which every test is a service."""
FIXTURES = frozenset(
    {
        "any_gdal",
        "contained_in",
        "demo",
        "endpoint",
        "gdal310",
        "gdal36",
        "gdal_python",
        "geotessera11",
        "postgres",
        "running_store",
        "serve_on",
        "served",
        "server",
        "store",
        "tab",
        "web",
    }
)
"""Fixtures that start something; who uses one, directly or through another fixture, is a service."""
_STARTS = (
    (subprocess.Popen, "__init__"),
    (multiprocessing.process.BaseProcess, "start"),
    (socket.socket, "bind"),
)


def _in_service_folder(path: Path) -> bool:
    return path.is_relative_to(TESTS) and path.relative_to(TESTS).parts[:1] in {(f,) for f in FOLDERS}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is a service by its folder or its fixtures."""
    if _in_service_folder(item.path) or FIXTURES & set(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.service)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the services where they are not wanted: that takes half of the time."""
    unwanted = "not service" in config.option.markexpr
    return True if unwanted and _in_service_folder(collection_path) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Let a test's fixtures start nothing that it has not said."""
    with _only_this_process(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Let a test start nothing that it has not said."""
    with _only_this_process(item):
        return (yield)


@contextmanager
def _only_this_process(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("service"):
        yield
        return

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("this test starts a process or listens at a port: mark it with pytest.mark.service")

    with ExitStack() as patches:
        for owner, name in _STARTS:
            patches.enter_context(patch.object(owner, name, refuse))
        yield
