"""Read one access pattern of a tile from a store by URL, codes and scales: a fresh process each time.

``zarr_reader.py BY URL GROUP TIME ROW COL ROWS COLS BANDS``. BY is ``xarray``, which opens a Zarr store with
obstore and an Icechunk repository with icechunk, or ``geotessera``, whose own reader takes a window of the
zone in metres and gives all bands. ``BANDS`` is ``all`` or numbers with commas. Prints the number of values
that are finite, and their sum.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import xarray as xr
import zarr


def with_xarray(
    url: str, group: str, time: int, place: list[int], bands: list[int] | None
) -> tuple[Any, Any]:
    """Return codes (bands, rows, cols) and scales (rows, cols)."""
    row, col, rows, cols = place
    store: Any
    if url.endswith(".icechunk"):
        import icechunk

        storage = icechunk.http_storage(url, opts={"allow_http": "true"})
        store, is_consolidated = icechunk.Repository.open(storage).readonly_session("main").store, False
    else:
        from obstore.store import HTTPStore
        from zarr.storage import ObjectStore

        store = ObjectStore(HTTPStore(url, client_options={"allow_http": True}), read_only=True)
        is_consolidated = True
    zarr.config.set({"async.concurrency": 64})
    cube = xr.open_zarr(store, group=group, consolidated=is_consolidated, zarr_format=3, chunks=None)
    y, x = ("y", "x") if "y" in cube.dims else ("northing", "easting")
    part = cube.isel(time=time, **{y: slice(row, row + rows), x: slice(col, col + cols)})  # type: ignore[arg-type]
    codes = part["embeddings"].transpose("band", y, x)
    return (codes if bands is None else codes.isel(band=bands)).values, part["scales"].values


def with_geotessera(
    url: str, group: str, time: int, place: list[int], bands: list[int] | None
) -> tuple[Any, Any]:
    """Return the same; bands are taken of all that it read."""
    import geotessera.store

    geotessera.store.CLIENT_OPTIONS["allow_http"] = True  # the server of this bench has no certificate
    row, col, rows, cols = place
    client = geotessera.store.GeoTesseraZarr(url)
    zone = client.open_zone(zone=int(group.removeprefix("utm")))
    west, top = zone.attrs["spatial:transform"][2], zone.attrs["spatial:transform"][5]
    left, upper = west + 10 * col, top - 10 * row
    box = (left, upper - 10 * rows, left + 10 * cols, upper)
    codes, scales, _ = zone.tessera.read_region_quantized(box, client.years[time])
    codes = np.moveaxis(codes, -1, 0)
    return codes if bands is None else codes[bands], scales


if __name__ == "__main__":
    by, url, group, time, *place, wanted = sys.argv[1:]
    bands = None if wanted == "all" else [int(n) for n in wanted.split(",")]
    read = {"xarray": with_xarray, "geotessera": with_geotessera}[by]
    codes, scales = read(url, group, int(time), [int(n) for n in place], bands)
    assert scales.shape == (int(place[2]), int(place[3])), scales.shape
    valid = np.isfinite(scales)
    factor = np.where(valid, scales, 0)
    total = sum(float(np.sum(band * factor, dtype=np.float64)) for band in codes)
    print(len(codes) * int(valid.sum()), total)
