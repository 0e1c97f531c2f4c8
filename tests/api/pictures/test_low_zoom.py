"""Map tiles at every zoom: at their place, in bounded time, and from the zoom that the TileJSON says."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from pyproj import Transformer

from tests.api.pictures.test_previews import CONVERTED, RAW, agreement, expected_tile, map_tile, pair, picture
from tests.faults.server import serving
from tests.support.backends import Serve
from tests.support.converted import FIRST, Converted, converted
from tests.support.paging import ok

pytestmark = pytest.mark.xdist_group("pictures")
MIN_ZOOM = 5
BANDS = {"bands": "1,2,3", "rescale": "-4,4"}


@pytest.fixture(scope="module")
def data() -> Converted:
    return converted()


@pytest.fixture(scope="module")
def http(data: Converted, serve_on: Serve) -> Iterator[httpx.Client]:
    with (
        serve_on(data.catalog, compress=False) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client


def _there(z: int) -> str:
    x, y = map_tile(z, FIRST.lon, FIRST.lat)
    return f"tiles/WebMercatorQuad/{z}/{x}/{y}.png"


@pytest.mark.parametrize("base", [CONVERTED, RAW])
@pytest.mark.parametrize("style", [{}, BANDS], ids=["colours", "bands"])
def test_no_zoom_takes_long(http: httpx.Client, base: str, style: dict[str, str]) -> None:
    ok(http.get(f"{base}/WebMercatorQuad/tilejson.json", params=style))
    http.get(f"{base}/preview.png", params=style)  # reads what is not converted, once
    for z in range(16):
        started = time.monotonic()
        shown = picture(http.get(f"{base}/{_there(z)}", params=style))
        took = time.monotonic() - started
        assert took < 3, f"zoom {z} took {took:.1f} s; zoom 0 took 37"
        assert (shown[..., 3] == 255).any(), f"zoom {z} shows nothing"


@pytest.mark.parametrize("z", [6, 8, 10, 12, 14])
def test_they_are_at_their_place_at_every_zoom(http: httpx.Client, data: Converted, z: int) -> None:
    codes, scales = pair(data, int(RAW[-4:]))
    values = codes[..., [1, 2, 3]].astype(np.float32) * scales[..., None]
    drawn = picture(http.get(f"{RAW}/{_there(z)}", params=BANDS))
    _, x, y = _there(z).removesuffix(".png").rsplit("/", 2)
    expected = expected_tile(values, z, int(x), int(y))
    same, _ = agreement(drawn, expected)
    n_edge = (
        4 * np.isfinite(expected).all(axis=2).sum() ** 0.5
    )  # a map's pixels at the rim may fall either way
    assert same > 1 - max(n_edge, 8) / 256**2, "the item lies elsewhere"


def test_the_tilejson_says_from_which_zoom_there_is_something_to_see(http: httpx.Client) -> None:
    said = ok(http.get(f"{CONVERTED}/WebMercatorQuad/tilejson.json"))
    west, _, east, _ = said["bounds"]
    assert said["minzoom"] == MIN_ZOOM
    assert (east - west) / 360 * (256 << MIN_ZOOM) >= 2, "two pixels"
    assert (east - west) / 360 * (256 << (MIN_ZOOM - 1)) < 2
    links = {link["rel"]: link for link in ok(http.get(CONVERTED))["links"]}
    for rel in ("xyz", "tilejson"):
        assert links[rel]["title"].endswith(f"from zoom {MIN_ZOOM}")


@pytest.mark.parametrize("base", [CONVERTED, RAW])
@pytest.mark.parametrize("z", range(MIN_ZOOM))
def test_below_it_the_item_is_a_grey_pixel_at_its_place(http: httpx.Client, base: str, z: int) -> None:
    shown = picture(http.get(f"{base}/{_there(z)}"))
    rows, cols = np.nonzero(shown[..., 3])
    assert 1 <= len(rows) <= 16, "narrow, and five times as high at 78 degrees north"
    assert np.ptp(shown[rows, cols, :3].astype(int), axis=1).max() == 0
    edge = 20037508.342789244
    mx, my = Transformer.from_crs(4326, 3857, always_xy=True).transform(FIRST.lon, FIRST.lat)
    across, down = (mx + edge) / (2 * edge) * (256 << z), (edge - my) / (2 * edge) * (256 << z)
    assert (int(across) % 256, int(down) % 256) in set(zip(cols.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("z", [0, 3])
def test_below_it_other_map_tiles_are_empty_and_other_items_404(http: httpx.Client, z: int) -> None:
    n = 1 << z
    if z:
        far = picture(http.get(f"{CONVERTED}/tiles/WebMercatorQuad/{z}/0/{n - 1}.png"))
        assert not far[..., 3].any()
    gone = http.get(f"{CONVERTED[:-4]}1999/tiles/WebMercatorQuad/{z}/0/0.png")
    assert gone.status_code == 404
    assert "no item" in gone.json()["description"]


@pytest.mark.service
def test_map_tiles_closed_early_hold_up_nobody(data: Converted) -> None:
    """Eight low map tiles closed at once made the next preview take 160 s."""
    with serving(data.catalog) as served:
        served.get(f"{CONVERTED}/preview.png")
        for z in (0, 1, 2, 3, 5, 6, 7, 8) * 4:
            with contextlib.closing(socket.create_connection(("127.0.0.1", served.port))) as gone:
                path = f"{CONVERTED}/{_there(z)}?bands=1,2,3&rescale=-4,4"
                gone.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        started = time.monotonic()
        picture(served.get(f"{CONVERTED}/preview.png?max_size=200"))
        assert time.monotonic() - started < 5


@pytest.mark.service
def test_beyond_the_queue_drawings_are_refused_with_a_time_to_retry(data: Converted) -> None:
    """Unconverted tiles take a second: one runs, none may wait."""
    years = f"{RAW}/preview.png"
    with (
        serving(
            data.catalog,
            TESSERA_STAC_DRAWING_THREADS="1",
            TESSERA_STAC_MAX_WAITING="0",
            TESSERA_STAC_CACHE_SECONDS="0",
        ) as served,
        contextlib.ExitStack() as stack,
    ):
        several = []
        for band in range(12):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=60))
            one.sendall(f"GET {years}?bands={band},1,2 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            several.append(one)
        heads = [one.recv(4096).lower() for one in several]
        refused = [head for head in heads if b" 503 " in head.splitlines()[0]]
        assert 1 <= len(refused) < len(heads)
        assert all(b"retry-after: " in head for head in refused)
        assert served.get("/search?limit=1").status_code == 200, "searches have their own threads"
