"""GDAL as users have it: every asset over HTTP, a search as one mosaic, and exactly what it costs.

Costs are those of a fresh process each, because GDAL caches within one; the tile is 1118 x 240.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pystac_client import Client

from tests.conftest import plain_environment
from tests.convert.test_requests import RECOMMENDED
from tests.support.containers import YEAR, Contained
from tests.support.converted import COLLECTION, FIRST, NEIGHBOUR, RAW_YEAR, Converted
from tests.support.forked import run_script
from tests.support.http_server import Server
from tests.support.pixels import BBOX, cog, mosaic, same, tile_values
from tests.support.snippets import localised, run_python, snippets

READ = Path(__file__).with_name("gdal_asset.py")


def read(
    python: Path,
    folder: Path,
    path: str,
    window: tuple[int, int, int, int] | None = None,
    bands: list[int] | None = None,
    **settings: str,
) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Read in a fresh process; return the pixels and what the file says of itself."""
    out = folder / "out.npy"
    arguments = (path, out, json.dumps(window), json.dumps(bands))
    done = run_script(python, READ, *arguments, environment=plain_environment(**settings))
    assert done.returncode == 0, done.stderr
    return np.load(out), json.loads(done.stdout)


def asset(server: Server, name: str, year: int = YEAR) -> str:
    item = next(Client.open(f"{server.url}/").search(ids=[f"{FIRST.name}_{year}"]).items())
    return f"/vsicurl/{item.assets[name].href}"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("embeddings", "embeddings.tif"),
        ("scales", "scales.tif"),
        ("visual", "visual.tif"),
    ],
)
def test_assets_equal_the_files(
    server: Server, tiles: Converted, gdal_python: Path, tmp_path: Path, name: str, file: str
) -> None:
    found, about = read(gdal_python, tmp_path, asset(server, name), **RECOMMENDED)
    wanted, _ = read(gdal_python, tmp_path, str(cog(tiles, FIRST, 2024, file)))
    assert same(found, wanted)
    at_its_place(about)


@pytest.mark.parametrize("name", ["embeddings_f32", "embeddings_f32_window"])
def test_float32_views_equal_numpy(
    contained: Contained, gdal_python: Path, tmp_path: Path, name: str
) -> None:
    found, about = read(gdal_python, tmp_path, asset(contained.server, name), **RECOMMENDED)
    assert same(found, contained.values(FIRST))
    at_its_place(about)
    assert (about["count"], about["dtype"], about["nodata"]) == (128, "float32", "None")
    assert about["descriptions"] == [f"Tessera_Band_{i}" for i in range(128)]
    assert (about["tags"]["TESSERA_YEAR"], about["tags"]["TESSERA_SYNTHETIC"]) == ("2024", "YES")


def at_its_place(about: dict[str, Any]) -> None:
    raster = FIRST.raster()
    assert about["epsg"] == 32633
    assert about["transform"] == list(raster.transform)[:6]
    assert tuple(about["shape"]) == raster.shape


def test_what_gdalinfo_shows(server: Server, gdal_python: Path, tmp_path: Path) -> None:
    """Tags and band names as geotessera writes them, nodata, overviews, statistics where they help."""
    codes, scales, values, visual = (
        read(gdal_python, tmp_path, asset(server, name), (0, 0, 1, 1), **RECOMMENDED)[1]
        for name in ("embeddings", "scales", "embeddings_f32", "visual")
    )
    for about in (codes, scales, values, visual):
        assert about["tags"]["TESSERA_YEAR"] == "2024"
        assert about["tags"]["TESSERA_DATASET_VARIANT"] == "synthetic"
        assert about["tags"]["TESSERA_SYNTHETIC"] == "YES"
        assert about["tags"]["TESSERA_TILE_LON"] == "15.65"
        assert about["tags"]["AREA_OR_POINT"] == "Area"
        assert about["overviews"][:2] == [2, 4]
    assert (codes["count"], codes["dtype"], codes["nodata"]) == (128, "int8", "-128.0")
    assert codes["descriptions"] == [f"Tessera_Band_{i}" for i in range(128)] == values["descriptions"]
    assert codes["structure"]["COMPRESSION"] == "ZSTD"
    assert codes["structure"]["LAYOUT"] == "COG"
    assert (scales["count"], scales["dtype"], scales["nodata"]) == (1, "float32", "nan")
    assert float(scales["band_tags"]["STATISTICS_MINIMUM"]) > 0
    # no nodata on purpose: GDAL 3.12's mul would take NaN for an operand to skip
    assert (values["count"], values["dtype"], values["nodata"]) == (128, "float32", "None")
    assert (visual["count"], visual["dtype"], visual["interp"]) == (3, "uint8", ["red", "green", "blue"])


def test_statistics_of_the_item_are_the_pixels(server: Server, tiles: Converted) -> None:
    item = next(Client.open(f"{server.url}/").search(ids=[f"{FIRST.name}_2024"]).items())
    bands = item.assets["embeddings_f32"].to_dict()["bands"]
    values = tile_values(tiles, FIRST, 2024)
    for i in (0, 5, 127):
        said = bands[i]["statistics"]
        # numbers are written with six digits
        assert said["minimum"] == pytest.approx(np.nanmin(values[i]), rel=1e-5)
        assert said["maximum"] == pytest.approx(np.nanmax(values[i]), rel=1e-5)
        assert said["mean"] == pytest.approx(np.nanmean(values[i], dtype=np.float64), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["embeddings", "scales", "visual"])
