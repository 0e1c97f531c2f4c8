"""Files on web servers: read only, tried again after passing failures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from catalog_builder.errors import StorageError
from catalog_builder.storage import retry
from catalog_builder.storage.address import CHUNK, USER_AGENT, fail
from catalog_builder.storage.stream import Opened

if TYPE_CHECKING:
    import httpx

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


def size(address: str) -> int | None:
    """Return the bytes of a file, -1 if it exists without a known size, None if it does not exist."""
    response = _request("HEAD", address)
    if response.status_code in (404, 410):
        return None
    if response.is_error:
        _fail(address, response)
    return int(response.headers.get("content-length", -1))


def open_at(address: str, start: int, tag: str) -> Opened:
    """Ask for a file from a byte on."""
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


@cache
def _client_of(_pid: int) -> httpx.Client:
    # 60 ms to import: only when an address asks for it
    import httpx

    return httpx.Client(
        # identity: a .gz must arrive as it is stored, and sizes must be those of the file
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        follow_redirects=True,
        timeout=httpx.Timeout(60.0, connect=15.0),
    )


def _request(
    method: str, address: str, *, headers: dict[str, str] | None = None, stream: bool = False
) -> httpx.Response:
    """Send a request, again after a passing failure."""
    import httpx

    client = _client_of(os.getpid())
    for attempt in range(retry.ATTEMPTS):
        last = attempt == retry.ATTEMPTS - 1
        try:
            response = client.send(client.build_request(method, address, headers=headers), stream=stream)
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
