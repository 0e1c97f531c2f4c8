"""However many read from stores, a process makes a bounded number of requests to a host at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from api.files.folder import RangedFiles
from api.settings import Settings
from catalog_builder.errors import StorageError
from catalog_builder.pixels.container import store as container
from catalog_builder.pixels.place import Place
from catalog_builder.pixels.read import read_window
from catalog_builder.stores import chunks
from catalog_builder.stores.connections import CONNECTIONS, DEFAULT, VARIABLE, host_of
from tests.support.catalogs import build_from, write_manifest
from tests.support.http_server import serve
from tests.support.stores import EAST, NORTH, SOUTH, Stores


@dataclass
class Counted:
    """An app that takes a while, and counts its requests: how many at a time, on how many connections."""

    app: ASGIApp
    now: int = 0
    most: int = 0
    total: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)
        self.connections.add(tuple(scope["client"]))

        async def counted(message: Message) -> None:
            # before the client has all of it, and may send its next request
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.now -= 1
            await send(message)

        await asyncio.sleep(0.03)
        await self.app(scope, receive, counted)


@pytest.fixture(autouse=True)
def as_the_environment_says() -> Iterator[None]:
    yield
    CONNECTIONS.allow(None)


@pytest.mark.service
@pytest.mark.parametrize("layout", ["a", "b"])
@pytest.mark.parametrize("limit", [3, 12])
def test_requests_of_all_threads_to_a_host(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, layout: str, limit: int
) -> None:
    monkeypatch.setattr(chunks, "CHUNKS", chunks.Chunks())
    CONNECTIONS.allow(limit)
    path = getattr(stores, layout)
    counted = Counted(RangedFiles(path.parent))
    with serve(counted) as server:
        address = f"{server.url}/{path.name}"
        jobs = [(tile, part) for tile in (NORTH, EAST, SOUTH) for part in range(4)]
        together = threading.Barrier(len(jobs))

        def read(job: tuple[object, int]) -> bool:
            tile, _ = job
            place: Place = container.below(address, tile, 2024)  # type: ignore[arg-type]
            together.wait(60)
            found = read_window(place)
            codes, scales = stores.tiles[tile]  # type: ignore[index]
            valid = np.isfinite(scales)
            return bool((found.codes[valid] == codes[valid]).all())  # type: ignore[union-attr]

        with ThreadPoolExecutor(len(jobs)) as pool:
            assert all(pool.map(read, jobs))
    assert counted.total > limit
    assert 2 <= counted.most <= limit
    if layout == "a":  # Icechunk closes connections, and opens others
        assert len(counted.connections) <= limit


def test_hosts() -> None:
    assert host_of("/data/tiles.zarr") == host_of("file:///data/tiles.zarr") == ""
    assert host_of("http://a.example:81/x.zarr") == "a.example:81"
    assert host_of("s3://one/x") != ""


def test_the_limit_is_a_setting_and_a_variable(monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("limit")
    assert CONNECTIONS.limit == DEFAULT
    monkeypatch.setenv(VARIABLE, "5")
    CONNECTIONS.allow(None)
    assert CONNECTIONS.limit == 5
    assert Settings().store_connections == 5
    build_from(folder / "catalog", write_manifest(folder, 2024, [NORTH]), url="http://cat")
    create_app(folder / "catalog", Settings(store_connections=7))
    assert CONNECTIONS.limit == 7
    monkeypatch.setenv(VARIABLE, "none")
    CONNECTIONS.allow(None)
    with pytest.raises(StorageError, match=f"{VARIABLE}: expected a number from 1 on, found 'none'"):
        _ = CONNECTIONS.limit
