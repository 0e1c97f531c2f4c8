"""The outputs of a tile-year: codes and scales with a float32 view, or float32 values; and its colours."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.convert.encode import overviews, quantize
from catalog_builder.convert.encode.cog import BandStatistics, CogFile, write_cog
from catalog_builder.convert.encode.colours import colours, colours_of_values, thumbnail
from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions, tile_folder
from catalog_builder.convert.tile.source import Source
from catalog_builder.convert.tile.staging import staged_file
from catalog_builder.item.basis import BASIS_FILE
from catalog_builder.item.item import STATISTICS
from catalog_builder.item.statistics import encode_code_range, encode_statistics
from catalog_builder.raster.vrt import (
    VIEW_FORM,
    CogView,
    cog_f32_vrt,
    cog_window_vrt,
    gain_vrt,
    tessera_metadata,
)
from catalog_builder.tile.grid import Raster, TileId

VISUAL_BLOCK = 256
QUANTIZATION_TAG = "TESSERA_QUANTIZATION"
"""Of the codes alone: how values come from them."""
_SUFFIXES = {
    "embeddings": "embeddings.tif",
    "scales": "scales.tif",
    "gain": "gain.vrt",
    "vrt": "f32.vrt",
    "window": "f32_window.vrt",
    "visual": "visual.tif",
    "thumbnail": "thumbnail.png",
}

type Levels = tuple[npt.NDArray[Any], ...]


def write_native(folder: Path, source: Source, options: ConvertOptions, row: LedgerRow) -> LedgerRow:
    """Write codes, scales and the float32 view, lossless by construction; return the completed row."""
    codes, found_scales = source.pair
    pyramid = overviews.quantized_pyramid(
        codes,
        found_scales,
        block_size=options.overview_block_size,
        method=options.overviews,
        statistics=True,
    )
    tags = _tags(source, options)
    tags[QUANTIZATION_TAG] = "value = code * scale; the scales are in the file beside it, *_scales.tif"
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
    block = (options.block_size, options.block_size)
    factors = tuple(1 << i for i in range(1, len(pyramid.codes)))
    view = CogView(_tags(source, options), block, factors)
    row = replace(
        row,
        profile="native",
        lossless=True,
        embeddings=_file("", "embeddings", embeddings),
        scales=_file("", "scales", scales),
        dtype="int8",
        bands=embeddings.bands,
        interleave=embeddings.interleave,
        predictor=embeddings.predictor,
        levels=len(embeddings.shapes) - 1,
        code_range=encode_code_range(quantize.code_range(codes, source.valid)),
        **_statistics(pyramid.statistics or ()),
    )
    row = write_view(folder, view, source.raster, options, row)
    basis = options.basis_for(source.dataset.directory)
    if basis is None:
        return row
    levels = tuple(colours(basis, c, s) for c, s in zip(pyramid.codes, pyramid.scales, strict=True))
    return write_visual(folder, levels, source.raster, _tags(source, options), options, row)


def write_view(
    folder: Path, view: CogView, raster: Raster, options: ConvertOptions, row: LedgerRow
) -> LedgerRow:
    """Write the float32 views of a pair; return its row with the names of all files.

    Parameters
    ----------
    folder
        Of staged files; the views are ``vrt``, ``window`` and its ``gain`` there.
    view, raster
        What is in the views.
    options
        Whether they are flushed to disk.
    row
        A tile-year's, with ``embeddings`` and ``scales`` under whatever names.
    """
    tile, year, embeddings, scales = row.tile, row.year, row.embeddings, row.scales
    if tile is None or year is None or embeddings is None or scales is None:
        raise ValueError(f"{row.job} is no pair of codes and scales")
    content = _content(embeddings.sha256, scales.sha256, *_views("", view, raster).values())
    base = _base(row.dataset, year, tile, content)
    files: dict[str, Any] = {}
    for role, text in _views(_stem(year, tile, content), view, raster).items():
        data = text.encode()
        with staged_file(folder / role, options) as stream:
            stream.write(data)
        files[role] = FileRow(base + _SUFFIXES[role], len(data), hashlib.sha256(data).hexdigest())
    return replace(
        row,
        content=content,
        embeddings=replace(embeddings, path=base + _SUFFIXES["embeddings"]),
        scales=replace(scales, path=base + _SUFFIXES["scales"]),
        **files,
        view=VIEW_FORM,
    )


def _views(stem: str, view: CogView, raster: Raster) -> dict[str, str]:
    """Return the documents of the float32 views by role, for a pair whose names begin with ``stem``."""
    codes, scales, gain = (f"{stem}_{_SUFFIXES[role]}" for role in ("embeddings", "scales", "gain"))
    return {
        "gain": gain_vrt(raster, scales),
        "vrt": cog_f32_vrt(raster, codes, scales, view.metadata, block=view.block, overviews=view.overviews),
        "window": cog_window_vrt(raster, codes, gain, view.metadata),
    }


def write_float(folder: Path, source: Source, options: ConvertOptions, row: LedgerRow) -> LedgerRow:
    """Write plain float32 values: asked for, or because codes could not be recovered."""
    values = source.values
    if values is None:
        values = quantize.dequantize(*source.pair)
        source.values, source.codes = values, None  # the pixels are not kept twice
    trusted = _finite(values, source.valid) if source.scales is None else quantize.trusted_mask(source.scales)
    found = band_statistics(values, trusted)
    levels = overviews.masked_pyramid(
        values, trusted, block_size=options.overview_block_size, nodata=float("nan"), method=options.overviews
    )
    tags = _tags(source, options)
    embeddings = _cog(folder / "embeddings", levels, source, options, float("nan"), tags, source.descriptions)
    content = _content(embeddings.sha256)
    base = _base(source.dataset.directory, source.year, source.tile, content)
    row = replace(
        row,
        profile="float32",
        lossless=source.is_exact,
        content=content,
        embeddings=_file(base, "embeddings", embeddings),
        dtype="float32",
        bands=embeddings.bands,
        interleave=embeddings.interleave,
        predictor=embeddings.predictor,
        levels=len(embeddings.shapes) - 1,
        **_statistics(found),
    )
    basis = options.basis_for(source.dataset.directory)
    if basis is None:
        return row
    coloured = tuple(colours_of_values(basis, v) for v in levels)
    return write_visual(folder, coloured, source.raster, tags, options, row)


def _finite(values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which valid pixels are finite in every band: the others would ruin every mean."""
    # line by line: a mask of all samples would take a quarter of their memory
    finite = [np.isfinite(line).all(axis=1) for line in values]
    return valid & np.array(finite, np.bool_).reshape(valid.shape)


