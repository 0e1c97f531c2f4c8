"""GeoTIFFs that are not TESSERA tiles: ordinary rasters through rio-cogeo, many-band ones through our writer.

rio-cogeo is right for what most people have: a few bands, any CRS, masks, colour tables. For dozens of
bands (a mosaic of embeddings, a zone of them) its pixel interleaved files cost hundreds of megabytes for
one pixel, so those are written as tiles are: planar, all bands of a block side by side, without a predictor.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog_builder.convert.encode import overviews
from catalog_builder.convert.encode.cog import write_cog
from catalog_builder.convert.ledger.encoding import encoding_of
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow, SourceRow
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.tile.source import local_copy
from catalog_builder.convert.tile.staging import publish, staged_file, staging
from catalog_builder.errors import ConvertError
from catalog_builder.pixels.whole import gdal_reason, open_raster

if TYPE_CHECKING:
    import rasterio

MANY_BANDS = 16
"""From here on a raster is written by our writer."""
FOLDER = "other"
"""Folder of the results below the output: they belong to no dataset."""
_OURS = ("int8", "uint8", "int16", "uint16", "float32")


def convert_raster(job: Job, options: ConvertOptions, base: LedgerRow) -> LedgerRow:
    """Convert a GeoTIFF that is not a tile; its row has no tile and no dataset.

    Raises
    ------
    ConvertError
        If it cannot be converted.
    """
    rows: list[SourceRow] = []
    with (
        local_copy(job.main, "main", rows) as path,
        staging(options) as folder,
        open_raster(path, job.main.address) as ds,
    ):
        if ds.crs is None and ds.transform.is_identity:
            raise ConvertError(f"{job.main.address}: not georeferenced, so it cannot be converted to a COG")
        target = folder / "embeddings"
        epsg = ds.crs.to_epsg() if ds.crs else None
        plain = len(set(ds.dtypes)) == 1 and ds.dtypes[0] in _OURS
        if ds.count >= MANY_BANDS and plain and epsg is not None:
            header = _write_ours(ds, epsg, target, job, options)
        else:
            header = _write_rio_cogeo(ds, path, target, job)
        if options.verify:
            _compare(ds, target, job.main.address)
        sha, size = _hash(target)
        stored = encoding_of(target)
        stem = re.sub(r"[^\w.~-]", "_", Path(job.main.address).stem)
        row = replace(
            base,
            status="ok",
            dataset="",
            options=options.digest_for(""),
            profile="raster",
            lossless=True,
            content=sha[:8],
            embeddings=FileRow(f"{FOLDER}/{stem}_{sha[:8]}.tif", size, sha, header),
            sources=tuple(rows),
            dtype=ds.dtypes[0],
            bands=ds.count,
            interleave=stored.interleave,
            predictor=stored.predictor,
            epsg=epsg,
            transform=tuple(float(v) for v in tuple(ds.transform)[:6]),
            height=ds.height,
            width=ds.width,
            overviews=options.overviews,
            verified=options.verify,
        )
        publish(folder, row, options)
    return row


def _write_ours(
    ds: rasterio.DatasetReader, epsg: int, target: Path, job: Job, options: ConvertOptions
) -> int:
    """Write a many-band raster with bands of a block side by side; return the header's size."""
    import rasterio

    pixels = np.dtype(ds.dtypes[0]).itemsize * ds.count * ds.height * ds.width
    if pixels > options.max_pixels_bytes:
        limit = options.max_pixels_bytes >> 20
        raise ConvertError(
            f"{job.main.address}: {pixels >> 20} MB of pixels, more than the {limit} MB that are converted"
            " in memory: cut it into tiles"
        )
    values = np.empty((ds.height, ds.width, ds.count), ds.dtypes[0])
    try:
        ds.read(out=values.transpose(2, 0, 1))
    except rasterio.errors.RasterioIOError as error:
        raise ConvertError(f"{job.main.address}: {gdal_reason(error)}") from None
    floating = values.dtype.kind == "f"
    nodata = ds.nodata
    if floating and nodata is None:
        nodata = float("nan")
    if nodata is None:
        valid = np.ones(values.shape[:2], np.bool_)
    elif nodata != nodata:
        valid = ~np.isnan(values).any(axis=2)
    else:
        valid = ~(values == nodata).all(axis=2)
    levels = overviews.masked_pyramid(
        values, valid, block_size=options.block_size, nodata=nodata or 0, method=options.overviews
    )
    with staged_file(target, options) as stream:
        cog = write_cog(
            stream,
            levels,
            crs_epsg=epsg,
            transform=ds.transform[:6],
            nodata=nodata,
            block_size=options.block_size,
            interleave=options.interleave,
            compression=options.compression,
            level=options.level,
            predictor=options.predictor,
            band_descriptions=[d or f"band_{i + 1}" for i, d in enumerate(ds.descriptions)],
            tags={k: v for k, v in ds.tags().items() if v},
            overview_resampling=options.overviews.upper(),
        )
    return cog.header_size


def _write_rio_cogeo(ds: rasterio.DatasetReader, path: Path, target: Path, job: Job) -> int:
    """Write an ordinary raster with rio-cogeo: lossless, 512 pixel blocks, averaged unless it is classes."""
    from rasterio.enums import ColorInterp
    from rio_cogeo.cogeo import cog_translate
    from rio_cogeo.profiles import cog_profiles

    dtype = np.dtype(ds.dtypes[0])
    with warnings.catch_warnings():
        # It says that zstd is not in every old libtiff; GDAL has had it since 2.3.
        warnings.simplefilter("ignore", UserWarning)
        profile: dict[str, Any] = dict(cog_profiles.get("zstd"))  # type: ignore[no-untyped-call]
    block = 512 if max(ds.height, ds.width) > 512 else 256
    profile |= {"blockxsize": block, "blockysize": block, "level": 9, "zstd_level": 9}
    profile.pop("level")
    if dtype.kind in "iu" and dtype.itemsize <= 4:
        profile["predictor"] = 2
    elif dtype.kind == "f":
        profile["predictor"] = 3
    # Numbers of classes have no mean.
    classes = ds.colorinterp[0] == ColorInterp.palette or (
        dtype.kind in "iu" and ds.count == 1 and dtype.itemsize == 1
    )
    try:
        cog_translate(
            str(path),
            str(target),
            profile,
            nodata=ds.nodata,
            overview_resampling="nearest" if classes else "average",
            in_memory=ds.height * ds.width * ds.count * dtype.itemsize < 512 << 20,
            forward_band_tags=True,
            quiet=True,
        )
    except Exception as error:
        raise ConvertError(f"{job.main.address}: rio-cogeo: {gdal_reason(error)}") from None
    return _header_size(target)


def _header_size(path: Path) -> int:
    """Return where the first block of a COG begins: the smallest offset in its directories."""
    import rasterio

    with rasterio.open(path) as ds:
        text = ds.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)
        offsets = [int(text)] if text else []
        for level in range(len(ds.overviews(1))):
            at = ds.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, ovr=level)
            offsets += [int(at)] if at else []
    return min(offsets, default=0)


def _compare(ds: rasterio.DatasetReader, path: Path, address: str) -> None:
    """Compare every pixel of a result with its source, band by band in blocks."""
    import rasterio

    with rasterio.open(path) as result:
        if (result.count, result.shape, result.dtypes) != (ds.count, ds.shape, ds.dtypes):
            raise ConvertError(f"{address}: the result has a different shape or type")
        for _, window in result.block_windows(1):
            a, b = ds.read(window=window), result.read(window=window)
            if not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
                raise ConvertError(f"{address}: the result differs from the source in {window}")


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size
