"""A private collection beside a public one: who may not see it finds no trace of it, whatever is asked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import rasterio
from pystac_client import Client
from pystac_client.exceptions import APIError
from starlette.routing import Route

from api.app import create_app
from api.endpoints.openapi import OPERATIONS
from api.readers.listed import Password
from api.settings import Settings
from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION as PRIVATE
from tests.support.converted import FIRST, converted
from tests.support.http_server import serve
from tests.support.paging import ids_of, link_of, ok

PUBLIC = "tessera-v1"
TILES = patch(0, 52, 3, 2)
ITEM = f"{FIRST.name}_2024"
MARKS = (PRIVATE.encode(), FIRST.name.encode(), b"Synthetic", b"78.25")
TOKEN = secrets.token_urlsafe(32)
TOKEN_LINE = f"pipeline:sha256${hashlib.sha256(TOKEN.encode()).hexdigest()}:tessera-syn*"
PASSWORD_LINE = f"anna:{Password.of('pass:word').text}:{PRIVATE}"
OTHER_LINE = f"otto:{Password.of('other').text}:lab-*"


@dataclass(frozen=True, slots=True)
class Site:
    """A served catalogue with access control."""

    url: str
    catalog: Path

    def client(self, authorization: str | None = None) -> httpx.Client:
        headers = {} if authorization is None else {"authorization": authorization}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


BEARER = f"Bearer {TOKEN}"
ANNA = basic("anna", "pass:word")
OTTO = basic("otto", "other")


pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("visible")
    out = home / "catalog"
    shutil.copytree(converted().catalog, out, symlinks=True, copy_function=os.link)
    build_from(out, write_manifest(home / "v1", 2024, TILES))
    return out


@pytest.fixture(scope="module")
def site(catalog: Path, serve_on: Serve) -> Iterator[Site]:
    lines = ";".join((TOKEN_LINE, PASSWORD_LINE, OTHER_LINE))
    with serve_on(catalog, private=PRIVATE, readers=lines, drawing_seconds=120) as server:
        yield Site(server.url, catalog)


def routes() -> list[str]:
    """Every GET route of the application, from the application."""
    settings = Settings(private=PRIVATE)
    app = create_app(converted().catalog, settings)
    names = {
        "collection_id": PRIVATE, "item_id": ITEM, "year": "2024", "area": "15,78,1", "path": "index.html",
        "z": "9", "x": "278", "y": "44",
    }  # fmt: skip
    inside = [getattr(r, "original_router", r) for r in app.routes]
    flat = [x for r in inside for x in (getattr(r, "routes", None) or [r])]
    found = [r for r in flat if isinstance(r, Route) and "GET" in (r.methods or ())]
    assert len(found) > 35
    assert {o.path for o in OPERATIONS if o.method == "GET"} <= {r.path for r in found}
    return [r.path.replace(":path", "").format(**names) for r in found]


def asked() -> list[str]:
    """Whatever could name the private collection, an item, a count or a file of it."""
    grid = f"/source/synthetic/2024/{FIRST.name}"
    files = [p for p in converted().catalog.rglob("*") if "/." not in str(p.relative_to(converted().catalog))]
    return [
        *routes(),
        "/search", "/search?limit=1000", f"/search?collections={PRIVATE}", f"/search?ids={ITEM}",
        "/search?bbox=15,78,16,79", f"/search?filter=collection='{PRIVATE}'", "/search?q=synthetic",
        "/search?sortby=-id", "/search?filter=\"tessera:variant\"='synthetic'", "/search?view=bands",
        "/search?filter=\"tessera:cog\"=true", "/collections?q=synthetic", "/collections?sortby=-id",
        f"/aggregate?collections={PRIVATE}&aggregations=total_count",
        "/aggregate?aggregations=total_count,collection_frequency,year_frequency,utm_zone_frequency",
        f"/collections/{PRIVATE}?view=bands", f"/collections/{PRIVATE}/items?view=bands/{ITEM}",
        f"/coverage/at?collection={PRIVATE}&lon=15.65&lat=78.25",
        *(f"/zarr/synthetic{path}" for path in
          ("", "/zarr.json", "/bulk/zarr.json", "/utm33/x/c/0", "/utm33/scales/c/7/20/9")),
        *(f"{grid}/{FIRST.name}{end}" for end in
          (".npy", "_scales.npy", ".tiff", "_f32.vrt", ".vrt", "_b005.vrt", ".xml", "_planes.bin",
           "_f32.tif")),
        grid, f"{grid}/", "/source/", "/source/none/2024/x", "/data/", "/data/catalog.json",
        *(f"/data/{p.relative_to(converted().catalog).as_posix()}" for p in files),
        *(f"/data/{p.relative_to(converted().catalog).as_posix()}/" for p in files if p.is_dir()),
        f"/data/{PRIVATE}/../{PRIVATE}/collection.json", f"/data//{PRIVATE}/collection.json",
        f"/data/./{PRIVATE}/collection.json", "/data/%74essera-synthetic/collection.json",
        f"/data/{PUBLIC}/%2e%2e/{PRIVATE}/collection.json", "/data/index.sqlite", "/data/index.sqlite-wal",
    ]  # fmt: skip


def traces(answer: httpx.Response) -> list[bytes]:
    """Return what a response says of the private collection, beside the request that it repeats."""
    body = re.sub(rb'\{"rel":"self"[^{}]*(\{[^{}]*\}[^{}]*)?\}', b"", answer.content)
    return [mark for mark in MARKS if mark in body]


@pytest.mark.parametrize("authorization", [None, OTTO], ids=["nobody", "another reader"])
def test_no_trace_of_what_is_private(site: Site, authorization: str | None) -> None:
    with site.client(authorization) as http:
        for path in asked():
            for headers in ({}, {"range": "bytes=0-99"}, {"if-none-match": "*"}):
                answer = http.get(path, headers=headers)
                assert answer.status_code < 500, path
                if answer.status_code in (400, 404):  # repeats at most what was asked
                    assert len(answer.content) < 700, path
                    continue
                assert not traces(answer), (path, headers, answer.text[:300])
                assert not answer.content.startswith((b"II", b"MM", b"\x93NUMPY", b"PAR1", b"SQLite")), path
        for body in ({}, {"collections": [PRIVATE]}, {"ids": [ITEM]}, {"limit": 5, "q": ["synthetic"]}):
            for path in ("/search", "/aggregate", f"/collections/{PRIVATE}/aggregate"):
                answer = http.post(path, json=body)
                assert answer.status_code in (200, 400, 404)
                assert answer.status_code != 200 or not traces(answer), (path, body)


def test_what_is_private_is_not_counted(site: Site) -> None:
    with site.client() as http:
        page = ok(http.get("/search?limit=1000"))
        assert page["numberMatched"] == len(page["features"]) == len(TILES)
        (total,) = ok(http.get("/aggregate?aggregations=total_count"))["aggregations"]
        assert total["value"] == len(TILES)
        assert ok(http.get("/collections"))["numberMatched"] == 1
        assert ok(http.get("/_mgmt/health"))["items"] == len(TILES)
        assert ok(http.get("/coverage/at?lon=15.65&lat=78.25"))["items"] == []
        assert PRIVATE not in http.get("/_mgmt/metrics").text
        root = ok(http.get("/data/catalog.json"))
        assert [x["href"] for x in root["links"] if x["rel"] == "child"] == [f"./{PUBLIC}/collection.json"]
        assert http.get(f"/data/{PUBLIC}/collection.json").status_code == 200


@pytest.mark.parametrize("authorization", [BEARER, ANNA], ids=["token", "password"])
def test_who_may_see_it_sees_everything(site: Site, authorization: str) -> None:
    with site.client(authorization) as http:
        assert {c["id"] for c in ok(http.get("/collections"))["collections"]} == {PUBLIC, PRIVATE}
        page = ok(http.get("/search?limit=1000"))
        assert page["numberMatched"] == len(page["features"]) == len(TILES) + 4
        item = ok(http.get(f"/collections/{PRIVATE}/items/{ITEM}"))
        href = item["assets"]["visual"]["href"]
        assert http.get(href, headers={"range": "bytes=0-3"}).content[:2] == b"II"
        assert http.get(f"/collections/{PRIVATE}/items/{ITEM}/preview.png?max_size=32").status_code == 200
        assert PRIVATE in http.get("/coverage").text
        assert http.get(f"/source/synthetic/2024/{FIRST.name}/{FIRST.name}_b005.vrt").status_code == 200
        assert http.get("/data/index.sqlite").status_code == 404
        assert ok(http.get("/login"))["collections"] == [PRIVATE, PUBLIC]


def test_unknown_and_invisible_look_alike(site: Site) -> None:
    with site.client() as http:
        for path in (
            "/collections/{}",
            "/collections/{}/items",
            "/collections/{}/browse",
            "/data/{}/collection.json",
        ):
            hidden, unknown = http.get(path.format(PRIVATE)), http.get(path.format("tessera-nothing"))
            assert hidden.status_code == unknown.status_code == 404
            assert hidden.text.replace(PRIVATE, "X") == unknown.text.replace("tessera-nothing", "X")


@pytest.mark.parametrize(
    "wrong",
    ["Bearer x", "Bearer", "Basic", "Basic !!", basic("anna", "wrong"), basic("nobody", "x"), "Digest x",
     "x" * 20000, basic("anna", ""),
     "Basic " + base64.b64encode(b"anna").decode(), "Bearer a.b.c", "Basic \xff"],
)  # fmt: skip
def test_wrong_credentials_are_401_everywhere(site: Site, wrong: str) -> None:
    headers = {b"authorization": wrong.encode("latin-1")}
    with site.client() as http:
        for path in ("/", "/search", "/data/catalog.json", "/source/v1/", "/browser/", "/login", "/nowhere"):
            answer = http.get(path, headers=headers)
            assert answer.status_code == 401, (path, answer.text)
            challenge = answer.headers["www-authenticate"]
            assert "Basic realm=" in challenge
            assert "Bearer realm=" in challenge
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["cache-control"] == "no-store"


def test_caches_keep_readers_apart(site: Site) -> None:
    """Every response is private and varies; a validator of one reader is not another's."""
    seen = (f"/collections/{PUBLIC}", "/collections", "/search", "/coverage", "/data/catalog.json",
            f"/data/{PUBLIC}/collection.json", "/conformance", f"/collections/{PUBLIC}/browse")  # fmt: skip
    with site.client() as nobody, site.client(ANNA) as anna:
        for path in (*seen, "/browser/", "/api.html", f"/data/{PUBLIC}/items/year=2024/items.parquet"):
            for http in (anna, nobody, anna):
                answer = http.get(path)
                assert "public" not in answer.headers.get("cache-control", ""), path
                assert "Authorization" in answer.headers["vary"], path
        for path in ("/collections", "/search", "/coverage", "/data/catalog.json"):
            one, other = anna.get(path), nobody.get(path)
            assert one.headers["etag"] != other.headers["etag"]
            crossed = nobody.get(path, headers={"if-none-match": one.headers["etag"]})
            assert crossed.status_code == 200
            assert not traces(crossed)


