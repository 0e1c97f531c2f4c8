"""Every container, wherever it is, gives the pixels that numpy has, for the bytes that they take."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import tifffile
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from catalog_builder.errors import ArrayError, StorageError
from catalog_builder.pixels.place import Place
from catalog_builder.pixels.read import (
    cost,
    is_drawable,
    is_quantized,
    overview,
    read_pixels,
    read_status,
    read_window,
)
from catalog_builder.pixels.values import Quantized, Status, Values
from catalog_builder.pixels.window import Window
from catalog_builder.storage import Meter, retry
from tests.pixels.conftest import ARRAYS, CONTAINERS, QUANTIZED, WHERE, Files, Placed
from tests.support.http_server import Server, serve
from tests.support.pixels import same
from tests.support.s3_store import Store

HEIGHT, WIDTH = 1121, 180
STORES = {"zarr": 32, "icechunk": 128}
"""Pixels of a chunk."""
WINDOWS = {
    "a block": Window(128, 0, 128, 128),
    "unaligned": Window(37, 11, 60, 40),
    "across blocks": Window(250, 100, 9, 60),
    "edge": Window(HEIGHT - 30, WIDTH - 20, 30, 20),
    "a pixel": Window(700, 130, 1, 1),
    "a row": Window(500, 0, 1, WIDTH),
    "a column": Window(0, 77, HEIGHT, 1),
}


def random_mask(window: Window, share: float = 0.02) -> np.ndarray:
    mask = np.random.default_rng(window.row).random(window.shape) < share
    mask[0, 0] = mask[-1, -1] = True
    return mask


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", CONTAINERS)
def test_windows(files: Files, placed: Placed, container: str, where: str, name: str) -> None:
    window, place = WINDOWS[name], placed(container, where)
    found = read_window(place, window)
    assert isinstance(found, Quantized if container in QUANTIZED else Values)
    assert is_quantized(place) == isinstance(found, Quantized)
    assert same(found.dequantized(), files.values(container)[window.slices])
    if container == "npy":
        assert isinstance(found, Quantized)
        assert same(found.codes, files.codes[window.slices])
        assert same(found.scales, files.scales[window.slices])


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", CONTAINERS)
def test_masks_and_bands(files: Files, placed: Placed, container: str, where: str) -> None:
    """Outside the mask there is no data, whatever was read on the way; bands come in their order."""
    window, bands = WINDOWS["unaligned"], (127, 0, 5)
    mask = random_mask(window)
    found = read_window(placed(container, where), window, bands, mask=mask)
    expected = files.values(container)[window.slices][..., list(bands)]
    assert same(found.dequantized()[mask], expected[mask])
    assert np.isnan(found.dequantized()[~mask]).all()
    if isinstance(found, Quantized):
        assert (found.codes[~mask] == -128).all()
    rows, cols = np.nonzero(mask)
    assert same(found.at(rows, cols), expected[mask])


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", CONTAINERS)
def test_single_pixels(files: Files, placed: Placed, container: str, where: str) -> None:
    """In the order in which they were asked for, repeated ones too, with the reason where there is none."""
    rng, place = np.random.default_rng(5), placed(container, where)
    rows, cols = rng.integers(0, HEIGHT, 500), rng.integers(0, WIDTH, 500)
    rows[:3], cols[:3] = [HEIGHT - 1, 0, 0], [WIDTH - 1, 0, 0]
    bands = (127, 0, 5)
    found, status = read_pixels(place, rows, cols, bands), read_status(placed(container, "local"))
    expected = files.values(container)[rows, cols]
    assert same(found.pixels.dequantized()[0], expected[:, list(bands)])
    assert np.array_equal(found.status, status[rows, cols])
    assert same(read_pixels(place, rows, cols).pixels.dequantized()[0], expected)
    alone = read_pixels(place, rows, cols, ())
    assert alone.pixels.dequantized().shape == (1, 500, 0)
    assert np.array_equal(alone.status, status[rows, cols])
    with pytest.raises(ValueError, match="not within a raster"):
        read_pixels(place, rows, cols + 1)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_whole_raster(files: Files, placed: Placed, container: str) -> None:
    assert same(read_window(placed(container, "local")).dequantized(), files.values(container))


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", ["npy", "cog", "float", "zarr", "icechunk"])
def test_overviews(files: Files, placed: Placed, container: str, where: str, level: int) -> None:
    place = placed(container, where)
    found = overview(place, level)
    assert found.level == level
    raster, whole = found.raster, Window(0, 0, *found.raster.shape)
    assert raster.epsg == place.raster.epsg
    # of the same ground
    transform, (rows, cols) = found.transform(whole), found.shape(whole)
    assert (transform.c, transform.f) == (place.raster.transform.c, place.raster.transform.f)
    assert cols * transform.a == pytest.approx(WIDTH * 10, abs=10 * 2**level)
    expected = overview_by_gdal(files, container, level)
    assert (rows, cols) == expected.shape[:2]
    window = Window(11, 3, 20, 15)
    mask = np.random.default_rng(level).random(found.shape(window)) < 0.3
    given = (slice(11, 31, 1 << level), slice(3, 18, 1 << level)) if container in ARRAYS else window.slices
    if container in ARRAYS:
        expected = files.values(container)
    for wanted in (None, mask):
        pixels = read_window(place, window, (3, 90), mask=wanted, level=level)
        inside = np.ones_like(mask) if wanted is None else wanted
        assert same(pixels.dequantized()[inside], expected[given][..., [3, 90]][inside])
    assert same(read_window(place, level=level).dequantized(), overview_by_gdal(files, container, level))
    with pytest.raises(ValueError, match="is not within"):
        read_window(place, Window(0, 0, raster.height + 1, 1), level=level)


def overview_by_gdal(files: Files, container: str, level: int) -> np.ndarray:
    """Return an overview by rasterio alone; of arrays every n-th pixel."""
    if container in ARRAYS:
        return files.values(container)[:: 1 << level, :: 1 << level]
    place, read = files.places[container], []
    for path in filter(None, (place.main, place.scales)):
        with rasterio.open(files.root / path, overview_level=level - 1) as ds:
            read.append(np.moveaxis(ds.read(), 0, -1))
    return read[0] if len(read) == 1 else read[0].astype(np.float32) * read[1]


@pytest.mark.service
def test_overviews_that_are_not_there(placed: Placed) -> None:
    assert overview(placed("geotiff", "local"), 3).level == 0
    cog = placed("cog", "local")
    level = overview(cog, 30).level
    assert 3 <= level < 30
    with pytest.raises(StorageError, match=f"has {level} overviews, expected 30"):
        read_window(cog, Window(0, 0, 1, 1), level=30)
    assert [is_drawable(placed(c, w)) for c in ("npy", "cog") for w in ("local", "http")] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_why_there_is_no_data(files: Files, placed: Placed, container: str) -> None:
    place = placed(container, "local")
    found, scales = read_status(place), files.scales
    expected = np.where(files.valid, Status.DATA, Status.NODATA)
    if container == "zarr":
        expected[np.isnan(scales)] = Status.WATER
    if container in STORES:
        expected[np.isinf(scales)] = Status.UNFILLED
        inside = place.inside
        assert inside is not None
        # over the edges of the zone's array
        moved = replace(place, inside=replace(inside, row=-3, col=-2))
        edge = read_status(moved, Window(0, 0, 5, 4))
        assert (edge[:3] == Status.OUTSIDE).all()
        assert (edge[:, :2] == Status.OUTSIDE).all()
        unfilled = Status.UNFILLED if container == "zarr" else Status.NODATA
        assert (edge[3:, 2:] == unfilled).all()
        assert np.isnan(read_window(moved, Window(0, 0, 5, 4)).dequantized()).all()
    assert (expected != Status.DATA).any()
    assert np.array_equal(found, expected)
    window = WINDOWS["unaligned"]
    assert np.array_equal(read_status(place, window), expected[window.slices])


# ------------------------------------------------------------------------------------ bytes and requests


def array_ranges(window: Window, item: int, gap: int) -> list[int]:
    """Return the lengths of what is read of an array, row by row, rows joined over gaps in between."""
    row, line = window.width * item, WIDTH * item
    if line - row <= gap:
        return [(window.height - 1) * line + row]
    return [row] * window.height


@pytest.mark.parametrize("where", WHERE)
def test_requests_for_arrays(
    placed: Placed, where: str, web: Server, store: Store, request: pytest.FixtureRequest
) -> None:
    """The head of each file (of local ones not counted), then the spans that are wanted, and nothing else."""
    window = WINDOWS["unaligned"]
    place = placed("npy", where)
    pixels = [*array_ranges(window, 128, 16384), *array_ranges(window, 4, 16384)]
    assert len(pixels) == 60 + 1
    expected = pixels if where == "local" else [128, 128, *pixels]
    web.clear()
    store.log.clear()
    meter = Meter()
    read_window(place, window, meter=meter)
    assert (meter.requests, meter.bytes) == (len(expected), sum(expected))
    assert cost(place, window) == (256 + sum(pixels), True)
    if where == "http":
        assert sorted(r.sent for r in web.log) == sorted(expected)
        assert {(r.method, r.status) for r in web.log} == {("GET", 206)}
    if where == "s3":
        assert sorted(length(a.headers["range"]) for a in store.log) == sorted(expected)
        assert {(a.method, a.status) for a in store.log} == {("GET", 206)}


def length(asked: str) -> int:
    start, _, last = asked.removeprefix("bytes=").partition("-")
    return int(last) - int(start) + 1


def test_requests_for_scattered_pixels(placed: Placed, web: Server) -> None:
    """Points far from each other are a few bytes each; near ones are joined."""
    place, window = placed("npy", "http"), Window(0, 0, HEIGHT, WIDTH)
    mask = np.zeros(window.shape, np.bool_)
    mask[10, 5] = mask[10, 9] = mask[500, 100] = True
    web.clear()
    read_window(place, window, mask=mask)
    assert sorted(r.sent for r in web.log) == [4, 20, 128, 128, 128, 640]


@pytest.mark.parametrize("bands", [tuple(range(128)), (3, 90)])
def test_requests_for_cogs(files: Files, placed: Placed, web: Server, bands: tuple[int, ...]) -> None:
    """The blocks that are touched, a header, and GDAL's grain of 16 kB at the ends of what it reads."""
    window = WINDOWS["across blocks"]
    place, meter = placed("cog", "http"), Meter()
    web.clear()
    read_window(place, window, bands, meter=meter)
    for path, of in ((files.places["cog"].main, bands), (files.places["cog"].scales or "", (0,))):
        with tifffile.TiffFile(files.root / path) as file:
            page = file.pages[0]
            across, down = (math.ceil(n / 128) for n in (page.imagewidth, page.imagelength))
            touched = [r * across + c for r in (1, 2) for c in (0, 1)]
            size = sum(page.databytecounts[b * across * down + t] for b in of for t in touched)
        log = [r for r in web.log if r.path.endswith(path)]
        sent = sum(r.sent for r in log)
        assert size <= sent <= size + 32_768 + 2 * 16_384 * len(touched) * len(of), path
        # all bands of a block and of its neighbour lie side by side: a request for each row of blocks
        requests = 2 if len(of) == 128 else len(touched) * len(of)
        assert len([r for r in log if r.method == "GET"]) <= 1 + requests, path
    assert meter.requests == 4
    assert 0 < meter.bytes < cost(place, window)[0] * 1.5


