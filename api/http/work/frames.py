"""What a server process and those that work for it tell each other: plain values, each behind its length."""

from __future__ import annotations

import asyncio
import marshal
from typing import Any

_LENGTH = 8
"""Bytes of the length before each value."""


async def write_frame(writer: asyncio.StreamWriter, value: Any) -> None:
    """Send dictionaries, lists, tuples, texts, bytes, numbers or None, once there is room for them.

    Both ends are the same Python, and nobody else has a hand on the connection: :mod:`marshal` suits that.
    """
    content = marshal.dumps(value)
    writer.write(len(content).to_bytes(_LENGTH))
    writer.write(content)
    await writer.drain()


async def read_frame(reader: asyncio.StreamReader) -> Any:
    """Return the next value.

    Raises
    ------
    EOFError
        If the other end has closed the connection, or has ended.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH))
        return marshal.loads(await reader.readexactly(length))  # noqa: S302 - our own process wrote it
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the other end is gone") from error
