"""Paging tokens: the position where a page ended, tied to the search they belong to.

A token is a position in the order of results (the sort values and key of the row at a page's edge) and
a direction, so paging is exact at any depth and every page costs the same. It contains a
fingerprint of its search: with another search it would silently skip items, so it is rejected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from catalog_builder.errors import QueryError


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the order of results."""

    key: int
    """Index key of the row at the edge, which is not part of the page."""
    backwards: bool = False
    """Whether the page precedes it."""
    values: tuple[Any, ...] = ()
    """That row's sort values, if the order is not the index's own."""


def encode(cursor: Cursor, fingerprint: str) -> str:
    """Return a token: URL-safe text without padding."""
    return seal(["p" if cursor.backwards else "n", cursor.key, *cursor.values], fingerprint)


def decode(token: str, fingerprint: str) -> Cursor:
    """Return the position in a token.

    Raises
    ------
    QueryError
        If it is not a token of this server, or one of another search.
    """
    direction, key, *values = unseal(token, fingerprint)
    return Cursor(key, direction == "p", tuple(values))


def seal(value: Any, fingerprint: str) -> str:
    """Return JSON as a token of one search."""
    body = orjson.dumps(value)
    return base64.urlsafe_b64encode(_digest(body, fingerprint) + body).rstrip(b"=").decode()


def unseal(token: str, fingerprint: str) -> Any:
    """Return the data passed to :func:`seal`.

    Raises
    ------
    QueryError
        If it is not a token of this server, or one of another search.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise QueryError(
            f"token: '{token[:40]}' is not a token of this server; follow the next links"
        ) from None
    body = raw[6:]
    if len(raw) < 8 or _digest(body, fingerprint) != raw[:6]:
        raise QueryError(
            "token: it does not belong to this search; follow the next link with the same parameters,"
            " or start again without a token"
        )
    return orjson.loads(body)


def _digest(body: bytes, fingerprint: str) -> bytes:
    return hashlib.blake2b(b"%s\0%s" % (fingerprint.encode(), body), digest_size=6).digest()
