"""Fixtures that many tests share: no network but the loopback, and the GDALs that users have."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backends import backend, postgres, serve_on
from tests.support.environments import environment
from tests.support.needs import (
    distribution_gdal,
    pytest_make_collect_report,
    pytest_runtest_makereport,
)
from tests.support.sample_stores import irregular_repository, sample_stores
from tests.support.schedule import (
    long_first,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)
from tests.support.tiers import (
    pytest_ignore_collect,
    pytest_itemcollected,
    pytest_runtest_call,
    pytest_runtest_setup,
)

__all__ = [
    "backend",
    "irregular_repository",
    "postgres",
    "pytest_ignore_collect",
    "pytest_itemcollected",
    "pytest_make_collect_report",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
    "sample_stores",
    "serve_on",
]

SUPPORT = Path(__file__).parent / "support"

# Tests start hundreds of processes, which import the same modules: these are compiled once, also where
# Python is told to write no bytecode, as in images. Environments of other programs come uncompiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a UNIX socket
    host = str(address[0])
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host in ("localhost", "")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where groups are not kept together: each process would start its own servers.

    Where they are, put what takes long first.
    """
    if getattr(config.option, "loadgroup", False):
        apart = [i.nodeid for i in items if i.get_closest_marker("xdist_group") and "@" not in i.nodeid]
        if apart:
            raise pytest.UsageError(f"pytest-xdist does not keep groups of tests together: {apart[0]}")
        long_first(items)


@pytest.fixture(scope="session", autouse=True)
def loopback_only() -> Iterator[None]:
    """Refuse connections that Python makes to other machines: a test needs none."""
    real, real_ex = socket.socket.connect, socket.socket.connect_ex

    def refuse(address: object) -> None:
        if not _is_local(address):
            raise AssertionError(f"a test tried to reach {address}: tests use the loopback only")

    def connect(self: socket.socket, address: tuple[str, int]) -> None:
        refuse(address)
        real(self, address)

    def connect_ex(self: socket.socket, address: tuple[str, int]) -> int:
        refuse(address)
        return real_ex(self, address)

    socket.socket.connect = connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        socket.socket.connect = real  # type: ignore[method-assign]
        socket.socket.connect_ex = real_ex  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def gdal310() -> Path:
    """Return the Python of an environment with GDAL 3.10, made once from ``gdal310.lock``."""
    return environment(SUPPORT / "gdal310.lock")


@pytest.fixture(scope="session")
def geotessera11() -> Path:
    """Return the Python of an environment with geotessera 0.11, made once from ``geotessera11.lock``."""
    return environment(SUPPORT / "geotessera11.lock")


@pytest.fixture(params=["GDAL 3.12", "GDAL 3.10"])
def gdal_python(request: pytest.FixtureRequest) -> Path:
    """Return the Python of each GDAL that must read what we serve: our own, and 3.10."""
    if request.param == "GDAL 3.10":
        old: Path = request.getfixturevalue("gdal310")
        return old
    return Path(sys.executable)


@pytest.fixture(scope="session")
def gdal36() -> Path:
    """Return the distribution's Python with its GDAL: Debian 12's 3.6, the oldest that must read right."""
    return distribution_gdal()


@pytest.fixture(params=["GDAL 3.12", "GDAL 3.10", "GDAL 3.6"])
def any_gdal(request: pytest.FixtureRequest) -> Path:
    """Return the Python of each GDAL, the distribution's too: run scripts that need no rasterio."""
    if request.param == "GDAL 3.12":
        return Path(sys.executable)
    found: Path = request.getfixturevalue("gdal36" if request.param == "GDAL 3.6" else "gdal310")
    return found


def plain_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without proxies and GDAL settings, for a reader in a subprocess.

    Nor with a store's: where there are credentials, rasterio sets them, and GDAL then lists a folder twice.
    """
    left_out = ("GDAL_", "CPL_", "VSI_", "AWS_", "PYTHONPATH")
    mine = {
        k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith(left_out)
    }
    return {**mine, **extra}
