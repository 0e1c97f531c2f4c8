"""Read windows of a raster with rasterio and save them: run as a script, by any Python that has one.

``python gdal_reader.py PATH OUT.npz JSON``: the JSON is a list of reads ``{"window": [x, y, width,
height] or null, "bands": [1, …] or null, "overview": level or null, "out": [height, width] or null}``.
Arrays are saved as 0, 1, …; what the file says of itself is printed as JSON.
"""

import json
import sys

import numpy as np
import rasterio
from rasterio.windows import Window


def main(path, out, reads):
    arrays = {}
    for i, read in enumerate(json.loads(reads)):
        level = read.get("overview")
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as ds:
            window = read.get("window")
            bands = read.get("bands")
            shape = read.get("out")
            count = len(bands) if bands else ds.count
            arrays[str(i)] = ds.read(
                bands,
                window=Window(*window) if window else None,
                out_shape=(count, *shape) if shape else None,
            )
    np.savez(out, **arrays)
    with rasterio.open(path) as ds:
        about = {
            "gdal": rasterio.__gdal_version__,
            "count": ds.count,
            "shape": ds.shape,
            "dtypes": sorted(set(ds.dtypes)),
            "nodata": ds.nodata,
            "epsg": ds.crs.to_epsg(),
            "transform": list(ds.transform)[:6],
            "tags": ds.tags(),
            "descriptions": ds.descriptions,
            "overviews": ds.overviews(1),
        }
    print(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
