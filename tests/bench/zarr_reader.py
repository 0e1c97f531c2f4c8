"""Read one access pattern of a tile from a Zarr store by URL, codes and scales: a fresh process each time.

``zarr_reader.py URL ROW COL ROWS COLS BANDS``: ``BANDS`` is ``all`` or numbers with commas. Prints the shape
of the codes, their sum, and that of the scales.
"""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
import zarr
from obstore.store import HTTPStore
from zarr.storage import ObjectStore

if __name__ == "__main__":
    url, *window, wanted = sys.argv[1:]
    row, col, rows, cols = map(int, window)
    store = ObjectStore(HTTPStore(url, client_options={"allow_http": True}), read_only=True)
    zarr.config.set({"async.concurrency": 64})
    cube = xr.open_zarr(store, consolidated=True, zarr_format=3, chunks=None)
    place = {"y": slice(row, row + rows), "x": slice(col, col + cols)}
    codes = cube["embeddings"].isel(time=0, **place)
    if wanted != "all":
        codes = codes.isel(band=[int(n) for n in wanted.split(",")])
    found = codes.values
    scales = cube["scales"].isel(time=0, **place).values
    print(
        found.shape,
        int(found.sum(dtype=np.int64)),
        float(np.sum(scales[np.isfinite(scales)], dtype=np.float64)),
    )
