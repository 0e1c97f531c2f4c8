"""Synthetic tiles as the float32 GeoTIFFs that each version of geotessera exports."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from catalog_builder.storage import write_atomic
from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.datasets import EMBEDDINGS_FOLDER, SYNTHETIC, Dataset, dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import TileId

EMBEDDINGS_DIR = EMBEDDINGS_FOLDER
"""Folder of the embeddings in upstream's layouts."""
SYNTHETIC_TAG = "TESSERA_SYNTHETIC"
"""GeoTIFF tag, ``YES``, of every raster with synthetic pixels."""

Exporter = Literal["0.5.1", "0.7.5", "0.10", "0.11"]
"""A version of geotessera, which determines the form of its tile export (``core.py`` of each version)."""


def write_geotiff_tile(
    root: str | Path, sample: SampleTile, exporter: Exporter = "0.7.5", *, labelled: Dataset | None = None
) -> Path:
    """Write a tile-year as the float32 GeoTIFF that a version of geotessera exports.

    128 bands, LZW without predictor, 256 x 256 tiles, pixel interleaved, the published (unsnapped)
    transform, no overviews; names, tags and nodata differ by version.

    Parameters
    ----------
    root
        Folder; the file's name below it is the exporter's.
    sample
        The pixels.
    exporter
        Version of geotessera.
    labelled
        Dataset that the tags name; the synthetic one by default. Whatever it is, the tag
        ``TESSERA_SYNTHETIC=YES`` states that the pixels are synthetic.

    Returns
    -------
    Path
        The file.
    """
    import rasterio
    from rasterio.windows import Window

    tile, year = sample.tile, sample.year
    path = Path(root) / _geotiff_name(tile, year, exporter)
    height, width = sample.scales.shape
    raster = tile.raster("source")
    with (
        write_atomic(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=N_BANDS,
            dtype="float32",
            crs=f"EPSG:{raster.epsg}",
            transform=raster.transform,
            nodata=np.nan if exporter == "0.11" else None,
            compress="lzw",
            tiled=True,
            blockxsize=256,
            blockysize=256,
        ) as dst,
    ):
        # Block by block: in a pixel interleaved file a block holds all bands, 33 MB of them.
        for row in range(0, height, 256):
            for col in range(0, width, 256):
                part = slice(row, row + 256), slice(col, col + 256)
                vectors = sample.codes[part].astype(np.float32) * sample.scales[part][..., None]
                window = Window(col, row, vectors.shape[1], vectors.shape[0])
                dst.write(vectors.transpose(2, 0, 1), window=window)
        dst.descriptions = tuple(f"Tessera_Band_{band}" for band in range(N_BANDS))
        dst.update_tags(**_geotiff_tags(tile, year, exporter, labelled or dataset(SYNTHETIC)))
    return path


def _geotiff_name(tile: TileId, year: int, exporter: Exporter) -> str:
    """Return the path below the output folder that a version of geotessera gives its export."""
    if exporter == "0.5.1":
        return f"tessera_{year}_lat{tile.lat:.2f}_lon{tile.lon:.2f}.tif"
    return f"{EMBEDDINGS_DIR}/{year}/{tile.name}/{tile.name}_{year}.tiff"


def _geotiff_tags(tile: TileId, year: int, exporter: Exporter, labelled: Dataset) -> dict[str, str]:
    """Return the tags of an export: up to 0.7.5 the version is the directory's name, later a number."""
    if exporter in ("0.5.1", "0.7.5"):
        names = {"TESSERA_DATASET_VERSION": labelled.directory}
    else:
        names = {
            "TESSERA_DATASET_VERSION": labelled.version,
            "TESSERA_DATASET_VERSION_PATH": labelled.landmask_directory,
            "TESSERA_DATASET_VARIANT": labelled.variant,
        }
    return names | {
        "TESSERA_YEAR": str(year),
        "TESSERA_TILE_LAT": f"{tile.lat:.2f}",
        "TESSERA_TILE_LON": f"{tile.lon:.2f}",
        "TESSERA_DESCRIPTION": "GeoTessera satellite embedding tile",
        "GEOTESSERA_VERSION": exporter if exporter.count(".") == 2 else f"{exporter}.0",
        SYNTHETIC_TAG: "YES",
    }
