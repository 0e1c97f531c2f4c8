"""Local paths, S3 and http(s) behind one set of functions: open, fetch, list, put atomically.

An address is a path, ``s3://bucket/key`` or ``http(s)://…``. Every failure is a
:class:`~catalog_builder.errors.StorageError` that begins with the address.

S3 is configured as everywhere, by boto3's environment and files; ``AWS_ENDPOINT_URL``,
``AWS_ENDPOINT_URL_S3`` and GDAL's ``AWS_S3_ENDPOINT`` name another endpoint. Without credentials, or
with ``AWS_NO_SIGN_REQUEST=YES``, requests are anonymous, which is what public buckets want.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, cast
from urllib.parse import urlsplit

from catalog_builder import __version__
from catalog_builder.errors import StorageError

if TYPE_CHECKING:
    import httpx
    from mypy_boto3_s3 import S3Client

USER_AGENT = f"tessera-stac/{__version__}"
"""Sent with every request: the CDN in front of the data answers 403 to some libraries' default
(geotessera issue 213)."""
ATTEMPTS = 4
"""How often a request is tried; also how often a broken download is resumed without progress."""
BACKOFF = 0.5
"""Seconds before the second attempt; doubles after each."""
_CHUNK = 1 << 20
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


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
        If the address has a scheme that is not supported.
    """
    head, mark, _ = str(address).partition("://")
    if not mark or head == "file":
        return ""
    if head not in ("s3", "http", "https"):
        raise StorageError(f"{address}: unknown scheme '{head}', expected a path, s3://, http:// or https://")
    return head


def local_path(address: str | Path) -> Path:
    """Return the path of a local address."""
    return Path(str(address).removeprefix("file://"))


