"""GDAL's own validator, for the tests of the writer and of finished tiles."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.needs import lacks

VALIDATE = Path(__file__).with_name("gdal_validate.py")
"""Runs the validator on rasterio's GDAL: ``python gdal_validate.py SCRIPT FILE``."""


@pytest.fixture(scope="session")
def gdal_validator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of GDAL's validate_cloud_optimized_geotiff.py."""
    inside = Path("osgeo_utils/samples/validate_cloud_optimized_geotiff.py")
    installed = importlib.util.find_spec("osgeo_utils")
    if installed is not None and installed.submodule_search_locations:
        return Path(installed.submodule_search_locations[0]).parent / inside
    folder = tmp_path_factory.mktemp("gdal-utils")
    lock = Path(__file__).parents[1] / "support" / "gdal-utils.lock"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*pip, "--dest", folder, "--requirement", lock], capture_output=True, text=True)
    if done.returncode:
        lacks(f"gdal-utils is not installed and cannot be downloaded: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(str(inside), folder)
    return folder / inside
