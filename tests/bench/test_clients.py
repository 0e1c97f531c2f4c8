"""What each client asks for and is sent, beside downloading the tiles: requests and bytes.

A full-size tile (1139 x 729 pixels, 110 MB as published) in two years, one converted; each row is a
fresh process against our own server.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.bench.tables import show
from tests.clients.test_gdal import RECOMMENDED
from tests.conftest import plain_environment
from tests.support.http_server import Server, serve

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3000)]

TILE = TileId.from_name("grid_0.15_52.15")
SMALL = TileId.from_name("grid_0.05_83.65")
EIGHT = tuple(range(2017, 2025))

_FIND = """
import sys
from pystac_client import Client
url = sys.argv[1]
def items(year, **parameters):
    client = Client.open(url, parameters=parameters or None)
    return client.search(ids=[f"grid_0.15_52.15_{year}"], collections=["tessera-synthetic"])
"""
_PIXEL = """
import rasterio
from rasterio.windows import Window
with rasterio.open(next(items({year}).items()).assets["embeddings_f32"].href) as src:
    src.read(window=Window({window}))
"""
_STACKSTAC = """
import stackstac
stackstac.stack(list(items({year}, view="bands", bands="0-2").items_as_dicts())).compute()
"""
_ODC = """
import odc.stac
odc.stac.load(items({year}).items(), bands=[f"{asset}.{{n}}" for n in (1, 2, 3)]{more})
"""
_POINTS = """
import numpy as np
from catalog_builder.get import sample_points
rng = np.random.default_rng(0)
lon, lat = rng.uniform({box[0]}, {box[2]}, 1000), rng.uniform({box[1]}, {box[3]}, 1000)
sample_points(url, lon, lat, {years})
"""
CONVERTED, RAW = 2024, 2023
ROWS: list[tuple[str, str, int]] = [
    ("rasterio: 1 pixel, 128 bands, COG", _PIXEL.format(year=CONVERTED, window="300, 500, 1, 1"), 1),
    ("rasterio: 1 pixel, 128 bands, as published", _PIXEL.format(year=RAW, window="300, 500, 1, 1"), 1),
    ("rasterio: 256 x 256, 128 bands, COG", _PIXEL.format(year=CONVERTED, window="256, 512, 256, 256"), 1),
    ("rasterio: 256 x 256, 128 bands, as published", _PIXEL.format(year=RAW, window="256, 512, 256, 256"), 1),
    ("stackstac: 3 bands, whole tile, COG", _STACKSTAC.format(year=CONVERTED), 1),
    (
        "odc-stac: 3 bands of int8, whole tile, COG",
        _ODC.format(year=CONVERTED, asset="embeddings", more=""),
        1,
    ),
    (
        "odc-stac: 3 bands of float32, whole tile, COG",
        _ODC.format(year=CONVERTED, asset="embeddings_f32", more=""),
        1,
    ),
    (
        "odc-stac: 3 bands at 80 m, whole tile, COG",
        _ODC.format(year=CONVERTED, asset="embeddings", more=", resolution=80"),
        1,
    ),
    ("get: 2 x 2 km, float32, COG", "", 1),
    ("sample_points: 1,000 points, as published", _POINTS.format(box=TILE.bounds, years=[RAW]), 1),
    (
        "sample_points: 1,000 points, 8 years, small tile",
        _POINTS.format(box=SMALL.bounds, years=list(EIGHT)),
        8,
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("clients")
    wanted = [(TILE, CONVERTED), (TILE, RAW), *((SMALL, y) for y in EIGHT)]
    sample = sample_set(root / "source", tile_years=wanted, workers=1)
    catalog = root / "catalog"
    ds = dataset("synthetic")
    chosen = plan([str(sample.embeddings)], Wanted(dataset=ds, years=frozenset({CONVERTED})))
    run(chosen, ConvertOptions(out=str(catalog / "cogs"), durable=False), ExecutorWorkers(Inline(), window=1))
    options = BuildOptions(ds, source_root=str(sample.embeddings), landmask_root=str(sample.landmasks))
    build([str(sample.root)], catalog, options)
    with serve(create_app(catalog)) as running:
        yield running


def test_clients(server: Server, tmp_path: Path) -> None:
    rows = []
    whole = {1: 110_000_000, 8: 0}
    height, width = TILE.raster().shape
    whole[1] = height * width * 132 + 256
    height, width = SMALL.raster().shape
    whole[8] = 8 * (height * width * 132 + 256)
    for label, code, tiles in ROWS:
        command = [sys.executable, "-c", _FIND + code, f"{server.url}/"]
        if label.startswith("get"):
            box = "0.14,52.14,0.17,52.158"
            tool = Path(sys.executable).with_name("tessera-stac")
            command = [
                str(tool),
                "get",
                f"{server.url}/",
                "--bbox",
                box,
                "--year",
                str(CONVERTED),
                "--out",
                str(tmp_path),
                "-q",
            ]
        server.clear()
        start = time.perf_counter()
        done = subprocess.run(command, env=plain_environment(**RECOMMENDED), capture_output=True, text=True)
        seconds = time.perf_counter() - start
        assert done.returncode == 0, done.stderr
        asked = [r for r in server.log if r.path.startswith(("/data", "/source"))]
        sent = sum(r.sent for r in asked)
        rows.append(
            [
                label,
                f"{len(asked):,}",
                f"{sent / 1e6:,.2f}",
                f"{whole[tiles] / 1e6:,.0f}",
                f"{whole[tiles] / sent:,.0f}",
                f"{seconds:.1f}",
            ]
        )
    show(
        "Clients: requests for pixels and bytes, beside downloading the same tiles",
        ["what", "requests", "MB sent", "MB whole", "times less", "seconds, with start"],
        rows,
    )
