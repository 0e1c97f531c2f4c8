"""A served catalogue in S3: hrefs by request, /data by redirect or proxy, refresh, and S3 being away."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import rasterio

from api.app import create_app
from api.catalogue.bucket_store import BucketStore
from api.request.hrefs import _signer
from api.settings import Settings
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.errors import CatalogError, StorageError
from catalog_builder.tile.datasets import dataset
from tests.conformance.extension_schemas import SCHEMAS
from tests.conftest import plain_environment
from tests.s3.converted import built
from tests.support.catalogs import patch, write_manifest
from tests.support.converted import COLLECTION, FIRST, converted
from tests.support.http_server import serve
from tests.support.s3_store import Store, environment, s3_store
from tests.support.waiting import until

READER = Path(__file__).parents[1] / "support" / "gdal_reader.py"
ITEM = f"/collections/{COLLECTION}/items/{FIRST.name}_2024"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """Return a store of this module's own, which is not emptied between tests."""
    with s3_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESSERA_STAC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield store, built(store, mirrors=(("lab", "https://lab.example.org/cogs"),))


@pytest.fixture(autouse=True)
def without_faults(home: tuple[Store, str]) -> Iterator[None]:
    yield
    home[0].fault = lambda _: None


def _settings(**given: Any) -> Settings:
    return Settings(**{"s3_refresh_seconds": 0, "presign": True, **given})


def _hrefs(item: dict[str, Any]) -> dict[str, str]:
    return {key: asset["href"] for key, asset in item["assets"].items()}


