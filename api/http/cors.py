"""What a preflight says of request headers: the same for searches and for files."""

from __future__ import annotations

import re

_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")
_USUAL = (
    b"Content-Type, Accept, Authorization, Range, If-Range, If-Match, If-None-Match, If-Modified-Since,"
    b" If-Unmodified-Since, Cache-Control"
)
"""Said to who asks for nothing in particular."""

VARY = (b"vary", b"Access-Control-Request-Headers")


def allow_headers(asked: bytes) -> tuple[bytes, bytes]:
    """Return the header that allows what ``Access-Control-Request-Headers`` asks for.

    All data is public, so any is allowed: a client that adds one of its own (``traceparent``, ``X-Client``)
    must not be shut out.
    """
    return (b"access-control-allow-headers", asked if _NAMES.fullmatch(asked) else _USUAL)
