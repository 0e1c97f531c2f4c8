"""Open a tile as a lazy xarray with rioxarray, and a fetched region as Zarr with xarray alone.

Run: TESSERA_API=http://localhost:8000/ python examples/xarray_window.py
"""

import os
import tempfile
from pathlib import Path

import rioxarray
import xarray as xr
from pystac_client import Client

from catalog_builder.get import Options, get
from catalog_builder.get.region_file import region_of

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]

item = next(Client.open(API).search(collections=[COLLECTION], bbox=BBOX).items())
label = "SYNTHETIC pixels" if item.properties.get("tessera:synthetic") else "TESSERA"
tile = rioxarray.open_rasterio(item.assets["embeddings_f32_window"].href, chunks={"x": 128, "y": 128})
window = tile.isel(x=slice(64, 80), y=slice(64, 80)).compute()
print(
    f"{label}: {item.id} is {dict(tile.sizes)}, lazy; a window of it is {dict(window.sizes)}, {tile.rio.crs}"
)

# A region, fetched once by ranges and kept as Zarr.
west, south, east, north = BBOX
x, y = (west + east) / 2, (south + north) / 2
region = region_of(f"{x - 0.005},{y - 0.002},{x + 0.005},{y + 0.002}")
year = item.properties["tessera:year"]
with tempfile.TemporaryDirectory() as folder:
    options = Options(region, frozenset({year}), COLLECTION, format="zarr", bands=tuple(range(8)))
    done = get(API, Path(folder), options, lambda *_: None)
    with xr.open_dataset(done.files[0], engine="zarr", consolidated=False) as ds:
        print(f"{label}: fetched {done.read_bytes:,} of {done.whole_bytes:,} bytes, {dict(ds.sizes)}")
