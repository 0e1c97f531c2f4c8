# %% [markdown]
# # Where else is it like here?
#
# The vector of one pixel is compared with every pixel of a region, by the angle between them.

# %%
import os
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from pystac_client import Client

from catalog_builder.get import Options, get, sample_points
from catalog_builder.get.region_file import region_of

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
OUT = Path(os.environ.get("TESSERA_OUT", "similarity"))

# %% [markdown]
# ## One pixel

# %%
west, south, east, north = BBOX
x, y = (west + east) / 2 - 0.01, (south + north) / 2
year = max(Client.open(API).get_collection(COLLECTION).to_dict()["summaries"]["tessera:year"])
here = sample_points(API, [x], [y], [year], dataset=COLLECTION)
query = here.values[0, 0]
label = "SYNTHETIC pixels" if here.is_synthetic else "TESSERA"
print(f"{label}, {year}: the vector at {x:.4f}, {y:.4f} took {here.read_bytes:,} bytes")

# %% [markdown]
# ## The region around it, as int8 codes with scales
#
# The angle does not depend on a pixel's scale, so the codes alone decide: a fifth of the memory.

# %%
region = region_of(f"{x - 0.02},{y - 0.008},{x + 0.02},{y + 0.008}")
options = Options(region, frozenset({year}), COLLECTION, dtype="int8")
done = get(API, OUT, options, lambda *_: None)
with rasterio.open(done.files[0]) as src:
    codes, profile = src.read().astype(np.float32), src.profile
with rasterio.open(done.files[1]) as src:
    valid = ~np.isnan(src.read(1)) & (np.abs(codes).max(axis=0) > 0)
norms = np.linalg.norm(codes, axis=0) * np.linalg.norm(query)
cosine = np.full(valid.shape, np.nan, np.float32)
cosine[valid] = (np.tensordot(query, codes, axes=1) / np.where(norms > 0, norms, 1))[valid]
best = np.nanmax(cosine)
print(f"  read {done.read_bytes:,} bytes of {done.whole_bytes:,}; {valid.sum():,} pixels")
print(f"  the most similar pixel has cosine {best:.4f} (it is the pixel itself)")
for limit in (0.99, 0.9, 0.8):
    print(f"  {np.mean(cosine[valid] > limit):6.1%} of pixels are above {limit}")

# %% [markdown]
# ## A map of it

# %%
path = OUT / "similarity.tif"
profile.update(count=1, dtype="float32", nodata=float("nan"), predictor=3)
with rasterio.open(path, "w", **profile) as dst:
    dst.write(cosine, 1)
    dst.update_tags(TITLE=f"Cosine similarity to {x:.4f}, {y:.4f}, {year}, {label}")
grey = np.where(valid, np.clip(cosine, 0, 1) * 255, 255).astype(np.uint8)
Image.fromarray(grey).save(path.with_suffix(".png"))
print(f"  {path} and .png ({label})")