def test_a_token_of_one_reader_shows_nothing_to_another(site: Site) -> None:
    with site.client() as nobody, site.client(ANNA) as anna:
        following = link_of(ok(anna.get("/search?limit=1")), "next")
        while following is not None:
            answer = nobody.get(following["href"])
            assert answer.status_code in (200, 400)
            assert answer.status_code == 400 or not traces(answer)
            following = link_of(ok(anna.get(following["href"])), "next")


def test_documents_say_which_credentials_they_need(site: Site) -> None:
    with site.client(BEARER) as http:
        landing = ok(http.get("/"))
        assert set(landing["auth:schemes"]) == {"basic", "bearer"}
        for private in (
            ok(http.get(f"/collections/{PRIVATE}")),
            ok(http.get(f"/collections/{PRIVATE}/items/{ITEM}")),
        ):
            holder = private.get("properties", private)
            assert holder["auth:schemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
            assert any("authentication" in e for e in private["stac_extensions"])
            assert all(x["auth:refs"] == ["basic", "bearer"] for x in private["links"] if x["rel"] == "self")
        assert private["assets"]["visual"]["auth:refs"] == ["basic", "bearer"]
        (found,) = ok(http.get(f"/search?ids={ITEM}"))["features"]
        assert found == private
        (few,) = ok(http.get(f"/search?ids={ITEM}&fields=id,collection"))["features"]
        assert set(few) <= {"id", "collection", "properties"}
        public = ok(http.get(f"/collections/{PUBLIC}"))
        assert "auth:schemes" not in public


def test_pystac_client_reads_with_headers(site: Site) -> None:
    client = Client.open(f"{site.url}/", headers={"Authorization": BEARER})
    assert {i.id for i in client.search(collections=[PRIVATE]).items()} >= {ITEM}
    assert {c.id for c in client.get_collections()} == {PUBLIC, PRIVATE}
    assert not list(Client.open(f"{site.url}/").search(collections=[PRIVATE]).items())
    with pytest.raises(APIError):
        Client.open(f"{site.url}/", headers={"Authorization": "Bearer x"})


GDAL = {
    "bearer": {"GDAL_HTTP_AUTH": "BEARER", "GDAL_HTTP_BEARER": TOKEN},
    "password": {"GDAL_HTTP_AUTH": "BASIC", "GDAL_HTTP_USERPWD": "anna:pass:word"},
}


@pytest.mark.parametrize("how", GDAL)
def test_gdal_reads_pixels(site: Site, how: str, tmp_path: Path) -> None:
    with site.client(BEARER) as http:
        assets = ok(http.get(f"/collections/{PRIVATE}/items/{ITEM}"))["assets"]
    (local,) = (converted().catalog / "cogs").rglob(f"{ITEM}_*_embeddings.tif")
    with rasterio.open(local) as ds:
        expected = ds.read([1, 128], window=((0, 40), (0, 40)))
    script = Path(__file__).parents[2] / "support" / "gdal_reader.py"
    reads = json.dumps([{"window": [0, 0, 40, 40], "bands": [1, 128]}])
    for headers, works in ((GDAL[how], True), ({}, False)):
        for name in ("embeddings", "embeddings_f32"):
            command = [
                sys.executable,
                script,
                f"/vsicurl/{assets[name]['href']}",
                tmp_path / "out.npz",
                reads,
            ]
            done = subprocess.run(command, env={**os.environ, **headers}, capture_output=True, text=True)
            assert (done.returncode == 0) == works, done.stderr
            if works and name == "embeddings":
                np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["0"], expected)


