"""HTTP's own rules: validators, methods, encodings, origins, limits; and what operators look at."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import brotli
import httpx
import pytest
import zstandard

from api.app import create_app
from api.settings import Settings
from tests.support.backends import Serve
from tests.support.figures import samples
from tests.support.http_server import serve
from tests.support.oracle import Oracle
from tests.support.paging import ok
from tests.support.waiting import until

pytestmark = pytest.mark.service

PATHS = ["/", "/conformance", "/collections", "/collections/tessera-v1", "/search?limit=3",
         "/collections/tessera-v1/items?limit=3",
         "/collections/tessera-v1/items/grid_0.15_52.05_2024", "/api"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length", "etag", "cache-control", "content-encoding"):
        assert head.headers.get(name) == got.headers.get(name)


@pytest.mark.parametrize("path", PATHS[:-1])
def test_etag_answers_304(http: httpx.Client, path: str) -> None:
    first = http.get(path)
    tag = first.headers["etag"]
    assert "max-age" in first.headers["cache-control"]
    for asked in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        again = http.get(path, headers={"if-none-match": asked})
        assert again.status_code == 304
        assert again.content == b""
        assert again.headers["etag"] == tag
    assert http.get(path, headers={"if-none-match": '"x"'}).status_code == 200


def test_etags_differ_with_the_request_and_the_host(http: httpx.Client) -> None:
    tags = [
        http.get(path, headers=headers).headers["etag"]
        for path in ("/search?limit=1", "/search?limit=2", "/collections/tessera-v1/items?limit=1")
        for headers in ({}, {"x-forwarded-host": "example.org"})
    ]
    assert len(set(tags)) == len(tags)


def test_an_etag_does_not_hide_a_mistake(http: httpx.Client) -> None:
    assert http.get("/search?limit=-1", headers={"if-none-match": "*"}).status_code == 400
    assert http.get("/collections/tessera-v1/items/x", headers={"if-none-match": "*"}).status_code == 404


@pytest.mark.parametrize(
    ("accepts", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, br, zstd", "zstd"),
        ("zstd;q=0, br;q=0, gzip", "gzip"),
        ("identity", None),
        ("*", None),  # sent by clients that decode nothing
        ("", None),
    ],
)
def test_encodings(http: httpx.Client, accepts: str, encoding: str | None) -> None:
    plain = http.get("/search?limit=20", headers={"accept-encoding": "identity"})
    with http.stream("GET", "/search?limit=20", headers={"accept-encoding": accepts}) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers.get("content-encoding") == encoding
    assert int(response.headers["content-length"]) == len(raw)
    assert "accept-encoding" in response.headers["vary"].lower()
    decode = {
        None: bytes,
        "gzip": gzip.decompress,
        "br": brotli.decompress,
        "zstd": zstandard.ZstdDecompressor().decompress,
    }[encoding]
    assert decode(raw) == plain.content
    assert encoding is None or len(raw) < len(plain.content) / 10


def test_other_origins_may_read_and_ask(http: httpx.Client) -> None:
    for response in (http.get("/"), http.get("/search?x=1"), http.get("/nope"), http.head("/search")):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "etag" in response.headers["access-control-expose-headers"].lower()
    preflight = http.options(
        "/search",
        headers={
            "origin": "https://browser.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,x-custom",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type,x-custom"


def test_data_is_not_given_two_origins(http: httpx.Client) -> None:
    response = http.get("/data/catalog.json", headers={"range": "bytes=0-9", "accept-encoding": "gzip"})
    assert response.status_code == 206
    assert len(response.content) == 10
    assert response.headers.get_list("access-control-allow-origin") == ["*"]
    assert "content-encoding" not in response.headers


def test_too_large_requests(catalog: Path, serve_on: Serve) -> None:
    limits = {"max_body_bytes": 2000, "max_url_bytes": 1000, "max_vertices": 10, "max_ids": 3}
    with serve_on(catalog, **limits) as server, httpx.Client(base_url=server.url) as http:
        body = json.dumps({"ids": ["x" * 3000]})
        assert http.post("/search", content=body).status_code == 413
        # without a Content-Length
        chunked = http.post("/search", content=iter([body[:1500].encode(), body[1500:].encode()]))
        assert chunked.status_code == 413
        assert set(chunked.json()) == {"code", "description"}
        assert http.get("/search", params={"ids": "x" * 1000}).status_code == 414
        ring = [[i / 10, 50] for i in range(10)]
        line = {"type": "LineString", "coordinates": [*ring, ring[0]]}
        refused = http.post("/search", json={"intersects": line})
        assert refused.status_code == 400
        assert "11 vertices" in refused.json()["description"]
        refused = http.post("/search", json={"ids": list("abcd")})
        assert refused.status_code == 400
        assert "at most 3" in refused.json()["description"]


def test_request_ids(http: httpx.Client) -> None:
    assert http.get("/", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [http.get(path).headers["x-request-id"] for path in ("/", "/nope", "/data/catalog.json")]
    assert len(set(made)) == 3
    evil = http.get("/", headers={"x-request-id": 'a"b'}).headers["x-request-id"]
    assert evil != 'a"b'


def test_metrics_and_health(http: httpx.Client) -> None:
    http.get("/search?limit=1")
    http.get("/search?limit=0")
    http.get("/data/none.tif")
    figures = samples(http.get("/_mgmt/metrics").text)
    for status in ("200", "400"):
        assert figures["tessera_requests_total", ("/search", "GET", status)] >= 1
    assert figures["tessera_request_seconds_bucket", ("/search", "+Inf")] >= 2
    assert figures["tessera_requests_total", ("/data", "GET", "404")] >= 1
    assert figures["tessera_errors_total", ("bad_request",)] >= 1
    assert figures["tessera_errors_total", ("fault",)] == 0
    assert figures["tessera_requests_in_flight", ()] == 1
    assert figures["tessera_response_bytes_total", ("/search",)] > 1000
    health = ok(http.get("/_mgmt/health"))
    assert health["status"] == "UP"
    assert health["items"] == ok(http.get("/search?limit=1"))["numberMatched"]
    assert ok(http.get("/_mgmt/ping"))


def test_the_access_log_is_one_json_line_a_request(catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tessera_stac.access")
    try:
        # The line is written when the answer is complete, so it is looked for when the server has stopped.
        with serve(create_app(catalog, Settings(access_log=True))) as server:
            logger.addHandler(caplog.handler)
            httpx.get(f"{server.url}/search?limit=1", headers={"x-request-id": "me"})
    finally:
        logger.handlers.clear()
    line = json.loads(caplog.messages[-1])
    assert line["id"] == "me"
    assert (line["method"], line["path"], line["query"], line["status"]) == ("GET", "/search", "limit=1", 200)
    assert line["operation"] == "/search"
    assert line["ms"] > 0
    assert line["bytes"] > 1000


def test_paths_with_a_trailing_slash_and_odd_bytes(http: httpx.Client) -> None:
    assert http.get("/collections/", follow_redirects=True).status_code in (200, 404)
    for query in ("?%ff=1", "?limit=%ff", "?" + "a=1&" * 200):
        assert http.get(f"/search{query}").status_code == 400


def test_a_search_beyond_the_time_limit_is_503_with_advice(catalog: Path) -> None:
    """A filter that must look at every tile-year, with no time to do so; short searches go on."""
    app = create_app(catalog, Settings(search_seconds=0.02, count_seconds=0.01))
    with serve(app) as server, httpx.Client(base_url=server.url) as http:
        late = http.get("/search", params={"filter": "title LIKE '%nothing%' OR id LIKE '%x%'"})
        assert late.status_code == 503, late.text
        assert set(late.json()) == {"code", "description"}
        assert "narrow" in late.json()["description"]
        assert int(late.headers["retry-after"]) > 0
        # Short by far, but on a busy machine it may be late too.
        until(lambda: http.get("/search?bbox=0,52,0.1,52.1").status_code == 200)


def test_a_count_beyond_its_budget_is_an_estimate(catalog: Path, oracle: Oracle) -> None:
    app = create_app(catalog, Settings(count_seconds=0.004))
    with serve(app) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        page = ok(http.get("/search", params={"filter": "id LIKE '%_2_5%'", "limit": 1}))
        true = sum("_" in i and i.rsplit("_", 2)[1][1:2] != "" for i in oracle.ids(oracle.all))
        assert page["tessera:matched_exact"] is False
        assert 1 <= page["tessera:matched_at_least"] <= page["numberMatched"] <= true
        exact = ok(http.get("/search?bbox=-10,40,30,60&limit=1"))
        assert "tessera:matched_exact" not in exact


def test_readiness(http: httpx.Client) -> None:
    assert ok(http.get("/_mgmt/ready")) == {"status": "UP"}
