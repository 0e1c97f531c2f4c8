"""nginx and titiler as compose.yaml starts them: its files where it mounts them, its environment."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform

from tests.conftest import plain_environment
from tests.deploy.container_files import COMPOSE, compose
from tests.deploy.processes import serve_catalog, serving
from tests.support.converted import COLLECTION, FIRST, Converted, converted
from tests.support.needs import program
from tests.support.ports import free_port

pytestmark = pytest.mark.xdist_group("nginx")


@dataclass(frozen=True, slots=True)
class Place:
    """A running pair of nginx and API, laid out as in the container."""

    url: str
    log: Path
    tiles: Converted
    services: dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    command = program("nginx", "nginx-light")
    document = compose(CATALOG="/srv/tessera/catalog")
    service = document["services"]["nginx"]
    tiles, root, port = converted(), tmp_path_factory.mktemp("compose"), free_port()
    log = root / "access.json"
    with serve_catalog(tiles.catalog) as api:
        words = {
            "api:8000": api.url.removeprefix("http://"),
            "/srv/tessera/catalog": str(tiles.catalog),
            "/dev/stdout": str(log),
            "listen 8080": f"listen 127.0.0.1:{port}",
        }
        contents = {c["target"]: document["configs"][c["source"]]["content"] for c in service["configs"]}
        for volume in service["volumes"]:
            source, target, _ = volume.split(":")
            if target.startswith("/etc/"):
                contents[target] = (COMPOSE.parent / source).read_text()
        for target, text in contents.items():
            for old, new in words.items():
                text = text.replace(old, new)
            path = root / target.removeprefix("/etc/nginx/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{k}_temp_path {root}/{k};" for k in kinds)
        (root / "nginx.conf").write_text(
            f"{'user root;' if os.getuid() == 0 else ''} daemon off; pid {root}/pid; events {{}}"
            f" http {{ {temporary} include conf.d/*.conf; }}"
        )
        assert service["ports"] == ["8080:8080"]
        # the container's own check is its readiness
        (address,) = (w for w in service["healthcheck"]["test"] if w.startswith("http"))
        ready = address.removeprefix("http://127.0.0.1:8080")
        arguments = [command, "-c", root / "nginx.conf", "-e", root / "error"]
        with serving(arguments, port, ready) as site:
            yield Place(site.url, log, tiles, document["services"])


def test_files_and_searches(place: Place) -> None:
    found = httpx.get(f"{place.url}/search?limit=1")
    assert found.json()["numberMatched"] == 4
    assert found.json()["links"][0]["href"].startswith(place.url)
    document = httpx.get(f"{place.url}/data/catalog.json", headers={"range": "bytes=0-0"})
    assert (document.status_code, document.content) == (206, b"{")


APP = """
from fastapi import FastAPI
from rio_tiler.io import STACReader
from titiler.core.factory import MultiBaseTilerFactory, TilerFactory
app = FastAPI()
app.include_router(TilerFactory(router_prefix="/cog").router, prefix="/cog")
app.include_router(MultiBaseTilerFactory(reader=STACReader, router_prefix="/stac").router, prefix="/stac")
app.get("/healthz")(lambda: {})
"""
"""The part of titiler.application that reads COGs and items; the image has the rest as well."""


@pytest.fixture(scope="module")
def titiler(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("titiler"), free_port()
    (folder / "tiles_app.py").write_text(APP)
    given = place.services["titiler"]["environment"]
    command = [sys.executable, "-m", "uvicorn", "tiles_app:app", "--app-dir", folder, "--port", port]
    here = {**plain_environment(), **given, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    with serving(command, port, "/healthz", **here) as running:
        yield running.url


def test_the_image_of_titiler_is_what_is_tested(place: Place) -> None:
    from importlib.metadata import version

    assert place.services["titiler"]["image"].endswith(f":{version('titiler.core')}")


def _cog(place: Place, name: str) -> tuple[str, Path]:
    (path,) = (place.tiles.catalog / f"cogs/synthetic/2024/{FIRST.name}").glob(f"*_{name}")
    return f"{place.url}/data/{path.relative_to(place.tiles.catalog)}", path


def test_titiler_reads_values_in_few_requests(place: Place, titiler: str) -> None:
    url, path = _cog(place, "embeddings.tif")
    with rasterio.open(path) as tile:
        there = np.argwhere(tile.read(1) != tile.nodata)
        row, col = there[len(there) // 2].tolist()
        x, y = tile.xy(row, col)
        expected = tile.read(window=rasterio.windows.Window(col, row, 1, 1))[:, 0, 0]
        lon, lat = (v[0] for v in transform(tile.crs, "EPSG:4326", [x], [y]))
    before = len(place.log.read_text().splitlines())
    found = httpx.get(f"{titiler}/cog/point/{lon:.9f},{lat:.9f}", params={"url": url}, timeout=60)
    assert found.status_code == 200, found.text
    assert np.array_equal(np.array(found.json()["values"], np.int8), expected)
    lines = [json.loads(line) for line in place.log.read_text().splitlines()[before:]]
    assert {line["path"] for line in lines} == {url.removeprefix(place.url)}, "no search for sidecar files"
    assert len(lines) <= 4, lines


def test_titiler_draws_an_item(place: Place, titiler: str) -> None:
    item = f"{place.url}/collections/{COLLECTION}/items/{FIRST.name}_2024"
    bounds = httpx.get(item).json()["bbox"]
    query = {"url": item, "assets": "visual", "max_size": "256"}
    box = ",".join(f"{v:.6f}" for v in bounds)
    found = httpx.get(f"{titiler}/stac/bbox/{box}.png", params=query, timeout=60)
    assert found.status_code == 200, found.text
    picture = np.array(Image.open(io.BytesIO(found.content)))
    _, path = _cog(place, "visual.tif")
    with rasterio.open(path) as visual:
        colours = visual.read().reshape(3, -1)
    drawn = picture[..., :3][picture[..., 3] > 0]
    assert len(drawn) > 1000
    assert np.abs(drawn.mean(axis=0) - colours[:, colours.any(axis=0)].mean(axis=1)).max() < 25
    assert re.match(r"image/png", found.headers["content-type"])
