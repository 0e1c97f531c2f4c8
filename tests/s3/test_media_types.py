"""An asset's type is the type of its object in the store and the type that the server gives it, for each."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.build.run import BuildOptions, build
from catalog_builder.catalog.basis import store_basis
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.open import open_index
from catalog_builder.convert.fit_colours import fit_visual
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.publish.export import export
from catalog_builder.tile.datasets import dataset
from tests.s3.converted import upload
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION, FIRST, converted
from tests.support.http_server import serve
from tests.support.s3_store import Store, s3_store

NATIVE, FLOAT, RAW = 2023, 2024, 2022
"""Years of the first tile by how they are converted; the last one is not."""
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
EXPECTED = {
    "scales": COG,
    "visual": COG,
    "thumbnail": "image/png",
    "source_npy": "application/x-npy",
    "source_scales": "application/x-npy",
    "landmask": "image/tiff; application=geotiff",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """Return a store, and the address of a catalogue that was converted and built into it."""
    with s3_store() as store, pytest.MonkeyPatch.context() as patched:
        patched.setenv("TESSERA_STAC_CACHE", str(tmp_path_factory.mktemp("cache")))
        made, out = converted(), f"{store.root}/cat"
        upload(store, made.root / "source", "source")
        workers = ExecutorWorkers(Inline(), window=1)
        for year, profile in ((NATIVE, "native"), (FLOAT, "float32")):
            chosen = plan(
                [str(made.embeddings)], Wanted(dataset=dataset("synthetic"), years=frozenset({year}))
            )
            job = ConvertOptions(out=f"{out}/cogs", profile=profile, durable=False)
            job = ConvertOptions(
                out=f"{out}/cogs",
                profile=profile,
                durable=False,
                bases=tuple(fit_visual(chosen, job, workers)),
            )
            store_basis(f"{out}/cogs", job.bases[0])
            assert not run(chosen, job, workers).failed
        options = BuildOptions(
            dataset("synthetic"),
            url="http://cat",
            source_root=f"{store.root}/source/{made.embeddings.relative_to(made.root / 'source').as_posix()}",
        )
        build([str(made.root / "source")], out, options)
        yield store, out


@pytest.fixture(scope="module")
def http(home: tuple[Store, str]) -> Iterator[httpx.Client]:
    """Serve what is in the store byte by byte, so that the types are the server's own."""
    settings = Settings(s3_refresh_seconds=0, s3_access="proxy")
    with serve(create_app(home[1], settings)) as server, httpx.Client(base_url=server.url) as client:
        yield client


def _stored(store: Store, key: str) -> str:
    return str(store.client.head_object(Bucket=store.bucket, Key=key)["ContentType"])


def _served(http: httpx.Client, path: str) -> str:
    found = http.get(path, headers={"range": "bytes=0-0"})
    assert found.status_code == 206, path
    assert http.head(path).headers["content-type"] == found.headers["content-type"]
    return str(found.headers["content-type"])


VIEWS = {"embeddings_f32", "embeddings_f32_window"}


@pytest.mark.parametrize("year", [NATIVE, FLOAT, RAW])
def test_every_asset(home: tuple[Store, str], http: httpx.Client, year: int) -> None:
    store, _ = home
    item = http.get(f"/collections/{COLLECTION}/items/{FIRST.name}_{year}?hrefs=s3").json()
    looked_at = set()
    for key, asset in item["assets"].items():
        expected = {
            **EXPECTED,
            "embeddings": "application/x-npy" if year == RAW else COG,
            **dict.fromkeys(VIEWS, COG if year == FLOAT else "image/x.vrt"),
            "embeddings_f32_computed": "application/x.vrt",
            "zarr": "application/vnd+zarr; version=3",  # no file, but the root of many
        }[key]
        assert asset["type"] == expected, key
        place = urlsplit(asset["href"])
        if place.scheme == "s3" and place.path.startswith("/cat/"):
            assert _stored(store, place.path[1:]) == expected, key
            assert _served(http, f"/data{place.path.removeprefix('/cat')}") == expected, key
            looked_at.add(key)
        elif place.path.startswith("/data/"):  # a VRT is given where the files that it names are
            assert _stored(store, f"cat/{place.path.removeprefix('/data/')}") == expected, key
            assert _served(http, place.path) == expected, key
            looked_at.add(key)
        elif key in VIEWS:  # made as it is asked for
            assert _served(http, place.path) == expected, key
            looked_at.add(key)
    assert (
        looked_at
        == {
            NATIVE: {"embeddings", "scales", *VIEWS, "visual", "thumbnail"},
            FLOAT: {"embeddings", *VIEWS, "visual", "thumbnail"},
            RAW: VIEWS,
        }[year]
    )


