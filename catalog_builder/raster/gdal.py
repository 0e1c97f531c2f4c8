"""How GDAL reads an address: its name there, and the settings it needs for that store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from catalog_builder import storage


def gdal_path(address: str) -> str:
    """Return the name that GDAL has for an address.

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
def gdal_environment(*addresses: str, **settings: Any) -> Iterator[None]:
    """Read some addresses in this block, with the settings of S3 if one of them is there."""
    import rasterio
    from rasterio.session import AWSSession

    if not any(storage.scheme(address) == "s3" for address in addresses):
        with rasterio.Env(**settings):
            yield
        return
    said = storage.gdal_settings()
    # The keys come from where boto3 has them, which may be a place that GDAL does not know.
    session = AWSSession(
        region_name=said.pop("AWS_REGION"),
        profile_name=storage.S3Settings.from_environment().profile,
        aws_unsigned=said.pop("AWS_NO_SIGN_REQUEST", "") == "YES",
        requester_pays=said.pop("AWS_REQUEST_PAYER", "") == "requester",
    )
    with rasterio.Env(session, **said, **settings):
        yield
