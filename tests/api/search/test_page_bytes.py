"""Pages that are limited by their bytes: nothing lost or repeated, long ones sent in parts."""

from __future__ import annotations

import gzip
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import httpx
import orjson
import pytest
import zstandard

from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server
from tests.support.paging import ok

pytestmark = pytest.mark.xdist_group("page_bytes")
ITEMS = 900
BUDGET = 400_000
V1 = "/collections/tessera-v1/items"
DECODERS = {
    "identity": lambda body: body,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page_bytes")
    build_from(
        folder / "catalog",
        write_manifest(folder, 2024, patch(0, 52, 30, 30)),
        source_root="https://tiles.example.org/v1",
    )
    return folder / "catalog"


@pytest.fixture(scope="module")
def small(catalog: Path, serve_on: Serve) -> Iterator[Server]:
    with serve_on(catalog, page_bytes=BUDGET, max_limit=ITEMS) as running:
        yield running


@pytest.fixture(scope="module")
def ample(catalog: Path, serve_on: Serve) -> Iterator[Server]:
    with serve_on(catalog) as running:
        yield running


@pytest.fixture(scope="module")
def all_ids(ample: Server) -> list[str]:
    with httpx.Client(base_url=ample.url, timeout=60) as http:
        found, link = [], {"href": "/search?limit=100"}
        while link:
            page = ok(http.get(link["href"]))
            found += [item["id"] for item in page["features"]]
            link = next((each for each in page["links"] if each["rel"] == "next"), {})
    assert len(found) == len(set(found)) == ITEMS
    return found


def walk(http: httpx.Client, first: httpx.Response, rel: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield pages and their bytes, following links as a client does."""
    answer = first
    while True:
        page = ok(answer)
        yield page, len(answer.content)
        link = next((each for each in page["links"] if each["rel"] == rel), None)
        if link is None:
            return
        if link.get("method") == "POST":
            answer = http.post(link["href"], json=link["body"])
        else:
            answer = http.get(link["href"])


@pytest.mark.parametrize("view", [{}, {"view": "bands"}], ids=["items", "bands"])
@pytest.mark.parametrize("asked", ["GET /search", "POST /search", f"GET {V1}", "GET sorted"])
def test_a_page_is_cut_by_its_bytes_and_walks_lose_nothing(
    small: Server, all_ids: list[str], asked: str, view: dict[str, str]
) -> None:
    method, path = asked.split()
    given: dict[str, Any] = {"limit": ITEMS}
    expected = all_ids
    if path == "sorted":
        path, given, expected = "/search", {**given, "sortby": "-id"}, sorted(all_ids, reverse=True)
    with httpx.Client(base_url=small.url, timeout=60) as http:
        if method == "POST":
            first = http.post(path, params=view, json=given)
        else:
            first = http.get(path, params={**given, **view})
        pages = list(walk(http, first, "next"))
        assert len(pages) > 5
        for page, size in pages:
            assert size < BUDGET * 1.05 + 5000
            assert page["numberReturned"] == len(page["features"]) < ITEMS
            assert page["numberMatched"] == ITEMS
        assert all(size > BUDGET / 2 for _, size in pages[:-1]), "pages are not cut far too short"
        assert [item["id"] for page, _ in pages for item in page["features"]] == expected
        last, _ = pages[-1]
        back = next(each for each in last["links"] if each["rel"] == "prev")
        post = back.get("method") == "POST"
        again = http.post(back["href"], json=back["body"]) if post else http.get(back["href"])
        earlier = [[item["id"] for item in page["features"]] for page, _ in walk(http, again, "prev")]
        assert len(earlier) > 4
        found = [item_id for page in reversed(earlier) for item_id in page]
        assert found == expected[: len(found)]
        assert len(found) + len(last["features"]) == ITEMS


def test_one_item_is_a_page_whatever_its_size(catalog: Path, serve_on: Serve) -> None:
    with serve_on(catalog, page_bytes=100_000) as server:
        page = ok(httpx.get(f"{server.url}/search?limit=50&view=bands", timeout=60))
        assert 1 <= page["numberReturned"] < 50


@pytest.mark.parametrize("encoding", DECODERS)
def test_a_long_page_is_the_same_in_every_encoding(ample: Server, all_ids: list[str], encoding: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ample.port, timeout=60)
    connection.request("GET", f"/search?limit={ITEMS}", headers={"Accept-Encoding": encoding})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200
    assert answer.getheader("content-encoding", "identity") == encoding
    page = orjson.loads(DECODERS[encoding](body))
    assert [item["id"] for item in page["features"]] == all_ids
    assert page["numberReturned"] == ITEMS
    one = ok(httpx.get(f"{ample.url}{V1}/{all_ids[-1]}"))
    assert page["features"][-1] == one, "an item of a page and by itself are the same"


def test_head_and_http_1_0_have_no_chunks(ample: Server, backend: str) -> None:
    head = httpx.head(f"{ample.url}/search?limit={ITEMS}")
    assert head.status_code == 200
    assert head.content == b""
    connection = http.client.HTTPConnection("127.0.0.1", ample.port, timeout=60)
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    connection.request("GET", f"/search?limit={ITEMS}")
    answer = connection.getresponse()
    assert answer.getheader("transfer-encoding") is None
    assert orjson.loads(answer.read())["numberReturned"] == ITEMS


def test_a_long_page_is_in_parts(ample: Server, backend: str) -> None:
    page, plain = f"{ample.url}/search?limit={ITEMS}", {"accept-encoding": "identity"}
    with httpx.stream("GET", page, headers=plain) as answer:
        assert ("content-length" in answer.headers) == (backend == "pgstac")
        assert answer.headers["cache-control"].startswith("public")
        tag = answer.headers["etag"]
    again = httpx.get(page, headers={"if-none-match": tag})
    assert again.status_code == 304
