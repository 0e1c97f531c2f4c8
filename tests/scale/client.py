"""A client of HTTP/1.1 that costs little, so that many fit on the machine of the server they ask."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask."""

    path: str
    method: str = "GET"
    body: Any = None
    """Sent as JSON."""
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        body = b"" if self.body is None else orjson.dumps(self.body)
        headers = {"host": "127.0.0.1", **self.headers}
        if self.body is not None:
            headers |= {"content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True, slots=True)
class Response:
    """What was answered."""

    status: int
    headers: dict[str, str]
    """Names in small letters."""
    body: bytes

    def json(self) -> Any:
        """Return the body's value.

        Raises
        ------
        ValueError, zlib.error
            If it is not JSON, or not compressed as it says.
        """
        zipped = self.headers.get("content-encoding") == "gzip"
        return orjson.loads(zlib.decompress(self.body, 31) if zipped else self.body)


class Connection:
    """One connection, kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: Request) -> Response:
        """Ask one thing.

        Raises
        ------
        OSError, asyncio.IncompleteReadError
            If the server closes the connection before it has answered.
        """
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self._writer.write(request.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:-2])}
        length = int(headers.get("content-length", 0))
        bodiless = request.method == "HEAD" or status in (204, 304)
        if not bodiless and "content-length" not in headers:
            raise OSError(f"{request.path}: an answer without a length")
        body = b"" if bodiless else await self._reader.readexactly(length)
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return Response(status, headers, body)

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
