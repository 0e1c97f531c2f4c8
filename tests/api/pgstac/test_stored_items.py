"""Items of a store, v1.1-dclimate's, in a database: what they say, and pixels computed by direct access."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import icechunk
import numpy as np
import pytest
import zarr
from PIL import Image

from api.app import create_app
from api.settings import Settings
from tests.conftest import plain_environment
from tests.support.backends import (
    EXPORTED_AT,
    PGSTAC_GROUP,
    Serve,
    dsn_of,
    new_database,
    pgstac_client,
)
from tests.support.catalogs import build_from
from tests.support.http_server import serve
from tests.support.paging import ids_of, link_of, ok, walk
from tests.support.sample_stores import SampleStore

COLLECTION = "tessera-v1.1-dclimate"
SHARE = "tessera:refused_fraction"


@pytest.fixture(scope="module")
def catalog(irregular_repository: SampleStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a registry in which a zone-year is not complete and some blocks were refused in part."""
    folder, sample = tmp_path_factory.mktemp("stored"), irregular_repository
    store = shutil.copytree(sample.store, folder / "v1.1.icechunk")
    session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(store))).writable_session("main")
    root = zarr.open_group(session.store, mode="r+")
    root.attrs["geoemb:model"] = str(root.attrs["geoemb:model"]).replace("0.0", "1.1")
    session.commit("as of version 1.1, whose items these are to be")
    build_from(folder / "catalog", store, sample.registry / "parts", sample.land, dataset="v1.1-dclimate")
    return folder / "catalog"


@pytest.fixture(scope="module")
def api(catalog: Path, serve_on: Serve) -> Iterator[httpx.Client]:
    # A tile drawn beside other tests takes seconds.
    with (
        serve_on(catalog, drawing_seconds=120) as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
    ):
        yield http


@pytest.fixture(scope="module")
def shares(api: httpx.Client) -> dict[str, float]:
    """Return what each item says of itself."""
    found = ok(api.get("/search?limit=100"))["features"]
    assert len(found) >= 2
    return {item["id"]: item["properties"][SHARE] for item in found}


def stored_pixels(item: Mapping[str, Any]) -> tuple[Any, Any]:
    """Read an item's window with icechunk and zarr-python."""
    asset = item["assets"]["source_zarr"]
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(asset["href"]))
    group = zarr.open_group(repository.readonly_session("main").store, mode="r")[asset["tessera:group"]]
    row, col, height, width = asset["tessera:window"]
    at = (asset["tessera:time_index"], slice(row, row + height), slice(col, col + width))
    assert isinstance(group, zarr.Group)
    return group["embeddings"][at], group["scales"][at]  # type: ignore[index]


def test_shares_are_filtered_by(api: httpx.Client, shares: dict[str, float]) -> None:
    assert {0 < share < 1 for share in shares.values()} >= {True}
    largest = sorted(set(shares.values()))[-1]
    for path in ("/queryables", f"/collections/{COLLECTION}/queryables"):
        assert ok(api.get(path))["properties"][SHARE]["type"] == "number"
    for condition, expected in (
        (f"{SHARE} >= {largest!r}", {i for i, s in shares.items() if s >= largest}),
        (f"{SHARE} < {largest!r}", {i for i, s in shares.items() if s < largest}),
        # as text, 1e-05 would be more than 0.5
        (f"{SHARE} > 0.00001", {i for i, s in shares.items() if s > 0.00001}),
        (f"{SHARE} * 2 <= {largest!r}", {i for i, s in shares.items() if s * 2 <= largest}),
        (f"{SHARE} BETWEEN 0 AND 1", set(shares)),
        (f"{SHARE} IS NULL", set()),
    ):
        page = ok(api.get("/search", params={"filter": condition}))
        assert set(ids_of(page)) == expected, condition
        assert page["numberMatched"] == len(expected)
    body = {"query": {SHARE: {"lt": largest}}, "collections": [COLLECTION]}
    assert set(ids_of(ok(api.post("/search", json=body)))) == {i for i, s in shares.items() if s < largest}
    refused = api.get("/search", params={"filter": f"{SHARE} > 'much'"})
    assert refused.status_code == 400