@pytest.mark.service
@pytest.mark.parametrize("container", STORES)
def test_requests_for_stores(placed: Placed, web: Server, container: str) -> None:
    """Once indexes are known: the chunks that a window touches, neighbours in one request; then nothing."""
    place, chunk = placed(container, "http"), STORES[container]
    assert place.inside is not None
    rows, cols = (n + at for n, at in zip((300, 40), (place.inside.row, place.inside.col), strict=True))
    # a pixel of the same shards, in another chunk
    read_window(place, Window(400, 40, 1, 1))
    pixel = chunk * chunk * (128 + 4)
    web.clear()
    meter = Meter()
    read_window(place, Window(300, 40, 1, 1), meter=meter)
    assert meter.requests == web.count("GET") == 2
    assert meter.bytes == web.sent <= pixel * 1.05 + 1000
    again = Meter()
    read_window(place, Window(300, 40, 1, 1), meter=again)
    assert (again.requests, web.count()) == (0, 2)
    window = Window(300, 40, 60, 60)
    down = (rows + 59) // chunk - rows // chunk + 1
    across = (cols + 59) // chunk - cols // chunk + 1
    assert cost(place, window) == (down * across * pixel, False)
    web.clear()
    read_window(place, window)
    assert web.sent <= (down * across - 1) * pixel * 1.05 + 64 * 1024 * 2 * down
    assert web.count("GET") <= 2 * down * 2  # at most two shards side by side


