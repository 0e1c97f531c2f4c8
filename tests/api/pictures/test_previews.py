"""Previews and map tiles: right colours at the right place, of every kind of item; limits; links."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Transformer

from api.pictures.style import Style, parse_bands, parse_rescale
from catalog_builder.catalog.basis import load_basis
from catalog_builder.convert.encode.colours import colours
from catalog_builder.errors import QueryError
from tests.support.backends import Serve
from tests.support.containers import Contained
from tests.support.converted import COLLECTION, FIRST, NEIGHBOUR, RAW_YEAR, Converted, converted
from tests.support.http_server import Server
from tests.support.paging import ok

pytestmark = pytest.mark.xdist_group("pictures")
CONVERTED = f"/collections/{COLLECTION}/items/{FIRST.name}_2024"
RAW = f"/collections/{COLLECTION}/items/{FIRST.name}_{RAW_YEAR}"
Z = 13


@pytest.fixture(scope="module")
def data() -> Converted:
    return converted()


@pytest.fixture(scope="module")
def server(data: Converted, serve_on: Serve) -> Iterator[Server]:
    with serve_on(data.catalog) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def picture(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def map_tile(z: int, lon: float, lat: float) -> tuple[int, int]:
    n = 1 << z
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return int((lon + 180) / 360 * n), int(y * n)


def pair(data: Converted, year: int) -> tuple[np.ndarray, np.ndarray]:
    folder = data.embeddings / str(year) / FIRST.name
    return np.load(folder / f"{FIRST.name}.npy"), np.load(folder / f"{FIRST.name}_scales.npy")


def local(item: dict[str, Any], asset: str, data: Converted) -> Path:
    """Return an asset's file: opening its address here would block the thread that serves it."""
    return data.catalog / item["assets"][asset]["href"].partition("/data/")[2]