@pytest.mark.parametrize("descending", [False, True])
def test_shares_are_sorted_by(api: httpx.Client, shares: dict[str, float], descending: bool) -> None:
    assert SHARE in ok(api.get("/sortables"))["properties"]
    first = ok(api.get("/search", params={"sortby": f"{'-' * descending}{SHARE}", "limit": 1}))
    found = [i for page in walk(api, first) for i in page]
    assert sorted(found) == sorted(shares)
    assert [shares[i] for i in found] == sorted(shares.values(), reverse=descending)


def test_items_without_a_share(serve_on: Serve, tmp_path: Path, irregular_repository: SampleStore) -> None:
    """A store that says nothing of refused pixels: its items are not those with none."""
    sample = irregular_repository
    build_from(tmp_path / "catalog", sample.store, sample.land, dataset="synthetic")
    with serve_on(tmp_path / "catalog") as server, httpx.Client(base_url=server.url, timeout=60) as http:
        n = ok(http.get("/search?limit=100"))["numberMatched"]
        assert n >= 2
        for condition, expected in ((f"{SHARE} IS NULL", n), (f"{SHARE} = 0", 0), (f"{SHARE} >= 0", 0)):
            assert ok(http.get("/search", params={"filter": condition}))["numberMatched"] == expected
        found = ok(http.get("/search", params={"sortby": f"-{SHARE}"}))
        assert len(found["features"]) == n


def test_pixels_by_direct_access(api: httpx.Client, shares: dict[str, float]) -> None:
    for item_id in shares:
        item = ok(api.get(f"/collections/{COLLECTION}/items/{item_id}"))
        codes, scales = stored_pixels(item)
        stem = item["assets"]["embeddings_f32"]["href"].removesuffix("_f32.vrt")
        served = [np.load(io.BytesIO(api.get(f"{stem}{end}.npy").content)) for end in ("", "_scales")]
        assert np.array_equal(served[0], codes)
        assert np.array_equal(served[1], scales, equal_nan=True)
        drawn = api.get(f"/collections/{COLLECTION}/items/{item_id}/preview.png")
        assert drawn.status_code == 200, drawn.text
        pixels = np.asarray(Image.open(io.BytesIO(drawn.content)).convert("RGBA"))
        shown = np.isfinite(scales).mean()
        assert (pixels[..., 3] > 0).mean() == pytest.approx(shown, abs=0.03)


@pytest.mark.parametrize("with_folder", [True, False])
@PGSTAC_GROUP
def test_the_database_says_what_the_index_says(
    catalog: Path, postgres: Mapping[str, str], tmp_path: Path, with_folder: bool
) -> None:
    """Loaded by the command; the server may have the folder too, or the database alone."""
    dsn = dsn_of(postgres, new_database(postgres))
    command = [sys.executable, "-m", "catalog_builder.cli", "export", catalog, "--pgstac"]
    done = subprocess.run(
        [*command, "--dsn", dsn, "--url", EXPORTED_AT],
        env=plain_environment(), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def answers(http: httpx.Client) -> list[Any]:
        root = str(http.base_url).rstrip("/")
        found = []
        for path in (
            f"/collections/{COLLECTION}",
            f"/collections/{COLLECTION}/items?limit=100",
            "/search?limit=100&view=bands&bands=0,127",
            f"/search?limit=100&sortby={SHARE}&fields=id,assets.source_zarr,properties.{SHARE}",
            f"/search?filter={SHARE} > 0",
        ):
            text = http.get(path).raise_for_status().text
            found.append(json.loads(text.replace(root, "http://here")))
        for page in found[1:]:
            for link in page["links"]:
                link["href"] = link["href"].partition("token=")[0]  # sealed by each server
        return found

    app = create_app(catalog, Settings(drawing_seconds=120))
    with serve(app) as server, httpx.Client(base_url=server.url, timeout=120) as http:
        over_index = answers(http)
        (item, *_rest) = over_index[1]["features"]
        drawn = http.get(f"/collections/{COLLECTION}/items/{item['id']}/preview.png").content
    with pgstac_client(dsn, catalog if with_folder else None, drawing_seconds=120) as http:
        over_database = answers(http)
        for ours, theirs in zip(over_index, over_database, strict=True):
            assert theirs == ours
        assert link_of(item, "preview") is not None
        again = http.get(f"/collections/{COLLECTION}/items/{item['id']}/preview.png")
        assert again.content == drawn, again.text[:200]
