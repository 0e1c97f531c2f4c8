"""The nginx sites that we ship, in a real nginx before a real server, over TLS and HTTP/2."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pystac_client
import pytest
import rasterio

from tests.conftest import plain_environment
from tests.deploy.nginx_server import CONFIG, Site, certificate, lay_out, nginx
from tests.deploy.processes import serve_catalog
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION, FIRST, RAW_YEAR, Converted, converted
from tests.support.waiting import ended, until

pytestmark = pytest.mark.xdist_group("nginx")


@dataclass(frozen=True, slots=True)
class Place:
    """A running site, and what it serves."""

    site: Site
    api: str
    tiles: Converted
    folder: Path

    def cog(self) -> Path:
        """Return the path of the codes of a tile below the catalogue."""
        found = self.tiles.catalog / f"cogs/synthetic/2024/{FIRST.name}"
        (file,) = (f for f in found.glob("*.tif") if "scales" not in f.name and "visual" not in f.name)
        return file.relative_to(self.tiles.catalog)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tiles = converted()
    folder = tmp_path_factory.mktemp("nginx")
    certificate(folder)
    archive = {
        "/archive/global_0.1_degree_representation": str(tiles.embeddings),
        "/source/v1/": "/source/synthetic/",
        "    set $tessera_scheme": "    include tessera-stac/raw-lane.conf;\n    set $tessera_scheme",
        # for the test of slow clients
        "_header_timeout 15s": "_header_timeout 1s",
        "_body_timeout 15s": "_body_timeout 1s",
    }
    with (
        serve_catalog(tiles.catalog) as api,
        nginx(lay_out(folder, tiles.catalog, int(api.url.rpartition(":")[2]), "site.conf", archive)) as site,
    ):
        yield Place(site, api.url, tiles, folder)


@pytest.fixture
def http(place: Place) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
    with httpx.Client(http2=True, verify=trusted, base_url=place.site.tls, timeout=30) as client:
        yield client


def _logged(place: Place, **wanted: Any) -> list[dict[str, Any]]:
    """Return the lines of the access log that have these values, when there are some."""

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in place.site.log.read_text().splitlines()]
        return [line for line in lines if wanted.items() <= line.items()]

    return until(found, f"no line with {wanted}")


def test_http_leads_to_tls_and_keeps_the_method(place: Place, http: httpx.Client) -> None:
    there = httpx.post(f"http://127.0.0.1:{place.site.redirecting}/search?x=1", json={})
    assert there.status_code == 308
    assert there.headers["location"] == "https://127.0.0.1/search?x=1"
    found = http.get("/")
    assert found.http_version == "HTTP/2"
    assert found.headers["strict-transport-security"] == "max-age=31536000"
    assert "server" not in found.headers or "/" not in found.headers["server"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
@pytest.mark.parametrize("version", ["TLSv1.1", "TLSv1.2", "TLSv1.3"])
def test_tls_versions(place: Place, version: str) -> None:
    context = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    chosen = ssl.TLSVersion[version.replace(".", "_")]
    context.minimum_version = context.maximum_version = chosen
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", place.site.port)) as plain:
        if version == "TLSv1.1":
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="localhost")
            return
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.version() == version
            assert secure.selected_alpn_protocol() == "h2"


def test_ranges_come_from_the_disk(place: Place, http: httpx.Client) -> None:
    path = place.cog()
    whole = (place.tiles.catalog / path).read_bytes()
    found = http.get(f"/data/{path}", headers={"range": "bytes=250-260"})
    assert (found.status_code, found.content) == (206, whole[250:261])
    assert found.headers["content-range"] == f"bytes 250-260/{len(whole)}"
    assert found.headers["content-type"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["access-control-allow-origin"] == "*"
    assert "content-range" in found.headers["access-control-expose-headers"].lower()
    line = _logged(place, id=found.headers["x-request-id"])[0]
    assert (line["status"], line["protocol"], line["range"]) == (206, "HTTP/2.0", "bytes=250-260")
    assert line["upstream_seconds"] == "", "the API was not asked"
    assert http.get(f"/data/{path}", headers={"range": "bytes=-3"}).content == whole[-3:]
    assert http.get(f"/data/{path}", headers={"range": "bytes=99999999-"}).status_code == 416
    head = http.head(f"/data/{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole)
    again = {"if-none-match": head.headers["etag"]}
    assert http.get(f"/data/{path}", headers=again).status_code == 304
    changed = {"range": "bytes=0-9", "if-range": '"another"'}
    assert http.get(f"/data/{path}", headers=changed).status_code == 200


def test_several_ranges_and_too_many(place: Place, http: httpx.Client) -> None:
    path = place.cog()
    whole = (place.tiles.catalog / path).read_bytes()
    found = http.get(f"/data/{path}", headers={"range": "bytes=0-9,100-109"})
    assert found.status_code == 206
    boundary = found.headers["content-type"].partition("boundary=")[2]
    parts = found.content.split(f"--{boundary}".encode())[1:-1]
    assert [p.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for p in parts] == [whole[:10], whole[100:110]]
    many = ",".join(f"{i * 10}-{i * 10}" for i in range(257))
    refused = http.get(f"/data/{path}", headers={"range": f"bytes={many}"})
    assert refused.status_code in (200, 416), "more than 256 ranges are not made parts of"


def test_preflights(place: Place, http: httpx.Client) -> None:
    asked = {"origin": "https://x.test", "access-control-request-method": "GET"}
    asked["access-control-request-headers"] = "range,x-client"
    for path in (f"/data/{place.cog()}", "/data/catalog.json", "/search", _array(".npy")):
        found = http.options(path, headers=asked)
        assert found.status_code in (200, 204), path
        assert found.headers["access-control-allow-origin"] == "*"
        assert found.headers["access-control-allow-headers"] == "range,x-client"
        assert "GET" in found.headers["access-control-allow-methods"]
        assert not found.content


def test_hidden_names_and_other_folders_are_not_served(http: httpx.Client) -> None:
    hidden = (".current/catalog.json", ".versions/1/index.sqlite", "cogs/.hidden", "%2e%2e/nginx.conf")
    for path in (*hidden, "../nginx.conf", "cogs/../../nginx.conf", "cogs../nginx.conf", "cogs"):
        assert http.get(f"/data/{path}").status_code in (400, 404, 301), path
    assert http.get("/data/").status_code in (403, 404)
    assert http.get("/_mgmt/metrics").status_code == 404
    assert http.get("/_mgmt/ready").status_code == 200


def test_the_static_catalogue_is_there(http: httpx.Client) -> None:
    found = http.get("/data/catalog.json")
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    assert found.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert found.json()["id"] == "tessera-stac"
    path = f"/data/{COLLECTION}/items/year=2024/items.parquet"
    assert http.get(path, headers={"range": "bytes=0-3"}).content == b"PAR1"


def test_what_is_the_operators_is_not_served(place: Place, http: httpx.Client) -> None:
    """The index and the ledger name paths of the machine; by nginx as by the server."""
    (file, *_) = (f for f in (place.tiles.catalog / "cogs" / "ledger").rglob("*") if f.is_file())
    ledger = file.relative_to(place.tiles.catalog).as_posix()
    for path in (ledger, "cogs/ledger/", "index.sqlite", "index.sqlite-wal", "cogs/../index.sqlite",
                 "%69ndex.sqlite", ledger.replace("/ledger", "//ledger"),
                 ledger.replace("ledger", "%6cedger", 1)):  # fmt: skip
        assert http.get(f"/data/{path}").status_code == 404, path
        assert httpx.get(f"{place.api}/data/{path}").status_code == 404, path


def _array(suffix: str) -> str:
    return f"/source/synthetic/{RAW_YEAR}/{FIRST.name}/{FIRST.name}{suffix}"


def test_the_raw_lane_comes_from_the_disk(place: Place, http: httpx.Client) -> None:
    file = place.tiles.embeddings / str(RAW_YEAR) / FIRST.name / f"{FIRST.name}.npy"
    found = http.get(_array(".npy"), headers={"range": "bytes=1000-1099"})
    assert (found.status_code, found.content) == (206, file.read_bytes()[1000:1100])
    assert _logged(place, id=found.headers["x-request-id"])[0]["upstream_seconds"] == ""
    view = http.get(_array(".vrt"))
    assert view.status_code == 200
    assert _logged(place, id=view.headers["x-request-id"])[0]["upstream_seconds"] != ""
    assert http.get(_array(".npy").replace(str(RAW_YEAR), "2019")).status_code == 404
    assert http.get("/source/synthetic/2022/../2022/x.npy").status_code == 404


READ = """
import sys, json, rasterio
from rasterio.windows import Window
url, out = sys.argv[1:]
with rasterio.open(url) as tile:
    values = tile.read(window=Window(30, 40, 64, 64))
