"""Shared parts of the server's own HTML pages: a frame without external resources, and validators."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from catalog_builder.catalog.coverage.page import POLICY, content_policy

_FRAME = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44em; margin: 2em auto; padding: 0 1em;
  color: #1f2328; background: #fff; }}
pre {{ background: #f3f6f9; padding: .7em 1em; overflow-x: auto; }}
a {{ color: #0b57a4; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e6e8eb; background: #16191d; }}
  pre {{ background: #23272d; }}
  a {{ color: #7ab7f5; }}
}}
</style>
</head>
<body>
{body}</body>
</html>
"""


UNFRAMED = "frame-ancestors 'none'"
"""No other site may show the page in a frame; only a header can say so."""
PAGE_HEADERS: Mapping[str, str] = {
    POLICY: f"{content_policy(_FRAME.format(title='', body=''))}; {UNFRAMED}",
    "referrer-policy": "same-origin",
}
"""Of a response with a :func:`page`: its style alone is allowed."""


def page(title: str, body: str) -> str:
    """Return an HTML page; ``body`` is already HTML."""
    return _FRAME.format(title=html.escape(title), body=body)


def strong_etag(*parts: bytes) -> str:
    """Return an ETag derived from some bytes."""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return f'"{digest.hexdigest()}"'


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Return a 304 if the client has the response that ``headers`` (with an ``etag``) belong to."""
    asked = request.headers.get("if-none-match")
    if asked is None:
        return None
    tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
    if "*" not in tags and headers["etag"].removeprefix("W/") not in tags:
        return None
    return Response(status_code=304, headers=dict(headers))


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#006400" d="M1 1h6v6H1z"/>'
    '<path fill="#00008b" d="M9 1h6v6H9z"/><path fill="#ff8c00" d="M1 9h6v6H1z"/>'
    '<path fill="#2a9d8f" d="M9 9h6v6H9z"/></svg>'
)
"""Four tesserae; browsers ask for it with every page."""


def add_icon(app: FastAPI) -> None:
    """Add ``/favicon.ico``."""

    async def icon() -> Response:
        return Response(ICON, 200, {"cache-control": "public, max-age=86400"}, "image/svg+xml")

    app.add_api_route("/favicon.ico", icon, include_in_schema=False)
