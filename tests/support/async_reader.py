"""Read windows of a TIFF with async-geotiff or lazycogs and save them: a script for where these are.

``python async_reader.py PATH OUT.npz JSON``: the JSON is a list of reads ``{"window": [x, y, width,
height], "overview": level or null}``; with ``"by": "lazycogs"`` the window is read as that of an item's
asset. Arrays are saved as 0, 1, …, each (bands, height, width).
"""

import asyncio
import json
import sys
from pathlib import Path

import lazycogs
import numpy as np
from affine import Affine
from async_geotiff import GeoTIFF, Window
from obstore.store import LocalStore


async def read(path, out, reads):
    file = Path(path)
    store = LocalStore(str(file.parent))
    tiff = await GeoTIFF.open(file.name, store=store)
    arrays = {}
    for i, wanted in enumerate(json.loads(reads)):
        x, y, width, height = wanted["window"]
        if wanted.get("by") == "lazycogs":
            place = tiff.transform * Affine.translation(x, y)
            item = {"id": "a", "properties": {}, "assets": {"a": {"href": file.as_uri()}}}
            found = await lazycogs.read_chunk_async(
                [item], ["a"], place, tiff.crs, width, height,
                out_dtype=np.dtype(tiff.dtype), nodata=tiff.nodata, store=store, path_fn=lambda _: file.name,
            )  # fmt: skip
            arrays[str(i)] = found["a"]
            continue
        level = wanted.get("overview")
        image = tiff if level is None else tiff.overviews[level]
        found = await image.read(window=Window(col_off=x, row_off=y, width=width, height=height))
        arrays[str(i)] = np.ma.getdata(found.data)
    np.savez(out, **arrays)


def main(*arguments):
    asyncio.run(read(*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
