"""Read windows of a raster and save them: a script for any Python that has rasterio or the bindings of GDAL.

``python gdal_reader.py PATH OUT.npz JSON``: the JSON is a list of reads ``{"window": [x, y, width,
height] or null, "bands": [1, …] or null, "overview": level or null, "out": [height, width] or null,
"dtype": numpy's name of the buffer's type or null}``. Arrays are saved as 0, 1, …; what the file says of
itself is printed as JSON. The distribution's Python has no rasterio, so there it is ``osgeo.gdal``.
"""

import json
import sys

import numpy as np

try:
    import rasterio
except ImportError:
    from osgeo import gdal, osr

    rasterio = None


def with_rasterio(path, reads):
    from rasterio.windows import Window

    arrays = []
    for read in reads:
        level = read.get("overview")
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as ds:
            window = read.get("window")
            bands = read.get("bands")
            shape = read.get("out")
            count = len(bands) if bands else ds.count
            arrays.append(
                ds.read(
                    bands,
                    window=Window(*window) if window else None,
                    out_shape=(count, *shape) if shape else None,
                    out_dtype=read.get("dtype"),
                )
            )
    with rasterio.open(path) as ds:
        return arrays, {
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


def with_bindings(path, reads):
    gdal.UseExceptions()
    names = {
        "uint8": gdal.GDT_Byte,
        "int16": gdal.GDT_Int16,
        "float32": gdal.GDT_Float32,
        "float64": gdal.GDT_Float64,
        "complex64": gdal.GDT_CFloat32,
        "complex128": gdal.GDT_CFloat64,
    }
    arrays = []
    for read in reads:
        level = read.get("overview")
        options = [] if level is None else [f"OVERVIEW_LEVEL={level}"]
        ds = gdal.OpenEx(path, gdal.OF_RASTER, open_options=options)
        x, y, width, height = read.get("window") or (0, 0, ds.RasterXSize, ds.RasterYSize)
        rows, columns = read.get("out") or (height, width)
        bands = read.get("bands") or list(range(1, ds.RasterCount + 1))
        own = {number: name for name, number in names.items()}[ds.GetRasterBand(bands[0]).DataType]
        dtype = read.get("dtype") or own
        content = ds.ReadRaster(x, y, width, height, columns, rows, names[dtype], bands)
        arrays.append(np.frombuffer(content, dtype).reshape(len(bands), rows, columns))
    ds = gdal.Open(path)
    first = ds.GetRasterBand(1)
    crs = osr.SpatialReference(wkt=ds.GetProjection())
    x, a, b, y, d, e = ds.GetGeoTransform()
    kinds = {gdal.GetDataTypeName(ds.GetRasterBand(i + 1).DataType).lower() for i in range(ds.RasterCount)}
    return arrays, {
        "gdal": gdal.__version__,
        "count": ds.RasterCount,
        "shape": [ds.RasterYSize, ds.RasterXSize],
        "dtypes": sorted(kinds),
        "nodata": first.GetNoDataValue(),
        "epsg": int(crs.GetAuthorityCode(None)),
        "transform": [a, b, x, d, e, y],
        "tags": ds.GetMetadata(),
        "descriptions": [ds.GetRasterBand(i + 1).GetDescription() for i in range(ds.RasterCount)],
        "overviews": [
            round(ds.RasterXSize / first.GetOverview(i).XSize) for i in range(first.GetOverviewCount())
        ],
        "pixeltype": first.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE"),
    }


def main(path, out, reads):
    arrays, about = (with_bindings if rasterio is None else with_rasterio)(path, json.loads(reads))
    np.savez(out, **{str(i): array for i, array in enumerate(arrays)})
    print(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
