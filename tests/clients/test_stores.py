"""Items of stores, read by the clients of stores and by direct access."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pystac.validation
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from api.app import create_app
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.export import export
from tests.support.catalogs import api_items, build_from
from tests.support.environments import environment
from tests.support.http_server import Server, serve
from tests.support.registry import write_land
from tests.support.s3_store import s3_store
from tests.support.stores import EAST, NORTH, SOUTH, Stores, make_stores

pytestmark = pytest.mark.service
HERE = Path(__file__).parents[1] / "support"
TILES = (NORTH, EAST, SOUTH)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return make_stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def catalog(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    listed = write_land(folder / "land", TILES)
    build_from(folder / "catalog", stores.a, listed, dataset="synthetic", url="https://stac.test")
    return folder / "catalog"


@pytest.fixture(scope="module")
def server(catalog: Path) -> Iterator[Server]:
    with serve(create_app(catalog)) as running:
        yield running


def items(catalog: Path) -> dict[str, Any]:
    return api_items(CatalogFolder(catalog).open_index(), "https://stac.test")


def read(out: Path, reads: list[dict[str, Any]]) -> Any:
    """Run the clients in their own environment."""
    python = environment(HERE / "xpystac.lock")
    script = [python, HERE / "xarray_reader.py", out, json.dumps(reads)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(out)


def same(found: Any, i: int, tile: Any, stores: Stores) -> None:
    codes, scales = stores.tiles[tile]
    assert np.array_equal(found[f"codes{i}"], codes)
    assert np.array_equal(found[f"scales{i}"], scales, equal_nan=True)


def test_xarray_opens_the_store_with_the_assets_own_keywords(
    stores: Stores, catalog: Path, tmp_path: Path
) -> None:
    found = items(catalog)
    reads = [{"item": found[f"{tile.name}_2024"], "by": "xarray"} for tile in TILES]
    arrays = read(tmp_path / "out.npz", reads)
    for i, tile in enumerate(TILES):
        same(arrays, i, tile, stores)


def test_xpystac_opens_the_store(stores: Stores, catalog: Path, tmp_path: Path) -> None:
    """The collection's assets as they are; an item's once its media type has no parameter, see the docs."""
    collection = json.loads((catalog / "tessera-synthetic" / "collection.json").read_text())
    item = items(catalog)[f"{NORTH.name}_2024"]
    by = {"item": item, "by": "xpystac"}
    plain = item["assets"]["source_zarr"]["type"].partition(";")[0]
    reads = [{**by, "collection": collection, "asset": "utm31"}, {**by, "media_type": plain}, by]
    arrays = read(tmp_path / "out.npz", reads)
    for i in (0, 1):
        same(arrays, i, NORTH, stores)
    # of 0.5.0: an xpystac that knows the parameter makes the one line, and its paragraph, needless
    assert "default_kwargs" in str(arrays["error2"])


def test_repositories(stores: Stores, tmp_path: Path) -> None:
    build_from(
        tmp_path / "c",
        stores.b,
        write_land(tmp_path / "land", TILES),
        dataset="synthetic",
        url="https://s.test",
    )
    found = items(tmp_path / "c")
    reads = [{"item": found[f"{tile.name}_2024"], "by": "icechunk"} for tile in TILES]
    arrays = read(tmp_path / "out.npz", reads)
    for i, tile in enumerate(TILES):
        same(arrays, i, tile, stores)


def test_a_store_on_the_web_that_is_consolidated(stores: Stores, tmp_path: Path) -> None:
    """Of what cannot be listed, the root's metadata are all that a client has."""
    beside = Path(f"{stores.a}.build")
    beside.mkdir()
    try:
        rows = {"year": [2024], "zone": [31], "tile_lon": [NORTH.lon], "tile_lat": [NORTH.lat]}
        pq.write_table(pa.table(rows), beside / "_registry.parquet")
        with serve(Starlette(routes=[Mount("/", StaticFiles(directory=stores.a.parent))])) as web:
            build_from(
                tmp_path / "c", f"{web.url}/{stores.a.name}", dataset="synthetic", url="https://s.test"
            )
            (item,) = items(tmp_path / "c").values()
            same(read(tmp_path / "out.npz", [{"item": item, "by": "xarray"}]), 0, NORTH, stores)
    finally:
        (beside / "_registry.parquet").unlink()
        beside.rmdir()


