"""Embeddings at points by year, for training and time series, with as few bytes read as possible."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from catalog_builder.errors import QueryError
from catalog_builder.pixels.read import read_window
from catalog_builder.pixels.window import Window
from catalog_builder.storage import Meter
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import TileId
from catalog_builder.vectors.find import TileYear, find


@dataclass(frozen=True, slots=True)
class Samples:
    """Embeddings at points."""

    values: npt.NDArray[np.float32]
    """float32 (points, years, bands); NaN where a year has no tile or a pixel has no data."""
    years: tuple[int, ...]
    requests: int
    """Number of pixel reads: for published arrays, each is one range request."""
    read_bytes: int
    """Bytes read; estimated for converted tiles, from their sizes."""
    whole_bytes: int
    """Bytes that downloading the same tile-years in full would take."""
    is_synthetic: bool


def sample_points(
    catalog: str,
    lon: npt.ArrayLike,
    lat: npt.ArrayLike,
    years: Sequence[int],
    *,
    dataset: str | None = None,
    bands: Sequence[int] = range(N_BANDS),
    workers: int = 4,
) -> Samples:
    """Return the embeddings of the pixels that contain some points.

    Parameters
    ----------
    catalog
        A catalogue folder, or the URL of a tessera-stac API.
    lon, lat
        Degrees (OGC:CRS84), of equal length.
    years
        Years, in the order of the result.
    dataset
        Directory name or collection id; None: the only one, or the first real one.
    bands
        Dimensions, counted from 0.
    workers
        Number of tile-years read concurrently.

    Raises
    ------
    QueryError
        If there are no points, or no tiles at them.
    CatalogError, DatasetError, StorageError
        As for :func:`catalog_builder.vectors.run.get`.
    """
    x, y = np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise QueryError(f"expected longitudes and latitudes of equal length, found {x.shape} and {y.shape}")
    tiles = [TileId.containing(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    region = shapely.MultiPoint(np.column_stack([x, y]))
    wanted = set(tiles)
    # a point on an edge touches two cells and belongs to one
    sources = [s for s in find(catalog, region, frozenset(years), dataset) if s.tile in wanted]
    if not sources:
        raise QueryError("there are no tiles at these points in these years")
    values = np.full((len(x), len(years), len(bands)), np.nan, dtype=np.float32)
    meter = Meter()

    def read(source: TileYear) -> None:
        at = np.array([i for i, tile in enumerate(tiles) if tile == source.tile])
        rows, cols = _pixels(source, x[at], y[at])
        window = Window(int(rows.min()), int(cols.min()), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
        mask = np.zeros((window.height, window.width), dtype=np.bool_)
        mask[rows - window.row, cols - window.col] = True
        found = read_window(source.place, window, bands, mask=mask, meter=meter)
        pixels = found.at(rows - window.row, cols - window.col)
        for i, year in enumerate(years):
            if year == source.year:
                values[at, i] = pixels

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(read, sources))
    whole = sum(s.place.whole_bytes for s in sources)
    synthetic = sources[0].dataset.is_synthetic
    return Samples(values, tuple(years), meter.requests, meter.bytes, whole, synthetic)


def _pixels(
    source: TileYear, lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return rows and columns of the pixels that contain points; at the raster's edge the nearest."""
    from pyproj import Transformer

    x, y = Transformer.from_crs("OGC:CRS84", source.place.raster.epsg, always_xy=True).transform(lon, lat)
    col, row = ~source.place.raster.transform @ (np.asarray(x), np.asarray(y))
    height, width = source.place.raster.shape
    return (
        np.clip(np.floor(row), 0, height - 1).astype(np.int64),
        np.clip(np.floor(col), 0, width - 1).astype(np.int64),
    )
