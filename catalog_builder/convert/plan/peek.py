"""A look at the header of a local GeoTIFF, where names alone do not tell what it is.

The plan opens no raster otherwise: names and manifests say what a file is, and its worker checks that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_builder import storage
from catalog_builder.convert.plan.identify import identify, tags_of
from catalog_builder.convert.plan.job import Job
from catalog_builder.errors import ConvertError, StorageError
from catalog_builder.pixels.whole import open_raster
from catalog_builder.raster.gdal import CONVERTING

if TYPE_CHECKING:
    import rasterio

_LARGEST_LANDMASK = 8 << 20
"""Bytes: a tile has up to 1.3 million pixels, and an export of 128 bands at least 20 MB."""


def is_landmask(address: str, size: int | None, *, is_among_landmasks: bool) -> bool:
    """Whether a file that is named like a landmask, ``grid_X_Y.tiff``, is one, and not an export.

    Parameters
    ----------
    address, size
        The file; the size is None if it cannot be read, which its reader will report.
    is_among_landmasks
        Whether it lies where a download has its landmasks: then only its size is looked at.
    """
    if size is None or (is_among_landmasks and size <= _LARGEST_LANDMASK):
        return True
    if storage.scheme(address):
        return size <= _LARGEST_LANDMASK
    with _opened(address) as ds:
        return ds is None or (ds.count == 1 and "TESSERA_YEAR" not in tags_of(ds))


def resolved(job: Job) -> Job:
    """Return the job of a local GeoTIFF with the tile-year that its tags say; without one if it is no tile.

    A file that cannot be read, or contradicts itself, is returned as it is: its worker says why.
    """
    if job.kind != "geotiff" or job.fault or job.main.size is None or storage.scheme(job.main.address):
        return job
    with _opened(job.main.address) as ds:
        if ds is None:
            return job
        try:
            known, _ = identify(job, ds)
        except ConvertError:
            return job
    if known is None:
        return replace(job, dataset=None, tile=None, year=None, landmask=None)
    its_dataset, tile, year = known
    return replace(job, dataset=its_dataset.directory, tile=tile, year=year)


@contextmanager
def _opened(path: str) -> Iterator[rasterio.DatasetReader | None]:
    """Open a local GeoTIFF; None if it is none."""
    import rasterio

    with rasterio.Env(**CONVERTING), ExitStack() as stack:
        try:
            ds = stack.enter_context(open_raster(Path(path), path))
        except (StorageError, OSError):
            yield None
            return
        yield ds
