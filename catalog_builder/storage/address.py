"""Addresses (a path, ``s3://bucket/key`` or ``http(s)://…``), and errors whose messages start with one."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from catalog_builder import __version__
from catalog_builder.errors import StorageError

USER_AGENT = f"tessera-stac/{__version__}"
"""Sent with every request: the CDN in front of the data returns 403 for some libraries' default
(geotessera issue 213)."""
CHUNK = 1 << 20
"""Bytes read and written at a time."""


class Entry(NamedTuple):
    """One file of a listing."""

    path: str
    """Relative to the listed address, with forward slashes."""
    size: int
    """Bytes."""
    mtime: int
    """Seconds since 1970, UTC."""


def scheme(address: str | Path) -> str:
    """Return ``s3``, ``http``, ``https``, or ``""`` for a local path (``file://`` included).

    Raises
    ------
    StorageError
        If the address has a scheme that is not supported, or contains credentials.
    """
    head, mark, rest = str(address).partition("://")
    if not mark or head == "file":
        return ""
    if head not in ("s3", "http", "https"):
        raise StorageError(f"{address}: unknown scheme '{head}', expected a path, s3://, http:// or https://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:  # it would stand in items, ledgers and logs
        instead = "AWS_PROFILE or AWS_ACCESS_KEY_ID" if head == "s3" else "~/.netrc"
        raise StorageError(
            f"{head}://…@{authority.rpartition('@')[2]}: a URL must not contain credentials, which would"
            f" stand in the catalogue; use {instead}"
        )
    return head


def check_base(address: str | Path, option: str) -> None:
    """Check the address of a folder, to which names of files will be appended in hrefs.

    Parameters
    ----------
    address
        A local path or a URL.
    option
        What it was given as, for the message.

    Raises
    ------
    StorageError
        If it contains credentials, or has a query or a fragment: a name cannot be appended to that, and a
        signature does not fit another file.
    """
    if scheme(address) and (found := re.search(r"[?#]", str(address))):
        what = "a query" if found[0] == "?" else "a fragment"
        raise StorageError(
            f"{option}: {str(address)[: found.start()]} must not have {what}: names of files are appended to"
            " it. For private files give the s3:// URL and let the server sign (TESSERA_STAC_PRESIGN)"
        )


def local_path(address: str | Path) -> Path:
    """Return the path of a local address."""
    return Path(str(address).removeprefix("file://"))


def absolute(address: str | Path) -> str:
    """Return an address that means the same from another working directory."""
    return str(address) if scheme(address) else str(local_path(address).absolute())


def join(address: str | Path, *parts: str) -> str:
    """Append relative path parts to an address."""
    return "/".join([str(address).rstrip("/"), *parts])


def bucket_key(address: str | Path) -> tuple[str, str]:
    """Return the bucket and the key of an S3 URL; the key may be empty.

    >>> bucket_key("s3://tiles/2024/a.tif")
    ('tiles', '2024/a.tif')

    Raises
    ------
    StorageError
        If it names no bucket.
    """
    bucket, _, key = str(address).removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{address}: expected s3://bucket/key")
    return bucket, key


def published_address(address: str) -> str | None:
    """Return the https URL of data published on source.coop, for which no S3 settings are needed.

    >>> published_address("s3://tessera/v1")
    'https://data.source.coop/tessera/v1'
    """
    bucket, key = bucket_key(address)
    if bucket == "tessera":  # the bucket named by upstream's manifests, at source.coop's own endpoint
        base = "https://data.source.coop/tessera"
    elif region := re.match(r"([a-z]{2}(?:-[a-z]+)+-[0-9])\.", bucket):
        base = f"https://s3.{region[1]}.amazonaws.com/{bucket}"  # source.coop puts the region in front
    else:
        return None
    return f"{base}/{key}".rstrip("/")


def fail(address: str | Path, error: Exception) -> NoReturn:
    """Convert any library's error to a StorageError with the address and a readable reason."""
    if isinstance(error, StorageError):
        raise error
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno:
        reason = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}.get(
            error.errno, error.strerror or reason
        )
    raise StorageError(f"{address}: {reason}") from error
