"""`tessera-stac preview`: the right colours at the right place, from a folder, an API, COGs and arrays."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from pyproj import Geod, Transformer

from api.app import create_app
from catalog_builder.errors import QueryError
from catalog_builder.vectors.preview import Preview, preview, write_preview
from tests.conftest import plain_environment
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.chromium import open_tab
from tests.support.containers import YEAR, Contained
from tests.support.converted import FIRST, NEIGHBOUR, Converted, converted
from tests.support.http_server import serve
from tests.support.waiting import until

pytestmark = pytest.mark.xdist_group("pictures")
BOTH = shapely.union_all([shapely.box(*FIRST.bounds), shapely.box(*NEIGHBOUR.bounds)])
INSIDE = shapely.box(15.62, 78.22, 15.68, 78.28)


@pytest.fixture(scope="module")
def data() -> Converted:
    return converted()


def at_pixels(picture: Preview, full: np.ndarray) -> np.ndarray:
    """Sample a picture of the whole first tile at the pixels of a preview; 0 outside."""
    height, width, _ = picture.pixels.shape
    west, south, east, north = picture.bounds
    x = west + (np.arange(width) + 0.5) * (east - west) / width
    y = north - (np.arange(height) + 0.5) * (north - south) / height
    raster = FIRST.raster()
    ux, uy = Transformer.from_crs(3857, raster.epsg, always_xy=True).transform(*np.meshgrid(x, y))
    col = np.floor((ux - raster.transform.c) / 10).astype(int)
    row = np.floor((raster.transform.f - uy) / 10).astype(int)
    inside = (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
    out = np.zeros((height, width, full.shape[2]), full.dtype)
    out[inside] = full[row[inside], col[inside]]
    return out


def visual(data: Converted, year: int) -> np.ndarray:
    (file,) = (data.catalog / "cogs" / "synthetic" / str(year) / FIRST.name).glob("*_visual.tif")
    with rasterio.open(file) as dataset:
        return np.moveaxis(dataset.read(), 0, -1)


def close(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of pixels within 12 of 255, where both show; between pixels colours are mixed."""
    both = found.any(axis=2) & expected.any(axis=2)
    assert both.mean() > 0.3
    return float((np.abs(found[both].astype(int) - expected[both]) <= 12).all(axis=1).mean())


def test_full_resolution_is_visual(data: Converted) -> None:
    picture = preview(str(data.catalog), INSIDE, years=[2024])
    assert (picture.tiles, picture.year, picture.fitted, picture.left_out) == (1, 2024, False, 0)
    assert picture.degrees == pytest.approx(INSIDE.bounds, abs=1e-6)
    full = at_pixels(picture, visual(data, 2024))
    # colours change from field to field: mixing touches the rims of fields only
    assert close(picture.pixels, full) > 0.6
    shown, expected = picture.pixels.any(axis=2), full.any(axis=2)
    assert (shown == expected).mean() > 0.97


@pytest.mark.slow
def test_unconverted_arrays_are_fitted_on_the_fly(unconverted: Contained) -> None:
    picture = preview(str(unconverted.catalog), INSIDE, years=[YEAR])
    assert picture.fitted
    # Which way the directions point follows from the sample; that colours are a projection does not.
    vectors = at_pixels(picture, np.moveaxis(unconverted.values(FIRST), 0, -1))
    inner = picture.pixels.all(axis=2) & (picture.pixels.min(axis=2) > 1) & (picture.pixels.max(axis=2) < 255)
    inner &= np.isfinite(vectors).all(axis=2) & vectors.any(axis=2)
    assert inner.mean() > 0.3
    known, colour = np.c_[vectors[inner], np.ones(inner.sum())], picture.pixels[inner].astype(float)
    rest = colour - known @ np.linalg.lstsq(known, colour, rcond=None)[0]
    assert rest.var() / colour.var() < 0.3  # the rest is mixing at the rims of fields


