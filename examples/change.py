# %% [markdown]
# # What changed between two years?
#
# The vectors of a region in two years, pixel by pixel: where the angle between them is large, the
# surface, or how it was used, is another.

# %%
import os
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from pystac_client import Client

from catalog_builder.get import Options, get
from catalog_builder.get.region_file import region_of

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
OUT = Path(os.environ.get("TESSERA_OUT", "change"))

# %% [markdown]
# ## A place that has two years
#
# Tiles of all years lie on one lattice, so their pixels are the same pixels.

# %%
items = list(Client.open(API).search(collections=[COLLECTION], bbox=BBOX).items())
tile = next(i for i in items if len(i.properties["tessera:years"]) > 1)
before, after = tile.properties["tessera:years"][-2:]
west, south, east, north = tile.bbox
x, y = (west + east) / 2, (south + north) / 2
region = region_of(f"{x - 0.02},{y - 0.008},{x + 0.02},{y + 0.008}")
done = get(API, OUT, Options(region, frozenset({before, after}), COLLECTION), lambda *_: None)
label = "SYNTHETIC pixels" if done.is_synthetic else "TESSERA"
print(f"{label}: {before} and {after}, read {done.read_bytes:,} of {done.whole_bytes:,} bytes")

# %% [markdown]
# ## The angle between the years

# %%
cubes = {}
for path in done.files:
    with rasterio.open(path) as src:
        cubes[int(src.tags()["TESSERA_YEAR"])], profile = src.read(), src.profile
one, two = cubes[before], cubes[after]
assert one.shape == two.shape
norms = np.linalg.norm(one, axis=0) * np.linalg.norm(two, axis=0)
with np.errstate(invalid="ignore", divide="ignore"):
    angle = np.degrees(np.arccos(np.clip((one * two).sum(axis=0) / norms, -1, 1))).astype(np.float32)
known = ~np.isnan(angle)
print(f"  {known.sum():,} pixels; median change {np.median(angle[known]):.1f} degrees")
limit = np.percentile(angle[known], 95)
print(f"  the most changed twentieth is above {limit:.1f} degrees")

# %% [markdown]
# ## A map of it

# %%
path = OUT / "change.tif"
profile.update(count=1, dtype="float32", nodata=float("nan"), predictor=3)
with rasterio.open(path, "w", **profile) as dst:
    dst.write(angle, 1)
    dst.update_tags(TITLE=f"Angle between embeddings of {before} and {after}, degrees, {label}")
red = np.where(known, np.clip(angle / max(limit, 1e-6), 0, 1) * 255, 0)
picture = np.stack([red, np.zeros_like(red), np.zeros_like(red)], axis=-1).astype(np.uint8)
Image.fromarray(picture).save(path.with_suffix(".png"))
print(f"  {path} and .png ({label})")
