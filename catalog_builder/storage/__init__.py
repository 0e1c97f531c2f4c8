"""Local paths, S3 and http(s) behind one set of functions: open, read ranges, fetch, list, put atomically.

An *address* is a local path, ``s3://bucket/key`` or an ``http(s)://`` URL. Every failure is a
:class:`~catalog_builder.errors.StorageError` whose message starts with the address.

S3 is configured in the usual way, with boto3's environment variables and files and GDAL's names for the same
things: :class:`~catalog_builder.storage.s3.client.S3Settings`. Without credentials, or with
``AWS_NO_SIGN_REQUEST=YES``, requests are anonymous, as public buckets require.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from catalog_builder.errors import ChecksumError, StorageError
from catalog_builder.storage import local, s3, web
from catalog_builder.storage.address import (
    CHUNK,
    USER_AGENT,
    Entry,
    absolute,
    bucket_key,
    check_base,
    fail,
    join,
    local_path,
    published_address,
    scheme,
)
from catalog_builder.storage.headers import media_type
from catalog_builder.storage.ranged import Meter, RangedFile, open_ranged
from catalog_builder.storage.s3.client import S3Settings, gdal_settings, https_address, platform
from catalog_builder.storage.stream import stream
from catalog_builder.storage.versioned import read_tail, read_version

__all__ = [
    "USER_AGENT",
    "Entry",
    "Meter",
    "RangedFile",
    "S3Settings",
    "absolute",
    "bucket_key",
    "check_base",
    "exists",
    "fetch_to",
    "gdal_settings",
    "https_address",
    "is_dir",
    "join",
    "list_files",
    "local_copy",
    "local_path",
    "open_binary",
    "open_ranged",
    "platform",
    "published_address",
    "put_file",
    "read_bytes",
    "read_tail",
    "read_version",
    "s3",
    "scheme",
    "size",
    "write_atomic",
]


def is_dir(address: str | Path) -> bool:
    """Whether the address is a local folder, or an S3 prefix with something below it."""
    if not scheme(address):
        return local_path(address).is_dir()
    return scheme(address) == "s3" and next(list_files(address), None) is not None


def exists(address: str | Path) -> bool:
    """Whether there is a file at the address."""
    return _size(address) is not None


def size(address: str | Path) -> int:
    """Return the size of the file at the address in bytes.

    Raises
    ------
    StorageError
        If it does not exist, or the server does not state its size.
    """
    found = _size(address)
    if found is None:
        raise StorageError(f"{address}: no such file")
    if found < 0:
        raise StorageError(f"{address}: the server does not state its size")
    return found


def _size(address: str | Path) -> int | None:
    """Return the size in bytes, -1 if it exists without a known size, None if it does not exist."""
    kind = scheme(address)
    if not kind:
        return local.size(local_path(address))
    if kind == "s3":
        found = s3.objects.head(str(address))
        return None if found is None else found.size
    return web.size(str(address))


def open_binary(address: str | Path) -> BinaryIO:
    """Open a file for sequential reading; remote ones are streamed, and resumed where they broke off.

    At the end, data from S3 is checked against the size and the checksum that the store has recorded.

    Returns
    -------
    BinaryIO
        Seekable for local files only. Close it, or use it in a ``with``.

    Raises
    ------
    StorageError
        If it cannot be opened; also raised by ``read`` if the stream breaks permanently.
    """
    kind = scheme(address)
    if not kind:
        return local.open_file(local_path(address))
    return stream(str(address), s3.objects.open_at if kind == "s3" else web.open_at)


def read_bytes(address: str | Path) -> bytes:
    """Return the contents of a (small) file."""
    with open_binary(address) as file:
        try:
            return file.read()
        except OSError as error:
            fail(address, error)


def fetch_to(address: str | Path, path: str | Path, *, sha256: str = "") -> None:
    """Copy a file to a local path, which appears only when it is complete.

    Parameters
    ----------
    address, path
        Source and destination.
    sha256
        Expected SHA-256, lower-case hex, if known.

    Raises
    ------
    ChecksumError
        If it is a different file, or was damaged in transit twice.
    StorageError
        If it cannot be read or written.
    """
    for again in (True, False):
        try:
            with local.write_atomic(local_path(path)) as temporary:
                _copy(address, temporary, sha256)
        except ChecksumError:
            if not again:
                raise
        else:
            return


@contextmanager
def local_copy(address: str | Path) -> Iterator[Path]:
    """Yield a local path of a file: its own if it is local, otherwise that of a temporary copy."""
    if not scheme(address):
        yield local_path(address)
        return
    with tempfile.TemporaryDirectory(prefix="tessera-get-") as folder:
        path = Path(folder) / "copy"
        fetch_to(address, path)
        yield path


def _copy(address: str | Path, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open_binary(address) as source, path.open("wb") as target:
        try:
            while chunk := source.read(CHUNK):
                target.write(chunk)
                if sha256:
                    digest.update(chunk)
        except OSError as error:
            fail(address, error)
    if sha256 and digest.hexdigest() != sha256:
        raise ChecksumError(f"{address}: SHA-256 is {digest.hexdigest()}, expected {sha256}")


def list_files(address: str | Path, odd: Callable[[local.Oddity], None] | None = None) -> Iterator[Entry]:
    """List every file below a local folder or an S3 prefix, in a stable order.

    Names that start with a dot are left out: such files are being written, or internal to a catalogue.
    Symbolic links to folders are followed unless they form a loop. Pipes, sockets, devices and links that
    lead nowhere are not files.

    Parameters
    ----------
    address
        The folder or prefix.
    odd
        Receives every local entry that is neither a file nor a folder that can be listed, and the listing
        goes on; without it, the first folder that cannot be listed is an error.

    Raises
    ------
    StorageError
        If it cannot be listed; http(s) URLs never can.
    """
    kind = scheme(address)
    if not kind:
        yield from local.list_files(local_path(address), odd)
    elif kind == "s3":
        yield from s3.objects.list_files(str(address))
    else:
        raise StorageError(f"{address}: an http(s) URL cannot be listed; give a manifest or an s3:// URL")


@contextmanager
def write_atomic(address: str | Path, *, lone: bool = False) -> Iterator[Path]:
    """Yield a local path to write to; on exit, the file is published at the address atomically.

    Locally the path is a hidden file beside the target, which is flushed to disk and renamed. For S3
    it is a temporary file that is uploaded. If the block raises, nothing is published and the temporary
    file is removed.

    Parameters
    ----------
    address
        The destination.
    lone
        No other writer is active there, so that what a killed process left beside a local file may be
        overwritten; see :func:`catalog_builder.storage.local.in_one_step`.

    Raises
    ------
    StorageError
        If it cannot be written; an existing file is unchanged.

    Examples
    --------
    >>> import os, tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with write_atomic(f"{folder}/a.txt") as path:
    ...     _ = path.write_text("whole")
    >>> os.listdir(folder)
    ['a.txt']
    """
    if scheme(address):
        with tempfile.TemporaryDirectory(prefix="tessera-put-") as folder:
            path = Path(folder) / Path(urlsplit(str(address)).path).name
            yield path
            put_file(path, address)
        return
    with local.write_atomic(local_path(address), lone=lone) as path:
        yield path


def put_file(
    path: str | Path,
    address: str | Path,
    *,
    content_type: str | None = None,
    cache_control: str | None = None,
    immutable: bool = False,
) -> None:
    """Publish a local file at a local path or S3 URL atomically.

    Parameters
    ----------
    path, address
        Source and destination.
    content_type, cache_control
        What an object store says of it to clients; the type is by default that of the address' name, see
        :func:`catalog_builder.storage.headers.media_type`.
    immutable
        In an object store, refuse to overwrite different bytes.

    Raises
    ------
    ConflictError
        If an immutable file would overwrite different bytes.
    StorageError
        If it cannot be written; http(s) URLs never can.
    """
    kind = scheme(address)
    if not kind:
        local.put(Path(path), local_path(address))
        return
    if kind != "s3":
        raise StorageError(f"{address}: cannot write to an http(s) URL; give a path or an s3:// URL")
    s3.put.put(
        Path(path),
        str(address),
        content_type=content_type or media_type(str(address)),
        cache_control=cache_control,
        replacing=s3.put.NEW if immutable else None,
    )
