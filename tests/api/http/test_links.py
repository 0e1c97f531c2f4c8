"""Links are right wherever the service is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.http.links import service_root
from tests.support.backends import Serve
from tests.support.paging import ok


def hrefs(node: Any) -> Iterator[str]:
    """Every href in a document."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "href":
                yield value
            else:
                yield from hrefs(value)
    elif isinstance(node, list):
        for value in node:
            yield from hrefs(value)


def by_rel(document: dict[str, Any]) -> dict[str, str]:
    return {link["rel"]: link["href"] for link in document["links"]}


PLACES = {
    "x-forwarded": ({"x-forwarded-proto": "https", "x-forwarded-host": "stac.example.org",
                     "x-forwarded-prefix": "/api/v1"}, "https://stac.example.org/api/v1"),
    "port": ({"x-forwarded-proto": "https", "x-forwarded-host": "e.org", "x-forwarded-port": "8443"},
             "https://e.org:8443"),
    "default port": ({"x-forwarded-proto": "https", "x-forwarded-host": "e.org", "x-forwarded-port": "443"},
                     "https://e.org"),
    "host keeps its port": ({"host": "e.org:8080"}, "http://e.org:8080"),
    "standard": ({"forwarded": 'for=192.0.2.60;proto=https;host="e.org:8443", for=10.0.0.1;host=inner'},
                 "https://e.org:8443"),
    "first of a list": ({"x-forwarded-host": "outer.org, inner.local", "x-forwarded-proto": "https, http"},
                        "https://outer.org"),
    "ipv6": ({"host": "[::1]:8000"}, "http://[::1]:8000"),
    "prefix without a slash": ({"host": "e.org", "x-forwarded-prefix": "stac/v1/"}, "http://e.org/stac/v1"),
    "nonsense is ignored": ({"x-forwarded-host": "a b<script>", "x-forwarded-proto": "gopher",
                             "x-forwarded-prefix": "//evil.org", "x-forwarded-port": "x", "host": "e.org"},
                            "http://e.org"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_link_of_every_document(http: httpx.Client, place: str) -> None:
    headers, root = PLACES[place]
    landing = ok(http.get("/", headers=headers))
    links = by_rel(landing)
    assert links["self"] == links["root"] == f"{root}/"
    assert links["data"] == f"{root}/collections"
    assert links["search"] == f"{root}/search"
    assert links["related"] == f"{root}/browse"
    assert links["service-desc"] == f"{root}/api"
    page = ok(http.get("/search?limit=1", headers=headers))
    assert by_rel(page)["next"].startswith(f"{root}/search?limit=1&token=")
    assert by_rel(page)["self"] == f"{root}/search?limit=1"
    (item,) = page["features"]
    assert by_rel(item)["self"] == f"{root}/collections/tessera-v1/items/{item['id']}"
    assert by_rel(item)["parent"] == by_rel(item)["collection"] == f"{root}/collections/tessera-v1"
    assert by_rel(item)["root"] == f"{root}/"
    posted = ok(http.post("/search", json={"limit": 1}, headers=headers))
    assert by_rel(posted)["next"] == f"{root}/search"
    collection = ok(http.get("/collections/tessera-v1", headers=headers))
    assert by_rel(collection)["items"] == f"{root}/collections/tessera-v1/items"
    for document in (landing, page, collection, ok(http.get("/collections", headers=headers))):
        for href in hrefs(document):
            assert href.startswith((root, "https://data.source.coop", "https://")), href
            assert "{" not in href.replace("{z}/{x}/{y}", ""), href


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_prefix(catalog: Path, serve_on: Serve, strips: bool) -> None:
    """A proxy that strips its prefix, and one that passes the whole path on."""
    prefix = "" if strips else "/stac"
    with serve_on(catalog, root_path="/stac") as server, httpx.Client(base_url=server.url) as http:
        root = f"{server.url}/stac"
        page = ok(http.get(f"{prefix}/search?limit=2"))
        assert by_rel(page)["root"] == f"{root}/"
        assert by_rel(page)["next"].startswith(f"{root}/search?")
        assert ok(http.get(f"{prefix}/collections/tessera-v1"))["id"] == "tessera-v1"
        assert http.get(f"{prefix}/data/catalog.json", headers={"range": "bytes=0-0"}).status_code == 206
        vrt = "source/v1/2024/grid_0.15_52.05/grid_0.15_52.05_f32.vrt"
        assert http.get(f"{prefix}/{vrt}").status_code == 200
        described = ok(http.get(f"{prefix}/api"))
        assert described["servers"] == [{"url": "/stac"}]


def test_forwarded_headers_may_be_distrusted(catalog: Path, serve_on: Serve) -> None:
    with serve_on(catalog, trust_forwarded=False) as server, httpx.Client(base_url=server.url) as http:
        page = ok(http.get("/", headers={"x-forwarded-host": "evil.org", "forwarded": "host=evil.org"}))
        assert by_rel(page)["root"] == f"{server.url}/"


def test_without_a_host_header() -> None:
    scope = {"type": "http", "headers": [], "server": ("10.0.0.7", 9000), "scheme": "http"}
    assert service_root(scope, "", True) == ("http://10.0.0.7:9000", "")


def test_every_link_leads_somewhere(http: httpx.Client) -> None:
    """Every address of ours in the landing page, a collection and an item answers 200."""
    seen = set()
    for path in ("/", "/collections/tessera-v1", "/search?bbox=0.11,52.01,0.12,52.02&limit=1"):
        for href in hrefs(ok(http.get(path))):
            href = href.replace("{z}/{x}/{y}", "9/256/168")
            if href.startswith(str(http.base_url)) and href not in seen:
                seen.add(href)
                response = http.get(href, follow_redirects=False)
                if response.status_code == 405:  # of a link whose method is POST
                    assert response.headers["allow"] == http.options(href).headers["allow"] == "OPTIONS, POST"
                    continue
                if href.endswith(("/position", "/area")):  # they say what a query needs
                    assert (response.status_code, "coords: expected WKT" in response.text) == (400, True)
                    continue
                if response.status_code == 302:  # a folder of arrays leads to the document of its group
                    response = http.get(href, follow_redirects=True)
                assert response.status_code in (200, 307), (href, response.text[:200])
    assert len(seen) > 8
