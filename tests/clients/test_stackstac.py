"""stackstac as it is on PyPI: items in, exact pixels out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pystac
import pytest
import stackstac
from pystac_client import Client
from pystac_client.warnings import strict

from tests.support.containers import YEAR, Contained
from tests.support.converted import COLLECTION, FIRST
from tests.support.http_server import Server
from tests.support.pixels import BBOX, same
from tests.support.snippets import localised, run_python, snippets

BANDS = (0, 1, 5, 6, 7)


def client(server: Server, **more: str) -> Client:
    return Client.open(f"{server.url}/", parameters={"view": "bands", **more})


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with strict():
        yield


def expected(tiles: Contained, stack: Any, band: int, tile: Any, year: int) -> np.ndarray[Any, Any]:
    """Return a tile's band where stackstac must put it: nothing may move."""
    raster = tile.raster()
    out = np.full(stack.shape[2:], np.nan, np.float32)
    row = round((float(stack.y.max()) - raster.transform.f) / 10)
    col = round((raster.transform.c - float(stack.x.min())) / 10)
    height, width = raster.shape
    out[row : row + height, col : col + width] = tiles.values(tile, year)[band]
    return out


def test_one_year_equals_rasterio(contained: Contained) -> None:
    for year, tiles in contained.years.items():
        of_client = client(contained.server, bands="0,1,5-7")
        search = of_client.search(collections=[COLLECTION], bbox=BBOX, datetime=str(year))
        stack = stackstac.stack(list(search.items_as_dicts()))
        assert stack.band.values.tolist() == [f"b{b:03d}" for b in BANDS]
        assert (stack.rio.crs.to_epsg() if hasattr(stack, "rio") else int(stack.epsg)) == 32633
        assert stack.attrs["resolution"] == 10
        found = stack.compute().values.astype(np.float32)
        for i, tile in enumerate(tiles):
            for j, band in enumerate(BANDS):
                assert same(found[i, j], expected(contained, stack, band, tile, year)), (tile, band)


def test_several_years_and_all_kinds(contained: Contained) -> None:
    search = client(contained.server).search(collections=[COLLECTION], bbox=BBOX)
    items = list(search.items_as_dicts())
    stack = stackstac.stack(
        items, assets=["b127"], dtype="float32", fill_value=np.float32("nan"), rescale=False
    )
    order = [(tile, year) for year, tiles in contained.years.items() for tile in tiles]
    assert stack.time.dt.year.values.tolist() == [year for _, year in order]
    found = stack.compute().values
    assert [i["id"] for i in items] == [f"{t.name}_{y}" for t, y in order]
    for i, (tile, year) in enumerate(order):
        assert same(found[i, 0], expected(contained, stack, 127, tile, year)), (tile, year)


def test_all_128_assets_are_stacked_by_default(server: Server) -> None:
    search = client(server).search(collections=[COLLECTION], bbox=BBOX, datetime="2024")
    stack = stackstac.stack(list(search.items_as_dicts()))
    assert stack.shape == (2, 128, 1121, 468)


def test_pystac_items_keep_what_stackstac_reads(contained: Contained) -> None:
    search = client(contained.server, bands="3").search(collections=[COLLECTION], bbox=BBOX, datetime="2024")
    dicts = list(search.items_as_dicts())
    collection = search.item_collection()
    wanted = stackstac.stack(dicts)
    for items in (
        collection,
        list(collection),
        pystac.ItemCollection.from_dict(collection.to_dict()),
        [pystac.Item.from_dict(d) for d in dicts],
    ):
        stack = stackstac.stack(items)
        assert stack.shape == wanted.shape
        assert (stack.x.values == wanted.x.values).all()
        assert (stack.y.values == wanted.y.values).all()
    found = stackstac.stack(collection).compute().values.astype(np.float32)
    assert same(found[0, 0], expected(contained, wanted, 3, FIRST, YEAR))


def test_following_links_stays_in_the_view(server: Server) -> None:
    """From the address of a collection, by links alone."""
    url = f"{server.url}/collections/{COLLECTION}?view=bands&bands=9"
    collection = pystac.Collection.from_file(url)
    assert list(collection.to_dict()["item_assets"]) == ["b009"]
    items = pystac.ItemCollection.from_file(collection.get_single_link("items").href)  # type: ignore[union-attr]
    assert len(items) == 4
    assert all(list(i.assets) == ["b009"] for i in items)
    assert stackstac.stack(items).shape[:2] == (4, 1)
    page = httpx.get(f"{server.url}/collections/{COLLECTION}/items?view=bands&bands=2-3&limit=1").json()
    seen = []
    while True:
        seen += [f for f in page["features"] if list(f["assets"]) == ["b002", "b003"]]
        following = [x["href"] for x in page["links"] if x["rel"] == "next"]
        if not following:
            break
        page = httpx.get(following[0]).json()
    assert len(seen) == 4
    again = httpx.get(next(x["href"] for x in seen[0]["links"] if x["rel"] == "self")).json()
    assert again == seen[0]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_a_search_stay_in_the_view(server: Server, method: str) -> None:
    search = client(server, bands="4").search(collections=[COLLECTION], method=method, limit=1)
    assert [list(i.assets) for i in search.items()] == [["b004"]] * 4
    assert search.matched() == 4


