"""Requests for the zones' arrays: addresses, headers, rebuilds and who may see them."""

from __future__ import annotations

import hashlib
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import Written
from tests.support.catalogs import build_from
from tests.support.http_server import Server, serve
from tests.support.sample_stores import SampleStores
from tests.support.zone_arrays import Served

pytestmark = pytest.mark.service
TIME = 7


@dataclass
class World:
    """One tile of the sample, and its catalogue."""

    root: Path
    catalog: Path
    npy: Path
    scales: Path
    written: Written

    about: dict[str, Any] = field(default_factory=dict)
    """The document of its group."""

    def build(self) -> None:
        build_from(self.catalog, self.root, dataset="synthetic")

    @property
    def places(self) -> tuple[int, int]:
        """Row and column of a chunk in the middle of the tile."""
        group = ZoneGroup.of("utm33", self.about["attributes"], range(2017, 2026))
        row, col = group.position(self.written.tile.raster())
        return row // 32 + 10, col // 32 + 2


@pytest.fixture(scope="module")
def world(sample_stores: SampleStores, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder, written = tmp_path_factory.mktemp("zarr"), sample_stores.npy.written[3]
    for path in (written.npy, written.scales):
        target = folder / "tiles" / path.relative_to(sample_stores.npy.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    npy, scales = (
        folder / "tiles" / p.relative_to(sample_stores.npy.root) for p in (written.npy, written.scales)
    )
    found = World(folder / "tiles", folder / "catalog", npy, scales, written)
    found.build()
    return found


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Server]:
    with serve(create_app(world.catalog, Settings(refresh_seconds=0))) as running:
        world.about = httpx.get(f"{running.url}/zarr/synthetic/utm33/zarr.json").json()
        yield running


@pytest.fixture(scope="module")
def served(server: Server) -> Served:
    return Served(f"{server.url}/zarr/synthetic")


@pytest.mark.parametrize("array", ["embeddings", "scales"])
def test_headers_of_a_chunk(array: str, served: Served, world: World) -> None:
    row, col = world.places
    path = f"utm33/{array}/c/{TIME}/{'0/' if array == 'embeddings' else ''}{row}/{col}"
    whole = served.get(path)
    size = 32 * 32 * (128 if array == "embeddings" else 4)
    assert (whole.status_code, len(whole.content)) == (200, size)
    assert whole.headers["cache-control"] == "public, max-age=60"
    assert whole.headers["access-control-allow-origin"] == "*"
    assert "content-encoding" not in whole.headers
    etag = whole.headers["etag"]
    assert etag.startswith('"')
    head = served.client.head(f"{served.url}/{path}")
    assert (head.status_code, head.headers["content-length"], head.headers["etag"]) == (200, str(size), etag)
    assert not head.content
    assert served.get(path, **{"if-none-match": etag}).status_code == 304
    assert served.get(path, **{"if-match": '"other"'}).status_code == 412
    part = served.get(path, range="bytes=100-199")
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    asked = served.client.options(f"{served.url}/{path}", headers={"origin": "https://example.org"})
    assert asked.status_code == 200
    assert "GET" in asked.headers["access-control-allow-methods"]
    assert served.client.put(f"{served.url}/{path}").status_code == 405


def test_an_address_of_one_build_never_changes(served: Served, world: World) -> None:
    build = served.document("zarr.json")["attributes"]["tessera:build"]
    row, col = world.places
    path = f"utm33/scales/c/{TIME}/{row}/{col}"
    fixed = Served(f"{served.url}@{build}")
    found = fixed.get(path)
    assert found.content == served.get(path).content
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert fixed.document("zarr.json") == served.document("zarr.json")
    over = Served(f"{served.url}@0123456789ab").get(path)
    assert over.status_code == 410
    assert build in over.json()["description"]


def test_a_folder_leads_to_its_document(server: Server) -> None:
    with httpx.Client(follow_redirects=True) as client:
        for path in ("/zarr/synthetic", "/zarr/synthetic/", "/zarr/synthetic/utm33", "/zarr/synthetic/bulk"):
            found = client.get(server.url + path)
            assert found.json()["node_type"] == "group", path
            assert found.url.path.endswith(path.rstrip("/") + "/zarr.json")


def test_addresses_that_are_none(served: Served, world: World) -> None:
    """Never 500, and never 200: what is no address is 404 with a reason, so that readers fill."""
    row, col = world.places
    good = f"utm33/embeddings/c/{TIME}/0/{row}/{col}"
    paths = [
        "nothing", "utm33/zarr.json/c/0", "utm61/zarr.json", "utm00/x/c/0", "utm33/none/zarr.json",
        "utm33/x/c/1", "utm33/x/c/0/0", "utm33/x/c", "utm33/scales/c/7/0", "utm33/scales/c/-1/0/0",
        "utm33/scales/c/7/999999999/0", "utm33/scales/c/7/9999999999999999999999/0",
        "utm33/scales/c/07/0/0", "utm33/embeddings/c/9/0/0/0", "utm33/embeddings/c/7/1/0/0",
        ".zgroup", ".zmetadata", "utm33/.zarray", "utm33/embeddings/c/7/0/1e3/0",
        "utm33/embeddings/c/7/0/\u0661/0", "../v1/zarr.json", "bulk/bulk/zarr.json", "bulk/utm3/x/c/0",
        "utm33/embeddings/c/7/0/0/0/0", "utm33//scales/c/7/0/0", "%00", "utm33/scales/c/7/0/0%00",
    ]  # fmt: skip
    rng = random.Random(17)
    alphabet = "0123456789/c-.@%~utmzarrjson\\ \t\u00e9"
    for _ in range(400):
        text = list(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 2)] = rng.choice(alphabet)
        paths.append("".join(text))
    said = set()
    for path in paths:
        found = served.get(quote(path, safe="/%"))
        said.add(found.status_code)
        assert found.status_code in (200, 302, 400, 404), (path, found.text)
        if found.status_code == 404:
            assert found.json()["description"], path
    assert said >= {200, 404}


