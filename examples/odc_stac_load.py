"""Load a small box with odc-stac: int8 codes with scales where tiles are converted, float32 everywhere.

Run: TESSERA_API=http://localhost:8000/ python examples/odc_stac_load.py
"""

import os

import numpy as np
import odc.stac
from pystac_client import Client

API = os.environ.get("TESSERA_API", "http://localhost:8000/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
west, south, east, north = BBOX
middle = [(west + east) / 2 - 0.005, (south + north) / 2 - 0.002]
small = [middle[0], middle[1], middle[0] + 0.01, middle[1] + 0.004]

items = list(Client.open(API).search(collections=[COLLECTION], bbox=small).items())
label = "SYNTHETIC pixels" if items[0].properties.get("tessera:synthetic") else "TESSERA"

numbers = [1, 2, 3]  # odc-stac counts bands from 1
values = odc.stac.load(items, bands=[f"embeddings_f32.{n}" for n in numbers], bbox=small)
print(f"{label}, float32: {dict(values.sizes)}, {values.nbytes:,} bytes, dates {values.time.dt.year.values}")

converted = [item for item in items if item.properties["tessera:cog"]]
if converted:
    codes = odc.stac.load(converted, bands=[*(f"embeddings.{n}" for n in numbers), "scales"], bbox=small)
    again = codes["embeddings.1"].astype("float32") * codes["scales"]
    same = values["embeddings_f32.1"].sel(time=again.time)
    assert np.array_equal(again.values, same.values, equal_nan=True)
    print(
        f"{label}, int8 with scales: {codes.nbytes:,} bytes; code x scale is the float32 value, bit for bit"
    )