def test_post_body(server: Server) -> None:
    for body in ({"view": "bands", "bands": "0,5-6"}, {"view": "bands", "bands": [6, 0, 5, 5]}):
        answer = httpx.post(f"{server.url}/search", json={**body, "limit": 1}).json()
        assert list(answer["features"][0]["assets"]) == ["b000", "b005", "b006"]
        (following,) = [x for x in answer["links"] if x["rel"] == "next"]
        assert following["body"]["bands"] == body["bands"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("view=band", "expected 'bands'"),
        ("bands=1", "only together with view=bands"),
        ("view=bands&bands=128", "0..127"),
        ("view=bands&bands=5-3", "0..127"),
        ("view=bands&bands=", "0..127"),
        ("view=bands&bands=1&bands=2", "more than once"),
        ("view=bands&bands=%D9%A1", "0..127"),
    ],
)
def test_malformed_views_are_refused(server: Server, query: str, reason: str) -> None:
    item = f"/collections/{COLLECTION}/items/{FIRST.name}_2024"
    for path in ("/search", item, f"/collections/{COLLECTION}"):
        answer = httpx.get(f"{server.url}{path}?{query}")
        assert answer.status_code == 400, path
        assert reason in answer.json()["description"], path


def test_items_are_valid_and_complete(server: Server) -> None:
    item = next(client(server).search(collections=[COLLECTION], datetime="2024").items())
    core = item.clone()
    core.stac_extensions = []
    core.validate()
    assert item.stac_extensions == ["https://stac-extensions.github.io/raster/v1.1.0/schema.json"]
    assert item.properties["proj:epsg"] == 32633
    assert item.properties["proj:code"] == "EPSG:32633"
    assert len(item.assets) == 128
    assert {len(a.extra_fields["raster:bands"]) for a in item.assets.values()} == {1}


def test_readme_snippet(server: Server, tmp_path: Path) -> None:
    for name in ("pystac-client", "stackstac"):
        out = run_python(localised(snippets()[name][1], server.url, BBOX), tmp_path)
    assert "'b000' 'b001' 'b005' 'b006' 'b007'" in out


def test_bands_of_an_unconverted_tile_cost_their_own_bytes(server: Server, tmp_path: Path) -> None:
    """Two of 128 bands of a whole tile, read by a fresh process: two bands of codes, and the scales."""
    code = (
        "import sys, stackstac\n"
        "from pystac_client import Client\n"
        "client = Client.open(sys.argv[1], parameters={'view': 'bands', 'bands': '3,100'})\n"
        f"search = client.search(ids=['{FIRST.name}_2022'])\n"
        "stackstac.stack(list(search.items_as_dicts())).compute()\n"
    )
    server.clear()
    run_python(code, tmp_path, f"{server.url}/")
    pixels = FIRST.raster().height * FIRST.raster().width
    planes = sum(r.sent for r in server.log if r.path.endswith("_planes.bin"))
    scales = sum(r.sent for r in server.log if r.path.endswith("_scales.npy"))
    assert 2 * pixels <= planes <= 2 * pixels + 200_000
    assert scales <= 2 * (4 * pixels + 200_000)
    assert not [r for r in server.log if r.path.endswith(f"{FIRST.name}.npy")]


def test_every_call_of_a_client_in_the_view_is_understood(server: Server) -> None:
    """pystac-client adds the parameters to whatever it asks for."""
    catalog = client(server, bands="0-2")
    assert [c.id for c in catalog.get_collections()] == [COLLECTION]
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert list(collection.to_dict()["item_assets"]) == ["b000", "b001", "b002"]
    assert catalog.get_queryables()
    assert collection.get_queryables()
    assert len(list(collection.get_items())) == 4
    item = collection.get_item(f"{FIRST.name}_2024")
    assert item is not None
    assert list(item.assets) == ["b000", "b001", "b002"]
    assert item.get_collection().id == COLLECTION  # type: ignore[union-attr]
    found = catalog.search(collections=[COLLECTION], sortby="-datetime", filter="tessera:cog = true", limit=2)
    assert [i.properties["tessera:year"] for i in found.items()] == [2024, 2024, 2023]