values.tofile(out)
"""


def test_gdal_reads_the_same_pixels_over_http_2(place: Place, tmp_path: Path) -> None:
    for url, local in (
        (f"/data/{place.cog()}", place.tiles.catalog / place.cog()),
        (_array(".vrt"), place.tiles.embeddings / str(RAW_YEAR) / FIRST.name / f"{FIRST.name}.npy"),
    ):
        before = len(place.site.log.read_text().splitlines())
        env = plain_environment(
            GDAL_HTTP_VERSION="2TLS",
            GDAL_HTTP_MULTIPLEX="YES",
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
            GDAL_CURL_CA_BUNDLE=str(place.folder / "cert.pem"),
        )
        address = f"/vsicurl/https://localhost:{place.site.port}{url}"
        done = subprocess.run(
            [sys.executable, "-c", READ, address, tmp_path / "out"], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = np.fromfile(tmp_path / "out", np.int8).reshape(128, 64, 64)
        if local.suffix == ".npy":
            expected = np.load(local)[40:104, 30:94].transpose(2, 0, 1)
        else:
            with rasterio.open(local) as tile:
                expected = tile.read(window=rasterio.windows.Window(30, 40, 64, 64))
        assert np.array_equal(found, expected)
        assert len(np.unique(found)) > 50
        lines = [json.loads(line) for line in place.site.log.read_text().splitlines()[before:]]
        assert {line["protocol"] for line in lines} == {"HTTP/2.0"}
        assert any(line["status"] == 206 for line in lines)


def test_hundreds_of_ranges_at_once_are_not_refused(place: Place) -> None:
    path = place.cog()
    whole = (place.tiles.catalog / path).read_bytes()
    starts = [i * 997 % (len(whole) - 100) for i in range(600)]

    trusted = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
    with httpx.Client(verify=trusted, base_url=place.site.tls, timeout=60) as http:

        def part(at: int) -> bool:
            found = http.get(f"/data/{path}", headers={"range": f"bytes={at}-{at + 99}"})
            return found.status_code == 206 and found.content == whole[at : at + 100]

        with ThreadPoolExecutor(64) as pool:  # as many connections
            assert all(pool.map(part, starts))


def test_a_client_pages_through_the_proxy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place.folder / "cert.pem"))
    client = pystac_client.Client.open(f"{place.site.tls}/")
    items = list(client.search(collections=[COLLECTION], limit=2).items())
    assert len({i.id for i in items}) == 4
    assert all(link.href.startswith(place.site.tls) for item in items for link in item.links)


def test_a_client_cannot_choose_the_address_of_links(http: httpx.Client, place: Place) -> None:
    lies = {
        "forwarded": 'proto=http;host="evil.test"',
        "x-forwarded-host": "evil.test",
        "x-forwarded-proto": "ftp",
        "x-forwarded-port": "1",
        "x-forwarded-prefix": "/evil",
        "x-forwarded-for": "6.6.6.6",
        "x-request-id": 'evil"id',
    }
    found = http.get("/search?limit=1", headers=lies)
    hrefs = re.findall(r'"href": ?"([^"]+)"', found.text)
    ours = [h for h in hrefs if "evil" in h or h.startswith(("http://", "ftp:"))]
    assert hrefs
    assert not [h for h in ours if "cat/" not in h], ours
    assert found.json()["links"][0]["href"].startswith(place.site.tls)
    assert "evil" not in found.headers["x-request-id"]
    assert found.headers["x-request-id"] == _logged(place, id=found.headers["x-request-id"])[0]["id"]
    mine = http.get("/search?limit=1", headers={"x-request-id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"


def test_a_search_is_compressed_once(http: httpx.Client) -> None:
    found = http.get("/search?limit=4", headers={"accept-encoding": "gzip"})
    assert found.headers["content-encoding"] == "gzip"
    assert len(found.json()["features"]) == 4


def test_what_is_too_large_is_refused_with_the_reason(place: Place, http: httpx.Client) -> None:
    trusted = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
    for size in (4_500_000, 6_000_000):  # the API's limit, and nginx's
        # HTTP/1.1: httpx looks for an early answer to HTTP/2 only when it has sent everything
        found = httpx.post(f"{place.site.tls}/search", content=b" " * size, verify=trusted)
        assert found.status_code == 413
        assert found.headers["access-control-allow-origin"] == "*"
        assert found.json()["description"]
    long = http.get(f"/search?ids={'a' * 64_100}")
    assert long.status_code == 414
    assert "POST /search" in long.json()["description"]


def test_slow_clients_are_cut_off(place: Place) -> None:
    context = ssl.create_default_context(cafile=str(place.folder / "cert.pem"))
    for begin in (
        b"GET /search HTTP/1.1\r\nHost: localh",
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    ):
        with (
            socket.create_connection(("127.0.0.1", place.site.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(begin)
            try:
                answer = secure.recv(1000)  # a timeout of ours would be an error
            except ConnectionResetError:
                answer = b""
            assert answer == b"" or b" 408 " in answer.partition(b"\r\n")[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    build_from(folder / "catalog", write_manifest(folder, 2024, patch(0, 52, 5, 5)))
    return folder / "catalog"


def test_under_a_path_prefix_without_tls(small: Path, tmp_path: Path) -> None:
    """As the head of locations.conf says, with its own sed."""
    script = re.search(r"sed -i -E '([^']+)' locations\.conf", (CONFIG / "locations.conf").read_text())
    assert script is not None
    with serve_catalog(small, "--root-path", "/stac") as api:
        port = int(api.url.rpartition(":")[2])
        with nginx(lay_out(tmp_path, small, port, "plain.conf", sed=script[1])) as site:
            found = httpx.get(f"{site.plain}/stac/search?limit=1")
            assert found.json()["numberMatched"] == 25
            assert found.json()["links"][0]["href"].startswith(f"{site.plain}/stac/")
            document = httpx.get(f"{site.plain}/stac/data/catalog.json")
            assert document.headers["cache-control"] == "public, max-age=0, must-revalidate"
            assert "strict-transport-security" not in document.headers
            assert httpx.get(f"{site.plain}/stac/_mgmt/metrics").status_code == 404
            assert httpx.get(f"{site.plain}/data/catalog.json").status_code == 404


def test_an_api_that_does_not_answer_is_503_with_the_reason(small: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        with nginx(lay_out(tmp_path, small, taken.getsockname()[1], "plain.conf")) as site:
            found = httpx.get(f"{site.plain}/search")
            assert (found.status_code, found.json()["code"]) == (503, "Unavailable")
            assert found.headers["retry-after"] == "5"
            assert found.headers["access-control-allow-origin"] == "*"
            assert httpx.get(f"{site.plain}/data/catalog.json").status_code == 200, "files need no API"


def test_a_site_behind_a_password(place: Place, tmp_path: Path) -> None:
    """Nginx asks for it, for what it reads from disk too; the API has no readers of its own."""
    (tmp_path / "tessera-stac").mkdir()
    hashed = subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True)
    (tmp_path / "tessera-stac" / "users").write_text(f"anna:{hashed.stdout}")
    changes = {
        "    set $tessera_scheme": "    include tessera-stac/password.conf;\n    set $tessera_scheme",
        '"public, ': '"private, ',
    }
    with (
        serve_catalog(place.tiles.catalog, TESSERA_STAC_SHARED_CACHES="false") as api,
        nginx(
            lay_out(tmp_path, place.tiles.catalog, int(api.url.rpartition(":")[2]), "plain.conf", changes)
        ) as site,
        httpx.Client(base_url=site.plain, timeout=30) as http,
    ):
        paths = ("/", "/search", "/data/catalog.json", f"/data/{place.cog()}", "/coverage", "/browser/")
        for path in paths:
            refused = http.get(path)
            assert refused.status_code == 401, path
            assert "Basic" in refused.headers["www-authenticate"]
            assert http.get(path, auth=("anna", "wrong")).status_code == 401
            given = http.get(path, auth=("anna", "secret"))
            assert given.status_code == 200, path
            assert "public" not in given.headers.get("cache-control", ""), path
            preflight = http.options(path, headers={"access-control-request-headers": "authorization"})
            assert preflight.status_code in (200, 204), path
        client = pystac_client.Client.open(
            f"{site.plain}/", headers={"Authorization": httpx.BasicAuth("anna", "secret")._auth_header}
        )
        assert len(list(client.search(collections=[COLLECTION]).items())) == 4
        env = {**plain_environment(), "GDAL_HTTP_AUTH": "BASIC", "GDAL_HTTP_USERPWD": "anna:secret"}
        script = "import rasterio, sys; print(rasterio.open(sys.argv[1]).read(1).shape)"
        command = [sys.executable, "-c", script, f"/vsicurl/{site.plain}/data/{place.cog()}"]
        assert subprocess.run(command, env=env, capture_output=True).returncode == 0
        assert subprocess.run(command, env=plain_environment(), capture_output=True).returncode != 0


def test_private_collections_behind_nginx(place: Place, tmp_path: Path) -> None:
    """The API decides, about files too: nginx reads none from disk."""
    include = "    include tessera-stac/private.conf;\n    set $tessera_scheme $scheme;"
    token = "t" * 43
    readers = f"anna:sha256${hashlib.sha256(token.encode()).hexdigest()}:{COLLECTION}"
    with (
        serve_catalog(
            place.tiles.catalog, TESSERA_STAC_PRIVATE=COLLECTION, TESSERA_STAC_READERS=readers
        ) as api,
        nginx(
            lay_out(
                tmp_path,
                place.tiles.catalog,
                int(api.url.rpartition(":")[2]),
                "plain.conf",
                {"    set $tessera_scheme $scheme;": include},
            )
        ) as site,
        httpx.Client(base_url=site.plain, timeout=30) as http,
    ):
        files = (
            f"/data/{place.cog()}",
            f"/data/{COLLECTION}/collection.json",
            f"/data/{place.cog().parent}/",
        )
        for path in (*files, f"/collections/{COLLECTION}", "/data/index.sqlite"):
            assert http.get(path).status_code == 404, path
        for path in (*files, f"/collections/{COLLECTION}"):
            given = http.get(path, headers={"authorization": f"Bearer {token}", "range": "bytes=0-99"})
            assert given.status_code in (200, 206), path
            assert "public" not in given.headers["cache-control"]
            assert "Authorization" in given.headers["vary"]


def test_a_flood_of_searches_is_slowed_down_and_told_so(small: Path, tmp_path: Path) -> None:
    few = {"rate=100r/s": "rate=1r/m", "burst=400": "burst=5"}
    with (
        serve_catalog(small) as api,
        nginx(lay_out(tmp_path, small, int(api.url.rpartition(":")[2]), "plain.conf", few)) as site,
        httpx.Client(base_url=site.plain) as http,
    ):
        answers = [http.get("/search?limit=1") for _ in range(10)]
        assert [a.status_code for a in answers] == [200] * 6 + [429] * 4
        assert answers[-1].json()["code"] == "TooManyRequests"
        assert answers[-1].headers["access-control-allow-origin"] == "*"
        ranges = [http.get("/data/catalog.json", headers={"range": "bytes=0-9"}) for _ in range(50)]
        assert {r.status_code for r in ranges} == {206}, "files are not limited"
        # a rebuild is seen at once through nginx too
        build_from(small, write_manifest(tmp_path / "new", 2024, patch(0, 52, 6, 5)))
        collection = http.get("/data/tessera-v1/collection.json").json()
        assert collection["tessera:coverage"]["items"] == 30


def test_a_server_takes_another_s_place_and_no_request_fails(small: Path, tmp_path: Path) -> None:
    """The rolling upgrade of docs/operations.md: two behind nginx, the old one stopped under load."""
    answers: list[int | str] = []
    stop = threading.Event()

    def ask(url: str, number: int) -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not stop.is_set():
                try:
                    if number % 2:
                        found = http.post("/search", json={"limit": 3})
                    else:
                        found = http.get("/search?limit=3&sortby=-id")
                    answers.append(found.status_code)
                except httpx.HTTPError as exc:
                    answers.append(repr(exc))

    with serve_catalog(small) as new, contextlib.ExitStack() as old_one:
        old = old_one.enter_context(serve_catalog(small))
        ports = [int(s.url.rpartition(":")[2]) for s in (old, new)]
        both = {f"server 127.0.0.1:{ports[0]};": " ".join(f"server 127.0.0.1:{p};" for p in ports)}
        unlimited = {"rate=100r/s": "rate=100000r/s"}
        site = old_one.enter_context(
            nginx(lay_out(tmp_path, small, ports[0], "plain.conf", {**both, **unlimited}))
        )
        threads = [threading.Thread(target=ask, args=(site.plain, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(answers) > 50)
            os.kill(old.pid, signal.SIGTERM)
            until(lambda: ended(old.pid))
            before = len(answers)
            until(lambda: len(answers) > before + 50)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(answers) == {200}