def write_visual(
    folder: Path,
    levels: Levels,
    raster: Raster,
    tags: dict[str, str],
    options: ConvertOptions,
    row: LedgerRow,
) -> LedgerRow:
    """Write the false-colour COG and its thumbnail; return the row with both.

    Parameters
    ----------
    folder
        Of staged files: ``visual`` and ``thumbnail`` there.
    levels
        uint8 (rows, cols, 3), full resolution first; 0 is no data.
    raster, tags
        Of the tile's embeddings.
    row
        Of a tile-year.
    """
    if row.tile is None or row.year is None:
        raise ValueError(f"{row.job} is no tile-year")
    # The codes' overviews end with a smaller block: the deepest ones are not needed.
    wanted = len(overviews.level_shapes(levels[0].shape[0], levels[0].shape[1], VISUAL_BLOCK))
    levels = levels[:wanted]
    with staged_file(folder / "visual", options) as stream:
        visual = write_cog(
            stream,
            levels,
            crs_epsg=raster.epsg,
            transform=raster.transform[:6],
            nodata=0,
            block_size=VISUAL_BLOCK,
            # One request per block for all colours, and a codec that every browser library decodes.
            interleave="pixel",
            compression="deflate",
            level=6,
            band_descriptions=["red", "green", "blue"],
            tags={**tags, "TESSERA_VISUAL": f"PCA of the dataset, see {BASIS_FILE}"},
            overview_resampling=options.overviews.upper(),
        )
    picture = thumbnail(levels)
    with staged_file(folder / "thumbnail", options) as stream:
        stream.write(picture)
    content = _content(visual.sha256, hashlib.sha256(picture).hexdigest())
    base = _base(row.dataset, row.year, row.tile, content)
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
    options: ConvertOptions,
    nodata: float,
    tags: dict[str, str],
    descriptions: list[str] | None,
    statistics: list[BandStatistics] | None = None,
) -> CogFile:
    bands = levels[0].shape[2] if levels[0].ndim == 3 else 1
    with staged_file(path, options) as stream:
        return write_cog(
            stream,
            levels,
            crs_epsg=source.raster.epsg,
            transform=source.raster.transform[:6],
            nodata=nodata,
            # In strips, one range holds the scales of any window: they are few bytes, and requests count.
            block_size="strips" if bands == 1 else options.block_size,
            overview_block_size=options.overview_block_size,
            interleave=options.interleave,
            compression=options.compression,
            level=options.level,
            # An explicit predictor is meant for the embeddings; scales are floats.
            predictor=options.predictor if bands > 1 or options.predictor == 1 else None,
            band_descriptions=descriptions or [f"Tessera_Band_{i}" for i in range(bands)],
            band_statistics=statistics,
            tags=tags,
            overview_resampling=options.overviews.upper(),
        )


def _tags(source: Source, options: ConvertOptions) -> dict[str, str]:
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


def _stem(year: int, tile: TileId, content: str) -> str:
    """Return how the names of a tile-year's files begin."""
    return f"{tile.name}_{year}_{content}"


def _base(directory: str, year: int, tile: TileId, content: str) -> str:
    """Return how the paths of a tile-year's files begin, below the output."""
    return f"{tile_folder(directory, year, tile)}/{_stem(year, tile, content)}_"


def _file(base: str, role: str, cog: CogFile) -> FileRow:
    return FileRow(base + _SUFFIXES[role], cog.size, cog.sha256, cog.header_size)
