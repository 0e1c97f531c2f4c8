"""How GDAL reads an address: its ``/vsi`` path, and the configuration options for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catalog_builder import storage

READING: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.vrt,.npy",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 65536,
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": 256 << 20,
    "GDAL_HTTP_MAX_TOTAL_CONNECTIONS": 64,  # from GDAL 3.11 on; otherwise one per range, hundreds at once
    "GDAL_HTTP_MAX_RETRY": 4,
    "GDAL_HTTP_RETRY_DELAY": 1,
    # A host that accepts and says nothing would hold a thread for ever. Not GDAL_HTTP_TIMEOUT, which counts
    # the whole transfer: a large read over a slow line is none of these.
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_LOW_SPEED_TIME": 15,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,  # bytes per second
}
"""Options recommended for every GDAL client; the README recommends the same."""
CONVERTING: dict[str, Any] = {
    "GDAL_NUM_THREADS": "1",
    "GDAL_CACHEMAX": 64 << 20,  # below 100000 it means megabytes in the environment, but bytes here
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
}
"""Options of a worker: one thread and a small cache, since tiles are the unit of parallelism and blocks are
read once."""

BESIDE: dict[str, Any] = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "GDAL_PAM_ENABLED": "YES"}
"""Options, over :data:`CONVERTING`, that read a raster together with the files beside it that belong to it
(``.aux.xml``, ``.msk``, world files), each asked for by its name."""


def gdal_path(address: str) -> str:
    """Return GDAL's name of an address.

    >>> gdal_path("s3://tiles/a.tif")
    '/vsis3/tiles/a.tif'
    """
    kind = storage.scheme(address)
    if kind in ("http", "https"):
        return f"/vsicurl/{address}"
    if kind == "s3":
        return f"/vsis3/{address.removeprefix('s3://')}"
    return address


@contextmanager
def gdal_environment(*addresses: str) -> Iterator[None]:
    """Context in which GDAL can read some addresses, with S3 settings if one of them is in S3."""
    import rasterio
    from rasterio.session import AWSSession

    if not any(storage.scheme(address) == "s3" for address in addresses):
        with rasterio.Env(**READING):
            yield
        return
    said = storage.gdal_settings()
    # boto3 may find the credentials in a place that GDAL does not know.
    session = AWSSession(
        region_name=said.pop("AWS_REGION"),
        profile_name=storage.S3Settings.from_environment().profile,
        aws_unsigned=said.pop("AWS_NO_SIGN_REQUEST", "") == "YES",
        requester_pays=said.pop("AWS_REQUEST_PAYER", "") == "requester",
    )
    with rasterio.Env(session, **said, **READING):
        yield
