"""How a converted file stores its samples, as its TIFF header says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from catalog_builder.convert.encode.predictor import is_misread


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a TIFF stores its samples."""

    interleave: str
    """``pixel``, or the planar ``band`` and ``tile``."""
    bands: int
    predictor: int
    """TIFF tag 317; 1 is none."""

    @property
    def is_misread(self) -> bool:
        """Whether some readers get its values wrong; see :mod:`catalog_builder.convert.encode.predictor`."""
        return is_misread(self.interleave, self.bands, self.predictor)


def encoding_of(path: Path | str) -> Encoding:
    """Read how a TIFF stores its samples; only its header is read, of a remote file by range.

    Parameters
    ----------
    path
        A file, or GDAL's name of a remote one (:func:`~catalog_builder.raster.gdal.gdal_path`).

    Raises
    ------
    rasterio.errors.RasterioIOError
        If it is no TIFF, or cannot be read.
    """
    import rasterio

    with rasterio.open(path, driver="GTiff") as ds:
        said = ds.tags(ns="IMAGE_STRUCTURE")
        return Encoding(said.get("INTERLEAVE", "PIXEL").lower(), ds.count, int(said.get("PREDICTOR", "1")))
