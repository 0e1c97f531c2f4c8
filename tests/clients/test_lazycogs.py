"""lazycogs opens our items, of a search or of our own parquet, and reads exact pixels.

It refuses a whole catalogue for one number that is text. Of each asset it takes the first band.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.conftest import SUPPORT, plain_environment
from tests.support.converted import COLLECTION, FIRST, Converted
from tests.support.environments import environment
from tests.support.http_server import Server
from tests.support.pixels import cog, same

_ASSETS = ("embeddings", "scales", "visual")
_OPEN = """
import asyncio, importlib, json, os, sys
from pathlib import Path
import duckdb, lazycogs, numpy as np, rustac
from obstore.store import HTTPStore, LocalStore

parquet, out, asked = *sys.argv[1:3], json.loads(sys.argv[3])
if url := asked.get("search"):
    async def search():
        await rustac.search_to(parquet, url, ids=[asked["id"]])
    asyncio.run(search())
    how = {"store": HTTPStore.from_url(url, client_options={"allow_http": True})}
else:
    how = {"store": LocalStore(asked["data"]), "path_from_href": lambda href: href.split("/data/")[1]}
# rustac's DuckDB would download its extensions: they are of packages here
(platform,) = duckdb.sql("PRAGMA platform").fetchone()
folder = Path("extensions") / f"v{duckdb.__version__}" / platform
folder.mkdir(parents=True)
for name in ("icu", "parquet", "spatial"):
    package = Path(importlib.import_module(f"duckdb_extension_{name}").__file__).parent
    (path,) = package.rglob("*.duckdb_extension")
    (folder / path.name).symlink_to(path)
client = rustac.DuckdbClient(extension_directory=Path("extensions").absolute(), install_extensions=False)
arrays = {}
for asset in asked["assets"]:
    opened = lazycogs.open(
        parquet, ids=[asked["id"]], bbox=tuple(asked["bbox"]), crs=asked["crs"], resolution=10.0,
        bands=[asset], time_period=None, duckdb_client=client, **how,
    )
    arrays[asset] = opened.values
np.savez(out, **arrays)
sys.stdout.flush()
os._exit(0)  # rustac crashes now and then as the interpreter ends, after its work
"""


@pytest.mark.parametrize("source", ["search", "parquet"])
def test_it_reads_exact_pixels(server: Server, tiles: Converted, tmp_path: Path, source: str) -> None:
    raster = FIRST.raster()
    west, north = raster.transform @ (50, 300)
    asked = {
        "id": f"{FIRST.name}_2024",
        "assets": _ASSETS,
        "bbox": [west, north - 2000, west + 1000, north],
        "crs": f"EPSG:{raster.epsg}",
    }
    if source == "search":
        parquet = tmp_path / "found.parquet"
        asked["search"] = f"{server.url}/"
    else:
        parquet = tiles.catalog / COLLECTION / "items" / "year=2024" / "items.parquet"
        asked["data"] = str(tiles.catalog)
    out = tmp_path / "out.npz"
    python = environment(SUPPORT / "async-geotiff.lock")
    done = subprocess.run(
        [python, "-c", _OPEN, str(parquet), str(out), json.dumps(asked)],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        for asset in _ASSETS:
            with rasterio.open(cog(tiles, FIRST, 2024, f"{asset}.tif")) as src:
                there = src.read(1)[300:500, 50:150]
            assert same(found[asset][0, 0], there), asset
