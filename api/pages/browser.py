"""STAC Browser at ``/browser/``: files that ``make browser`` built, and a ``config.js`` for this server.

The files are the same for every server (their own URLs are relative); ``config.js`` contains what
differs, and is generated from the URL that the client used, so it is correct behind any proxy and prefix.
Without the files the page explains how to get them, and links to the public browser.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import anyio.to_thread
import brotli  # type: ignore[import-untyped]
import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.files.folder import visible
from api.http.responses import error
from api.pages.frame import PAGE_HEADERS, UNFRAMED, not_modified, page, strong_etag
from api.settings import Settings
from catalog_builder.catalog.coverage.page import POLICY
from catalog_builder.storage.headers import IMMUTABLE, REVALIDATE, media_type

DIST = Path(__file__).parents[1] / "browser_dist"
"""Where ``deploy/browser/build.py`` puts the files."""
PUBLIC_BROWSER = "https://radiantearth.github.io/stac-browser/#/external"
"""Loads any catalogue that the visitor's machine can reach."""

# STAC Browser prefers map tiles to COGs where an item links both. It reads a COG by range requests itself,
# sharper and at no cost to the server.
_PREFER_COGS = """\
window.STAC_BROWSER_CONFIG.preprocessSTAC = (stac) => {
  if (stac.assets && stac.assets.visual) {
    stac.links = stac.links.filter((link) => link.rel !== "xyz" && link.rel !== "tilejson");
  }
  return stac;
};
"""

# Its scripts are files; it may show and read whatever an item links to. Vue sets styles inline; GeoTIFFs are
# decoded in workers made of data: URLs, with WebAssembly.
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " font-src 'self' data:; img-src * data: blob:; media-src *; connect-src * data: blob:;"
    " worker-src 'self' blob: data:;"
    f" object-src 'none'; base-uri 'self'; form-action 'self'; {UNFRAMED}"
)

_COMPRESSIBLE = ("text/", "application/json", "image/svg")
_MIN_COMPRESSED = 1000


@dataclass(frozen=True)
class _File:
    """One file, read once; all of them are 6 MB."""

    path: Path
    name: str
    """Path relative to the folder, such as ``js/app.1a2b3c4d.js``."""

    @cached_property
    def body(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def compressed(self) -> bytes:
        """Compressed with brotli: level 5 costs 30 ms/MB, once, and saves two thirds."""
        return bytes(brotli.compress(self.body, quality=5))

    @cached_property
    def etag(self) -> str:
        return strong_etag(self.body)

    @cached_property
    def kind(self) -> str:
        return media_type(self.name)

    @property
    def caching(self) -> str:
        # webpack puts a digest of the content into the names of files below these
        return IMMUTABLE if self.name.startswith(("js/", "css/", "img/", "fonts/")) else REVALIDATE

    def answer(self, request: Request, compress: bool) -> Response:
        """Return the file, compressed if the client accepts that; call it from a thread."""
        headers = {"etag": self.etag, "cache-control": self.caching, "vary": "Accept-Encoding"}
        if self.kind.startswith("text/html"):
            headers[POLICY] = _POLICY
        if (unchanged := not_modified(request, headers)) is not None:
            return unchanged
        body = self.body
        if compress and self._is_text and "br" in _encodings(request):
            body, headers["content-encoding"] = self.compressed, "br"
        elif not self._is_text:
            del headers["vary"]
        return Response(body, 200, headers, self.kind)

    @property
    def _is_text(self) -> bool:
        return self.kind.startswith(_COMPRESSIBLE) and len(self.body) >= _MIN_COMPRESSED


def _encodings(request: Request) -> set[str]:
    accepted = request.headers.get("accept-encoding", "").split(",")
    return {part.strip() for part in accepted}  # an encoding with a weight is not used: it may be q=0


def add_browser(app: FastAPI, settings: Settings) -> bool:
    """Add the routes at ``/browser``; return whether the files exist.

    Parameters
    ----------
    app
        The application.
    settings
        For the folder of the built files, the title, and whether responses are compressed.
    """
    dist = settings.browser or DIST
    files: Mapping[str, _File] = {}
    if (dist / "index.html").is_file():
        found = (p for p in dist.rglob("*") if p.is_file())
        files = {name: _File(p, name) for p in found if (name := p.relative_to(dist).as_posix())}

    async def browser(request: Request) -> Response:
        name = visible(request.path_params["path"], request.scope.get("raw_path") or b"")
        if name == "config.js":
            return _config(request, settings)
        if name is None and not request.path_params["path"]:
            if not files:
                return _how_to_get_it(request)
            name = "index.html"
        file = files.get(name or "")
        if file is None:
            return error(404, f"STAC Browser has no file {request.path_params['path'][:200]}")
        return await anyio.to_thread.run_sync(file.answer, request, settings.compress)

    async def add_slash(request: Request) -> Response:
        # Relative, so that it is correct under any prefix that a proxy adds.
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"browser/{query}", 307)

    app.add_api_route("/browser", add_slash, include_in_schema=False)
    app.add_api_route("/browser/{path:path}", browser, include_in_schema=False)
    return bool(files)


def _config(request: Request, settings: Settings) -> Response:
    """Return STAC Browser's configuration."""
    root: str = request.scope["tessera.root"]
    config = {
        "catalogUrl": f"{root}/",
        "catalogTitle": settings.title,
        "allowExternalAccess": False,
        "displayPreview": True,
        "displayOverview": True,
        "itemsPerPage": 12,
        "searchResultsPerPage": 12,
        "cardViewMode": "cards",
        "defaultThumbnailSize": [256, 256],
        "footerLinks": [
            {"label": "Coverage map", "url": f"{root}/coverage"},
            {"label": "API document", "url": f"{root}/api.html"},
        ],
    }
    # JSON is JavaScript; not cached, because the URL depends on how the client reached the server.
    said = orjson.dumps(config, option=orjson.OPT_INDENT_2).decode()
    body = f"window.STAC_BROWSER_CONFIG = {said};\n{_PREFER_COGS}"
    return Response(body, 200, {"cache-control": "no-store"}, "text/javascript; charset=utf-8")


def _how_to_get_it(request: Request) -> Response:
    root: str = request.scope["tessera.root"]
    # STAC Browser writes other URLs in its own in this form: one slash after the protocol.
    public = f"{PUBLIC_BROWSER}/{root.replace('://', ':/', 1)}/"
    body = f"""\
<h1>STAC Browser is not installed on this server</h1>
<p>Everything else works: the API, the data and the <a href="../coverage">coverage map</a>.</p>
<h2>To install it</h2>
<p>In a checkout of tessera-stac, with node 18 or newer and npm (it takes about two minutes), then
restart the server:</p>
<pre>make browser</pre>
<h2>Without installing anything</h2>
<p>The public STAC Browser shows any catalogue that your machine can reach:
<a href="{html.escape(public)}">open this catalogue in it</a>.</p>
"""
    headers = {"cache-control": "no-store", **PAGE_HEADERS}
    return HTMLResponse(page("STAC Browser", body), headers=headers)
