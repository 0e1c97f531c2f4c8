"""Convert one tile-year: a pure function of its job and options, that can be repeated at any time.

Files are written to a hidden staging folder and renamed to names that hold the hash of their content::

    <out>/<dataset>/<year>/<grid>/<grid>_<year>_<content>_embeddings.tif    int8 (128 bands), or float32
                                                        _scales.tif        float32, native profile only
                                                        _f32.vrt           the two multiplied, native only
                                  <grid>_<year>_<colour>_visual.tif        uint8, 3 bands
                                                        _thumbnail.png

A name is never written again with other bytes, so caches may keep files for ever. Whether a tile-year is
converted is said by its ledger row, which is written after all of its files are in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder import __version__, storage
from catalog_builder.convert import overviews, quantize
from catalog_builder.convert.cog import BandStatistics, CogFile, write_cog
from catalog_builder.convert.job import Job, Options, tile_folder
from catalog_builder.convert.ledger import FileRow, LedgerRow, encode_statistics, now
from catalog_builder.convert.read import NotATileError, Source, read_source
from catalog_builder.convert.visual import BASIS_FILE, colours, colours_of_values, thumbnail
from catalog_builder.errors import ConvertError, TesseraError
from catalog_builder.items import STATISTICS
from catalog_builder.vrt import cog_f32_vrt, tessera_metadata

STAGING = ".staging"
"""Hidden folder below the output for files that are not whole yet."""
VISUAL_BLOCK = 256
_SUFFIXES = {
    "embeddings": "embeddings.tif",
    "scales": "scales.tif",
    "vrt": "f32.vrt",
    "visual": "visual.tif",
    "thumbnail": "thumbnail.png",
}
_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".vrt": "application/xml",
    ".png": "image/png",
}
_IMMUTABLE = "public, max-age=31536000, immutable"

type Levels = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job: its ledger row."""

    row: LedgerRow

    @property
    def ok(self) -> bool:
        """Whether the files are in place."""
        return self.row.ok


