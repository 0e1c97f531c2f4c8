"""Do a part of a converted tile-year again: its float32 views, its images, or the statistics of its codes.

Views are written anew if they are of an earlier form, and no pixel is read. The names of a tile-year's files
hold a hash of all of them, and are never given to other bytes. So codes and scales get a second name beside
the new views: by a hard link where the disk has them, by a copy inside the store in S3. What was there stays
for the catalogues that name it.

Images in other colours are made of the COGs, which stay.

Statistics are read from the COGs, and no file is written.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from catalog_builder import storage
from catalog_builder.convert.encode import quantize
from catalog_builder.convert.encode.colours import colours, colours_of_values
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.tile.profiles import QUANTIZATION_TAG, write_view, write_visual
from catalog_builder.convert.tile.staging import publish, stage_published, staging
from catalog_builder.errors import ConvertError
from catalog_builder.item.statistics import encode_code_range
from catalog_builder.pixels.whole import gdal_reason, local_file, open_raster
from catalog_builder.raster.vrt import CogView
from catalog_builder.tile.grid import Raster


def renew(row: LedgerRow, options: ConvertOptions) -> LedgerRow:
    """Do the part of a result again that its ``only`` names; return its row.

    Raises
    ------
    ConvertError, StorageError, OSError
        See :func:`renew_view`, :func:`renew_visual` and :func:`read_statistics`.
    """
    if row.only == "statistics":
        return read_statistics(row, options)
    return renew_visual(row, options) if row.only == "visual" else renew_view(row, options)


def read_statistics(row: LedgerRow, options: ConvertOptions) -> LedgerRow:
    """Return a result's row with the statistics of its codes, from its COGs.

    Parameters
    ----------
    row
        Of a tile-year with codes and scales.
    options
        Where the files are.

    Raises
    ------
    ConvertError
        If a file is not what the row says.
    StorageError
        If a file cannot be read.
    """
    if row.embeddings is None or row.scales is None:
        raise ConvertError(f"{row.job} has no codes")
    (scales, *_), _ = _read(row.scales, options, levels=1)
    (codes, *_), _ = _read(row.embeddings, options, levels=1)
    found = quantize.code_range(codes, quantize.valid_mask(scales[..., 0]))
    return replace(row, code_range=encode_code_range(found), only="statistics")


def renew_visual(row: LedgerRow, options: ConvertOptions) -> LedgerRow:
    """Write a result's false colours and thumbnail in the colours of now, from its COGs; return its row.

    Parameters
    ----------
    row
        Of a tile-year, with codes and scales or with float32 values.
    options
        Where the files are, and the colours of its dataset.

    Raises
    ------
    ConvertError
        If a file is not what the row says.
    StorageError, OSError
        If a file cannot be read or written.
    """
    basis = options.basis_for(row.dataset)
    if basis is None or row.embeddings is None or row.epsg is None or row.height is None or row.width is None:
        raise ConvertError(f"{row.job} has no colours to be made")
    pixels, tags = _read(row.embeddings, options)
    if row.scales is None:
        levels = tuple(colours_of_values(basis, values) for values in pixels)
    else:
        scales, _ = _read(row.scales, options)
        levels = tuple(colours(basis, c, s[..., 0]) for c, s in zip(pixels, scales, strict=True))
    tags.pop(QUANTIZATION_TAG, None)
    raster = Raster(row.epsg, Affine(*row.transform), row.height, row.width)
    with staging(options) as folder:
        done = write_visual(folder, levels, raster, tags, options, row)
        images = replace(done, embeddings=None, scales=None, gain=None, vrt=None, window=None)
        publish(folder, images, options)
    return replace(
        done,
        options=options.digest_for(row.dataset),
        pixel_options=options.pixel_digest_for(row.dataset),
        only="visual",
    )


def _read(
    file: FileRow, options: ConvertOptions, levels: int | None = None
) -> tuple[list[npt.NDArray[Any]], dict[str, str]]:
    """Return a COG's levels, full resolution first, each (rows, columns, bands), and its tags."""
    import rasterio

    address = storage.join(options.out, file.path)
    found = []
    with local_file(address, file.size) as (path, read):
        _require_hash(address, read.sha256, file)
        with open_raster(path, address) as ds:
            tags = dict(ds.tags())
            n = 1 + len(ds.overviews(1))
        for level in range(n if levels is None else levels):
            wanted = {"overview_level": level - 1} if level else {}
            try:
                with rasterio.open(path, driver="GTiff", **wanted) as ds:
                    pixels = np.empty((ds.height, ds.width, ds.count), ds.dtypes[0])
                    ds.read(out=pixels.transpose(2, 0, 1))
            except rasterio.errors.RasterioIOError as error:
                raise ConvertError(f"{address}: {gdal_reason(error)}") from None
            found.append(pixels)
    return found, tags


def _require_hash(address: str, sha256: str, file: FileRow) -> None:
    if sha256 != file.sha256:
        raise ConvertError(f"{address} is not the file that the ledger names: its SHA-256 is another")


def renew_view(row: LedgerRow, options: ConvertOptions) -> LedgerRow:
    """Write a result's float32 views in the form of now; return its row with the new names.

    Parameters
    ----------
    row
        Of a tile-year with a float32 view of any form.
    options
        Where the files are.

    Raises
    ------
    ConvertError
        If the view is not what the row says.
    StorageError, OSError
        If a file cannot be read, or named.
    """
    if row.vrt is None or row.epsg is None or row.height is None or row.width is None:
        raise ConvertError(f"{row.job} has no float32 view")
    address = storage.join(options.out, row.vrt.path)
    text = storage.read_bytes(address)
    _require_hash(address, hashlib.sha256(text).hexdigest(), row.vrt)
    view = CogView.read(text.decode())
    raster = Raster(row.epsg, Affine(*row.transform), row.height, row.width)
    with staging(options) as folder:
        renewed = replace(write_view(folder, view, raster, options, row), only="view")
        for role in ("embeddings", "scales"):
            stage_published(folder / role, row.files[role], renewed.files[role], options)
        publish(folder, replace(renewed, visual=None, thumbnail=None), options)
    return renewed
