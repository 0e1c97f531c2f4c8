"""Synthetic manifests over real land cells, in the formats of geotessera 0.10: full work for a build.

Which tiles there are is real (:mod:`tests.scale.land`); their years, times and landmask sizes are made up,
the same for the same cell however much of the world is asked for. No such files were published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.grid import N_COLS, N_ROWS, rasters
from catalog_builder.tile.years import year_bits

YEARS = tuple(range(2017, 2026))
MANIFEST, LANDMASKS = "manifest.parquet", "landmasks.parquet"
SEED = 2017
LACKING = 0.004
"""Share of the cells that may lack years, each with one chance in three; the real manifests have such."""
NEWEST_ONLY = 0.0005
"""Share of the cells that have the newest year alone."""
REPLACED = 0.01
"""Share of the files of a year that were uploaded anew, where a year is to differ."""

_BUCKET = "s3://tessera/tessera"
_FIRST_UPLOAD, _UPLOADING = 1_755_000_000, 90 * 86400

Cells = npt.NDArray[np.int32]


def years_of(cell: Cells) -> npt.NDArray[np.uint32]:
    """Return the years of cells, bit i for 2000 + i."""
    rng = np.random.default_rng(SEED)
    everywhere = N_ROWS * N_COLS
    kind = rng.random(everywhere)[cell]
    masks = np.full(len(cell), year_bits(YEARS), np.uint32)
    for year in YEARS:
        masks[(kind < LACKING) & (rng.random(everywhere)[cell] < 1 / 3)] &= ~np.uint32(year_bits([year]))
    masks[kind > 1 - NEWEST_ONLY] = year_bits(YEARS[-1:])
    masks[masks == 0] = year_bits(YEARS)
    return masks


@dataclass(frozen=True, slots=True)
class Written:
    """The two files, and how many rows they have."""

    manifest: Path
    landmasks: Path
    tile_years: int
    tiles: int

    @property
    def sources(self) -> tuple[Path, Path]:
        """What to build from."""
        return self.manifest, self.landmasks


def write_manifests(folder: Path, cell: Cells, replaced: Sequence[int] = ()) -> Written:
    """Write ``manifest.parquet`` and ``landmasks.parquet`` as ``geotessera-registry s3scan`` does.

    Parameters
    ----------
    cell
        Grid cells, row * 3600 + column.
    replaced
        Years of which some files were uploaded anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = write_manifest(folder / MANIFEST, cell, years_of(cell), replaced)
    write_landmasks(folder / LANDMASKS, cell)
    return Written(folder / MANIFEST, folder / LANDMASKS, n, len(cell))


def write_manifest(
    path: Path, cell: Cells, masks: npt.NDArray[np.uint32], replaced: Sequence[int] = ()
) -> int:
    """Write a ``manifest.parquet`` of tiles and their years; return the number of tile-years.

    Its rows come as a bucket lists its keys: by year, then by the letters of the tile's name.
    """
    order = _listed(cell)
    writer: pq.ParquetWriter | None = None
    n = 0
    for year in YEARS:
        here = order[masks[order] & np.uint32(year_bits([year])) != 0]
        if not len(here):
            continue
        table = _tile_years(cell[here], year, uploaded_anew=year in replaced)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        n += len(here)
    if writer is not None:
        writer.close()
    return n


def _tile_years(cell: Cells, year: int, *, uploaded_anew: bool) -> pa.Table:
    row, col = cell // N_COLS, cell % N_COLS
    n, raster, names = len(cell), rasters(row, col), _names(row, col)
    folder = pc.binary_join_element_wise(f"{_BUCKET}/npy/v1/{year}", names, "/")
    stem = pc.binary_join_element_wise(folder, names, "/")
    rng = np.random.default_rng([SEED, year])
    uploaded = _FIRST_UPLOAD + rng.integers(0, _UPLOADING, N_ROWS * N_COLS)[cell]
    if uploaded_anew:
        uploaded[rng.random(N_ROWS * N_COLS)[cell] < REPLACED] += _UPLOADING
    time = pa.array(uploaded, pa.timestamp("s", tz="UTC")).cast(pa.timestamp("us", tz="UTC"))
    return pa.table(
        {
            "version": pa.repeat("1.0", n),
            "variant": pa.repeat("vultr", n),
            "year": pa.repeat(year, n),
            **_centres(row, col),
            "directory": folder,
            "grid_path": _appended(stem, ".npy"),
            "scales_path": _appended(stem, "_scales.npy"),
            "grid_mtime": time,
            "scales_mtime": time,
            "grid_size": npy_size(raster.height, raster.width),
            "scales_size": scales_size(raster.height, raster.width),
        }
    )


def write_landmasks(path: Path, cell: Cells) -> None:
    """Write a ``landmasks.parquet``, sorted by longitude and latitude."""
    row, col = (cell // N_COLS, cell % N_COLS)
    order = np.lexsort([row, col])
    cell, row, col = cell[order], row[order], col[order]
    rng = np.random.default_rng([SEED, 0])
    key = pc.binary_join_element_wise(f"{_BUCKET}/landmasks/v1", _names(row, col), "/")
    table = pa.table(
        {
            **_centres(row, col),
            "file_size": rng.integers(10_000, 50_000, N_ROWS * N_COLS)[cell],
            "mtime": pa.repeat(pa.scalar(_FIRST_UPLOAD, pa.timestamp("s", tz="UTC")), len(cell)),
            "key": _appended(key, ".tiff"),
        }
    )
    pq.write_table(table, path, compression="zstd")


def _centres(row: Cells, col: Cells) -> dict[str, object]:
    lon_i, lat_i = col * 10 - 17995, row * 10 - 8995
    return {
        "lon": lon_i / 100,
        "lat": lat_i / 100,
        "lon_i": lon_i.astype(np.int32),
        "lat_i": lat_i.astype(np.int32),
    }


def _listed(cell: Cells) -> npt.NDArray[np.int64]:
    """Return the order in which a bucket lists tiles."""

    def rank(number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        distinct, at = np.unique(number, return_inverse=True)
        place = np.empty(len(distinct), np.int64)
        # The sign, the digits, and what follows them in a key.
        place[np.argsort([f"{v / 100:.2f}_" for v in distinct.tolist()])] = np.arange(len(distinct))
        return place[at]

    row, col = (part.astype(np.int64) for part in np.divmod(cell, N_COLS))
    return np.lexsort([rank(row * 10 - 8995), rank(col * 10 - 17995)])


def _names(row: Cells, col: Cells) -> pa.Array:
    def decimals(hundredths: Cells) -> pa.Array:
        distinct, at = np.unique(hundredths, return_inverse=True)
        return pa.array([f"{v / 100:.2f}" for v in distinct.tolist()]).take(pa.array(at))

    return pc.binary_join_element_wise("grid", decimals(col * 10 - 17995), decimals(row * 10 - 8995), "_")


def _appended(texts: pa.Array, end: str) -> pa.Array:
    return pc.binary_join_element_wise(texts, end, "")
