"""GDAL's settings where a host does not do its part."""

from __future__ import annotations

import socket
import time

import pytest
import rasterio
from rasterio.errors import RasterioIOError

from catalog_builder.raster.gdal import READING, gdal_environment, gdal_path

MOST_SECONDS = 15
"""What a silent host may cost per request."""


@pytest.mark.service
def test_a_host_that_never_responds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the kernel that accepts: nobody reads what GDAL asks for."""
    assert 0 < READING["GDAL_HTTP_LOW_SPEED_TIME"] <= MOST_SECONDS
    assert 0 < READING["GDAL_HTTP_CONNECTTIMEOUT"] <= MOST_SECONDS
    monkeypatch.setitem(READING, "GDAL_HTTP_LOW_SPEED_TIME", 1)
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.tif"
        started = time.monotonic()
        with gdal_environment(url), pytest.raises(RasterioIOError, match="too slow"):
            rasterio.open(gdal_path(url))
    # HEAD, then GET; a retry of each would still be below
    assert time.monotonic() - started < MOST_SECONDS
