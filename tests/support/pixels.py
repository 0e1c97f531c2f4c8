"""What a tile's pixels are, by numpy and rasterio alone: the oracle of every client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.merge import merge

from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import TileId
from tests.support.converted import FIRST, NEIGHBOUR, Converted

YEARS = {2022: (FIRST,), 2023: (FIRST,), 2024: (FIRST, NEIGHBOUR)}
"""Of the catalogue in :mod:`tests.support.converted`; 2022 is not converted."""
BBOX = (15.61, 78.21, 15.79, 78.29)
"""Degrees: shares a point with both tiles."""

Floats = npt.NDArray[np.float32]


def cog(tiles: Converted, tile: TileId, year: int, name: str) -> Path:
    """Return a converted tile's file."""
    folder = tiles.catalog / "cogs" / "synthetic" / str(year) / tile.name
    (path,) = folder.glob(f"*_{name}")
    return path


def tile_values(tiles: Converted, tile: TileId, year: int) -> Floats:
    """Return float32 (128, height, width): converted where it is, as published where it is not."""
    if year == 2022:
        codes = np.load(tiles.embeddings / source_path(year, tile.name))
        scales = np.load(tiles.embeddings / source_path(year, tile.name, "_scales.npy"))
        return np.moveaxis(codes.astype(np.float32) * scales[..., None], -1, 0)
    with rasterio.open(cog(tiles, tile, year, "embeddings.tif")) as src:
        codes = src.read()
    with rasterio.open(cog(tiles, tile, year, "scales.tif")) as src:
        scales = src.read(1)
    values: Floats = codes.astype(np.float32) * scales
    return values


def mosaic(tiles: Converted, year: int, name: str) -> npt.NDArray[np.generic]:
    """Return rasterio's mosaic of a year's COGs, (bands, height, width); earlier tiles lie on top."""
    found, _ = merge([cog(tiles, tile, year, name) for tile in YEARS[year]])
    return found


def same(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    """Whether arrays are equal bit for bit; one NaN is as good as another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool((a == b).all())
    bits = f"u{a.dtype.itemsize}"
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())