@pytest.mark.parametrize("size", [400, 90, 24])
def test_overviews_show_the_same(data: Converted, size: int) -> None:
    """A small picture is the large one made smaller, whatever it was read from."""
    large, small = (preview(str(data.catalog), BOTH, years=[2024], size=n) for n in (2048, size))
    assert max(small.pixels.shape[:2]) == size
    assert small.tiles == 2
    shape = small.pixels.shape[1], small.pixels.shape[0]
    shrunk = np.asarray(Image.fromarray(large.pixels).resize(shape, Image.Resampling.BOX), float)
    whole = np.asarray(
        Image.fromarray(large.pixels.all(axis=2).astype(np.uint8) * 255).resize(shape, Image.Resampling.BOX)
    )
    both = (whole == 255) & small.pixels.any(axis=2)
    assert both.mean() > 0.2
    assert np.abs(shrunk[both] - small.pixels[both]).mean() < 30


def test_neighbours_match(data: Converted) -> None:
    picture = preview(str(data.catalog), BOTH, years=[2024])
    middle = picture.pixels.shape[1] // 2
    rim = picture.pixels[:, middle - 3 : middle + 3]
    assert rim.any(axis=(1, 2)).mean() > 0.3, "no gap between the tiles"


def test_newest_year_is_the_default(data: Converted) -> None:
    assert preview(str(data.catalog), INSIDE, size=64).year == 2024


@pytest.mark.service
def test_files(data: Converted, tmp_path: Path) -> None:
    picture = preview(str(data.catalog), BOTH, years=[2024], size=256)
    for name in ("a.png", "a.tif", "a.html"):
        write_preview(picture, tmp_path / name)
    shown = np.asarray(Image.open(tmp_path / "a.png"))[..., :3]
    assert (shown == picture.pixels)[:-40].all(), "but for the scale bar"
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs.to_epsg() == 3857
        assert dataset.bounds == pytest.approx(picture.bounds)
        assert dataset.nodata == 0
        assert (np.moveaxis(dataset.read(), 0, -1) == picture.pixels).all()
    with open_tab(900, 600) as tab:
        tab.page.goto((tmp_path / "a.html").as_uri())
        until(lambda: tab.page.evaluate("map.layers.length === 1"))
        tab.page.locator("#map").focus()
        tab.page.keyboard.press("Enter")
        tab.page.get_by_role("heading", name="grid_15.").wait_for()
        seen = np.asarray(Image.open(io.BytesIO(tab.page.locator("#map").screenshot())).convert("HSV"))
        assert (seen[..., 1] > 100).mean() > 0.05
        assert_scale(tab.page)
        assert (tab.problems, tab.elsewhere) == ([], set())
    with pytest.raises(QueryError, match=r"expected one of \.png"):
        write_preview(picture, tmp_path / "a.jpg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.png", "a.tif"]


def assert_scale(page: Any) -> None:
    """Compare the bar of the map with the geodesic between the places at its ends."""
    bar = page.evaluate("map.scaleBar()")
    ends = f"[0, {bar['pixels']}].map((x) => toLonLat(...map.fromScreen(map.width / 2 + x, map.height / 2)))"
    (lon, lat), (other, _) = page.evaluate(ends)
    assert Geod(ellps="WGS84").inv(lon, lat, other, lat)[2] == pytest.approx(bar["metres"], rel=1e-3)


def ground(picture: Preview, pixels: float) -> float:
    """Return the geodesic length of so many pixels along the middle of a picture."""
    west, south, east, north = picture.degrees
    lat = (south + north) / 2
    lon = west + (east - west) * pixels / picture.pixels.shape[1]
    return float(Geod(ellps="WGS84").inv(west, lat, lon, lat)[2])


NOTCHED = shapely.Polygon(
    [(15.61, 78.22), (15.72, 78.205), (15.79, 78.25), (15.74, 78.295), (15.7, 78.26), (15.65, 78.29)],
    [[(15.68, 78.23), (15.70, 78.23), (15.69, 78.24)]],
)