@pytest.fixture(scope="module")
def private(home: tuple[Store, str]) -> Iterator[httpx.Client]:
    """Serve the catalogue of a bucket that is not public."""
    with (
        serve(create_app(home[1], _settings(s3_access="presigned"))) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        yield http


@pytest.fixture(scope="module")
def public(home: tuple[Store, str]) -> Iterator[httpx.Client]:
    with serve(create_app(home[1], _settings())) as server, httpx.Client(base_url=server.url) as http:
        yield http


def _pixels(path: str) -> np.ndarray[Any, Any]:
    with rasterio.open(path) as ds:
        return np.asarray(ds.read())


def _local(name: str) -> Path:
    (path,) = (converted().catalog / "cogs").rglob(f"{FIRST.name}_2024_*_{name}")
    return path


@pytest.mark.parametrize("hrefs", ["https", "s3", "presigned"])
def test_every_kind_of_address_leads_to_the_same_bytes(
    home: tuple[Store, str], public: httpx.Client, hrefs: str
) -> None:
    store, address = home
    item = public.get(f"{ITEM}?hrefs={hrefs}").json()
    (found,) = public.get(f"/search?hrefs={hrefs}&ids={FIRST.name}_2024").json()["features"]
    for each in (item, found):
        for key, href in _hrefs(each).items():
            path = {
                "embeddings": "embeddings.tif",
                "scales": "scales.tif",
                "visual": "visual.tif",
                "thumbnail": "thumbnail.png",
            }.get(key)
            if path is None:
                continue
            expected = _local(path).read_bytes()
            if hrefs == "s3":
                assert href.startswith(f"{address}/cogs/")
                got = store.client.get_object(Bucket=store.bucket, Key=href.split("/", 3)[3])["Body"].read()
            else:
                assert ("X-Amz-Signature=" in href) == (hrefs == "presigned")
                assert href.startswith(f"{store.url}/{store.bucket}/cat/cogs/")
                got = httpx.get(href).content
            assert got == expected
        assert _hrefs(each)["source_npy"].startswith(f"{store.root}/source" if hrefs == "s3" else store.url)


def test_what_an_item_says_of_its_store(home: tuple[Store, str], public: httpx.Client) -> None:
    store, _ = home
    for hrefs in ("s3", "presigned"):
        item = public.get(f"{ITEM}?hrefs={hrefs}").json()
        (scheme,) = item["properties"]["storage:schemes"].items()
        expected = {
            "type": "custom-s3", "platform": store.url, "bucket": store.bucket, "region": "eu-west-2",
            "requester_pays": False,
        }  # fmt: skip
        assert scheme == (store.bucket, expected)
        assert item["assets"]["embeddings"]["storage:refs"] == [store.bucket]
        assert "https://stac-extensions.github.io/storage/v2.0.0/schema.json" in item["stac_extensions"]
    plain = public.get(ITEM).json()
    assert "storage:schemes" not in plain["properties"]
    assert "storage:refs" not in json.dumps(plain)


def test_items_with_mirrors_and_stores_are_valid(public: httpx.Client) -> None:
    import jsonschema

    for hrefs in ("https", "s3", "presigned"):
        for item in public.get(f"/search?hrefs={hrefs}").json()["features"][-2:]:
            for extension in item["stac_extensions"]:
                jsonschema.validate(item, SCHEMAS[extension])
    item = public.get(ITEM).json()
    place = item["assets"]["visual"]["alternate"]["lab"]
    assert place == {
        "href": f"https://lab.example.org/cogs/2024/{FIRST.name}/{_local('visual.tif').name}",
        "alternate:name": "lab",
    }
    assert "alternate" not in item["assets"]["source_npy"]


def test_links_keep_what_was_asked_for(public: httpx.Client) -> None:
    page = public.get("/search?limit=1&hrefs=s3").json()
    (following,) = (x["href"] for x in page["links"] if x["rel"] == "next")
    assert "hrefs=s3" in following
    assert public.get(following).json()["features"][0]["assets"]["visual"]["href"].startswith("s3://")
    posted = public.post("/search", json={"limit": 1, "hrefs": "s3"}).json()
    (following,) = (x for x in posted["links"] if x["rel"] == "next")
    assert following["body"]["hrefs"] == "s3"
    document = public.get(f"/collections/{COLLECTION}?hrefs=s3").json()
    (items,) = (x["href"] for x in document["links"] if x["rel"] == "items")
    assert items.endswith("/items?hrefs=s3")
    # as pystac-client asks for an item of it
    assert public.get(f"{items}/{FIRST.name}_2024").json()["assets"]["visual"]["href"].startswith("s3://")
    both = public.get(f"{ITEM}?view=bands&bands=5&hrefs=s3").json()
    assert list(both["assets"]) == ["b005"]


@pytest.mark.parametrize("value", ["http", "", "S3", "presigned,s3"])
def test_other_kinds_are_refused(public: httpx.Client, value: str) -> None:
    for answer in (
        public.get("/search", params={"hrefs": value}),
        public.get(ITEM, params={"hrefs": value}),
        public.post("/search", json={"hrefs": value}),
    ):
        assert answer.status_code == 400
        assert "hrefs: expected one of https, s3, presigned, found" in answer.json()["description"]


def test_a_signed_answer_is_not_kept_beyond_its_addresses(home: tuple[Store, str]) -> None:
    settings = _settings(cache_seconds=86_400, presign_seconds=600, hrefs="presigned")
    with serve(create_app(home[1], settings)) as server, httpx.Client(base_url=server.url) as http:
        signed = http.get(ITEM)
        plain = http.get(f"{ITEM}?hrefs=https")
        assert plain.headers["cache-control"] == "public, max-age=86400"
        who, _, seconds = signed.headers["cache-control"].partition(", max-age=")
        assert who == "private"
        assert 0 <= int(seconds or 0) <= 300
        again = http.get(ITEM, headers={"if-none-match": signed.headers["etag"]})
        assert again.status_code == 304 or again.headers["etag"] != signed.headers["etag"]
        # of another time, another answer: a copy whose addresses ended is not confirmed
        with pytest.MonkeyPatch.context() as patch:
            later = time.time() + 700
            patch.setattr("time.time", lambda: later)
            renewed = http.get(ITEM, headers={"if-none-match": signed.headers["etag"]})
        assert renewed.status_code == 200
        assert renewed.json()["assets"]["visual"]["href"] != signed.json()["assets"]["visual"]["href"]


def test_presigning_needs_credentials(home: tuple[Store, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(create_app(home[1], _settings())) as server:
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        _signer.cache_clear()
        answer = httpx.get(f"{server.url}{ITEM}?hrefs=presigned")
    assert answer.status_code == 400
    assert "this server cannot presign" in answer.json()["description"]


def test_nothing_is_signed_unless_a_setting_says_so(home: tuple[Store, str]) -> None:
    """Whoever may search could read the private objects of the bucket."""
    with (
        serve(create_app(home[1], _settings(presign=False, s3_access="proxy"))) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        for answer in (
            http.get(f"{ITEM}?hrefs=presigned"),
            http.get("/search?hrefs=presigned"),
            http.post("/search", json={"hrefs": "presigned"}),
            http.post("/search?hrefs=presigned", json={}),
            http.get(f"/collections/{COLLECTION}?hrefs=presigned"),
            http.get(f"/collections/{COLLECTION}/items?hrefs=presigned/{FIRST.name}_2024"),
            http.get("/?hrefs=presigned"),
        ):
            assert answer.status_code == 400, answer.url
            assert "does not presign" in answer.json()["description"]
            assert "X-Amz-" not in answer.text
        assert "X-Amz-" not in http.get("/search").text
    with pytest.raises(ValueError, match="presigned needs presign=true"):
        _settings(presign=False, hrefs="presigned")


@pytest.mark.parametrize("access", ["https", "presigned", "proxy"])
def test_data_of_a_catalogue_in_s3(home: tuple[Store, str], access: Any) -> None:
    store, address = home
    path = f"/data/cogs/{_local('visual.tif').relative_to(converted().catalog / 'cogs').as_posix()}"
    body = _local("visual.tif").read_bytes()
    with (
        serve(create_app(address, _settings(s3_access=access))) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        first = http.get(path)
        if access == "https":
            assert first.status_code == 301
            assert first.headers["location"] == f"{store.url}/{store.bucket}/cat{path.removeprefix('/data')}"
        elif access == "presigned":
            assert first.status_code == 302
            assert first.headers["cache-control"].startswith("private, max-age=")
            assert "X-Amz-Signature" in first.headers["location"]
        else:
            assert first.status_code == 200
        assert first.headers["access-control-allow-origin"] == "*"
        head = http.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(body)))
        assert "immutable" in head.headers["cache-control"]
        whole = http.get(path, follow_redirects=True)
        assert whole.content == body
        part = http.get(path, headers={"range": "bytes=100-299"}, follow_redirects=True)
        assert (part.status_code, part.content) == (206, body[100:300])
        for wrong in ("/data/cogs/none.tif", "/data/.current.json", "/data/../x", "/data/cogs/"):
            answer = http.get(wrong, follow_redirects=True)
            assert answer.status_code in (403, 404), wrong
        assert http.get("/data/.current.json").status_code == 404
        if access != "https":  # which a build does not make public
            document = http.get("/data/tessera-synthetic/collection.json", follow_redirects=True)
            assert document.json()["id"] == COLLECTION


def test_a_long_proxied_answer_is_fetched_in_long_pieces(home: tuple[Store, str]) -> None:
    store, address = home
    file = max((converted().catalog / "cogs").rglob("*_embeddings.tif"), key=lambda p: p.stat().st_size)
    path = f"/data/cogs/{file.relative_to(converted().catalog / 'cogs').as_posix()}"
    with serve(create_app(address, _settings(s3_access="proxy"))) as server:
        store.log.clear()
        body = file.read_bytes()
        assert httpx.get(f"{server.url}{path}", timeout=60).content == body
        assert store.count("GET") <= 3 + len(body) // (4 << 20)
        store.fault = lambda a: "503" if a.method in ("GET", "HEAD") else None
        away = httpx.head(f"{server.url}/data/catalog.json", timeout=60)
        assert (away.status_code, away.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    "how", ["vsis3", "presigned", "data redirected", "data proxied", "view", "window", "bands"]
)
def test_gdal_reads_the_pixels(
    home: tuple[Store, str], private: httpx.Client, gdal_python: Path, how: str, tmp_path: Path
) -> None:
    store, address = home
    views = {"view": "embeddings_f32", "window": "embeddings_f32_window"}
    expected = _pixels(str(_local("f32.vrt" if how in (*views, "bands") else "embeddings.tif")))
    item = private.get(f"{ITEM}?hrefs={'presigned' if how in ('presigned', *views) else 's3'}").json()
    href = item["assets"][views.get(how, "embeddings")]["href"]
    below = (
        urlsplit(href).path.removeprefix(f"/{store.bucket}")
        if how == "presigned"
        else href.removeprefix(store.root)
    )
    with serve(create_app(address, _settings(s3_access="proxy"))) as proxy:
        path = {
            "vsis3": f"/vsis3/{href.removeprefix('s3://')}",
            "presigned": f"/vsicurl/{href}",
            "data redirected": f"/vsicurl/{private.base_url}/data{below.removeprefix('/cat')}",
            "data proxied": f"/vsicurl/{proxy.url}/data{below.removeprefix('/cat')}",
            **dict.fromkeys(views, f"/vsicurl/{href}"),
            "bands": f"/vsicurl/{private.base_url}/source/synthetic/2024/{FIRST.name}/{FIRST.name}_b005.vrt",
        }[how]
        extra = {**environment(store), "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
        if how == "presigned":
            extra["CPL_VSIL_CURL_USE_HEAD"] = "NO"
        window = (10, 20, 30, 40)
        out = tmp_path / "out.npz"
        reads = json.dumps([{"window": window}])
        command = [gdal_python, READER, path, out, reads]
        done = subprocess.run(command, env=plain_environment(**extra), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        array = np.load(out)["0"]
    col, row, width, height = 10, 20, 30, 40
    part = expected[:, row : row + height, col : col + width]
    np.testing.assert_array_equal(array, part[5:6] if how == "bands" else part)


def test_another_build_is_served_without_a_restart(
    home: tuple[Store, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = home
    out = f"{store.root}/changing"
    build([str(write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))], out, BuildOptions(dataset("v1")))
    app = create_app(out, _settings())
    changing: BucketStore = app.state.store
    with serve(app) as server, httpx.Client(base_url=server.url) as http:
        before = http.get("/search?limit=4")
        assert before.json()["numberMatched"] == 9
        build(
            [str(write_manifest(tmp_path / "b", 2024, patch(0, 52, 4, 3)))], out, BuildOptions(dataset("v1"))
        )
        store.log.clear()
        changing.look()
        after = http.get("/search?limit=4", headers={"if-none-match": before.headers["etag"]})
        assert (after.status_code, after.json()["numberMatched"]) == (200, 12)
        changing.look()
        assert store.count("GET", "index.sqlite") == 1
        assert store.log[-1].status == 304

        # S3 goes away: what is open stays good, and it says so
        store.fault = lambda _: "503"
        store.log.clear()
        with caplog.at_level("WARNING", "tessera_stac"):
            changing.look()
            changing.look()
        assert http.get("/search?limit=4").json()["numberMatched"] == 12
        assert http.get("/_mgmt/ready").status_code == 200
        said = http.get("/_mgmt/health").json()["catalogue"]
        assert (said["address"], said["failures"]) == (out, 2)
        assert "503 SlowDown" in said["problem"]
        text = http.get("/_mgmt/metrics").text
        assert "tessera_catalogue_refresh_failures_total 2.0" in text
        assert text.count("# TYPE tessera_catalogue_refresh_failures_total") == 1, "said once"
        assert sum("stays in service" in r.message for r in caplog.records) == 1, "once, not each time"
        store.fault = lambda _: None
        changing.look()
        assert "problem" not in http.get("/_mgmt/health").json()["catalogue"]

        # no request asks S3
        store.log.clear()
        http.get("/search?limit=4")
        assert not store.log


def test_the_background_looks_by_itself(home: tuple[Store, str], tmp_path: Path) -> None:
    store, _ = home
    out = f"{store.root}/watched"
    build([str(write_manifest(tmp_path / "a", 2024, patch(0, 52, 1, 1)))], out, BuildOptions(dataset("v1")))
    watching = BucketStore(out, 0.05)
    build([str(write_manifest(tmp_path / "b", 2024, patch(0, 52, 2, 1)))], out, BuildOptions(dataset("v1")))
    until(lambda: sum(r.n_items for r in watching.current().collections.values()) == 2)
    watching.close()


def test_another_build_ends_what_was_said_of_a_damaged_one(home: tuple[Store, str], tmp_path: Path) -> None:
    store, _ = home
    out = f"{store.root}/damaged"
    build([str(write_manifest(tmp_path / "a", 2024, patch(0, 52, 1, 1)))], out, BuildOptions(dataset("v1")))
    opened = BucketStore(out, 0, tmp_path / "cache")
    path = opened.current().index.path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "damaged" in str(opened.check())
    assert opened.damage == opened.check()
    build([str(write_manifest(tmp_path / "b", 2024, patch(0, 52, 2, 1)))], out, BuildOptions(dataset("v1")))
    opened.look()
    assert opened.damage is None
    assert opened.check() is None


def test_serving_what_is_not_there(home: tuple[Store, str]) -> None:
    store, _ = home
    with pytest.raises(CatalogError, match=f"{store.root}/none: no catalogue"):
        create_app(f"{store.root}/none")
    store.fault = lambda _: "503"
    with pytest.raises(StorageError, match="HTTP 503 SlowDown"):
        create_app(f"{store.root}/none")


def test_pictures_are_drawn_from_the_bucket(home: tuple[Store, str], private: httpx.Client) -> None:
    store, _ = home
    store.log.clear()
    seen = private.get(f"{ITEM}/preview.png")
    assert (seen.status_code, seen.headers["content-type"]) == (200, "image/png")
    assert any("visual.tif" in a.path and "range" in a.headers for a in store.log)
    chosen = private.get(f"{ITEM}/preview.png?bands=0,1,2")
    assert chosen.status_code == 200
    assert chosen.content != seen.content


def test_workers_share_one_download(home: tuple[Store, str], tmp_path: Path) -> None:
    store, address = home
    store.log.clear()
    code = (
        "from pathlib import Path; from api.catalogue.bucket_store import BucketStore;"
        f" BucketStore({address!r}, 0, Path({str(tmp_path)!r}))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert store.count("GET", "index.sqlite") == 1


def test_computed_rasters_give_no_more_than_the_bucket(home: tuple[Store, str], public: httpx.Client) -> None:
    """A private bucket's pixels are relayed where its files are, and not where its URLs are redirected to."""
    store, address = home
    view = public.get(ITEM).json()["assets"]["embeddings_f32_computed"]["href"]
    raster = urlsplit(view).path.removesuffix(".vrt") + ".tif"
    part = {"range": "bytes=400000-900000"}
    found = public.get(raster, headers=part)
    assert found.status_code == 206
    asked = [a for a in store.log if "_embeddings.tif" in a.path and "range" in a.headers]
    assert asked
    assert all("authorization" not in a.headers for a in asked)
    # GDAL keeps what it read: other bytes
    part = {"range": "bytes=9000000-9500000"}
    store.fault = lambda a: None if "authorization" in a.headers else "403"
    refused = public.get(raster, headers=part)
    assert refused.status_code == 503
    with (
        serve(create_app(address, _settings(s3_access="proxy"))) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        relayed = http.get(raster, headers=part)
        assert relayed.status_code == 206
        local = http.get(raster).content
        assert local[9000000:9500001] == relayed.content
        assert local[400000:900001] == found.content