def convert_tile(job: Job, options: Options) -> Result:
    """Convert one job; every failure becomes a row with its reason, none is raised.

    Idempotent: the same sources and options give the same files under the same names.
    """
    started = time.perf_counter()
    base = LedgerRow(
        job=job.id,
        status="failed",
        dataset=job.dataset or "",
        lat_i=job.tile.lat_i if job.tile else None,
        lon_i=job.tile.lon_i if job.tile else None,
        year=job.year,
        kind=job.kind,
        fingerprint=job.fingerprint,
        options=options.digest_for(job.dataset or ""),
        versions=versions(),
    )
    try:
        with _gdal():
            row = _convert(job, options, base)
    except TesseraError as error:
        row = replace(base, reason=_one_line(error))
    except MemoryError:
        row = replace(base, reason="not enough memory")
    except OSError as error:
        row = replace(base, reason=_os_reason(error))
    except Exception as error:  # a bug or a library's own error must not stop the other tiles
        row = replace(base, reason=f"{type(error).__name__}: {_one_line(error)}")
    return Result(replace(row, finished=now(), seconds=round(time.perf_counter() - started, 3)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _os_reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _convert(job: Job, options: Options, base: LedgerRow) -> LedgerRow:
    try:
        source = read_source(job, options)
    except NotATileError:
        from catalog_builder.convert.other import convert_raster

        return convert_raster(job, options, base)
    row = replace(
        base,
        dataset=source.dataset.directory,
        options=options.digest_for(source.dataset.directory),
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
            _write_native(folder, source, options, row)
            if _is_native(source, options)
            else _write_float(folder, source, options, row)
        )
        if options.verify:
            from catalog_builder.convert.verify import compare

            problems = compare(folder, row, source, staged=True)
            if problems:
                raise ConvertError("; ".join(problems[:3]))
            row = replace(row, verified=True)
        publish(folder, row, options)
    return replace(row, status="ok", note="; ".join(source.notes))


def _is_native(source: Source, options: Options) -> bool:
    return options.profile == "native" and source.codes is not None


# --- profiles ---------------------------------------------------------------------------------------


def _write_native(folder: Path, source: Source, options: Options, row: LedgerRow) -> LedgerRow:
    """Write codes, scales and the float32 view, lossless by construction."""
    codes, found_scales = source.pair
    pyramid = overviews.quantized_pyramid(
        codes,
        found_scales,
        block_size=options.block_size,
        method=options.overviews,
        statistics=True,
    )
    tags = _tags(source, options)
    tags["TESSERA_QUANTIZATION"] = "value = code * scale; the scales are in the file beside it, *_scales.tif"
    embeddings = _cog(
        folder / "embeddings",
        pyramid.codes,
        source,
        options,
        float(quantize.NODATA_CODE),
        tags,
        source.descriptions,
    )
    scales = _cog(
        folder / "scales",
        pyramid.scales,
        source,
        options,
        float("nan"),
        tags,
        ["scale"],
        [_scale_statistics(found_scales)],
    )
    factors = [1 << i for i in range(1, len(pyramid.codes))]

    def view(name: str) -> str:
        return cog_f32_vrt(
            source.raster,
            f"{name}_{_SUFFIXES['embeddings']}",
            f"{name}_{_SUFFIXES['scales']}",
            _tags(source, options),
            block=(options.block_size, options.block_size),
            overviews=factors,
        )

    content = _content(embeddings.sha256, scales.sha256, view(""))
    name = f"{source.tile.name}_{source.year}_{content}"
    base = f"{tile_folder(source.dataset.directory, source.year, source.tile)}/{name}_"
    text = view(name).encode()
    _write(folder / "vrt", text, options)
    row = replace(
        row,
        profile="native",
        lossless=True,
        content=content,
        embeddings=_file(base, "embeddings", embeddings),
        scales=_file(base, "scales", scales),
        vrt=FileRow(base + _SUFFIXES["vrt"], len(text), hashlib.sha256(text).hexdigest()),
        dtype="int8",
        bands=embeddings.bands,
        levels=len(embeddings.shapes) - 1,
        **_statistics(pyramid.statistics or ()),
    )
    basis = options.basis_for(source.dataset.directory)
    if basis is None:
        return row
    levels = tuple(colours(basis, c, s) for c, s in zip(pyramid.codes, pyramid.scales, strict=True))
    return _write_visual(folder, levels, source, options, row)


def _write_float(folder: Path, source: Source, options: Options, row: LedgerRow) -> LedgerRow:
    """Write plain float32 values: asked for, or because codes could not be recovered."""
    values = source.values
    if values is None:
        values = quantize.dequantize(*source.pair)
        source.values, source.codes = values, None  # the pixels are not kept twice
    trusted = source.valid if source.scales is None else quantize.trusted_mask(source.scales)
    found = band_statistics(values, trusted)
    levels = overviews.masked_pyramid(
        values, trusted, block_size=options.block_size, nodata=float("nan"), method=options.overviews
    )
    tags = _tags(source, options)
    embeddings = _cog(folder / "embeddings", levels, source, options, float("nan"), tags, source.descriptions)
    content = _content(embeddings.sha256)
    name = f"{source.tile.name}_{source.year}_{content}"
    base = f"{tile_folder(source.dataset.directory, source.year, source.tile)}/{name}_"
    row = replace(
        row,
        profile="float32",
        lossless=True,
        content=content,
        embeddings=_file(base, "embeddings", embeddings),
        dtype="float32",
        bands=embeddings.bands,
        levels=len(embeddings.shapes) - 1,
        **_statistics(found),
    )
    basis = options.basis_for(source.dataset.directory)
    if basis is None:
        return row
    return _write_visual(folder, tuple(colours_of_values(basis, v) for v in levels), source, options, row)


def _write_visual(
    folder: Path, levels: Levels, source: Source, options: Options, row: LedgerRow
) -> LedgerRow:
    """Write the false-colour COG and its thumbnail."""
    # Overviews down to one of the codes' blocks, which are smaller: the deepest ones are not needed.
    wanted = len(overviews.level_shapes(levels[0].shape[0], levels[0].shape[1], VISUAL_BLOCK))
    levels = levels[:wanted]
    visual = write_cog(
        folder / "visual",
        levels,
        crs_epsg=source.raster.epsg,
        transform=source.raster.transform[:6],
        nodata=0,
        block_size=VISUAL_BLOCK,
        # One request per block for all colours, and a codec that every browser library decodes.
        interleave="pixel",
        compression="deflate",
        level=6,
        band_descriptions=["red", "green", "blue"],
        tags={**_tags(source, options), "TESSERA_VISUAL": f"PCA of the dataset, see {BASIS_FILE}"},
        overview_resampling=options.overviews.upper(),
        durable=options.durable,
    )
    picture = thumbnail(levels)
    _write(folder / "thumbnail", picture, options)
    content = _content(visual.sha256, hashlib.sha256(picture).hexdigest())
    folder_name = tile_folder(source.dataset.directory, source.year, source.tile)
    base = f"{folder_name}/{source.tile.name}_{source.year}_{content}_"
    return replace(
        row,
        visual_content=content,
        visual=_file(base, "visual", visual),
        thumbnail=FileRow(base + _SUFFIXES["thumbnail"], len(picture), hashlib.sha256(picture).hexdigest()),
    )


def _cog(
    path: Path,
    levels: Levels,
    source: Source,
    options: Options,
    nodata: float,
    tags: dict[str, str],
    descriptions: list[str] | None,
    statistics: list[BandStatistics] | None = None,
) -> CogFile:
    bands = levels[0].shape[2] if levels[0].ndim == 3 else 1
    return write_cog(
        path,
        levels,
        crs_epsg=source.raster.epsg,
        transform=source.raster.transform[:6],
        nodata=nodata,
        block_size=options.block_size,
        interleave=options.interleave,
        compression=options.compression,
        level=options.level,
        # An explicit predictor is meant for the embeddings; scales are floats.
        predictor=options.predictor if bands > 1 or options.predictor == 1 else None,
        band_descriptions=descriptions or [f"Tessera_Band_{i}" for i in range(bands)],
        band_statistics=statistics,
        tags=tags,
        overview_resampling=options.overviews.upper(),
        durable=options.durable,
    )


def _tags(source: Source, options: Options) -> dict[str, str]:
    """Return every upstream tag as it was, completed with those that later versions of geotessera write."""
    tags = tessera_metadata(source.dataset, source.tile, source.year, options.grid)
    return {**tags, **source.tags, "AREA_OR_POINT": "Area", "TESSERA_GRID": options.grid}


def _scale_statistics(scales: npt.NDArray[np.float32]) -> BandStatistics:
    """Return statistics of the scales that count."""
    trusted = scales[quantize.trusted_mask(scales)].astype(np.float64)
    if not trusted.size:
        nan = float("nan")
        return BandStatistics(nan, nan, nan, nan, 0.0)
    share = 100 * trusted.size / scales.size
    return BandStatistics(
        float(trusted.min()), float(trusted.max()), float(trusted.mean()), float(trusted.std()), share
    )


def band_statistics(
    values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> tuple[BandStatistics, ...]:
    """Return statistics of float32 (rows, cols, bands) over valid pixels (rows, cols), per band."""
    bands: int = values.shape[2]
    count = int(np.count_nonzero(valid))
    low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
    sums, squares = np.zeros(bands), np.zeros(bands)
    for line, mask in zip(values, valid, strict=True):
        part = line[mask]
        if part.size:
            np.minimum(low, part.min(axis=0), out=low)
            np.maximum(high, part.max(axis=0), out=high)
            exact = part.astype(np.float64)
            sums += exact.sum(axis=0)
            squares += np.einsum("ij,ij->j", exact, exact)
    if not count:
        nan = float("nan")
        return (BandStatistics(nan, nan, nan, nan, 0.0),) * bands
    mean = sums / count
    spread: npt.NDArray[np.float64] = np.sqrt(np.maximum(squares / count - mean**2, 0))
    share = 100 * count / valid.size
    rows = zip(low.tolist(), high.tolist(), mean.tolist(), spread.tolist(), strict=True)
    return tuple(BandStatistics(a, b, m, s, share) for a, b, m, s in rows)


def _statistics(found: tuple[BandStatistics, ...]) -> dict[str, Any]:
    """Return the ledger's columns for statistics; nothing when no pixel counts."""
    array = np.array([[getattr(s, name) for s in found] for name in STATISTICS], np.float32)
    if not found or not np.isfinite(array).all():
        return {}
    return {
        "statistics": encode_statistics(array),
        "minimum": float(f"{array[0].min():.6g}"),
        "maximum": float(f"{array[1].max():.6g}"),
    }


def _content(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _file(base: str, role: str, cog: CogFile) -> FileRow:
    return FileRow(base + _SUFFIXES[role], cog.size, cog.sha256, cog.header_size)


# --- files ------------------------------------------------------------------------------------------


@contextmanager
def staging(options: Options) -> Iterator[Path]:
    """Lend a private folder on the output's own disk (a temporary one for S3), removed afterwards."""
    if storage.scheme(options.out):
        with tempfile.TemporaryDirectory(prefix="tessera-cog-") as temporary:
            yield Path(temporary)
        return
    run = options.run or f"single-{os.getpid()}"
    parent = storage.local_path(options.out) / STAGING / run
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not options.run:
            for empty in (parent, parent.parent):
                with suppress(OSError):
                    empty.rmdir()


def _write(path: Path, data: bytes, options: Options) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        if options.durable:
            stream.flush()
            os.fsync(stream.fileno())


def publish(folder: Path, row: LedgerRow, options: Options) -> None:
    """Give the staged files their names, in an order in which no file names one that is not there."""
    for role, file in row.files.items():
        staged = folder / role
        target = storage.join(options.out, file.path)
        if storage.scheme(target):
            kind = _TYPES[Path(file.path).suffix]
            storage.put_file(staged, target, content_type=kind, cache_control=_IMMUTABLE)
            continue
        final = storage.local_path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o666 & ~_umask())
        staged.replace(final)


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _gdal() -> Iterator[None]:
    """One thread and a small cache: tiles are the unit of parallelism, and blocks are read once."""
    import rasterio

    # GDAL_CACHEMAX below 100000 means megabytes in the environment, but bytes here.
    with rasterio.Env(
        GDAL_NUM_THREADS="1",
        GDAL_CACHEMAX=64 << 20,
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
        GDAL_PAM_ENABLED="NO",
    ):
        yield


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return what the files were made with."""
    import rasterio

    return (
        ("tessera-stac", __version__),
        ("gdal", rasterio.__gdal_version__),
        ("rasterio", rasterio.__version__),
        ("numpy", np.__version__),
    )