def test_a_polygon_is_clipped_and_drawn_with_a_scale_bar(data: Converted, tmp_path: Path) -> None:
    clipped = preview(str(data.catalog), NOTCHED, years=[2024], size=800)
    whole = preview(str(data.catalog), shapely.box(*NOTCHED.bounds), years=[2024], size=800)
    assert clipped.outline is not None
    assert (whole.outline, clipped.pixels.shape) == (None, whole.pixels.shape)
    to_map = Transformer.from_crs("OGC:CRS84", 3857, always_xy=True).transform
    shape = shapely.transform(shapely.segmentize(NOTCHED, 0.001), to_map, interleaved=False)
    height, width, _ = whole.pixels.shape
    t = clipped.transform
    far = t.a
    x, y = np.meshgrid(t.c + t.a * (np.arange(width) + 0.5), t.f + t.e * (np.arange(height) + 0.5))
    inside = shapely.contains_xy(shape.buffer(-far), x, y)
    outside = ~shapely.contains_xy(shape.buffer(far), x, y)
    assert 0.2 < inside.mean() < 0.8
    assert (clipped.pixels == whole.pixels)[inside].all()
    assert whole.pixels[outside].any()
    assert not clipped.pixels[outside].any()

    write_preview(clipped, tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    changed = (drawn[..., :3] != clipped.pixels).any(axis=2)
    near = shapely.contains_xy(shape.boundary.buffer(5 * far), x, y)
    bar = np.zeros_like(near)
    bar[-60:, :200] = True
    assert not (changed & ~near & ~bar).any()
    rim = shapely.get_coordinates(shapely.segmentize(shape.boundary, 5 * far))[::7]
    cols, rows = ((rim - (t.c, t.f)) / (t.a, t.e)).T
    inner = (cols > 1) & (cols < width - 1) & (rows > 1) & (rows < height - 61)
    assert (drawn[rows[inner].astype(int), cols[inner].astype(int)][:, 3] == 255).all()

    light = (drawn[-60:, :200] == 255).all(axis=2)
    rows_of = ["".join("#" if p else " " for p in row) for row in light.tolist()]
    longest = max(len(run) for row in rows_of for run in row.split(" "))
    assert ground(clipped, longest) == pytest.approx(1000, rel=0.02), "a kilometre, by its label"

    write_preview(clipped, tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (np.moveaxis(file.read(), 0, -1) == clipped.pixels).all(), "data, over which nothing is drawn"


@pytest.mark.service
def test_the_web_map_shows_the_outline(data: Converted, tmp_path: Path) -> None:
    write_preview(preview(str(data.catalog), NOTCHED, years=[2024], size=300), tmp_path / "a.html")
    with open_tab(900, 600) as tab:
        tab.page.goto((tmp_path / "a.html").as_uri())
        until(lambda: tab.page.evaluate("map.layers.length === 1"))
        outline = tab.page.evaluate("map.outline")
        lines = shapely.MultiLineString(outline)
        assert shapely.hausdorff_distance(lines, NOTCHED.boundary) < 0.001
        assert_scale(tab.page)
        assert (tab.problems, tab.elsewhere) == ([], set())


@pytest.mark.service
def test_command_from_an_api(data: Converted, tmp_path: Path) -> None:
    """By ranges: a fraction of the tiles' bytes."""
    with serve(create_app(data.catalog)) as server:
        west, south, east, north = BOTH.bounds
        done = subprocess.run(
            [sys.executable, "-m", "catalog_builder.cli", "preview", server.url,
             "--region", f"{west},{south},{east},{north}", "--year", "2024", "--size", "100",
             "--out", str(tmp_path / "a.png"), "--json", "--quiet"],
            capture_output=True, text=True, env=plain_environment(), check=True,
        )  # fmt: skip
        said = json.loads(done.stdout)
        assert (said["tiles"], said["year"], said["height"]) == (2, 2024, 100)
        files = [r for r in server.log if r.path.startswith("/data/")]
        assert not [r for r in files if "embeddings" in r.path]
        assert sum(r.sent for r in files) < 400_000
    same = preview(str(data.catalog), BOTH, years=[2024], size=100)
    assert (np.asarray(Image.open(tmp_path / "a.png"))[..., :3] == same.pixels).all()


def test_refusals(data: Converted, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no tiles of 2024"):
        preview(str(data.catalog), shapely.box(0, 0, 1, 1), years=[2024])
    with pytest.raises(QueryError, match="size must be"):
        preview(str(data.catalog), INSIDE, size=100_000)
    with pytest.raises(QueryError, match="antimeridian"):
        preview(
            str(data.catalog), shapely.union_all([shapely.box(-180, 0, -179, 1), shapely.box(179, 0, 180, 1)])
        )
    build_from(tmp_path / "catalog", write_manifest(tmp_path / "in", 2024, patch(0, 52, 2, 2)))
    with pytest.raises(QueryError, match="4 tiles of 2024 are available, but none is converted"):
        preview(str(tmp_path / "catalog"), shapely.box(0, 52, 0.2, 52.2))
