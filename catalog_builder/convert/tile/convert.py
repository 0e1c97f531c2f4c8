"""Conversion of one tile-year: a pure function of its job and options, which can be repeated at any time.

Files are written to a hidden staging folder and renamed to names that contain the hash of their content::

    <out>/<dataset>/<year>/<grid>/<grid>_<year>_<content>_embeddings.tif    int8 (128 bands), or float32
                                                        _scales.tif        float32, native profile only
                                                        _f32.vrt           the two multiplied, native only
                                                        _f32_window.vrt    the same, all bands at once
                                                        _gain.vrt          the scales, for the view before
                                  <grid>_<year>_<colour>_visual.tif        uint8, 3 bands
                                                        _thumbnail.png

A name is never written again with other bytes, so caches may keep files for ever. Whether a tile-year is
converted is said by its ledger row, which is written after all of its files are in place.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from catalog_builder import __version__
from catalog_builder.convert.ledger.rows import LedgerRow, now
from catalog_builder.convert.plan.job import ConvertOptions, Job
from catalog_builder.convert.tile.profiles import write_float, write_native
from catalog_builder.convert.tile.renew import renew
from catalog_builder.convert.tile.source import NotATileError, Source, compare_rivals, read_source
from catalog_builder.convert.tile.staging import publish, staging
from catalog_builder.errors import ConvertError, TesseraError
from catalog_builder.pixels.whole import gdal_reason
from catalog_builder.raster.gdal import CONVERTING


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a job: its ledger row."""

    row: LedgerRow

    @property
    def ok(self) -> bool:
        """Whether the files are in place."""
        return self.row.ok


def begun(job: Job) -> LedgerRow:
    """Return the row of a job of which nothing is done yet: failed, until it is known better."""
    return LedgerRow(
        job=job.id,
        status="failed",
        dataset=job.dataset or "",
        lat_i=job.tile.lat_i if job.tile else None,
        lon_i=job.tile.lon_i if job.tile else None,
        year=job.year,
        kind=job.kind,
        fingerprint=job.fingerprint,
        only="" if job.renews is None else job.renews.only,
    )


def convert_tile(job: Job, options: ConvertOptions) -> Result:
    """Convert one job; every failure becomes a row with its reason, none is raised.

    Idempotent: the same sources and options give the same files under the same names.
    """
    started = time.perf_counter()
    base = replace(begun(job), options=options.digest_for(job.dataset or ""), versions=versions())
    try:
        import rasterio

        with rasterio.Env(**CONVERTING):
            row = _convert(job, options, base) if job.renews is None else renew(job.renews, options)
    except Exception as error:  # a bug or a library's own error must not stop the other tiles
        row = replace(base, reason=reason_of(error, job.main.address))
    return Result(replace(row, finished=now(), seconds=round(time.perf_counter() - started, 3)))


def reason_of(error: BaseException, address: str) -> str:
    """Return why a job failed, in one line that names a file.

    An error that nobody foresaw is a fault of this program and not of the file. Its text is Python's or a
    library's and no help by itself, so the reason says what it is, and where in the code it happened.

    Parameters
    ----------
    error
        What was raised.
    address
        The job's main file.

    Examples
    --------
    >>> reason_of(PermissionError(13, "Permission denied", "a.npy"), "a.npy")
    'a.npy: Permission denied'
    """
    if isinstance(error, TesseraError):
        return _one_line(error) or f"{address}: cannot be converted"
    if isinstance(error, MemoryError):
        return f"{address}: not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if type(error).__module__.partition(".")[0] == "rasterio":
        return f"{address}: GDAL: {gdal_reason(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return (
        f"{address}: an error in tessera-stac, please report it with this file:"
        f" {type(error).__name__}{where}: {_one_line(error)}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _convert(job: Job, options: ConvertOptions, base: LedgerRow) -> LedgerRow:
    try:
        source = read_source(job, options)
    except NotATileError as what:
        from catalog_builder.convert.tile.plain_raster import convert_raster

        if job.rivals:
            raise ConvertError(
                f"{job.main.address} and {job.rivals[0].main.address} have the name of one tile-year, but the"
                f" first is {what}: give each a name of its own"
            ) from None
        # Whatever its name says, this is no tile-year: a catalogue must not take it for one.
        row = convert_raster(job, options, replace(base, lat_i=None, lon_i=None, year=None))
        return replace(row, note="; ".join(filter(None, (str(what), row.note))))
    source.notes += compare_rivals(job, source.rows)
    row = replace(
        base,
        dataset=source.dataset.directory,
        options=options.digest_for(source.dataset.directory),
        pixel_options=options.pixel_digest_for(source.dataset.directory),
        lat_i=source.tile.lat_i,
        lon_i=source.tile.lon_i,
        year=source.year,
        sources=tuple(source.rows),
        valid_fraction=round(float(np.count_nonzero(source.valid)) / source.valid.size, 6),
        land_fraction=None if source.land_fraction is None else round(source.land_fraction, 6),
        grid=options.grid,
        epsg=source.raster.epsg,
        transform=tuple(float(v) for v in tuple(source.raster.transform)[:6]),
        height=source.raster.height,
        width=source.raster.width,
        overviews=options.overviews,
    )
    with staging(options) as folder:
        row = (
            write_native(folder, source, options, row)
            if _is_native(source, options)
            else write_float(folder, source, options, row)
        )
        if options.verify:
            from catalog_builder.convert.tile.verify import compare

            problems = compare(folder, row, source, staged=True)
            if problems:
                raise ConvertError("; ".join(problems[:3]))
            row = replace(row, verified=True)
        publish(folder, row, options)
    return replace(row, status="ok", note="; ".join(source.notes))


def _is_native(source: Source, options: ConvertOptions) -> bool:
    return options.profile == "native" and source.codes is not None


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the software versions that the files were made with."""
    import rasterio

    return (
        ("tessera-stac", __version__),
        ("gdal", rasterio.__gdal_version__),
        ("rasterio", rasterio.__version__),
        ("numpy", np.__version__),
    )
