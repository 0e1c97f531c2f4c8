"""Paging tokens: the position where a page ended, tied to the search they belong to.

A token is a position in the order of results (the sort values and key of the row at a page's edge) and
a direction, so paging is exact at any depth and every page costs the same. It contains a
fingerprint of its search: with another search it would silently skip items, so it is rejected.

The seal has no secret, so that tokens work on every server of a catalogue and after restarts. It finds
mistakes, not forgers: a token grants nothing, because the page is always searched for anew with what the
request may see. What is in one is therefore checked like any other parameter before it is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from dataclasses import dataclass
from typing import Any

import orjson

from catalog_builder.errors import QueryError

Value = str | float | None
"""A sort value."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the order of results."""

    key: int
    """Index key of the row at the edge, which is not part of the page."""
    backwards: bool = False
    """Whether the page precedes it."""
    values: tuple[Value, ...] = ()
    """That row's sort values, if the order is not the index's own, and the build if they may change."""


def encode(cursor: Cursor, fingerprint: str) -> str:
    """Return a token: URL-safe text without padding."""
    return seal(["p" if cursor.backwards else "n", cursor.key, *cursor.values], fingerprint)


def decode(token: str, fingerprint: str) -> Cursor:
    """Return the position in a token.

    Raises
    ------
    QueryError
        If it is not a token of this server, or one of another search. Whether its key and its values fit
        the search is for the caller to check.
    """
    match unseal(token, fingerprint):
        case ["n" | "p" as direction, int(key), *values] if _is_number(key) and all(map(_is_value, values)):
            return Cursor(key, direction == "p", tuple(values))
    raise foreign(token)


def foreign(token: str) -> QueryError:
    """Return the error for a token that this server has not made."""
    return QueryError(f"token: '{token[:40]}' is not a token of this server; follow the next links")


def _is_value(value: Any) -> bool:
    return value is None or isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    """Whether a value is a number that the index can compare."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


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
        raise foreign(token) from None
    body = raw[6:]
    if len(raw) < 8 or _digest(body, fingerprint) != raw[:6]:
        raise QueryError(
            "token: it does not belong to this search; follow the next link with the same parameters,"
            " or start again without a token"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise foreign(token) from None


def _digest(body: bytes, fingerprint: str) -> bytes:
    return hashlib.blake2b(b"%s\0%s" % (fingerprint.encode(), body), digest_size=6).digest()
