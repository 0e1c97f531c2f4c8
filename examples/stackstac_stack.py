"""Stack embeddings into xarray with stackstac, several tiles and years on one lattice.

stackstac reads one band of each asset; `view=bands` shows items that way. Nothing is resampled.

Run: TESSERA_API=http://localhost:8000/ python examples/stackstac_stack.py
"""

import os

import numpy as np
import stackstac
from pystac_client import Client

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]

catalog = Client.open(API, parameters={"view": "bands", "bands": "0-2"})
items = catalog.search(collections=[COLLECTION], bbox=BBOX).item_collection()
stack = stackstac.stack(items, dtype="float32", fill_value=np.float32("nan"), rescale=False)
print(dict(stack.sizes), "EPSG", stack.attrs["crs"], "resolution", stack.attrs["resolution"], "m")

# One value per year: tiles of a year are put together, and the first band averaged over a corner.
yearly = stack.groupby("time.year").first(skipna=True)
corner = yearly.isel(band=0, y=slice(0, 64), x=slice(0, 64))
label = "SYNTHETIC pixels" if items[0].properties.get("tessera:synthetic") else "TESSERA"
print(f"{label}: mean of dimension 0 in the north-west corner, by year")
for year, value in zip(yearly.year.values, corner.mean(["y", "x"]).values, strict=True):
    print(f"  {year}: {value:.3f}")
