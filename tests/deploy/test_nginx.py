"""The nginx configuration that we ship, in a real nginx before a real server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pystac_client
import pytest

from tests.catalogs import build_from, patch, write_manifest

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx" / "tessera-stac.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    manifest = write_manifest(folder, 2024, patch(0, 52, 5, 5))
    build_from(folder / "catalog", manifest)
    (folder / "catalog" / "cogs").mkdir()
    (folder / "catalog" / "cogs" / "tile.tif").write_bytes(bytes(range(256)) * 64)
    return folder / "catalog"


@pytest.fixture(scope="module")
def site(catalog: Path) -> Iterator[str]:
    if NGINX is None:
        assert not os.environ.get("CI"), "CI must have nginx"
        pytest.skip("nginx is not installed")
    api, port = _free_port(), _free_port()
    folder = catalog.parent
    config = (
        CONFIG.read_text()
        .replace("127.0.0.1:8000", f"127.0.0.1:{api}")
        .replace("listen 8080", f"listen 127.0.0.1:{port}")
        .replace("/srv/tessera/catalog", str(catalog))
    )
    temp = " ".join(
        f"{k}_temp_path {folder}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"{'user root;' if os.getuid() == 0 else ''} daemon off; pid {folder}/pid; error_log {folder}/error;"
        f"events {{}} http {{ access_log off; {temp} {config} }}"
    )
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", str(catalog), "--port", str(api)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    nginx = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{api}/")
        _wait(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        for process in (nginx, server):
            process.terminate()
            process.wait()


def _get(url: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_ranges_come_from_the_disk(site: str) -> None:
    url = f"{site}/data/cogs/tile.tif"
    status, headers, body = _get(url, Range="bytes=250-260")
    assert (status, body) == (206, (bytes(range(256)) * 2)[250:261])
    assert headers["Content-Range"] == "bytes 250-260/16384"
    assert headers["Content-Type"] == "image/tiff"
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert _get(url, Range="bytes=-3")[2] == b"\xfd\xfe\xff"
    assert _get(url, Range="bytes=99999-")[0] == 416
    assert _get(url, method="OPTIONS", Origin="http://x.test")[0] == 204
    assert _get(url, **{"If-None-Match": headers["ETag"]})[0] == 304


def test_hidden_names_and_other_folders_are_not_served(site: str) -> None:
    for path in (".current/catalog.json", ".versions/1/index.sqlite", "../nginx.conf", "%2e%2e/nginx.conf"):
        assert _get(f"{site}/data/{path}")[0] in (400, 404), path


def test_the_static_catalogue_is_there(site: str) -> None:
    status, headers, body = _get(f"{site}/data/catalog.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == "public, max-age=0, must-revalidate"
    assert json.loads(body)["id"] == "tessera-stac"
    parquet = _get(f"{site}/data/tessera-v1/items/year=2024/items.parquet", Range="bytes=0-3")
    assert parquet[2] == b"PAR1"


def test_a_client_pages_through_the_proxy(site: str) -> None:
    client = pystac_client.Client.open(f"{site}/")
    items = list(client.search(collections=["tessera-v1"], limit=4).items())
    assert len({i.id for i in items}) == 25
    assert all(link.href.startswith(site) for item in items for link in item.links)
