"""STAC Browser as it is built and served, in a real Chromium."""

from __future__ import annotations

import fcntl
import io
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from api.app import create_app
from api.pages.browser import DIST
from api.settings import Settings
from tests.support.chromium import Tab, open_tab
from tests.support.converted import COLLECTION, FIRST, RAW_YEAR, Converted, converted
from tests.support.http_server import Server, serve
from tests.support.needs import lacks
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
TITLE = "Synthetic tiles in TESSERA's formats (not real data)"
pytestmark = [pytest.mark.xdist_group("pictures"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dist() -> Path:
    """Return the built files; built now if they are not there, which takes a minute or two."""
    script = ROOT / "deploy" / "browser" / "build.py"
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache" / "stac-browser.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (DIST / "index.html").exists():
            if (reason := runpy.run_path(str(script))["missing_tool"]()) is not None:
                lacks(reason)
            subprocess.run([sys.executable, script], check=True)
    return DIST


@pytest.fixture(scope="module")
def data() -> Converted:
    return converted()


@pytest.fixture(scope="module")
def server(dist: Path, data: Converted) -> Iterator[Server]:
    with serve(create_app(data.catalog, Settings(root_path="/deep/path"))) as running:
        yield running


@pytest.fixture
def tab() -> Iterator[Tab]:
    with open_tab(1280, 1300) as opened:
        yield opened
        # The base map, and the schema of geometries that queryables refer to, as OGC has it, are beyond
        # the loopback; nothing else may be, and nothing may go wrong.
        assert opened.elsewhere <= {"tile.openstreetmap.org", "geojson.org"}
        assert opened.problems == []


def at(server: Server, path: str = "") -> str:
    return f"{server.url}/deep/path/browser/#/{path}"


def colourful(png: bytes) -> float:
    """Return the share of pixels with a strong colour: false colours, not the page's greys."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("HSV"))
    return float(((pixels[..., 1] > 100) & (pixels[..., 2] > 60)).mean())


def test_landing_page_lists_the_collection(server: Server, tab: Tab) -> None:
    tab.page.goto(at(server))
    tab.page.get_by_text(TITLE).first.wait_for()
    assert tab.page.title() == "TESSERA embeddings"


def test_the_tree_is_browsed_down_to_an_item(server: Server, tab: Tab) -> None:
    """Landing page and collections have no child links; the tree is there to browse by place."""
    page = tab.page
    page.goto(at(server, "browse"))
    for name in (TITLE, f"{TITLE}, 2022", "10 to 20 E, 70 to 80 N", "15 to 16 E, 78 to 79 N"):
        page.get_by_role("link", name=name, exact=False).first.click()
    # the item's title: until the item is there, the card has that of the link, its id
    page.get_by_text(f"{TITLE}, {FIRST.name.removeprefix('grid_').replace('_', ' ')}, {RAW_YEAR}").wait_for()


def test_collection_shows_items_with_thumbnails(server: Server, tab: Tab) -> None:
    server.clear()
    tab.page.goto(at(server, f"collections/{COLLECTION}"))
    pictures = tab.page.locator(".items .item-card img")
    pictures.nth(3).wait_for(state="attached")
    for n in range(4):
        # The browser draws a grey picture of its own until a card comes near the window.
        picture = pictures.nth(n)
        picture.scroll_into_view_if_needed()
        expect(picture).not_to_have_attribute("src", re.compile("^data:"))
        expect(picture).to_have_js_property("complete", value=True)
        assert picture.evaluate("i => i.naturalWidth") > 50
    assert tab.page.locator(".items .item-card").count() == 4
    asked = {r.path for r in server.log}
    assert sum(p.endswith("_thumbnail.png") for p in asked) == 3
    assert sum(p.endswith("/preview.png") for p in asked) == 1


def draws_on_the_map(tab: Tab) -> bool:
    """Wait until the map shows false colours."""
    map_ = tab.page.locator(".map").first
    map_.wait_for()
    for _ in range(40):
        tab.page.wait_for_timeout(500)
        if colourful(map_.screenshot()) > 0.02:
            return True
    return False


def test_unconverted_item_is_drawn_from_map_tiles(server: Server, tab: Tab) -> None:
    server.clear()
    tab.page.goto(at(server, f"collections/{COLLECTION}/items/{FIRST.name}_{RAW_YEAR}"))
    assert draws_on_the_map(tab)
    assert [r for r in server.log if "/tiles/WebMercatorQuad/" in r.path]
    assert not [r for r in server.log if r.path.endswith(".npy")]


def test_it_runs_its_own_scripts_only(server: Server) -> None:
    """What its pages need is not blocked: every test here looks at the console."""
    policy = httpx.get(at(server, "").partition("#")[0]).headers["content-security-policy"]
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "frame-ancestors 'none'" in policy


def test_item_is_drawn_on_the_map_by_ranges(server: Server, tab: Tab) -> None:
    server.clear()
    tab.page.goto(at(server, f"collections/{COLLECTION}/items/{FIRST.name}_2024"))
    assert draws_on_the_map(tab)
    asked = [r for r in server.log if r.path.endswith("_visual.tif") and r.method == "GET"]
    assert asked
    assert all(r.status == 206 for r in asked)
    assert not [r for r in server.log if r.path.endswith("_embeddings.tif")], "128 bands must not be drawn"
    tab.page.get_by_text("Thumbnails").first.click()
    until(lambda: tab.page.evaluate("[...document.images].some(i => i.naturalWidth > 100)"))


def test_search_by_map_and_date(server: Server, tab: Tab) -> None:
    page = tab.page
    page.goto(at(server, "search"))
    page.get_by_role("tab", name="Search for Items").click()
    form = page.get_by_role("tabpanel", name="Search for Items")
    date = form.locator(".filter-datetime input")
    date.fill("2024-01-01 00:00:00 ~ 2024-12-31 23:59:59")
    date.press("Enter")
    # As a user does, by its words: Playwright waits until the calendar no longer covers them.
    form.get_by_text("Filter by spatial extent").click()
    expect(form.get_by_label("Filter by spatial extent")).to_be_checked()
    map_ = form.locator(".filter-bbox .map")
    map_.locator("canvas").first.wait_for()
    page.wait_for_timeout(1500)
    box = map_.bounding_box()
    assert box is not None
    # The world: a click in its north selects a box around it.
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.25)
    page.wait_for_timeout(1000)
    with page.expect_request(lambda r: r.url.endswith("/search") and r.method == "POST") as sent:
        form.get_by_role("button", name="Submit").click()
    body = sent.value.post_data_json
    assert set(body) >= {"bbox", "datetime"}
    found = httpx.post(f"{server.url}/deep/path/search", json=body).json()
    assert found["numberMatched"] == 2, body
    page.locator(".items .item-card").nth(1).wait_for()
    assert page.locator(".items .item-card").count() == 2


def test_caching_and_compression(server: Server) -> None:
    base = f"{server.url}/deep/path/browser/"
    with httpx.Client(base_url=base, headers={"accept-encoding": "br"}) as http:
        index = http.get("")
        script = next(p for p in index.text.split('"') if p.startswith("js/"))
        answer = http.get(script)
        assert answer.headers["content-encoding"] == "br"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.content == (DIST / script).read_bytes()
        tag = {"if-none-match": answer.headers["etag"]}
        assert http.get(script, headers=tag).status_code == 304
        assert http.get("js/none.js").status_code == 404
        assert http.get("THIRD_PARTY_NOTICES.txt").text.count("=" * 100) > 100


def test_redirect_and_configuration_follow_the_proxy(server: Server) -> None:
    answer = httpx.get(f"{server.url}/deep/path/browser", follow_redirects=False)
    assert answer.status_code == 307
    assert str(answer.next_request.url if answer.next_request else "") == f"{server.url}/deep/path/browser/"
    told = {"x-forwarded-host": "tiles.example", "x-forwarded-proto": "https", "x-forwarded-prefix": "/stac"}
    config = httpx.get(f"{server.url}/browser/config.js", headers=told)
    assert '"catalogUrl": "https://tiles.example/stac/"' in config.text
    assert config.headers["cache-control"] == "no-store"