def join(address: str | Path, *parts: str) -> str:
    """Append relative path parts to an address."""
    return "/".join([str(address).rstrip("/"), *parts])


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
        If there is none, or the server does not say.
    """
    found = _size(address)
    if found is None:
        raise StorageError(f"{address}: no such file")
    if found < 0:
        raise StorageError(f"{address}: the server does not tell its size")
    return found


def _size(address: str | Path) -> int | None:
    """Bytes, -1 if it exists without a known size, None if it does not exist."""
    kind = scheme(address)
    if not kind:
        try:
            info = local_path(address).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _fail(address, error)
        return info.st_size if stat.S_ISREG(info.st_mode) else None
    if kind == "s3":
        bucket, key = _bucket_key(address)
        try:
            return _s3().head_object(Bucket=bucket, Key=key)["ContentLength"]
        except Exception as error:
            if _s3_code(error) in ("404", "NoSuchKey", "NotFound"):
                return None
            _fail(address, error)
    response = _http_request("HEAD", str(address))
    if response.status_code in (404, 410):
        return None
    if response.is_error:
        _fail_http(address, response)
    return int(response.headers.get("content-length", -1))


def open_binary(address: str | Path) -> BinaryIO:
    """Open a file for sequential reading; remote ones are streamed and resumed where they broke.

    Returns
    -------
    BinaryIO
        Seekable for local files only. Close it, or use it in a ``with``.

    Raises
    ------
    StorageError
        If it cannot be opened; also from ``read`` if the stream breaks for good.
    """
    kind = scheme(address)
    if not kind:
        try:
            return local_path(address).open("rb")
        except OSError as error:
            _fail(address, error)
    opener = _open_s3 if kind == "s3" else _open_http
    return cast(BinaryIO, io.BufferedReader(_Stream(str(address), opener), _CHUNK))


def read_bytes(address: str | Path) -> bytes:
    """Return a whole (small) file."""
    with open_binary(address) as file:
        try:
            return file.read()
        except OSError as error:
            _fail(address, error)


def fetch_to(address: str | Path, path: str | Path) -> None:
    """Copy a file to a local path, which appears only when it is whole."""
    with write_atomic(path) as temporary, open_binary(address) as source:
        try:
            with temporary.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
        except OSError as error:
            _fail(address, error)


def list_files(address: str | Path) -> Iterator[Entry]:
    """List every file below a local folder or an S3 prefix, in a stable order.

    Names that begin with a dot are left out: they are files being written. Links to folders are
    followed unless they lead back to a folder they lie in.

    Raises
    ------
    StorageError
        If it cannot be listed; http addresses cannot.
    """
    kind = scheme(address)
    if not kind:
        yield from _list_local(local_path(address))
    elif kind == "s3":
        yield from _list_s3(str(address))
    else:
        raise StorageError(f"{address}: a web address cannot be listed; give a manifest or an s3:// address")


def _list_local(root: Path) -> Iterator[Entry]:
    # (path on disk, path below the root, real paths of the links above it)
    waiting: list[tuple[str, str, frozenset[str]]] = [(str(root), "", frozenset())]
    while waiting:
        folder, below, links = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: e.name)
            folders = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    above = links
                    if entry.is_symlink():
                        real = os.path.realpath(entry.path)
                        if real in links or Path(folder).resolve().is_relative_to(real):
                            continue
                        above = links | {real}
                    folders.append((entry.path, f"{below}{entry.name}/", above))
                    continue
                try:
                    info = entry.stat()
                except FileNotFoundError:  # a dangling link, or removed meanwhile
                    continue
                yield Entry(below + entry.name, info.st_size, int(info.st_mtime))
        except OSError as error:
            _fail(folder, error)
        waiting.extend(reversed(folders))


def _list_s3(address: str) -> Iterator[Entry]:
    bucket, key = _bucket_key(address)
    prefix = f"{key.rstrip('/')}/" if key else ""
    try:
        for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                path = item["Key"][len(prefix) :]
                # S3 has no folders; some tools leave empty objects named like one
                if path and not path.endswith("/") and not path.rpartition("/")[2].startswith("."):
                    yield Entry(path, item["Size"], int(item["LastModified"].timestamp()))
    except Exception as error:
        _fail(address, error)


@contextmanager
def write_atomic(address: str | Path, *, content_type: str | None = None) -> Iterator[Path]:
    """Give a local path to write to; on leaving, the file is published at the address in one step.

    Locally the path is a hidden name beside the target, which is flushed to disk and renamed. For S3
    it is a temporary file that is put. If the block raises, nothing is published and the temporary
    file is removed.

    Examples
    --------
    >>> import tempfile
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
            put_file(path, address, content_type=content_type)
        return
    target = local_path(address)
    # keeps the suffix, by which some writers choose their format
    path = target.with_name(f".{target.stem[:100]}.{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield path
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        _fail(address, error)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def put_file(
    local: str | Path,
    address: str | Path,
    *,
    content_type: str | None = None,
    cache_control: str | None = None,
) -> None:
    """Publish a local file at a local path or S3 address in one step.

    Raises
    ------
    StorageError
        If it cannot be written; http addresses cannot.
    """
    kind = scheme(address)
    if not kind:
        with write_atomic(address) as temporary:
            shutil.copyfile(local, temporary)
        return
    if kind != "s3":
        raise StorageError(f"{address}: cannot write to a web address; give a path or an s3:// address")
    bucket, key = _bucket_key(address)
    given = {"ContentType": content_type, "CacheControl": cache_control}
    try:
        _s3().upload_file(
            str(local), bucket, key, ExtraArgs={name: value for name, value in given.items() if value}
        )
    except Exception as error:
        _fail(address, error)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some systems cannot open folders; there it is as good as it gets."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _Stream(io.RawIOBase):
    """A remote file as a stream of chunks, reopened at its position when the connection breaks."""

    def __init__(self, address: str, opener: Callable[[str, int, str], tuple[Iterator[bytes], str]]) -> None:
        self._address = address
        self._opener = opener
        self._position = 0
        self._rest = b""
        self._chunks: Iterator[bytes] | None
        self._chunks, self._tag = opener(address, 0, "")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._next_chunk()
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        self._position += n
        return n

    def _next_chunk(self) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                if self._chunks is None:
                    self._chunks, self._tag = self._opener(self._address, self._position, self._tag)
                return next(self._chunks, b"")
            except Exception as error:
                # a generator that raised would only say "end of file" from now on
                self._chunks = None
                # without a tag, two versions of a file could be stitched together
                if attempt == ATTEMPTS - 1 or not self._tag:
                    _fail(self._address, error)
            time.sleep(BACKOFF * 2**attempt)
        raise AssertionError("unreachable")

    def close(self) -> None:
        closer = getattr(self._chunks, "close", None)
        if closer is not None:
            closer()
        super().close()


def _open_http(address: str, start: int, tag: str) -> tuple[Iterator[bytes], str]:
    headers = {"If-Match": tag, "Range": f"bytes={start}-"} if start else {}
    response = _http_request("GET", address, headers=headers, stream=True)
    if response.is_error or (start and response.status_code != 206):
        response.close()
        _fail_http(address, response)
    tag = response.headers.get("etag", "")

    def chunks() -> Iterator[bytes]:
        try:
            yield from response.iter_raw(_CHUNK)
        finally:
            response.close()

    return chunks(), "" if tag.startswith("W/") else tag


def _open_s3(address: str, start: int, tag: str) -> tuple[Iterator[bytes], str]:
    bucket, key = _bucket_key(address)
    resume = {"Range": f"bytes={start}-", "IfMatch": tag} if start else {}
    try:
        found = _s3().get_object(Bucket=bucket, Key=key, **cast("dict[str, Any]", resume))
    except Exception as error:
        _fail(address, error)
    return found["Body"].iter_chunks(_CHUNK), found["ETag"]


@cache
def _http_of_process(_pid: int) -> httpx.Client:
    # 60 ms to import: only when an address asks for it
    import httpx

    return httpx.Client(
        # identity: a .gz must arrive as it is stored, and sizes must be those of the file
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        follow_redirects=True,
        timeout=httpx.Timeout(60.0, connect=15.0),
    )


def _http_request(
    method: str, address: str, *, headers: dict[str, str] | None = None, stream: bool = False
) -> httpx.Response:
    """Send a request, again after a passing failure."""
    import httpx

    client = _http_of_process(os.getpid())
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        try:
            response = client.send(client.build_request(method, address, headers=headers), stream=stream)
            if last or response.status_code not in _RETRY_STATUS:
                return response
            response.close()
        except httpx.TransportError as error:
            if last:
                _fail(address, error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _fail(address, error)
        time.sleep(BACKOFF * 2**attempt)
    raise AssertionError("unreachable")


_s3_lock = threading.Lock()


def _s3() -> S3Client:
    """Return this process's client; clients are safe among threads, making them is not."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint and (host := os.environ.get("AWS_S3_ENDPOINT")):
        plain = os.environ.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF", "0")
        endpoint = host if "://" in host else f"{'http' if plain else 'https'}://{host}"
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1")
    with _s3_lock:
        return _s3_client(os.getpid(), endpoint, unsigned)


@cache
def _s3_client(_pid: int, endpoint: str | None, unsigned: bool) -> S3Client:
    # 0.2 s to import: only when an address asks for it
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.session.Session()
    unsigned = unsigned or session.get_credentials() is None
    return session.client(
        "s3",
        endpoint_url=endpoint,
        region_name=session.region_name or "us-east-1",
        config=Config(
            signature_version=UNSIGNED if unsigned else None,
            user_agent_extra=USER_AGENT,
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            connect_timeout=15,
            read_timeout=60,
            # other stores than Amazon's seldom have a host name per bucket
            s3={"addressing_style": "path"} if endpoint else None,
        ),
    )


def _bucket_key(address: str | Path) -> tuple[str, str]:
    bucket, _, key = str(address).removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{address}: expected s3://bucket/key")
    return bucket, key


def _s3_code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _fail_http(address: str | Path, response: httpx.Response) -> NoReturn:
    raise StorageError(f"{address}: HTTP {response.status_code} {response.reason_phrase}".rstrip())


def _fail(address: str | Path, error: Exception) -> NoReturn:
    """Raise any library's error as ours, with the address and the reason in words."""
    if isinstance(error, StorageError):
        raise error
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno:
        reason = {errno.ENOENT: "no such file", errno.EISDIR: "is a folder"}.get(
            error.errno, error.strerror or reason
        )
    raise StorageError(f"{address}: {reason}") from error
