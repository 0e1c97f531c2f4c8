"""Read an asset with rasterio, and print what it says of itself: path, file to write, window, bands."""

import json

import numpy
import rasterio
from rasterio.windows import Window


def main(path, out, window, bands):
    with rasterio.open(path) as ds:
        w = Window(*json.loads(window)) if window != "null" else None
        numpy.save(out, ds.read(json.loads(bands), window=w))
        about = {
            "gdal": rasterio.__gdal_version__,
            "count": ds.count,
            "shape": ds.shape,
            "dtype": ds.dtypes[0],
            "nodata": str(ds.nodata),
            "epsg": ds.crs.to_epsg(),
            "transform": list(ds.transform)[:6],
            "tags": ds.tags(),
            "band_tags": ds.tags(1),
            "descriptions": ds.descriptions,
            "structure": ds.tags(ns="IMAGE_STRUCTURE"),
            "overviews": ds.overviews(1),
            "interp": [c.name for c in ds.colorinterp[:3]],
        }
        print(json.dumps(about))
