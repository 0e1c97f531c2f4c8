"""Open the stores of assets with xarray and xpystac and save windows: a script for where these are.

``python xarray_reader.py OUT.npz JSON``: the JSON is a list of ``{"item": {...}}`` or of
``{"collection": {...}, "asset": key}``, with ``"by"``: ``xarray`` (``xr.open_zarr`` of the href with
``xarray:open_kwargs``), ``xpystac``, or ``icechunk`` (``xr.open_zarr`` of a session's store). Saved are codes
and scales of the item's window, or, of a collection's asset, the names of its variables.
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
        if "collection" in read:
            asset = pystac.Collection.from_dict(read["collection"]).assets[read["asset"]]
            arrays[f"names{i}"] = np.array(sorted(opened(asset, read["by"]).data_vars))
            continue
        asset = pystac.Item.from_dict(read["item"]).assets["source_zarr"]
        if "media_type" in read:
            asset.media_type = read["media_type"]
        found = opened(asset, read["by"])
        row, col, height, width = asset.extra_fields["tessera:window"]
        y, x = ("y", "x") if "y" in found.dims else ("northing", "easting")
        at = {"time": asset.extra_fields["tessera:time_index"], y: slice(row, row + height)}
        part = found.isel({**at, x: slice(col, col + width)})
        arrays[f"codes{i}"] = part["embeddings"].transpose(y, x, "band").to_numpy()
        arrays[f"scales{i}"] = part["scales"].to_numpy()
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