def test_every_asset_of_a_collection(home: tuple[Store, str], http: httpx.Client) -> None:
    store, _ = home
    assets = http.get(f"/collections/{COLLECTION}").json()["assets"]
    zones = {key for key in assets if key.startswith("zarr_")}  # no files, but roots of many
    assert zones == {"zarr_utm33"}
    files = [asset for key, asset in assets.items() if key not in zones]
    assert {asset["type"] for asset in files} == {"image/png", "application/vnd.apache.parquet"}
    assert assets["zarr_utm33"]["type"] == "application/vnd+zarr"
    for asset in files:
        path = urlsplit(asset["href"]).path
        assert path.startswith("/data/")
        assert _served(http, path) == asset["type"]
        assert _stored(store, f"cat/{path.removeprefix('/data/')}") == asset["type"]


def test_every_visible_object_is_stored_as_it_is_served(home: tuple[Store, str], http: httpx.Client) -> None:
    store, _ = home
    suffixes = set()
    for key in sorted(store.stored("cat/")):
        if "/." not in key and not key.endswith((".sqlite", ".jsonl")):  # the operator's own are not served
            assert _stored(store, key) == _served(http, f"/data/{key.removeprefix('cat/')}"), key
            suffixes.add(Path(key).suffix)
    assert suffixes == {".json", ".parquet", ".png", ".tif", ".vrt"}
    assert all(_stored(store, key) == "image/x.vrt" for key in store.stored("cat/") if key.endswith(".vrt"))


def test_exports(home: tuple[Store, str], tmp_path: Path) -> None:
    store, _ = home
    build_from(tmp_path / "cat", write_manifest(tmp_path / "m", 2024, patch(0, 52, 2, 1)), url="http://x")
    parts = extracts(open_index(tmp_path / "cat"))
    for name, kind in (
        ("a.ndjson", "application/x-ndjson"),
        ("a.ndjson.gz", "application/gzip"),
        ("a.ndjson.zst", "application/zstd"),
    ):
        export("ndjson", parts, f"{store.root}/exports/{name}", max_items=10)
        assert _stored(store, f"exports/{name}") == kind
    export("geoparquet", parts, f"{store.root}/exports/geo", max_items=10)
    (key,) = store.stored("exports/geo/")
    assert _stored(store, key) == "application/vnd.apache.parquet"
    export("static", parts, f"{store.root}/exports/tree", max_items=10)
    kinds: dict[str, set[str]] = {}
    for key in store.stored("exports/tree/"):
        if key.endswith(".json"):
            document: dict[str, Any] = orjson.loads(
                store.client.get_object(Bucket=store.bucket, Key=key)["Body"].read()
            )
            kinds.setdefault(document["type"], set()).add(_stored(store, key))
    assert kinds == {
        "Catalog": {"application/json"},
        "Collection": {"application/json"},
        "Feature": {"application/geo+json"},
    }


def test_converted_files_on_a_disk_have_the_mode_that_the_user_asks_for() -> None:
    (converted().root / "probe").touch()
    usual = stat.S_IMODE((converted().root / "probe").stat().st_mode)
    files = [p for p in (converted().catalog / "cogs").rglob("*") if p.is_file()]
    assert len(files) > 10
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {usual}