@pytest.mark.service
def test_a_chunk_is_read_once_by_many(placed: Placed, web: Server) -> None:
    """Direct access asks for neighbouring rows at the same time."""
    place = placed("zarr", "http")
    read_window(place, Window(0, 0, 1, 1))
    web.clear()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: read_window(place, Window(row, 64, 1, 30)), range(512, 532)))
    paths = [(r.path, r.range) for r in web.log if r.method == "GET"]
    assert len(set(paths)) == len(paths)


@pytest.mark.service
@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_store_that_is_out_of_order(
    files: Files, placed: Placed, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It is asked again; if that does not help, the reason is said, and no pixels are given."""
    monkeypatch.setattr(retry, "BACKOFF", 0.001)
    place, failing = files.places["zarr"], [0]
    inner = StaticFiles(directory=files.root)

    async def sometimes(scope: Scope, receive: Receive, send: Send) -> None:
        if not failing[0]:
            await inner(scope, receive, send)
            return
        failing[0] -= 1
        if status:
            await PlainTextResponse("busy", status)(scope, receive, send)
        else:
            head = [(b"content-length", b"100000"), (b"content-range", b"bytes 0-99999/200000")]
            await send({"type": "http.response.start", "status": 206, "headers": head})
            await send({"type": "http.response.body", "body": b"xyz", "more_body": True})
            raise ConnectionError("broken off")

    with serve(Starlette(routes=[Mount("/", sometimes)])) as server:
        there = replace(place, main=f"{server.url}/{place.main}")
        read_window(there, Window(0, 0, 1, 1))
        failing[0] = 2
        window = Window(300, 40, 20, 20)
        found = read_window(there, window)
        assert failing[0] == 0
        assert same(found.dequantized(), files.values("zarr")[window.slices])
        failing[0] = 1000
        with pytest.raises(StorageError, match=rf"{server.url}.*(HTTP {status}|incomplete|closed)"):
            read_window(there, Window(900, 40, 20, 20))


# ---------------------------------------------------------------------------------------------- refusals


def test_what_does_not_fit_is_refused(placed: Placed) -> None:
    place = placed("npy", "local")
    for window in (Window(HEIGHT - 1, 0, 2, 1), Window(0, WIDTH, 1, 1)):
        for container in CONTAINERS:
            with pytest.raises(ValueError, match="is not within a raster"):
                read_window(placed(container, "local"), window)
    with pytest.raises(ValueError, match=r"the mask is \(2, 2\), the window \(1, 1\)"):
        read_window(place, Window(0, 0, 1, 1), mask=np.ones((2, 2), np.bool_))
    for bad in ((-1, 0, 1, 1), (0, 0, 0, 1)):
        with pytest.raises(ValueError, match="a window starts at"):
            Window(*bad)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", CONTAINERS)
def test_files_that_are_not_there(placed: Placed, container: str, where: str) -> None:
    place = placed(container, where)
    away = Place(place.kind, f"{place.main}.none.tif", place.scales, place.raster)
    with pytest.raises(StorageError, match=r"\.none\.tif: "):
        read_window(away, Window(0, 0, 1, 1))


@pytest.mark.parametrize("where", WHERE)
def test_an_array_of_another_shape(placed: Placed, where: str) -> None:
    place = placed("npy", where)
    swapped = Place("npy", place.scales or "", place.main, place.raster)
    with pytest.raises(ArrayError, match=r"_scales.npy is float32 \(1121, 180\) in C order: .* int8"):
        read_window(swapped, Window(0, 0, 1, 1))
    cog = placed("cog", where)
    with pytest.raises(StorageError, match=r"expected int8 .* found float32"):
        read_window(Place("cog", cog.scales or "", cog.main, cog.raster), Window(0, 0, 1, 1))
