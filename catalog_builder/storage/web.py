"""Files on web servers: read-only, with retries after transient failures."""

from __future__ import annotations

import netrc
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from catalog_builder.errors import StorageError
from catalog_builder.storage import retry
from catalog_builder.storage.address import CHUNK, USER_AGENT, fail
from catalog_builder.storage.stream import Opened

if TYPE_CHECKING:
    import httpx

_lock = threading.Lock()
"""Held while a client is created: all threads share its connections."""
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

_CONTENT_RANGE = re.compile(rb"content-range:\s*bytes\s+(\d+)-(\d+)/", re.IGNORECASE)


def size(address: str) -> int | None:
    """Return a file's size in bytes, -1 if it exists without a known size, None if it does not exist."""
    response = _request("HEAD", address)
    if response.status_code in (404, 410):
        return None
    if response.is_error:
        _fail(address, response)
    return int(response.headers.get("content-length", -1))


def open_at(address: str, start: int, tag: str) -> Opened:
    """Request a file from a byte offset on."""
    headers = {"If-Match": tag, "Range": f"bytes={start}-"} if start else {}
    response = _request("GET", address, headers=headers, stream=True)
    if response.is_error or (start and response.status_code != 206):
        response.close()
        _fail(address, response)
    tag = response.headers.get("etag", "")

    def chunks() -> Iterator[bytes]:
        try:
            yield from response.iter_raw(CHUNK)
        finally:
            response.close()

    return Opened(chunks(), "" if tag.startswith("W/") else tag)


class Range(NamedTuple):
    """A server's response to a range request."""

    data: bytes
    problem: str
    """Why it is not the range; empty if it is."""
    url: str
    """URL of the file after redirects; empty if it was not found."""
    status: int = 0
    """Of the response; 0 if there was none."""
    tag: str = ""
    """Changes when the file does: its ETag, else the time of its last change, if the server says one."""
    size: int | None = None
    """Bytes of the whole file, if the server says so."""


def read_range(address: str, start: int, stop: int | None) -> Range:
    """Request bytes [start, stop) of a file, with retries after transient failures.

    Without an end, ``start`` is negative: so many bytes at the end of the file.
    """
    wanted = f"bytes={start}" if stop is None else f"bytes={start}-{stop - 1}"
    try:
        response = _request("GET", address, headers={"Range": wanted}, ranged=True)
    except StorageError as error:
        return Range(b"", str(error.__cause__ or error) or type(error.__cause__).__name__, "")
    status = response.status_code
    if status != 206:
        return Range(b"", f"HTTP {status} {response.reason_phrase} for a range".rstrip(), "", status)
    tag = response.headers.get("etag") or response.headers.get("last-modified") or ""
    total = response.headers.get("content-range", "").rpartition("/")[2]
    size = int(total) if total.isdecimal() else None
    return Range(response.content, "", str(response.url), status, tag, size)


def read_ranges(address: str, ranges: Sequence[tuple[int, int]]) -> tuple[list[bytes], int, str] | None:
    """Request several ranges [start, stop) in one response.

    Returns
    -------
    tuple or None
        Their bytes, the size of the response, and the file's URL after redirects; None if the server does
        not give them so: it is asked for one at a time then, which tells why.
    """
    wanted = ",".join(f"{start}-{stop - 1}" for start, stop in ranges)
    try:
        response = _request("GET", address, headers={"Range": f"bytes={wanted}"}, ranged=True)
    except StorageError:
        return None
    kind = response.headers.get("content-type", "")
    if response.status_code != 206 or not kind.lower().startswith("multipart/byteranges"):
        return None
    parts = sorted(_parts(response.content, kind))
    starts = [start for start, _ in parts]
    found = []
    for start, stop in ranges:
        first, data = parts[at] if (at := bisect_right(starts, start) - 1) >= 0 else (0, b"")
        if stop > first + len(data):
            return None
        found.append(data[start - first : stop - first])
    return found, len(response.content), str(response.url)


def _parts(body: bytes, kind: str) -> list[tuple[int, bytes]]:
    """Return where the parts of a ``multipart/byteranges`` begin in the file, and their bytes.

    Their boundary may stand in the bytes, so a part is as long as its header says.
    """
    match = re.search(r'boundary="?([^";]+)"?', kind)
    boundary = f"--{match[1]}".encode() if match else b"--"
    found, at = [], body.find(boundary)
    while at >= 0:
        end = body.find(b"\r\n\r\n", at)
        said = _CONTENT_RANGE.search(body, at, end) if end > 0 else None
        if said is None:
            break
        start, last = int(said[1]), int(said[2])
        data = body[end + 4 : end + 5 + last - start]
        if len(data) == last - start + 1:
            found.append((start, data))
        at = body.find(boundary, end + 5 + last - start)
    return found


def post(address: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send a body, again after transient failures; return the status of the response, and its body.

    Raises
    ------
    StorageError
        If there is no response.
    """
    response = _request("POST", address, headers=headers, content=body)
    return response.status_code, response.content


@cache
def _client_of(_pid: int) -> httpx.Client:
    # 60 ms to import: only when an http(s) URL is used
    import httpx

    try:  # passwords: not in URLs
        auth = httpx.NetRCAuth(os.environ.get("NETRC") or None)
    except FileNotFoundError:
        auth = None
    except (OSError, netrc.NetrcParseError) as error:
        raise StorageError(f"netrc: cannot be read ({error})") from error
    return httpx.Client(
        auth=auth,
        # identity: a .gz must arrive as it is stored, and sizes must be those of the file
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        follow_redirects=True,
        timeout=httpx.Timeout(60.0, connect=15.0),
    )


def _request(
    method: str,
    address: str,
    *,
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
    stream: bool = False,
    ranged: bool = False,
) -> httpx.Response:
    """Send a request, with retries after transient failures.

    The body is left unread for a ``stream``; that of a ``ranged`` request is read if it
    is a range, and not if the server would send the whole file instead.
    """
    import httpx

    with _lock:
        client = _client_of(os.getpid())
    for attempt in range(retry.ATTEMPTS):
        last = attempt == retry.ATTEMPTS - 1
        try:
            request = client.build_request(method, address, headers=headers, content=content)
            response = client.send(request, stream=stream or ranged)
            if ranged and response.status_code == 206:
                response.read()
            elif ranged:
                response.close()
            if last or response.status_code not in _PASSING:
                return response
            response.close()
        except httpx.TransportError as error:
            if last:
                fail(address, error)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(address, error)
        retry.pause(attempt)
    raise AssertionError("unreachable")


def _fail(address: str | Path, response: httpx.Response) -> NoReturn:
    raise StorageError(f"{address}: HTTP {response.status_code} {response.reason_phrase}".rstrip())
