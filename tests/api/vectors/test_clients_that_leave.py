"""Work ends with its client: what is read of a slow source when it closes the connection in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from starlette.types import ASGIApp, Receive, Scope, Send

from api.app import create_app
from api.files.folder import RangedFiles, immutable_where
from tests.support.catalogs import build_from
from tests.support.converted import COLLECTION, Converted, converted
from tests.support.http_server import Server, serve
from tests.support.waiting import until

HERE = f"/collections/{COLLECTION}"
pytestmark = pytest.mark.service
YEAR = {"datetime": "2024-01-01T00:00:00Z"}
RNG = np.random.default_rng(3)
POINTS = np.column_stack([RNG.uniform(15.61, 15.79, 400), RNG.uniform(78.21, 78.29, 400)]).round(5)
LINES = shapely.MultiPolygon(
    [shapely.box(x, y, x + 0.001, y + 0.0002) for x in (15.62, 15.72) for y in np.linspace(78.21, 78.29, 60)]
)
"""Pixels far from each other."""


@dataclass
class Slow:
    """A source whose every response takes a while; it does not know requests for several ranges."""

    app: ASGIApp
    seconds: float = 0.0
    open: int = 0
    asked: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ranges = dict(scope["headers"]).get(b"range", b"")
        if b"," in ranges:
            await send({"type": "http.response.start", "status": 416, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        self.asked.append(scope["path"])
        self.open += 1
        try:
            await asyncio.sleep(self.seconds)
            await self.app(scope, receive, send)
        finally:
            self.open -= 1


@dataclass(frozen=True)
class World:
    source: Slow
    server: Server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tiles: Converted = converted()
    source = Slow(RangedFiles(str(tiles.embeddings), immutable_where("x")))
    catalog: Path = tmp_path_factory.mktemp("leaving") / "catalog"
    with serve(source) as files:
        root = tiles.embeddings.parent
        build_from(catalog, root, dataset="synthetic", url="http://cat", source_root=files.url)
        with serve(create_app(catalog)) as server:
            yield World(source, server)


def request(verb: str) -> dict[str, Any]:
    """Return a request that takes dozens of reads."""
    if verb == "points":
        lines = "\n".join(f"{x},{y}" for x, y in POINTS)
        sent = {"content": f"lon,lat\n{lines}", "headers": {"content-type": "text/csv"}}
        return {"method": "POST", "params": YEAR, **sent}
    if verb == "zonal":
        body = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(LINES)}
        return {"method": "POST", "params": YEAR, "json": body}
    coords = f"MULTIPOINT({','.join(f'({x} {y})' for x, y in POINTS)})" if verb == "position" else LINES.wkt
    f = "GeoJSON" if verb == "area" else "CoverageJSON"  # a grid around it would be too large
    return {"method": "GET", "params": {"coords": coords, "f": f, "parameter-name": "b000", **YEAR}}


@pytest.mark.parametrize("verb", ["points", "zonal", "position", "area"])
def test_reading_stops_when_the_client_has_left(world: World, verb: str) -> None:
    source, url = world.source, f"{world.server.url}{HERE}/{verb}"
    source.seconds = 0.0
    source.asked.clear()
    whole = httpx.request(url=url, timeout=60, **request(verb))
    assert whole.status_code == 200, whole.text[:300]
    of = len(source.asked)
    assert of > 60
    source.seconds = 0.5
    source.asked.clear()
    with pytest.raises(httpx.ReadTimeout):
        httpx.request(url=url, timeout=0.7, **request(verb))
    until(lambda: source.open == 0 and _is_quiet(source))
    assert 0 < len(source.asked) < of / 2


def _is_quiet(source: Slow) -> bool:
    before = len(source.asked)
    time.sleep(1.0)
    return len(source.asked) == before
