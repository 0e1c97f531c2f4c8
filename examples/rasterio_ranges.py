"""Read windows with rasterio over HTTP: GDAL fetches the ranges that it needs, and no more.

Run: TESSERA_API=http://localhost:8000/ python examples/rasterio_ranges.py
"""

import os

import rasterio
from pystac_client import Client
from rasterio.windows import Window

API = os.environ.get("TESSERA_API", "http://localhost:8000/").rstrip("/")
COLLECTION = os.environ.get("TESSERA_COLLECTION", "tessera-synthetic")
BBOX = [float(v) for v in os.environ.get("TESSERA_BBOX", "0.0,52.1,0.2,52.3").split(",")]
SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": 65536,
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": 256 << 20,
    "GDAL_HTTP_MAX_TOTAL_CONNECTIONS": 64,
}

item = next(Client.open(API).search(collections=[COLLECTION], bbox=BBOX).items())
with rasterio.Env(**SETTINGS), rasterio.open(item.assets["embeddings_f32_window"].href) as src:
    label = "SYNTHETIC pixels" if src.tags().get("TESSERA_SYNTHETIC") else "TESSERA"
    print(f"{label}: {item.id}, {src.count} bands of {src.dtypes[0]}, {src.crs}, {src.shape}")
    window = Window(src.width // 2, src.height // 2, 8, 8)
    vectors = src.read(window=window)
    print(
        f"{vectors.shape} around {src.xy(*(n // 2 for n in src.shape))}: {vectors.nbytes:,} bytes of values"
    )

# A search as one mosaic, for anything built on GDAL.
year = item.properties["tessera:year"]
search = (
    f"{API}/search?collections={COLLECTION}&bbox={','.join(map(str, BBOX))}&datetime={year}-01-01T00:00:00Z"
)
with rasterio.Env(**SETTINGS), rasterio.open(f'STACIT:"{search}":asset=embeddings_f32') as mosaic:
    print(f"mosaic of {year}: {mosaic.width} x {mosaic.height} pixels, {mosaic.count} bands")
