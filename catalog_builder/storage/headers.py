"""Media types and caching of what is published, for items, object stores and the server.

The one table of types: an asset's ``type``, the ``Content-Type`` of its object in S3 and that of ``/data``
are equal because all three are looked up here.
"""

from __future__ import annotations

import posixpath
import re

IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache-Control of versioned paths, which are never rewritten (design, decision 10)."""
REVALIDATE = "public, max-age=0, must-revalidate"
"""Cache-Control of files that may change: cache, but revalidate with the ETag before each use. ``no-cache``
would mean the same, but GDAL discards the size of a file that has it and requests it twice."""

MEDIA_NPY = "application/x-npy"
"""Not registered, but what tile servers use."""
MEDIA_GEOTIFF = "image/tiff; application=geotiff"
MEDIA_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
MEDIA_VRT = "image/x.vrt"
"""Not registered, like every media type of VRTs. odc-stac loads only assets whose type starts with image/;
stackstac and STAC Browser, which cannot render 128 bands, ignore this one."""
MEDIA_VRT_WHOLE = "application/x.vrt"
"""Of a VRT that reads all bands even if one is wanted: odc-stac, which reads band by band, must not load it
among others without being asked to."""
MEDIA_BAND = "image/vnd.stac.geotiff"
"""Of the assets of one band: stackstac and odc-stac take an asset for a raster by its type; of a VRT's own
they know nothing."""
MEDIA_PARQUET = "application/vnd.apache.parquet"
MEDIA_ZARR = "application/vnd+zarr"
MEDIA_ZARR_3 = f"{MEDIA_ZARR}; version=3"
MEDIA_ICECHUNK = "application/vnd.zarr+icechunk"
MEDIA_PNG = "image/png"
MEDIA_JSON = "application/json"
MEDIA_GEOJSON = "application/geo+json"
MEDIA_NDJSON = "application/x-ndjson"
MEDIA_HTML = "text/html"
MEDIA_BYTES = "application/octet-stream"

_BY_SUFFIX = {
    ".tif": MEDIA_GEOTIFF,
    ".tiff": MEDIA_GEOTIFF,
    ".vrt": MEDIA_VRT,
    ".npy": MEDIA_NPY,
    ".parquet": MEDIA_PARQUET,
    ".json": MEDIA_JSON,
    ".geojson": MEDIA_GEOJSON,
    ".ndjson": MEDIA_NDJSON,
    ".jsonl": MEDIA_NDJSON,
    ".map": MEDIA_JSON,
    ".png": MEDIA_PNG,
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
    ".sqlite": "application/vnd.sqlite3",
    ".pmtiles": "application/vnd.pmtiles",
    ".html": f"{MEDIA_HTML}; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".gz": "application/gzip",
    ".zst": "application/zstd",
}
_COG = re.compile(r".*_[0-9a-f]{8}(?:_(?:embeddings|scales|visual))?\.tif")
"""Names that conversion gives hold a hash of the content; another GeoTIFF may have any layout."""

_WHOLE = "_computed.vrt"


def media_type(path: str) -> str:
    """Return the media type of a file by its name, ``application/octet-stream`` if that says nothing.

    >>> media_type("2024/grid_0.15_52.05/grid_0.15_52.05.npy")
    'application/x-npy'
    >>> media_type("landmasks/grid_0.15_52.05.tiff")
    'image/tiff; application=geotiff'
    >>> media_type("grid_0.15_52.05_2024_5fa1c2d3_scales.tif")
    'image/tiff; application=geotiff; profile=cloud-optimized'
    """
    name = posixpath.basename(path)
    if _COG.fullmatch(name):
        return MEDIA_COG
    if name.endswith(_WHOLE):
        return MEDIA_VRT_WHOLE
    return _BY_SUFFIX.get(posixpath.splitext(name)[1].lower(), MEDIA_BYTES)
