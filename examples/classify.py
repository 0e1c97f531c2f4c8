# %% [markdown]
# # A map from a few labels
#
# A handful of labelled points is enough for a classifier on embeddings. The region is fetched by ranges,
# trained with k-nearest neighbours and with a linear model, and mapped.

# %%
import os
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from pystac_client import Client
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from catalog_builder.get import Options, get
from catalog_builder.get.region_file import region_of

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
OUT = Path(os.environ.get("TESSERA_OUT", "classify"))

# %% [markdown]
# ## Fetch the middle of the box for the newest year

# %%
west, south, east, north = BBOX
x, y = (west + east) / 2, (south + north) / 2
region = region_of(f"{x - 0.02},{y - 0.008},{x + 0.02},{y + 0.008}")
year = max(Client.open(API).get_collection(COLLECTION).to_dict()["summaries"]["tessera:year"])
done = get(API, OUT, Options(region, frozenset({year}), COLLECTION), lambda *_: None)
label = "SYNTHETIC pixels" if done.is_synthetic else "TESSERA"
print(f"{label}, {year}: read {done.read_bytes:,} of {done.whole_bytes:,} bytes")

with rasterio.open(done.files[0]) as src:
    cube, profile = src.read(), src.profile
valid = ~np.isnan(cube).any(axis=0)
pixels = cube[:, valid].T
print(f"{pixels.shape[0]:,} pixels of {pixels.shape[1]} dimensions")

# %% [markdown]
# ## Labels
#
# **Made up:** classes are clusters of the pixels themselves, standing in for what you know of the
# ground. Twenty points of each are "surveyed" for training; the rest tell how good the map is.

# %%
CLASSES, SURVEYED = 4, 20
truth = KMeans(CLASSES, n_init=3, random_state=0).fit_predict(pixels[:, :])
rng = np.random.default_rng(0)
train = np.concatenate([rng.permutation(np.flatnonzero(truth == c))[:SURVEYED] for c in range(CLASSES)])
test = np.setdiff1d(np.arange(len(truth)), train)

# %% [markdown]
# ## Train and map

# %%
models = {
    "5 nearest neighbours": KNeighborsClassifier(5),
    "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
}
for name, model in models.items():
    model.fit(pixels[train], truth[train])
    score = model.score(pixels[test], truth[test])
    print(f"  {name}: {score:.1%} of {len(test):,} other pixels right, from {len(train)} labels")
    classes = np.full(valid.shape, 255, np.uint8)
    classes[valid] = model.predict(pixels)
    path = OUT / f"map_{name.replace(' ', '_')}.tif"
    profile.update(count=1, dtype="uint8", nodata=255, predictor=1)
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(classes, 1)
        dst.update_tags(TITLE=f"{name}, {year}, {label}, made-up labels")
    colours = np.array([(230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167)], np.uint8)
    picture = np.where((classes == 255)[..., None], 255, colours[np.minimum(classes, CLASSES - 1)])
    Image.fromarray(picture.astype(np.uint8)).save(path.with_suffix(".png"))
    print(f"  {path} and .png ({label})")
