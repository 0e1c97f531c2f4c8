"""Read a job's source into memory: codes and scales, or float32 values, with everything known of them.

Every check that needs the pixels happens here, and every failure is a one-line reason: a checksum that
is not the manifest's, a truncated file, a shape that is not the tile's, tags that name another tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.convert.encode import quantize
from catalog_builder.convert.ledger.rows import SourceRow
from catalog_builder.convert.plan.identify import DEFAULT_DATASET, identify, misplaced, tags_of
from catalog_builder.convert.plan.job import ConvertOptions, Job, SourceFile
from catalog_builder.convert.tile.staging import shared_folder
from catalog_builder.convert.tile.sums import stated_sum
from catalog_builder.errors import ConvertError
from catalog_builder.pixels.container.table import place_below
from catalog_builder.pixels.read import read_window
from catalog_builder.pixels.values import Quantized
from catalog_builder.pixels.whole import (
    FileRead,
    gdal_reason,
    local_file,
    open_raster,
    read_array,
    read_blocks,
)
from catalog_builder.tile.datasets import Dataset, dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster, TileId

if TYPE_CHECKING:
    import rasterio


@dataclass(slots=True)
class Source:
    """A source in memory. Either ``codes`` and ``scales`` are there, or ``values``."""

    dataset: Dataset
    tile: TileId
    year: int
    raster: Raster
    """The grid that the output will have."""
    valid: npt.NDArray[np.bool_]
    """(rows, cols): which pixels hold data."""
    codes: npt.NDArray[np.int8] | None = None
    """(rows, cols, 128), blanked."""
    scales: npt.NDArray[np.float32] | None = None
    """(rows, cols), blanked."""
    values: npt.NDArray[np.float32] | None = None
    """(rows, cols, 128), NaN where not valid."""
    is_exact: bool = True
    """Whether the values are the source's, bit by bit."""
    land_fraction: float | None = None
    tags: dict[str, str] = field(default_factory=dict)
    """Of the source file; empty for ``.npy``."""
    descriptions: list[str] | None = None
    rows: list[SourceRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def pair(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Codes and scales.

        Raises
        ------
        ConvertError
            If the source could not be brought into that form.
        """
        if self.codes is None or self.scales is None:
            raise ConvertError("the source is held as float32 values, not as codes and scales")
        return self.codes, self.scales


class NotATileError(Exception):
    """Raised for a GeoTIFF that is no whole TESSERA tile, to convert it as an ordinary raster.

    Its text is a note on what its name or tags say it is; empty if they say nothing.
    """


def read_source(job: Job, options: ConvertOptions) -> Source:
    """Read a job's source.

    Raises
    ------
    ConvertError
        If it cannot be converted; the message is the reason, and begins with the file.
    StorageError
        If a file cannot be opened or read.
    NotATileError
        If the job is a GeoTIFF of something else.
    """
    if job.fault:
        raise ConvertError(job.fault)
    if job.kind == "store":
        return _read_store(job, options)
    return _read_pair(job, options) if job.kind == "npy" else _read_geotiff(job, options)


def compare_rivals(job: Job, rows: Sequence[SourceRow]) -> list[str]:
    """Compare the other places of a job's tile-year with what was read; return notes.

    Parameters
    ----------
    job
        The job.
    rows
        The files that were read.

    Raises
    ------
    ConvertError
        If one has other content: nothing says which of them is right.
    StorageError
        If one cannot be read.
    """
    read: dict[str, SourceRow] = {row.role: row for row in rows}
    for rival in job.rivals:
        if rival.kind != job.kind:
            raise ConvertError(
                f"{job.main.address} and {rival.main.address} are the same tile-year in different forms: give"
                " one of them"
            )
        for role, file in (("main", rival.main), ("scales", rival.scales)):
            if file is not None and not _is_alike(file, read[role]):
                raise ConvertError(
                    f"{read[role].address} and {file.address} are the same tile-year with different content:"
                    " keep one of them, or convert each into a folder of its own"
                )
    if not job.rivals:
        return []
    which = ", ".join(rival.main.address for rival in job.rivals[:3])
    return [f"{read['main'].address} is used; the same content is also at {which}"]


def _is_alike(file: SourceFile, read: SourceRow) -> bool:
    if file.size is not None and file.size != read.size:
        return False
    if file.sha256:
        return file.sha256 == read.sha256
    with local_file(file.address, file.size) as (_, found):
        return found.sha256 == read.sha256


# --- .npy pairs -------------------------------------------------------------------------------------


def _read_pair(job: Job, options: ConvertOptions) -> Source:
    if job.tile is None:
        raise ConvertError(f"{job.main.address}: not named like a tile: expected grid_<lon>_<lat>.npy")
    if job.year is None:
        raise ConvertError(
            f"{job.main.address}: no year in its folder name: expected <year>/<grid>/<grid>.npy, or"
            " --years with the one year of such files"
        )
    if job.scales is None:
        raise ConvertError(f"{job.main.address}: has no _scales.npy beside it")
    ds, raster = dataset(job.dataset or DEFAULT_DATASET), job.tile.raster(options.grid)
    rows: list[SourceRow] = []
    codes = _load_npy(job.main, "main", rows)
    if codes.dtype != np.int8 or codes.ndim != 3 or codes.shape[2] != N_BANDS:
        raise ConvertError(
            f"{job.main.address}: holds {codes.dtype} {codes.shape}: expected int8 (rows, columns, {N_BANDS})"
        )
    _check_shape(job.main.address, codes.shape[:2], job.tile)
    raw = _load_npy(job.scales, "scales", rows)
    if raw.dtype.kind != "f":
        raise ConvertError(f"{job.scales.address}: holds {raw.dtype}: expected float32")
    try:
        scales = quantize.per_pixel_scales(raw, (codes.shape[0], codes.shape[1]))
    except ConvertError as error:
        raise ConvertError(f"{job.scales.address}: {error}") from None
    landmask = read_landmask(job.landmask, job.tile, rows)
    valid = quantize.valid_mask(scales, landmask)
    found = Source(ds, job.tile, job.year, raster, valid, land_fraction=_land(landmask), rows=rows)
    inexact = quantize.inexact_in_float32(scales) & valid
    if inexact.any():
        row, col = np.unravel_index(int(inexact.argmax()), inexact.shape)
        found.is_exact = False
        found.notes.append(
            f"kept as float32: {np.count_nonzero(inexact)} of the {scales.dtype} scales are none that float32"
            f" holds, such as {scales[row, col]!s} at ({row}, {col}); each value is rounded to float32 once"
        )
        found.values = quantize.products(codes, scales)
        found.values[~valid] = np.nan
    else:
        found.codes, found.scales = codes, scales.astype(np.float32, copy=False)
        _finish_codes(found)
    return found


def _load_npy(file: SourceFile, role: Any, rows: list[SourceRow]) -> npt.NDArray[Any]:
    """Return an array from memory of our own, and note its file."""
    sha256, by = stated_sum(file)
    array, read = read_array(file.address, file.size, sha256, by)
    rows.append(_row(role, read, sha256))
    return array


@contextmanager
def local_copy(file: SourceFile, role: Any, rows: list[SourceRow]) -> Iterator[Path]:
    """Give a local path of a file, hashed and checked, and note it."""
    sha256, by = stated_sum(file)
    with local_file(file.address, file.size, sha256, by) as (path, read):
        rows.append(_row(role, read, sha256))
        yield path


def _row(role: Any, read: FileRead, stated: str) -> SourceRow:
    return SourceRow(role, read.address, read.size, read.sha256, bool(stated))


def _check_shape(address: str, shape: tuple[int, ...], tile: TileId) -> None:
    expected = tile.raster().shape
    if tuple(shape) != expected:
        raise ConvertError(
            f"{address}: {shape[0]} x {shape[1]} pixels do not fit {tile.name}, which has"
            f" {expected[0]} x {expected[1]}"
        )


def _land(landmask: npt.NDArray[np.uint8] | None) -> float | None:
    return None if landmask is None else float(np.count_nonzero(landmask)) / landmask.size


def _finish_codes(found: Source) -> None:
    """Blank what is not valid, and note what is unusual."""
    codes, scales = found.pair
    garbage = int(np.count_nonzero(found.valid & (scales >= quantize.SCALE_LIMIT)))
    if garbage:
        found.notes.append(
            f"{garbage} pixels have a scale of {quantize.SCALE_LIMIT:g} or more: kept, not counted in"
            " overviews and statistics"
        )
    odd = quantize.count_nodata_codes(codes, found.valid)
    if odd:
        found.notes.append(
            f"{odd} codes of pixels with data are -128: the scale decides which pixels have data"
        )
    quantize.blank(codes, scales, found.valid)


# --- stores -----------------------------------------------------------------------------------------


def _read_store(job: Job, options: ConvertOptions) -> Source:
    """Read a tile's window of a store; chunks that neighbours have in common are fetched once in a run."""
    from catalog_builder.stores.chunks import CHUNKS

    if job.tile is None or job.year is None or job.dataset is None:
        raise ConvertError(f"{job.main.address}: a store's tile-years are found by a manifest or catalogue")
    folder = shared_folder(options) if storage.scheme(job.main.address) else None
    CHUNKS.share(None if folder is None else folder / "chunks")
    found = read_window(place_below(job.main.address, job.tile, job.year, "store"))
    if not isinstance(found, Quantized):
        raise ConvertError(f"{job.main.address}: holds no codes and scales")
    digest = hashlib.sha256(found.codes.data)
    digest.update(found.scales.data)
    size = found.codes.nbytes + found.scales.nbytes
    rows = [SourceRow("main", job.main.address, size, digest.hexdigest(), False)]
    landmask = read_landmask(job.landmask, job.tile, rows)
    valid = quantize.valid_mask(found.scales, landmask)
    source = Source(
        dataset(job.dataset),
        job.tile,
        job.year,
        job.tile.raster(options.grid),
        valid,
        found.codes,
        found.scales,
        land_fraction=_land(landmask),
        rows=rows,
    )
    _finish_codes(source)
    return source


# --- GeoTIFFs ---------------------------------------------------------------------------------------


def _read_geotiff(job: Job, options: ConvertOptions) -> Source:
    rows: list[SourceRow] = []
    with local_copy(job.main, "main", rows) as path, open_raster(path, job.main.address) as ds:
        known, note = identify(job, ds)
        if known is None:
            raise NotATileError(note)
        its_dataset, tile, year = known
        landmask = read_landmask(job.landmask, tile, rows)
        found = Source(
            its_dataset,
            tile,
            year,
            tile.raster(options.grid),
            valid=np.empty(0, np.bool_),
            land_fraction=_land(landmask),
            tags=tags_of(ds),
            descriptions=[d or f"Tessera_Band_{i}" for i, d in enumerate(ds.descriptions)],
            rows=rows,
            notes=[note] if note else [],
        )
        if options.profile == "native" and _recover(ds, job.main.address, found, landmask):
            return found
        _read_values(ds, job.main.address, found, landmask)
        return found


def _recover(
    ds: rasterio.DatasetReader, address: str, found: Source, landmask: npt.NDArray[np.uint8] | None
) -> bool:
    """Fill codes and scales if every pixel with data is bit-exactly code times scale; else say why not."""
    codes = np.empty((ds.height, ds.width, ds.count), np.int8)
    scales = np.empty((ds.height, ds.width), np.float32)
    for window, values in read_blocks(ds, address):
        block = window.slices
        if landmask is not None:
            # Water becomes no data whatever it holds, so it needs no proof.
            values[landmask[block] == 0] = np.nan
        part = quantize.recover(values)
        if not part.exact:
            row, col = divmod(part.first_failure or 0, values.shape[1])
            where = f"({block[0].start + row}, {block[1].start + col})"
            found.notes.append(f"kept as float32: pixel {where}: {part.reason}")
            return False
        codes[block], scales[block] = part.codes, part.scales
    found.codes, found.scales = codes, scales
    found.valid = quantize.valid_mask(scales, landmask)
    _finish_codes(found)
    return True


def _read_values(
    ds: rasterio.DatasetReader, address: str, found: Source, landmask: npt.NDArray[np.uint8] | None
) -> None:
    """Fill values, NaN where there is no data: outside the mask, finite in no band, all zero.

    A pixel that is finite in some bands keeps all of them as they are.
    """
    mixed = 0
    values = np.empty((ds.height, ds.width, ds.count), np.float32)
    valid = np.empty((ds.height, ds.width), np.bool_)
    for window, part in read_blocks(ds, address):
        block = window.slices
        finite = np.isfinite(part)
        inside = finite.any(axis=2) & part.any(axis=2)
        if landmask is not None:
            inside &= landmask[block] != 0
        mixed += int(np.count_nonzero(inside & ~finite.all(axis=2)))
        part[~inside] = np.nan
        values[block], valid[block] = part, inside
    if mixed:
        found.notes.append(
            f"{mixed} pixels hold infinity or NaN in some bands: kept, but in no overview and statistics"
        )
    found.values, found.valid = values, valid


# --- rasters ----------------------------------------------------------------------------------------


def read_landmask(
    file: SourceFile | None, tile: TileId, rows: list[SourceRow]
) -> npt.NDArray[np.uint8] | None:
    """Return a tile's landmask, uint8 (rows, cols), 0 on water; None if there is none."""
    if file is None:
        return None
    with local_copy(file, "landmask", rows) as path, open_raster(path, file.address) as ds:
        if ds.count != 1:
            raise ConvertError(f"{file.address}: {ds.count} bands, a landmask has 1")
        if why := misplaced(ds, tile):
            raise ConvertError(f"{file.address}: {why}")
        import rasterio

        try:
            mask: npt.NDArray[np.uint8] = ds.read(1) != 0
        except rasterio.errors.RasterioIOError as error:
            raise ConvertError(f"{file.address}: {gdal_reason(error)}") from None
        return mask.astype(np.uint8)
