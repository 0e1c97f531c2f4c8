"""The service's root URL as clients see it, and links derived from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.types import Scope

from catalog_builder.storage.headers import MEDIA_GEOJSON, MEDIA_HTML, MEDIA_JSON

JSON = MEDIA_JSON
GEOJSON = MEDIA_GEOJSON
COVERAGE_JSON = "application/prs.coverage+json"
"""CoverageJSON, as OGC API - Environmental Data Retrieval 1.1 calls it."""
SCHEMA = "application/schema+json"
OPENAPI = "application/vnd.oai.openapi+json;version=3.0"
HTML = MEDIA_HTML

QUERYABLES_REL = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
SORTABLES_REL = "http://www.opengis.net/def/rel/ogc/1.0/sortables"

Link = dict[str, Any]

_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?")
_PREFIX = re.compile(rb"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.~%@+-]+){0,20}/?")
_LONGEST_PREFIX = 500
_FORWARDED = re.compile(rb"\s*([A-Za-z]+)=(?:\"([^\"\\]*)\"|([^\s\";,]+))\s*")


def service_root(scope: Scope, root_path: str, trust_forwarded: bool) -> tuple[str, str]:
    """Return the service's root URL without a trailing slash, and the path prefix in it.

    ``Forwarded`` (RFC 7239) takes precedence over ``X-Forwarded-Proto``, ``-Host`` and ``-Port``; of a list,
    the first entry, which the proxy next to the client wrote. ``X-Forwarded-Prefix`` replaces the
    configured prefix; the slash before it may be missing. What is not a host, a port or a path is ignored.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    scheme = scope.get("scheme", "http")
    host = headers.get(b"host", b"")
    prefix = root_path or scope.get("root_path", "")
    if trust_forwarded:
        standard = _forwarded(headers.get(b"forwarded", b""))
        proto = standard.get(b"proto") or _first(headers, b"x-forwarded-proto")
        if proto.lower() in (b"http", b"https"):
            scheme = proto.lower().decode()
        forwarded_host = standard.get(b"host") or _first(headers, b"x-forwarded-host")
        if _is_host(forwarded_host):
            host = forwarded_host
        port = _first(headers, b"x-forwarded-port")
        if port.isdigit() and 0 < int(port[:6]) < 65536 and b"host" not in standard:
            host = re.sub(rb":\d+$", b"", host) + b":" + port
        forwarded_prefix = _first(headers, b"x-forwarded-prefix")
        if forwarded_prefix and not forwarded_prefix.startswith(b"/"):
            forwarded_prefix = b"/" + forwarded_prefix
        if 0 < len(forwarded_prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(forwarded_prefix):
            prefix = forwarded_prefix.decode()
    if not _is_host(host):
        server = scope.get("server") or ("localhost", None)
        host = (server[0] + (f":{server[1]}" if server[1] else "")).encode()
    default = b":443" if scheme == "https" else b":80"
    prefix = prefix.rstrip("/")
    return f"{scheme}://{host.removesuffix(default).decode()}{prefix}", prefix


def _forwarded(header: bytes) -> dict[bytes, bytes]:
    """Return the pairs of a ``Forwarded`` header's first entry; none of them if one is malformed."""
    found: dict[bytes, bytes] = {}
    for pair in filter(None, header.split(b",")[0].split(b";")):
        match = _FORWARDED.fullmatch(pair)
        if match is None:
            return {}
        found[match[1].lower()] = match[3] or match[2] or b""
    return found


def _is_host(text: bytes) -> bool:
    """Return whether a text is a host with an optional valid port: nothing else gets into a link."""
    match = _HOST.fullmatch(text)
    return match is not None and (match[1] is None or 0 < int(match[1]) < 65536)


def _first(headers: Mapping[bytes, bytes], name: bytes) -> bytes:
    return headers.get(name, b"").split(b",")[0].strip()


def link(rel: str, href: str, kind: str = JSON, title: str | None = None, **more: Any) -> Link:
    """Return a link object."""
    return {"rel": rel, "type": kind, "href": href, **({"title": title} if title else {}), **more}


def paging_links(
    address: str,
    method: str,
    given: Mapping[str, Any],
    texts: Mapping[str, str],
    tokens: Mapping[str, str],
    kind: str = GEOJSON,
) -> list[Link]:
    """Return ``self`` and, by ``tokens`` (rel to token), ``next`` and ``prev``.

    A GET link is a complete URL. A POST link contains the complete body, so a client need not merge.
    """
    if method == "POST":
        return [
            link("self", address, kind, method="POST", body=dict(given)),
            *(
                link(rel, address, kind, method="POST", body={**given, "token": token}, merge=False)
                for rel, token in tokens.items()
            ),
        ]
    without = {k: v for k, v in texts.items() if k != "token"}
    return [
        link("self", with_query(address, texts), kind, method="GET"),
        *(
            link(rel, with_query(address, {**without, "token": token}), kind, method="GET")
            for rel, token in tokens.items()
        ),
    ]


def with_query(address: str, texts: Mapping[str, str]) -> str:
    """Return a URL with a query string; commas, slashes and colons are not encoded."""
    return f"{address}?{urlencode(texts, safe=',/:', quote_via=quote)}" if texts else address