def expected_tile(full: np.ndarray, z: int, x: int, y: int) -> np.ndarray:
    """Sample a picture of the whole first tile (rows, cols, n) at the pixels of a map tile; NaN outside."""
    raster = FIRST.raster()
    edge = 20037508.342789244
    step = 2 * edge / (256 << z)
    mx = -edge + (x * 256 + np.arange(256) + 0.5) * step
    my = edge - (y * 256 + np.arange(256) + 0.5) * step
    to_utm = Transformer.from_crs(3857, raster.epsg, always_xy=True)
    ux, uy = to_utm.transform(*np.meshgrid(mx, my))
    col = np.floor((ux - raster.transform.c) / 10).astype(int)
    row = np.floor((raster.transform.f - uy) / 10).astype(int)
    inside = (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
    out = np.full((256, 256, full.shape[2]), np.nan)
    out[inside] = full[row[inside], col[inside]]
    return out


def agreement(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return shares of pixels: same transparency, and, where both show, colours within 2."""
    shown = ~np.isnan(expected).any(axis=2)
    both = shown & (found[..., 3] == 255)
    close = (np.abs(found[..., :3].astype(float) - expected) <= 2).all(axis=2)
    return float((shown == (found[..., 3] == 255)).mean()), float(close[both].mean())


def shows_bands_with_rescale(
    http: httpx.Client, base: str, values: np.ndarray, none: np.ndarray | bool = False
) -> None:
    """Compare a map tile of three bands with values (rows, cols, 128); pixels are blank where ``none``."""
    bands = values[..., [5, 0, 127]]
    low, high = np.nanpercentile(bands, [5, 95])
    scaled = np.clip(np.rint((bands - low) / (high - low) * 255), 0, 255)
    scaled[none] = np.nan
    x, y = map_tile(Z, FIRST.lon, FIRST.lat)
    given = {"bands": "5,0,127", "rescale": f"{low:.9g},{high:.9g}"}
    found = picture(http.get(f"{base}/tiles/WebMercatorQuad/{Z}/{x}/{y}.png", params=given))
    # A map pixel may be taken from one neighbour or the other.
    assert agreement(found, expected_tile(scaled, Z, x, y)) > (0.98, 0.9)


def test_tiles_that_are_not_converted_in_every_container(unconverted: Contained) -> None:
    values = np.moveaxis(unconverted.values(FIRST), 0, -1)
    with httpx.Client(base_url=unconverted.server.url, timeout=60) as http:
        shows_bands_with_rescale(http, CONVERTED, values)
        found = picture(http.get(f"{CONVERTED}/preview.png"))
    raster = FIRST.raster()
    assert found.shape[1] / found.shape[0] == pytest.approx(raster.width / raster.height, abs=0.02)
    shown = np.isfinite(values).all(axis=2) & values.any(axis=2)
    assert (found[..., 3] > 0).mean() == pytest.approx(shown.mean(), abs=0.03)
    assert found[found[..., 3] > 0][:, :3].std() > 10


class TestTiles:
    def test_false_colour_is_visual(self, http: httpx.Client, data: Converted) -> None:
        item = ok(http.get(CONVERTED))
        with rasterio.open(local(item, "visual", data)) as dataset:
            visual = dataset.read().transpose(1, 2, 0).astype(float)
        visual[~visual.any(axis=2)] = np.nan
        x, y = map_tile(Z, FIRST.lon, FIRST.lat)
        found = picture(http.get(f"{CONVERTED}/tiles/WebMercatorQuad/{Z}/{x}/{y}.png"))
        expected = expected_tile(visual, Z, x, y)
        assert np.isfinite(expected).all(axis=2).mean() > 0.5, "the test's tile must show something"
        assert agreement(found, expected) > (0.99, 0.95)

    @pytest.mark.parametrize("base", [CONVERTED, RAW])
    def test_bands_with_rescale(self, http: httpx.Client, data: Converted, base: str) -> None:
        codes, scales = pair(data, int(base[-4:]))
        values = codes.astype(np.float32) * scales[..., None]
        none = np.zeros(scales.shape, np.bool_)
        if base == CONVERTED:  # conversion blanks water by the landmask
            item = ok(http.get(CONVERTED))
            with rasterio.open(local(item, "scales", data)) as dataset:
                none = np.isnan(dataset.read(1))
        shows_bands_with_rescale(http, base, values, none)

    def test_raw_tile_has_the_stored_colours(self, http: httpx.Client, data: Converted) -> None:
        basis = load_basis(str(data.catalog / "cogs"), "synthetic")
        assert basis is not None
        full = colours(basis, *pair(data, RAW_YEAR)).astype(float)
        full[~full.any(axis=2)] = np.nan
        x, y = map_tile(Z, FIRST.lon, FIRST.lat)
        found = picture(http.get(f"{RAW}/tiles/WebMercatorQuad/{Z}/{x}/{y}.png"))
        assert agreement(found, expected_tile(full, Z, x, y)) > (0.99, 0.95)

    def test_elsewhere_is_transparent(self, http: httpx.Client) -> None:
        for base in (CONVERTED, RAW, f"/collections/{COLLECTION}"):
            found = picture(http.get(f"{base}/tiles/WebMercatorQuad/10/0/0.png"))
            assert not found[..., 3].any()

    def test_mosaic_joins_neighbours(self, http: httpx.Client) -> None:
        between = (FIRST.lon + NEIGHBOUR.lon) / 2
        x, y = map_tile(11, between, FIRST.lat)
        base = f"/collections/{COLLECTION}/tiles/WebMercatorQuad/11/{x}/{y}.png"
        whole = picture(http.get(base, params={"year": 2024}))
        single = picture(http.get(f"{CONVERTED}/tiles/WebMercatorQuad/11/{x}/{y}.png"))
        assert whole[..., 3].astype(bool).sum() > single[..., 3].astype(bool).sum()
        shown = single[..., 3] > 0
        assert (whole[shown] == single[shown]).mean() > 0.9
        older = picture(http.get(base, params={"year": 2023}))
        assert 0 < older[..., 3].astype(bool).sum() < whole[..., 3].astype(bool).sum()


class TestPreview:
    @pytest.mark.parametrize("base", [CONVERTED, RAW])
    @pytest.mark.parametrize("given", [{}, {"max_size": "64"}, {"bands": "b000,b001,b002"}])
    def test_size_and_content(self, http: httpx.Client, base: str, given: dict[str, str]) -> None:
        found = picture(http.get(f"{base}/preview.png", params=given))
        assert max(found.shape[:2]) == int(given.get("max_size", 512))
        raster = FIRST.raster()
        assert found.shape[1] / found.shape[0] == pytest.approx(raster.width / raster.height, abs=0.02)
        shown = found[found[..., 3] > 0]
        assert len(shown) > 0.2 * found.shape[0] * found.shape[1]
        assert shown[:, :3].std() > 10

    def test_caching(self, http: httpx.Client) -> None:
        answer = http.get(f"{CONVERTED}/preview.png", headers={"if-none-match": "x"})
        tag = answer.headers["etag"]
        assert http.get(f"{CONVERTED}/preview.png", headers={"if-none-match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{CONVERTED}/preview.png?max_size=5000", 400, "max_size must be an integer 16..1024"),
        (f"{CONVERTED}/preview.png?max_size=0", 400, "max_size"),
        (f"{CONVERTED}/preview.png?max_size=1&max_size=2", 400, "given twice"),
        (f"{CONVERTED}/preview.png?url=http://169.254.169.254/", 400, "unknown parameter 'url'"),
        (f"{CONVERTED}/preview.png?bands=0,1", 400, "bands must be three numbers 0..127"),
        (f"{CONVERTED}/preview.png?bands=0,1,128", 400, "bands must be"),
        (f"{CONVERTED}/preview.png?bands=0,1,2&rescale=1", 400, "rescale must be"),
        (f"{CONVERTED}/preview.png?bands=0,1,2&rescale=2,1", 400, "min must be below max"),
        (f"{CONVERTED}/preview.png?rescale=0,1", 400, "rescale requires bands"),
        (f"{CONVERTED}/tiles/WebMercatorQuad/19/0/0.png", 400, "zoom must be"),
        (f"{CONVERTED}/tiles/WebMercatorQuad/3/8/0.png", 400, "x must be"),
        (f"{CONVERTED}/tiles/WebMercatorQuad/3/-1/0.png", 400, "x must be"),
        (f"/collections/{COLLECTION}/tiles/WebMercatorQuad/8/0/0.png", 400, "integer 9..18"),
        (f"/collections/{COLLECTION}/tiles/WebMercatorQuad/9/0/0.png?year=1999", 400, "year must be one of"),
        (f"/collections/{COLLECTION}/items/grid_0.05_0.05_2024/preview.png", 404, "no item"),
        (f"{CONVERTED[:-5]}_1999/WebMercatorQuad/tilejson.json", 404, "no item"),
        ("/collections/nope/items/x/preview.png", 404, "no item"),
        ("/collections/nope/WebMercatorQuad/tilejson.json", 404, "no collection"),
    ],
)  # fmt: skip
def test_refusals(http: httpx.Client, path: str, status: int, reason: str) -> None:
    answer = http.get(path)
    assert answer.status_code == status, answer.text
    assert reason in answer.json()["description"]


@pytest.mark.parametrize("base", [CONVERTED, RAW, f"/collections/{COLLECTION}"])
def test_links_lead_to_pictures(http: httpx.Client, base: str) -> None:
    document = ok(http.get(base))
    assert any("web-map-links" in e for e in document["stac_extensions"])
    links = {link["rel"]: link["href"] for link in document["links"]}
    # A thumbnail asset makes a preview link needless; of an unconverted item it is the only picture.
    assert ("preview" in links) is (base == RAW)
    if base == RAW:
        picture(http.get(links["preview"]))
    tilejson = ok(http.get(links["tilejson"]))
    west, south, east, north = tilejson["bounds"]
    x, y = map_tile(11, (west + east) / 2, (south + north) / 2)
    shown = picture(http.get(tilejson["tiles"][0].format(z=11, x=x, y=y)))
    assert shown[..., 3].any()
    assert picture(http.get(links["xyz"].format(z=11, x=x, y=y)))[..., 3].any()


def test_no_pixels_no_links(catalog_without_pixels: httpx.Client) -> None:
    """Published tiles elsewhere that are not converted: no links, and a reason."""
    item = ok(catalog_without_pixels.get("/search?limit=1"))["features"][0]
    assert not {"xyz", "preview", "tilejson"} & {link["rel"] for link in item["links"]}
    self = next(link["href"] for link in item["links"] if link["rel"] == "self")
    answer = catalog_without_pixels.get(f"{self}/preview.png")
    assert answer.status_code == 404
    assert "110 MB" in answer.json()["description"]


@pytest.fixture(scope="module")
def catalog_without_pixels(
    tmp_path_factory: pytest.TempPathFactory, serve_on: Serve
) -> Iterator[httpx.Client]:
    from tests.support.catalogs import build_from, patch, write_manifest

    folder = tmp_path_factory.mktemp("published")
    build_from(folder / "catalog", write_manifest(folder / "in", 2024, patch(0, 52, 2, 2)))
    with serve_on(folder / "catalog") as running, httpx.Client(base_url=running.url) as client:
        yield client


def test_parsing() -> None:
    assert parse_bands("b010, 3,127") == (10, 3, 127)
    assert parse_rescale("-1,1") == ((-1.0, 1.0),)
    assert parse_rescale("0,1,-2e1,3,.5,1") == ((0.0, 1.0), (-20.0, 3.0), (0.5, 1.0))
    assert Style(parse_bands(None), parse_rescale(None)) == Style()
    for bad in ("nan,1", "inf,2", "1,2,3", "0x1,2", "1," + "9" * 40):
        with pytest.raises(QueryError):
            parse_rescale(bad)
