"""The coverage page: its map tiles against a plain computation, its script against the server."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from catalog_builder.catalog.coverage.page import coverage_html, embedded, grid_of
from catalog_builder.catalog.coverage.tiles import LEVELS, MAX_ZOOM, NOTHING, CoverageGrid
from catalog_builder.errors import QueryError
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.years import coverage_codes, year_bits
from tests.support.chromium import Tab, open_tab
from tests.support.http_server import Server
from tests.support.oracle import Oracle
from tests.support.waiting import until

YEARS = (2020, 2021, 2024)
ALPHAS = (0.6, 0.6, 0.6, 0.35)


@pytest.fixture(scope="module")
def grid() -> CoverageGrid:
    """Return a planet with patches of every class, sparse in places, and tiles in its corners."""
    rng = np.random.default_rng(5)
    cell = np.flatnonzero(rng.random(1800 * 3600) < np.repeat(np.linspace(0, 0.4, 1800), 3600)).astype(
        np.int32
    )
    corners = [0, 3599, 1799 * 3600, 1800 * 3600 - 1, 1500 * 3600, 1500 * 3600 + 3599]
    cell = np.union1d(cell, np.array(corners)).astype(np.int32)
    kinds = np.array([year_bits(y) for y in (YEARS, YEARS[-1:], YEARS[:1], YEARS[1:])], np.uint32)
    return CoverageGrid(cell, kinds[rng.integers(0, 4, len(cell))], YEARS)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def plain_tile(grid: CoverageGrid, z: int, x: int, y: int, year: int | None) -> np.ndarray:
    """Return class and level of every pixel, -1 where there is nothing, one pixel after the other."""
    size = 256 << z

    def row(p: float) -> int:
        lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * (y * 256 + p) / size))))
        return min(math.floor((lat + 90) * 10), 1799)

    def col(p: float) -> int:
        return math.floor((x * 256 + p) * 3600 / size)

    codes = coverage_codes(grid.masks, grid.years)
    if year is not None:
        codes[grid.masks & np.uint32(year_bits([year])) == 0] = 3
    codes[grid.masks == 0] = NOTHING
    out = np.full((256, 256, 2), -1)
    for py in range(256):
        for px in range(0, 256, 7):
            if size >= 3600:
                code = codes[row(py + 0.5), col(px + 0.5)]
                line = size / 3600 >= 6 and (row(py - 0.5) != row(py + 0.5) or col(px - 0.5) != col(px + 0.5))
                if code != NOTHING:
                    out[py, px] = code, LEVELS // 2 - 1 if line else LEVELS - 1
                continue
            low = row(py + 1)
            part = codes[low : max(row(py), low + 1), col(px) : col(px + 1)]
            counts = np.bincount(part.ravel(), minlength=NOTHING + 1)
            best = int(counts[:3].argmax()) if counts[:3].sum() else 3
            held = counts[:3].sum() or counts[3]
            if held:
                out[py, px] = best, max(math.ceil(math.sqrt(held / part.size) * LEVELS), 1) - 1
    return out


@pytest.mark.parametrize(
    ("z", "x", "y", "year"),
    [
        (0, 0, 0, None), (0, 0, 0, 2021), (1, 1, 0, None), (2, 3, 1, 2020), (3, 0, 1, None), (3, 7, 2, 2024),
        (4, 15, 3, None), (6, 63, 20, 2021), (7, 127, 30, None), (9, 0, 0, None), (9, 300, 170, 2024),
        (12, 2049, 1346, None),
    ],
)  # fmt: skip
def test_tile_equals_a_plain_computation(
    grid: CoverageGrid, z: int, x: int, y: int, year: int | None
) -> None:
    drawn = pixels(grid.tile_png(z, x, y, year))[:, ::7]
    expected = plain_tile(grid, z, x, y, year)[:, ::7]
    opacity = np.where(
        expected[..., 0] < 0, 0, 255 * np.take(ALPHAS, expected[..., 0]) * (expected[..., 1] + 1) / LEVELS
    )
    assert np.abs(drawn[..., 3] - opacity).max() <= 0.5 + 1e-9
    colours = np.array([(0, 100, 0), (0, 0, 139), (255, 140, 0), (140, 149, 159)])
    shown = expected[..., 0] >= 0
    assert (drawn[..., :3][shown] == colours[expected[..., 0][shown]]).all()


def test_counts_and_bounds(grid: CoverageGrid) -> None:
    present = grid.masks[grid.masks != 0]
    codes = coverage_codes(present, YEARS)
    for name, chosen in (("all", present > 0), ("2021", present & np.uint32(year_bits([2021])) != 0)):
        counts = grid.counts[name]
        assert [counts[k] for k in ("full", "latest", "partial")] == [
            int((codes[chosen] == k).sum()) for k in range(3)
        ]
        assert sum(counts.values()) == len(present)
    assert grid.bounds == (-180.0, -90.0, 180.0, 90.0)


@pytest.mark.parametrize("bad", [(-1, 0, 0), (MAX_ZOOM + 1, 0, 0), (3, 8, 0), (3, 0, -1)])
def test_no_such_tile(grid: CoverageGrid, bad: tuple[int, int, int]) -> None:
    with pytest.raises(QueryError):
        grid.tile_png(*bad)
    with pytest.raises(QueryError, match="year must be one of 2020, 2021, 2024"):
        grid.tile_png(0, 0, 0, 2019)


class TestServer:
    def test_look_up(self, http: httpx.Client, oracle: Oracle) -> None:
        lon, lat = 0.13, 52.16
        found = http.get("/coverage/at", params={"collection": "tessera-v1", "lon": lon, "lat": lat}).json()
        tile = TileId.containing(lon, lat)
        expected = sorted(int(i[-4:]) for i in oracle.ids(oracle.all) if i.startswith(f"{tile.name}_"))
        assert found["tile"] == tile.name
        assert [item["year"] for item in found["items"]] == expected
        for item in found["items"]:
            assert http.get(item["href"]).json()["id"] == f"{tile.name}_{item['year']}"
        sea = http.get("/coverage/at", params={"lon": -30, "lat": 45}).json()
        assert sea["items"] == []
        assert sea["coverage"] is None

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/coverage/at?lon=500&lat=0", 400),
            ("/coverage/at?lon=a&lat=0", 400),
            ("/coverage/at?lon=nan&lat=0", 400),
            ("/coverage/at?lat=0", 400),
            ("/coverage/at?lon=0&lat=0&collection=nope", 404),
            ("/coverage/tiles/nope/0/0/0.png", 404),
            ("/coverage/tiles/tessera-v1/13/0/0.png", 400),
            ("/coverage/tiles/tessera-v1/1/2/0.png", 400),
            ("/coverage/tiles/tessera-v1/1/-1/0.png", 400),
            ("/coverage/tiles/tessera-v1/1/a/0.png", 400),
            ("/coverage/tiles/tessera-v1/1/0/0.png?year=1999", 400),
            ("/coverage/tiles/tessera-v1/1/0/0.png?year=x", 400),
        ],
    )
    def test_wrong_parameters(self, http: httpx.Client, path: str, status: int) -> None:
        answer = http.get(path)
        assert answer.status_code == status, answer.text
        assert answer.json()["description"]

    def test_caching(self, http: httpx.Client) -> None:
        path = "/coverage/tiles/tessera-v1/6/31/21.png"
        answer = http.get(path)
        assert answer.headers["content-type"] == "image/png"
        again = http.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        page = http.get("/coverage").text
        version = page.partition("?v=")[2].partition('"')[0]
        assert "immutable" in http.get(f"{path}?v={version}").headers["cache-control"]
        assert "immutable" not in http.get(f"{path}?v=old").headers["cache-control"]

    def test_page_needs_nothing_from_elsewhere(self, http: httpx.Client) -> None:
        text = http.get("/coverage").text
        for mark in ("src=", "@import", "url(", "cdn"):
            assert mark not in text
        assert len(text) < 60_000


@pytest.fixture
def tab() -> Iterator[Tab]:
    with open_tab(1000, 700) as opened:
        yield opened
        assert not opened.elsewhere
        assert opened.problems == []


@pytest.mark.xdist_group("pictures")
class TestChromium:
    def test_click_year_and_keyboard(self, server: Server, tab: Tab) -> None:
        page = tab.page
        page.goto(f"{server.url}/coverage#year=2024&map=9/52.16/0.13")
        page.locator("#legend li").first.wait_for()
        assert page.inner_text("#year-shown") == "2024"
        box = page.locator("#map").bounding_box()
        assert box is not None
        page.mouse.click(box["width"] / 2, box["height"] / 2)
        page.get_by_role("heading", name=TileId.containing(0.13, 52.16).name).wait_for()
        link = page.locator("#details a").last
        assert "/items/grid_0.15_52.15_20" in str(link.get_attribute("href"))
        page.locator("#map").focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        until(
            lambda: page.evaluate("!document.querySelector('#details h2').textContent.includes('grid_0.15_')")
        )
        page.locator("#year").focus()
        page.keyboard.press("Home")
        assert page.inner_text("#year-shown") == "all years"
        until(lambda: page.evaluate("location.hash.includes('year=all')"))
        page.fill("#lon", "-1.45")
        page.fill("#lat", "53.35")
        page.get_by_role("button", name="Go").click()
        page.get_by_role("heading", name="grid_-1.45_53.35").wait_for()

    def test_drag_and_pinch_free_of_clicks(self, server: Server, tab: Tab) -> None:
        page = tab.page
        page.goto(f"{server.url}/coverage#map=8/52/0")
        page.locator("#legend li").first.wait_for()
        before = page.evaluate("map.center[0]")
        page.mouse.move(400, 300)
        page.mouse.down()
        page.mouse.move(300, 300, steps=4)
        page.mouse.up()
        assert page.evaluate("map.center[0]") == pytest.approx(before + 100 / (256 * 2**8))
        assert "Choose a tile" in page.inner_text("#details")
        page.mouse.wheel(0, -300)
        until(lambda: page.evaluate("map.zoom > 8.9"))

    def test_one_file_draws_the_same_as_the_server(
        self, grid: CoverageGrid, tab: Tab, tmp_path: Path
    ) -> None:
        file = tmp_path / "coverage.html"
        row, col = np.nonzero(grid.masks)
        polar = (row < 60) | (row > 1600)  # noise of the whole planet would be 4 MB
        cell = (row[polar] * 3600 + col[polar]).astype(np.int32)
        grid = CoverageGrid(cell, grid.masks[row[polar], col[polar]], YEARS)
        coverage_html(file, [("tessera-v1", "A <b>title</b> & more", grid)])
        page = tab.page
        page.goto(file.as_uri())
        page.locator("#legend li").first.wait_for()
        assert page.inner_text("h1") == "TESSERA coverage"
        for z, x, y, year in (
            (0, 0, 0, 0),
            (1, 1, 0, 2021),
            (3, 7, 1, 2024),
            (4, 15, 2, 0),
            (8, 130, 50, 2020),
        ):
            values = page.evaluate(
                "([z, x, y, year]) => { const tile = grid.draw(z, x, y, collection.years, year);"
                " return [...tile.getContext('2d').getImageData(0, 0, 256, 256).data]; }",
                [z, x, y, year],
            )
            drawn = np.array(values, np.uint8).reshape(256, 256, 4)
            expected = pixels(grid.tile_png(z, x, y, year or None))
            assert (drawn[..., 3] == expected[..., 3]).mean() > 0.9999, (z, x, y, year)
            solid = expected[..., 3] > 100
            # a canvas keeps colours multiplied by their opacity: some bits are lost
            assert np.abs(drawn[solid].astype(int) - expected[solid]).max(initial=0) <= 3
        page.fill("#lon", "0.05")
        page.fill("#lat", "80.05")
        page.get_by_role("button", name="Go").click()
        page.get_by_role("heading", name="grid_0.05_80.05").wait_for()


def test_phone(server: Server) -> None:
    with open_tab(390, 800, mobile=True) as tab:
        tab.page.goto(f"{server.url}/coverage")
        tab.page.locator("#legend li").first.wait_for()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
        box = tab.page.locator("#map").bounding_box()
        assert box is not None
        tab.page.touchscreen.tap(box["width"] / 2, box["height"] / 2)
        tab.page.locator("#details h2").wait_for()
        assert tab.problems == []


def test_embedded_grid_is_small(grid: CoverageGrid) -> None:
    """Noise is the worst case; a planet of patches, as the real ones are, takes a tenth."""
    patches = grid_of(
        np.arange(900 * 3600, 1300 * 3600, dtype=np.int32), np.full(1_440_000, 7, np.uint32), (2000,)
    )
    found = embedded(patches)
    assert (found["row0"], found["rows"], found["cols"]) == (900, 400, 3600)
    assert len(found["data"]) < 5_000
    with pytest.raises(QueryError, match="no tile"):
        embedded(grid_of(np.zeros(0, np.int32), np.zeros(0, np.uint32), (2000,)))
