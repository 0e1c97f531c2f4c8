# %% [markdown]
# # Vectors of 1,000 labelled points over all years
#
# What a training set or a time series needs is a few pixels of many files. A published array holds the
# 128 values of a pixel side by side, so a point and year is 132 bytes of a tile's 110 MB; points that lie
# close together in the file are read in one request.

# %%
import os
import time

import numpy as np
from pystac_client import Client

from catalog_builder.get import sample_points

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
POINTS = int(os.environ.get("TESSERA_POINTS", "1000"))

# %% [markdown]
# ## Points
#
# Here they are scattered over the box, with made-up labels; yours come from a file.

# %%
rng = np.random.default_rng(0)
west, south, east, north = BBOX
lon, lat = rng.uniform(west, east, POINTS), rng.uniform(south, north, POINTS)
labels = rng.integers(0, 4, POINTS)

collection = Client.open(API).get_collection(COLLECTION)
years = collection.to_dict()["summaries"]["tessera:year"]
print(f"{collection.title}: {POINTS} points, years {years}")

# %% [markdown]
# ## Read
#
# Points are grouped by tile; only the pixels under them are asked for.

# %%
start = time.perf_counter()
samples = sample_points(API, lon, lat, years, dataset=COLLECTION)
seconds = time.perf_counter() - start
label = "SYNTHETIC pixels" if samples.is_synthetic else "TESSERA"
print(f"{label}: {samples.values.shape} in {seconds:.1f} s")
print(f"  {samples.requests:,} reads, {samples.read_bytes:,} bytes")
print(f"  downloading the tiles: {samples.whole_bytes:,} bytes")

# %% [markdown]
# ## A time series
#
# How far each point has moved from its first year, as an angle between vectors.

# %%
first = samples.values[:, :1]
norms = np.linalg.norm(samples.values, axis=2) * np.linalg.norm(first, axis=2)
cosine = np.einsum("pyb,pyb->py", samples.values, np.broadcast_to(first, samples.values.shape)) / norms
for i, year in enumerate(years):
    known = ~np.isnan(cosine[:, i])
    if known.any():
        print(f"  {year}: {known.sum():5} points, cosine to {years[0]}: {np.median(cosine[known, i]):.3f}")
print(f"  {len(np.unique(labels))} made-up classes are ready to train on: see classify.py")