def test_a_dataset_that_is_not_there(server: Server) -> None:
    found = httpx.get(f"{server.url}/zarr/v9/zarr.json")
    assert found.status_code == 404
    assert "synthetic" in found.json()["description"]


def test_a_rebuild_while_it_is_read(served: Served, world: World) -> None:
    """Each chunk is the old file's or the new one's, as its ETag says, and never of both."""
    row, col = world.places
    old = np.load(world.npy)
    chunks = [(row + r, col + c) for r in range(4) for c in range(2)]
    seen: dict[tuple[int, int], dict[str, bytes]] = {chunk: {} for chunk in chunks}
    stop, failed = threading.Event(), []

    def read() -> None:
        mine = Served(served.url)
        while not stop.is_set():
            for chunk in chunks:
                found = mine.get(f"utm33/embeddings/c/{TIME}/0/{chunk[0]}/{chunk[1]}")
                if found.status_code == 503:  # replaced while it was read: asked again
                    continue
                if found.status_code != 200:
                    failed.append(found.text)
                    return
                before = seen[chunk].setdefault(found.headers["etag"], found.content)
                if before != found.content:
                    failed.append(f"{chunk}: one ETag for two contents")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, 4):
            changed = np.where(old < 0, old + version, old - version).astype(np.int8)
            np.save(world.npy.with_name("new.npy"), changed)
            world.npy.with_name("new.npy").replace(world.npy)
            world.build()
            last = served.get(f"utm33/embeddings/c/{TIME}/0/{row}/{col}")
            assert last.status_code == 200
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failed
    group = ZoneGroup.of("utm33", world.about["attributes"], range(2017, 2026))
    top, left = group.position(world.written.tile.raster())
    possible = [old, *(np.where(old < 0, old + v, old - v).astype(np.int8) for v in range(1, 4))]
    for (r, c), found in seen.items():
        at = np.s_[r * 32 - top : r * 32 - top + 32, c * 32 - left : c * 32 - left + 32]
        whole = [array[at].transpose(2, 0, 1).tobytes() for array in possible]
        assert len(found) >= 2
        assert all(content in whole for content in found.values())


def test_what_is_private_is_not_there(world: World) -> None:
    token = "a" * 64
    line = f"anna:sha256${hashlib.sha256(token.encode()).hexdigest()}:tessera-synthetic"
    settings = Settings(private="tessera-synthetic", readers=line)
    with serve(create_app(world.catalog, settings)) as server:
        url = f"{server.url}/zarr/synthetic"
        row, col = world.places
        for path in ("zarr.json", "utm33/zarr.json", f"utm33/scales/c/{TIME}/{row}/{col}", "bulk/zarr.json"):
            anybody = httpx.get(f"{url}/{path}")
            assert anybody.status_code == 404
            anna = httpx.get(f"{url}/{path}", headers={"authorization": f"Bearer {token}"})
            assert anna.status_code == 200
            assert "private" in anna.headers["cache-control"]
            assert "public" not in anna.headers["cache-control"]
