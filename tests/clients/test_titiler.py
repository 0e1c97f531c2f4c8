"""titiler as users run it, given the URL of a float32 view: values, parts, map tiles, and no warning."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer
from pystac_client import Client

from tests.support.containers import YEAR, Contained
from tests.support.converted import FIRST
from tests.support.pixels import same
from tests.support.snippets import run_python

BANDS = (1, 6, 128)
"""Counted from 1."""
WINDOW = (90, 500, 64, 48)
"""Column, row, width, height."""
ZOOM = 13
_EDGE = 20037508.342789244
_SERVE = """
import json, sys
import numpy as np
from fastapi import FastAPI
from starlette.testclient import TestClient
from titiler.core.factory import TilerFactory

app = FastAPI()
app.include_router(TilerFactory().router)
client = TestClient(app)
url, bands, asked = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
crs = {"coord_crs": asked["crs"], "dst_crs": asked["crs"]}
given = {"url": url, "bidx": bands, "return_mask": False}

def get(path, **more):
    answer = client.get(path, params={**given, **more})
    assert answer.status_code == 200, answer.text
    return answer

info = client.get("/info", params={"url": url}).json()
points = [get(f"/point/{x},{y}", coord_crs=asked["crs"]).json()["values"] for x, y in asked["points"]]
box = ",".join(map(str, asked["box"]))
get(f"/bbox/{box}.npy", **crs)
import io
part = np.load(io.BytesIO(get(f"/bbox/{box}.npy", **crs).content))
tile = np.load(io.BytesIO(get("/tiles/WebMercatorQuad/{}/{}/{}.npy".format(*asked["tile"])).content))
np.savez("out.npz", part=part, tile=tile)
print(json.dumps([info["count"], info["dtype"], points]))
"""


@pytest.mark.parametrize("name", ["embeddings_f32", "embeddings_f32_window"])
def test_values_parts_and_tiles(contained: Contained, tmp_path: Path, name: str) -> None:
    item = next(Client.open(f"{contained.server.url}/").search(ids=[f"{FIRST.name}_{YEAR}"]).items())
    raster, values = FIRST.raster(), contained.values(FIRST)[[n - 1 for n in BANDS]]
    x, y, width, height = WINDOW
    window = values[:, y : y + height, x : x + width]
    rows, cols = np.nonzero(np.isfinite(window[0]))
    some = [(int(rows[i]) + y, int(cols[i]) + x) for i in (0, len(rows) // 2, -1)]
    west, north = raster.transform @ (x, y)
    n = 1 << ZOOM
    across = int((FIRST.lon + 180) / 360 * n)
    down = int((1 - math.asinh(math.tan(math.radians(FIRST.lat))) / math.pi) / 2 * n)
    asked = {
        "crs": f"EPSG:{raster.epsg}",
        "points": [raster.transform @ (col + 0.5, row + 0.5) for row, col in some],
        "box": [west, north - 10 * height, west + 10 * width, north],
        "tile": [ZOOM, across, down],
    }
    said = run_python(_SERVE, tmp_path, item.assets[name].href, json.dumps(BANDS), json.dumps(asked))
    count, dtype, points = json.loads(said)
    assert (count, dtype) == (128, "float32")
    for found, (row, col) in zip(points, some, strict=True):
        assert np.array_equal(np.array(found, np.float32), values[:, row, col])
    with np.load(tmp_path / "out.npz") as saved:
        part, tile = saved["part"], saved["tile"]
    assert same(part, window)
    # each pixel of a map tile is the nearest of the raster, or its neighbour
    step = 2 * _EDGE / (256 << ZOOM)
    mx = -_EDGE + (across * 256 + np.arange(256) + 0.5) * step
    my = _EDGE - (down * 256 + np.arange(256) + 0.5) * step
    ux, uy = Transformer.from_crs(3857, raster.epsg, always_xy=True).transform(*np.meshgrid(mx, my))
    col = np.floor((ux - raster.transform.c) / 10).astype(int)
    row = np.floor((raster.transform.f - uy) / 10).astype(int)
    inside = (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
    assert inside.mean() > 0.5
    found, right = tile[:, inside], values[:, row[inside], col[inside]]
    assert ((found == right) | (np.isnan(found) & np.isnan(right))).all(axis=0).mean() > 0.98
