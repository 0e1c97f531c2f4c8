"""Read a window of a raster with one of many readers: a script for the environment of ``readers.lock``.

``python pixels.py READER ADDRESS OUT.npy X Y WIDTH HEIGHT``: writes (bands, height, width) in the type that
the reader gives, and prints the reader's version. The address is http.
"""

import asyncio
import os
import sys
from importlib.metadata import version
from urllib.parse import urlsplit

import fsspec
import numpy as np
import tifffile
import xarray
import zarr


def with_tifffile(address, x, y, width, height):
    with fsspec.open(address, "rb") as file, tifffile.TiffFile(file) as tif:
        array = zarr.open_array(tif.aszarr(series=0, level=0), mode="r")
        # one band is (rows, columns), planar bands come first
        return np.atleast_3d(array[..., y : y + height, x : x + width].T).T


def with_async_geotiff(address, x, y, width, height):
    from async_geotiff import GeoTIFF, Window
    from obstore.store import HTTPStore

    async def read():
        where = urlsplit(address)
        store = HTTPStore(f"{where.scheme}://{where.netloc}", client_options={"allow_http": True})
        tif = await GeoTIFF.open(where.path.lstrip("/"), store=store)
        return (await tif.read(window=Window(x, y, width, height))).data

    return np.asarray(asyncio.run(read()))


def with_virtual_tiff(address, x, y, width, height):
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore
    from virtual_tiff import VirtualTIFF

    where = urlsplit(address)
    root = f"{where.scheme}://{where.netloc}"
    registry = ObjectStoreRegistry({root: HTTPStore(root, client_options={"allow_http": True})})
    store = VirtualTIFF(ifd=0)(address, registry)
    found = xarray.open_zarr(store, zarr_format=3, consolidated=False, mask_and_scale=False)
    array = next(iter(found.data_vars.values()))
    return np.atleast_3d(array[..., y : y + height, x : x + width].values.T).T


def with_rioxarray(address, x, y, width, height):
    with xarray.open_dataset(address, engine="rasterio", mask_and_scale=False) as found:
        return found["band_data"][:, y : y + height, x : x + width].values


READERS = {
    "tifffile": with_tifffile,
    "async-geotiff": with_async_geotiff,
    "virtual-tiff": with_virtual_tiff,
    "rioxarray": with_rioxarray,
}


def main(reader, address, out, *window):
    np.save(out, READERS[reader](address, *map(int, window)))
    print(version(reader), flush=True)
    # Threads of Rust readers (obstore's runtime) now and then crash the interpreter while it ends, when the
    # pixels are written already; what is compared is the pixels.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
