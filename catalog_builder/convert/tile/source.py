"""Read a job's source into memory: codes and scales, or float32 values, with everything known of them.

Every check that needs the pixels happens here, and every failure is a one-line reason: a checksum that
is not the manifest's, a truncated file, a shape that is not the tile's, tags that name another tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.convert.encode import quantize
from catalog_builder.convert.ledger.rows import SourceRow
from catalog_builder.convert.plan.job import ConvertOptions, Job, SourceFile
from catalog_builder.convert.tile.staging import shared_folder
from catalog_builder.errors import ConvertError, DatasetError, GridError
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
from catalog_builder.tile.datasets import Dataset, dataset, dataset_of
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import PIXEL, Raster, TileId

if TYPE_CHECKING:
    import rasterio

DEFAULT_DATASET = "v1"
"""Of GeoTIFFs without a dataset tag: geotessera had no other before 0.9."""


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
    """Raised for a GeoTIFF that is no TESSERA tile, to convert it as an ordinary raster."""


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
    if job.kind == "store":
        return _read_store(job, options)
    return _read_pair(job, options) if job.kind == "npy" else _read_geotiff(job, options)


# --- .npy pairs -------------------------------------------------------------------------------------


def _read_pair(job: Job, options: ConvertOptions) -> Source:
    if job.tile is None:
        raise ConvertError(f"{job.main.address}: not named like a tile: expected grid_<lon>_<lat>.npy")
    if job.year is None:
        raise ConvertError(
            f"{job.main.address}: no year in its folder name: expected <year>/<grid>/<grid>.npy, or --year"
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
    found = Source(
        ds, job.tile, job.year, raster, valid, codes, scales, land_fraction=_land(landmask), rows=rows
    )
    _finish_codes(found)
    return found


def _load_npy(file: SourceFile, role: Any, rows: list[SourceRow]) -> npt.NDArray[Any]:
    """Return an array from memory of our own, and note its file."""
    array, read = read_array(file.address, file.size, file.sha256)
    rows.append(_row(file, role, read))
    return array


@contextmanager
def local_copy(file: SourceFile, role: Any, rows: list[SourceRow]) -> Iterator[Path]:
    """Give a local path of a file, hashed and checked, and note it."""
    with local_file(file.address, file.size, file.sha256) as (path, read):
        rows.append(_row(file, role, read))
        yield path


def _row(file: SourceFile, role: Any, read: FileRead) -> SourceRow:
    return SourceRow(role, read.address, read.size, read.sha256, bool(file.sha256))


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
    is_far = storage.scheme(job.main.address) and not storage.scheme(options.out)
    CHUNKS.share(shared_folder(options) / "chunks" if is_far and options.run else None)
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
        tags = {k: v for k, v in ds.tags().items() if k != "AREA_OR_POINT"}
        known = identify(job, tags)
        if known is None:
            raise NotATileError
        its_dataset, tile, year = known
        if ds.count != N_BANDS:
            raise ConvertError(f"{job.main.address}: {ds.count} bands, but a TESSERA tile has {N_BANDS}")
        if ds.dtypes[0] != "float32":
            raise ConvertError(f"{job.main.address}: {ds.dtypes[0]} samples, expected float32")
        _check_shape(job.main.address, (ds.height, ds.width), tile)
        _check_place(job.main.address, ds, tile)
        landmask = read_landmask(job.landmask, tile, rows)
        found = Source(
            its_dataset,
            tile,
            year,
            tile.raster(options.grid),
            valid=np.empty(0, np.bool_),
            land_fraction=_land(landmask),
            tags=tags,
            descriptions=[d or f"Tessera_Band_{i}" for i, d in enumerate(ds.descriptions)],
            rows=rows,
        )
        if options.profile == "native" and _recover(ds, job.main.address, found, landmask):
            return found
        _read_values(ds, job.main.address, found, landmask)
        return found


def identify(job: Job, tags: Mapping[str, str]) -> tuple[Dataset, TileId, int] | None:
    """Say which tile-year a GeoTIFF is: its tags, else the name and folder that the plan saw.

    Returns None for a raster that neither names.

    Raises
    ------
    ConvertError
        If tags and name contradict each other, or name what there is not.
    """
    where = job.main.address
    try:
        tile, year = job.tile, job.year
        lat, lon = tags.get("TESSERA_TILE_LAT"), tags.get("TESSERA_TILE_LON")
        if lat is not None and lon is not None:
            tagged = TileId(lat_i=round(float(lat) * 100), lon_i=round(float(lon) * 100))
            if tile is not None and tagged != tile:
                raise ConvertError(f"{where}: its tags say {tagged.name}, but its name {tile.name}")
            tile = tagged
        if "TESSERA_YEAR" in tags:
            if year is not None and int(tags["TESSERA_YEAR"]) != year:
                raise ConvertError(f"{where}: its tags say year {tags['TESSERA_YEAR']}, but its name {year}")
            year = int(tags["TESSERA_YEAR"])
        if tile is None or year is None:
            return None
        tagged_dataset = _tagged_dataset(tags)
        given = dataset(job.dataset) if job.dataset is not None else None
    except (GridError, DatasetError, ValueError) as error:
        raise ConvertError(f"{where}: {error}") from None
    if tagged_dataset is not None and given is not None and tagged_dataset != given:
        raise ConvertError(
            f"{where}: its tags say dataset {tagged_dataset.directory}, not {given.directory}:"
            " datasets are never mixed"
        )
    return tagged_dataset or given or dataset(DEFAULT_DATASET), tile, year


def _tagged_dataset(tags: Mapping[str, str]) -> Dataset | None:
    """Return the dataset of the tags: up to 0.7.5 a directory's name, later version and variant."""
    version, variant = tags.get("TESSERA_DATASET_VERSION"), tags.get("TESSERA_DATASET_VARIANT")
    if version is None:
        return None
    if variant is None:
        try:
            return dataset(version)
        except DatasetError:
            pass
    return dataset_of(version, variant)


