"""What a test needs of the machine: without it it is skipped; in CI, which has everything, it fails.

:func:`lacks` is the one way to skip, which ruff sees to (``banned-api``). A skip by another way, a library's
or a plugin's, fails in CI too: :mod:`tests.conftest` takes in the two hooks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data" / "manifests-2025-07"
"""All real manifests of July 2025, where they lie beside the checkout."""


def _in_ci() -> bool:
    return bool(os.environ.get("CI"))


def lacks(reason: str) -> NoReturn:
    """Skip the test for want of something; in CI that is a failure."""
    if _in_ci():
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """Return where a program of a Debian package is."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        lacks(f"{name} is not installed (Debian: {package})")
    return found


def distribution_gdal() -> Path:
    """Return the Python of the distribution, which has GDAL's bindings: 3.6 on Debian 12."""
    python = Path("/usr/bin/python3")
    command = [python, "-c", "from osgeo import gdal; print(gdal.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True) if python.exists() else None
    if done is None or done.returncode:
        lacks("the distribution's Python has no GDAL (Debian: python3-gdal)")
    if not done.stdout.startswith("3.6."):
        lacks(f"the distribution has GDAL {done.stdout.strip()}, not 3.6 as Debian 12")
    return python


def require_qgis(python: Path) -> None:
    """Say what is missing if the distribution's Python has no QGIS."""
    command = [python, "-c", "import qgis.core"]
    if subprocess.run(command, capture_output=True, env={"QT_QPA_PLATFORM": "offscreen"}).returncode:
        lacks("the distribution's Python has no QGIS (Debian: python3-qgis)")


def real_manifests() -> Path:
    """Return the folder of all real manifests of July 2025: ``registry_<year>.txt.xz``."""
    return real_manifests_or_none() or lacks(_NO_MANIFESTS)


def real_manifests_or_none() -> Path | None:
    """Return the same, or nothing for a test that means something without."""
    if any(SHARED.glob("registry_*.txt.xz")):
        return SHARED
    if _in_ci():
        pytest.fail(_NO_MANIFESTS)
    return None


_NO_MANIFESTS = f"the manifests of July 2025 are not at {SHARED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of a skipped test, in CI."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a failure of a skipped module, in CI."""
    return _judged((yield))


def _judged[R: (pytest.TestReport, pytest.CollectReport)](report: R) -> R:
    if report.outcome == "skipped" and _in_ci():
        vars(report).pop("wasxfail", None)  # what was expected to fail, and did, is no better
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"not run, which is a failure in CI: {reason}"
    return report
