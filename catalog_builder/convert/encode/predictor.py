"""Predictors, and which files some readers misread: planar ones of several bands that have one.

A predictor (TIFF tag 317) stores differences of neighbouring samples. In a planar file a block holds one
band; async-tiff undoes the differences as if a block held all of them, so its values are wrong, and nothing
says so. GDAL and tifffile undo them rightly; and all of them read pixel-interleaved files, files of one
band, and files without a predictor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from catalog_builder.convert.encode.tiff import Compression, Predictor

MISREADERS = ("async-geotiff 0.5.1 with async-tiff 0.7.2", "lazycogs 0.7.0, which reads with them")
"""Programs that misread such files, with the versions that were tried."""


def is_misread(interleave: str, bands: int, predictor: int) -> bool:
    """Return whether :data:`MISREADERS` get the values of a TIFF wrong.

    Parameters
    ----------
    interleave
        ``pixel``, or the planar ``band`` and ``tile``.
    bands
        Number of bands.
    predictor
        TIFF tag 317: 1 none, 2 differences of integers, 3 of floats.

    Examples
    --------
    >>> is_misread("tile", 128, 2), is_misread("tile", 1, 3), is_misread("pixel", 3, 2)
    (True, False, False)
    """
    return interleave != "pixel" and bands > 1 and predictor > 1


def default_predictor(
    dtype: np.dtype[np.generic], bands: int, interleave: str, compression: Compression = "zstd"
) -> Predictor:
    """Return the predictor of a file that every reader is to read: the data type's where it is safe.

    Parameters
    ----------
    dtype
        Of the samples, an integer or a float.
    bands, interleave
        See :func:`is_misread`.
    compression
        Uncompressed files have none.
    """
    of_type: Predictor = 3 if dtype.kind == "f" else 2
    return 1 if compression == "none" or is_misread(interleave, bands, of_type) else of_type