def _check_place(address: str, ds: rasterio.DatasetReader, tile: TileId) -> None:
    """Refuse a raster that is not where the tile is.

    The published corner is off the pixels by less than a pixel (geotessera issue 429), so anything
    nearer than that is the tile's; which origin is written is the options' choice.
    """
    expected = tile.raster("source")
    epsg = ds.crs.to_epsg() if ds.crs else None
    if epsg != expected.epsg:
        raise ConvertError(
            f"{address}: CRS is {f'EPSG:{epsg}' if epsg else ds.crs or 'missing'},"
            f" expected EPSG:{expected.epsg}"
        )
    t, e = ds.transform, expected.transform
    if (t.a, t.b, t.d, t.e) != (PIXEL, 0, 0, -PIXEL) or abs(t.c - e.c) >= PIXEL or abs(t.f - e.f) >= PIXEL:
        raise ConvertError(
            f"{address}: its corner is ({t.c:.1f}, {t.f:.1f}) at {t.a:g} m,"
            f" {tile.name} is at ({e.c:.1f}, {e.f:.1f})"
        )


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
    """Fill values, NaN where there is no data: outside the mask, not finite in a band, all zero."""
    values = np.empty((ds.height, ds.width, ds.count), np.float32)
    valid = np.empty((ds.height, ds.width), np.bool_)
    for window, part in read_blocks(ds, address):
        block = window.slices
        inside = np.isfinite(part).all(axis=2) & part.any(axis=2)
        if landmask is not None:
            inside &= landmask[block] != 0
        part[~inside] = np.nan
        values[block], valid[block] = part, inside
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
        _check_shape(file.address, (ds.height, ds.width), tile)
        _check_place(file.address, ds, tile)
        import rasterio

        try:
            mask: npt.NDArray[np.uint8] = ds.read(1) != 0
        except rasterio.errors.RasterioIOError as error:
            raise ConvertError(f"{file.address}: {gdal_reason(error)}") from None
        return mask.astype(np.uint8)