def test_a_store_in_a_bucket(stores: Stores, tmp_path: Path) -> None:
    listed = write_land(tmp_path / "land", TILES)
    with s3_store() as store:
        for path in stores.a.rglob("*"):
            if path.is_file():
                key = f"stores/a/{path.relative_to(stores.a).as_posix()}"
                store.client.upload_file(str(path), store.bucket, key)
        address = f"s3://{store.bucket}/stores/a"
        build_from(tmp_path / "c", address, listed, dataset="synthetic", url="https://s.test")
        found = items(tmp_path / "c")
        asset = found[f"{NORTH.name}_2024"]["assets"]["source_zarr"]
        assert asset["href"] == address
        assert asset["storage:refs"] == [store.bucket]
        assert asset["xarray:storage_options"] == {"endpoint_url": store.url}
        with serve(create_app(tmp_path / "c")) as running, httpx.Client(base_url=running.url) as http:
            for hrefs in ("https", "s3"):  # a store's keys have to be listed: it stays in S3
                (item,) = http.get("/search", params={"ids": f"{NORTH.name}_2024", "hrefs": hrefs}).json()[
                    "features"
                ]
                assert item["assets"]["source_zarr"]["href"] == address
        reads = [{"item": found[f"{NORTH.name}_2024"], "by": "xarray"}]
        same(read(tmp_path / "out.npz", reads), 0, NORTH, stores)


def test_direct_access_computes_the_published_arrays(stores: Stores, server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for tile in TILES:
            item = http.get(f"/collections/tessera-synthetic/items/{tile.name}_2024").json()
            folder = item["assets"]["embeddings_f32"]["href"].rpartition("/")[0]
            codes, scales = (
                np.load(io.BytesIO(http.get(f"{folder}/{tile.name}{s}.npy").raise_for_status().content))
                for s in ("", "_scales")
            )
            assert np.array_equal(codes, stores.tiles[tile][0])
            assert np.array_equal(scales, stores.tiles[tile][1], equal_nan=True)
        bands = http.get(
            f"/collections/tessera-synthetic/items/{NORTH.name}_2024?view=bands&bands=0-1"
        ).json()
        assert set(bands["assets"]) == {"b000", "b001"}
        answer = http.get(bands["assets"]["b001"]["href"])
        assert answer.status_code == 200


def test_every_output_says_the_same(catalog: Path, server: Server, tmp_path: Path) -> None:
    expected = items(catalog)
    index = CatalogFolder(catalog).open_index()
    export("ndjson", extracts(index), str(tmp_path / "items.ndjson"), None, max_items=100)
    lines = [json.loads(line) for line in (tmp_path / "items.ndjson").read_text().splitlines()]
    assert {i["id"]: i["assets"]["source_zarr"] for i in lines} == {
        k: i["assets"]["source_zarr"] for k, i in expected.items()
    }
    export("static", extracts(index), str(tmp_path / "static"), None, max_items=100)
    (path,) = (tmp_path / "static").rglob(f"{NORTH.name}_2024.json")
    item = pystac.Item.from_file(str(path))
    pystac.validation.validate_dict(item.to_dict(), extensions=[])
    asset = expected[f"{NORTH.name}_2024"]["assets"]["source_zarr"]
    assert item.assets["source_zarr"].extra_fields["tessera:window"] == asset["tessera:window"]
    export("geoparquet", extracts(index), str(tmp_path / "parquet"), None, max_items=100)
    folders = (tmp_path / "parquet", catalog)
    for file in (p for folder in folders for p in folder.rglob("year=2024/items.parquet")):
        rows = {row["id"]: row["assets"]["source_zarr"] for row in pq.read_table(file).to_pylist()}
        for key, row in rows.items():
            said = expected[key]["assets"]["source_zarr"]
            assert {k: v for k, v in row.items() if k in said} == said
    with httpx.Client(base_url=server.url) as http:
        listed = http.get("/collections/tessera-synthetic").json()
        assert {"utm31", "utm32"} <= set(listed["assets"])
        assert listed["assets"]["utm31"]["href"] == asset["href"]