def test_everything_private(catalog: Path, serve_on: Serve) -> None:
    """Without credentials there is only the request for them, and what probes need."""
    with serve_on(
        catalog, private="*", readers=f"{TOKEN_LINE};{OTHER_LINE};all:{Password.of('x').text}:*"
    ) as server:
        here = Site(server.url, catalog)
        with here.client() as http:
            for path in (
                "/",
                "/search",
                "/collections",
                "/data/catalog.json",
                "/source/",
                "/browser/",
                "/api",
                "/nowhere",
            ):
                answer = http.get(path)
                assert answer.status_code == 401, path
                assert "www-authenticate" in answer.headers
            assert http.get("/_mgmt/ping").status_code == http.get("/_mgmt/ready").status_code == 200
            assert ok(http.get("/_mgmt/health"))["items"] == 0
            assert http.options("/search").status_code == 204
        with here.client(OTTO) as http:  # who may see nothing
            for path in (*asked(), "/coverage/at?lon=15.65&lat=78.25", f"/collections/{PUBLIC}"):
                answer = http.get(path)
                assert answer.status_code < 500, (path, answer.text)
                assert answer.status_code in (400, 404) or not traces(answer), path
        with here.client(basic("all", "x")) as http:
            assert len(ids_of(ok(http.get("/search?limit=1000")))) == len(TILES) + 4
        with here.client(BEARER) as http:
            assert [c["id"] for c in ok(http.get("/collections"))["collections"]] == [PRIVATE]