def test_stacit_opens_a_search_as_one_mosaic(
    server: Server, tiles: Converted, gdal_python: Path, tmp_path: Path, name: str
) -> None:
    """Two tiles of one zone on one lattice, by GDAL's own driver for searches."""
    box = ",".join(map(str, BBOX))
    search = f"{server.url}/search?collections={COLLECTION}&bbox={box}&datetime=2024-01-01T00:00:00Z"
    bands = [1, 3] if name != "scales" else [1]
    found, about = read(gdal_python, tmp_path, f'STACIT:"{search}":asset={name}', None, bands, **RECOMMENDED)
    assert tuple(about["shape"]) == (1121, 468)
    assert about["epsg"] == 32633
    wanted = mosaic(tiles, 2024, {"visual": "visual.tif"}.get(name, f"{name}.tif"))
    wanted = wanted[np.array(bands) - 1]
    raster = FIRST.raster()
    width = raster.width - 20  # the overlap of the two tiles belongs to one or the other
    assert same(found[:, :, :width], wanted[:, :, :width])
    assert same(found[:, :, raster.width + 20 :], wanted[:, :, raster.width + 20 :])


def test_stacit_of_float32_views(contained: Contained, gdal_python: Path, tmp_path: Path) -> None:
    box = ",".join(map(str, BBOX))
    search = (
        f"{contained.server.url}/search?collections={COLLECTION}&bbox={box}&datetime=2024-01-01T00:00:00Z"
    )
    found, about = read(
        gdal_python, tmp_path, f'STACIT:"{search}":asset=embeddings_f32', None, [1, 128], **RECOMMENDED
    )
    assert tuple(about["shape"]) == (1121, 468)
    assert about["epsg"] == 32633
    west, north = about["transform"][2], about["transform"][5]
    for tile, columns in ((FIRST, slice(0, -20)), (NEIGHBOUR, slice(20, None))):  # not where they overlap
        raster = tile.raster()
        row, col = round((north - raster.transform.f) / 10), round((raster.transform.c - west) / 10)
        there = found[:, row : row + raster.height, col : col + raster.width][..., columns]
        # the rectangle of the neighbour, where it has no data, may cover this tile's
        mine = contained.values(tile)[[0, 127]][..., columns]
        assert same(np.where(np.isnan(mine), mine, there), mine), tile


def test_stacit_lists_what_there_is(server: Server, tmp_path: Path) -> None:
    """Without a choice of asset: one subdataset per asset that GDAL can read."""
    code = (
        "import rasterio, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "with rasterio.open(sys.argv[1]) as ds: print('\\n'.join(ds.subdatasets))"
    )
    search = f"{server.url}/search?collections={COLLECTION}&datetime=2024-01-01T00:00:00Z"
    out = run_python(code, tmp_path, f'STACIT:"{search}"')
    for name in ("embeddings", "scales", "embeddings_f32", "visual"):
        assert f"asset={name}\n" in out
    assert "thumbnail" not in out


# asset, window (x, y, width, height), bands: GETs of GDAL 3.12 and 3.10, bytes that 3.12 is sent.
# 3.10 does not merge ranges across planar bands, and doubles what it reads ahead instead.
COSTS = [
    ("embeddings", (100, 500, 1, 1), None, 2, 7, 409_600),
    ("embeddings", (100, 500, 64, 64), [1], 5, 5, 79_521),
    ("embeddings", (20, 300, 200, 200), None, 2, 2050, 3_768_320),
    ("scales", (100, 500, 1, 1), None, 2, 2, 98_304),
    ("visual", (0, 0, 240, 1118), None, 2, 2, 565_267),
    ("embeddings_f32", (100, 500, 1, 1), None, 10, 11, 777_846),
    ("embeddings_f32", (100, 500, 64, 64), [1, 2, 3], 17, 17, 361_394),
]


@pytest.mark.parametrize(("name", "window", "bands", "gets", "gets310", "sent"), COSTS)
def test_requests_and_bytes(
    server: Server,
    tmp_path: Path,
    gdal_python: Path,
    name: str,
    window: Any,
    bands: Any,
    gets: int,
    gets310: int,
    sent: int,
) -> None:
    path = asset(server, name)
    files = 3 if name == "embeddings_f32" else 1
    server.clear()
    _, about = read(gdal_python, tmp_path, path, window, bands, **RECOMMENDED)
    old = about["gdal"].startswith("3.10")
    assert Counter((r.method, r.status) for r in server.log) == {
        ("HEAD", 200): files,
        ("GET", 206): gets310 if old else gets,
    }
    if not old:
        # the block's own size, which follows the version of zstd
        assert server.sent == pytest.approx(sent, rel=0.01)


@pytest.mark.parametrize(("year", "gets", "heads"), [(RAW_YEAR, 9, 7), (2024, 19, 8)])
def test_defaults_work(server: Server, tmp_path: Path, year: int, gets: int, heads: int) -> None:
    """Without any setting: the same pixels, and a few more requests, for sidecars that are not there."""
    path = asset(server, "embeddings_f32", year)
    server.clear()
    found, _ = read(Path(sys.executable), tmp_path, path, (10, 10, 4, 4))
    assert found.shape == (128, 4, 4)
    assert server.count("GET") <= gets
    assert server.count("HEAD") <= heads


def test_readme_snippets(server: Server, tmp_path: Path) -> None:
    out = run_python(localised(snippets()["rasterio"][1], server.url, BBOX), tmp_path)
    assert out.startswith("(128, 16, 16) 2024 ('Tessera_Band_0'")
    out = run_python(localised(snippets()["stacit"][1], server.url, BBOX), tmp_path)
    assert out == "128 bands, 468 x 1121 pixels, EPSG:32633\n"


def test_recommended_settings_are_the_documented_ones() -> None:
    document = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
    for name, value in RECOMMENDED.items():
        assert f"| `{name}` | `{value}` |" in document
