"""Open the stores of assets with xarray and xpystac and save windows: a script for where these are.

``python xarray_reader.py OUT.npz JSON``: the JSON is a list of ``{"item": {...}}``, whose asset is opened or,
with ``"collection": {...}, "asset": key``, that one of the collection. ``"by"`` is ``xarray``
(``xr.open_zarr`` of the href with ``xarray:open_kwargs``), ``xpystac``, or ``icechunk`` (the same of the
store of a session). Saved are codes and scales of the item's window, or the error that xpystac raised.
"""

import json
import sys
import warnings

import numpy as np
import pystac
import xarray as xr


def opened(asset, by):
    """Return the dataset of an asset."""
    kwargs = asset.extra_fields["xarray:open_kwargs"]
    if by == "xpystac":
        return xr.open_dataset(asset, engine="stac")
    if by == "icechunk":
        import icechunk

        repository = icechunk.Repository.open(icechunk.local_filesystem_storage(asset.href))
        return xr.open_zarr(repository.readonly_session("main").store, **kwargs)
    return xr.open_zarr(asset.href, **kwargs)


def main(out, reads):
    """Read everything."""
    warnings.simplefilter("ignore")
    arrays = {}
    for i, read in enumerate(json.loads(reads)):
        window = of = pystac.Item.from_dict(read["item"]).assets["source_zarr"]
        if "collection" in read:
            of = pystac.Collection.from_dict(read["collection"]).assets[read["asset"]]
        if "media_type" in read:
            of.media_type = read["media_type"]
        try:
            found = opened(of, read["by"])
        except UnboundLocalError as error:
            arrays[f"error{i}"] = np.array(str(error))
            continue
        row, col, height, width = window.extra_fields["tessera:window"]
        y, x = ("y", "x") if "y" in found.dims else ("northing", "easting")
        at = {"time": window.extra_fields["tessera:time_index"], y: slice(row, row + height)}
        part = found.isel({**at, x: slice(col, col + width)})
        arrays[f"codes{i}"] = part["embeddings"].transpose(y, x, "band").to_numpy()
        arrays[f"scales{i}"] = part["scales"].to_numpy()
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
