"""Headers of every file response, and the short responses: errors, redirects, preflights."""

from __future__ import annotations

from collections.abc import Iterable

import orjson
from starlette.types import Scope, Send

from api.http.cors import VARY, allow_headers

Headers = list[tuple[bytes, bytes]]

CORS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified, Location",
    ),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    (b"x-content-type-options", b"nosniff"),
]
"""Sent with every response: a browser may read ranges of public data from any page."""

_PREFLIGHT: Headers = [
    (b"allow", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-max-age", b"86400"),
    VARY,
    (b"content-length", b"0"),
]


async def send_error(
    scope: Scope,
    send: Send,
    status: int,
    code: str,
    description: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send ``{"code": …, "description": …}``, the form of stac-fastapi's errors."""
    body = orjson.dumps({"code": code, "description": description})
    length = (b"content-length", str(len(body)).encode())
    kind = (b"content-type", b"application/json")
    # an error must not outlive its cause in a cache
    lines = [*CORS, kind, length, (b"cache-control", b"no-store"), *headers]
    await send_whole(send, status, lines, b"" if scope["method"] == "HEAD" else body)


async def send_not_found(scope: Scope, send: Send, description: str) -> None:
    """Send 404 with its reason."""
    await send_error(scope, send, 404, "NotFoundError", description)


async def only_reading(scope: Scope, send: Send) -> bool:
    """Respond to OPTIONS (CORS preflight), reject writes and WebSockets; True if the caller must respond."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return False
    method = scope["method"]
    if method in ("GET", "HEAD"):
        return True
    if method == "OPTIONS":
        asked = dict(scope["headers"]).get(b"access-control-request-headers", b"")
        await send_whole(send, 200, [*CORS, *_PREFLIGHT, allow_headers(asked)])
    else:
        allow = (b"allow", b"GET, HEAD, OPTIONS")
        await send_error(scope, send, 405, "MethodNotAllowed", f"{method} is not supported here", [allow])
    return False


async def send_redirect(send: Send, location: str, cache_control: str, *, permanent: bool = True) -> None:
    """Send 301: of all redirects GDAL remembers only this one, and reads the other ranges from there.

    Permanent means as long as ``cache_control`` says, for caches that keep to the RFC; else it is a 302.
    """
    lines = [
        *CORS,
        (b"location", location.encode("ascii")),
        (b"cache-control", cache_control.encode()),
        (b"content-length", b"0"),
    ]
    await send_whole(send, 301 if permanent else 302, lines)


async def send_whole(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """Send a response with a body in memory."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def route_path(scope: Scope) -> str:
    """Return the request's path below where this app is mounted, percent-decoded, from its ``/`` on.

    Behind a proxy that strips its prefix, ``root_path`` is that prefix and the mount, while the path
    holds the mount only; otherwise it holds both.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    mount = root.removeprefix(scope.get("app_root_path", ""))
    for prefix in (root, mount):
        if prefix and path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
            return path[len(prefix) :]
    return path


def public_path(scope: Scope) -> str:
    """Return the request's path as sent by the client, including the prefix that a proxy stripped."""
    path: str = scope["path"]
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return path if path.startswith(root) else root + path