def test_a_rebuild_reaches_every_reader(tmp_path: Path) -> None:
    """Who may see more sees the new build, and who may not sees nothing of it."""
    private = "tessera-v1.1-cam"
    build_from(tmp_path / "c", write_manifest(tmp_path / "v1", 2024, TILES))
    build_from(
        tmp_path / "c", write_manifest(tmp_path / "cam", 2023, patch(20, 40, 2, 1)), dataset="v1.1-cam"
    )
    readers = f"anna:sha256${hashlib.sha256(TOKEN.encode()).hexdigest()}:{private}"
    settings = Settings(private=private, readers=readers, refresh_seconds=0)
    with serve(create_app(tmp_path / "c", settings)) as server:
        here = Site(server.url, tmp_path / "c")
        with here.client() as nobody, here.client(BEARER) as anna:
            before = [ok(http.get("/search?limit=100")) for http in (nobody, anna)]
            assert [p["numberMatched"] for p in before] == [len(TILES), len(TILES) + 2]
            assert private in anna.get("/coverage").text
            more = write_manifest(tmp_path / "more", 2023, patch(20, 40, 3, 3))
            build_from(tmp_path / "c", more, dataset="v1.1-cam")
            after = [ok(http.get("/search?limit=100")) for http in (nobody, anna)]
            assert [p["numberMatched"] for p in after] == [len(TILES), len(TILES) + 9]
            assert len(after[1]["features"]) == len(TILES) + 9
            assert private not in nobody.get("/coverage").text
            assert private in anna.get("/coverage").text
