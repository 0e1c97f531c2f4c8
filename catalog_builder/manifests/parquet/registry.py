"""``registry.parquet`` and ``landmasks.parquet`` of geotessera 0.6 to 0.8.

A row is a tile-year with the SHA-256 and size of its files. 0.6.0 wrote plain pandas, later versions
GeoParquet; the geometry (the tile's centre) is not needed and not read. There is no dataset column:
the version is only in the URL.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_builder.manifests.parquet.columns import Rows, read_rows, tile_slot
from catalog_builder.manifests.part import (
    BoolArray,
    Hashes,
    ManifestPart,
    digests,
    landmask_table,
    sizes,
    tile_table,
    times,
)
from catalog_builder.manifests.reading import Reading

TILE_COLUMNS = ("lat", "lon", "year", "hash", "file_size")
"""Columns that identify a registry, according to upstream's loader."""
LANDMASK_COLUMNS = ("lat", "lon", "hash", "file_size")

_TILE_READ = (*TILE_COLUMNS, "lat_i", "lon_i", "scales_hash", "scales_size", "mtime")
_LANDMASK_READ = (*LANDMASK_COLUMNS, "lat_i", "lon_i")


def read_registry(file: pq.ParquetFile, reading: Reading) -> Iterator[ManifestPart]:
    """Read a registry of tile-years."""
    for rows in read_rows(file, _TILE_READ, reading):
        lat_i, lon_i = rows.centres()
        year = rows.years()
        npy, scales = rows.hashes("hash"), rows.hashes("scales_hash")
        npy_size, scales_size = rows.sizes("file_size"), rows.sizes("scales_size")
        contents = _known(npy_size, scales_size, npy and npy[0], scales and scales[0])
        rows.drop_repeats(tile_slot(lat_i, lon_i, year), contents)
        n = len(rows)
        table = tile_table(
            lat_i,
            lon_i,
            year,
            npy_size=sizes(npy_size, n),
            scales_size=sizes(scales_size, n),
            npy_sha256=_digests(npy, n),
            scales_sha256=_digests(scales, n),
            mtime=times(rows.times("mtime"), n),
        )
        keep = wanted(rows, reading.selection.keeps(lat_i, lon_i, year))
        yield ManifestPart(
            reading.source, reading.dataset, tiles=table if keep is None else table.filter(keep)
        )


def read_landmasks(file: pq.ParquetFile, reading: Reading) -> Iterator[ManifestPart]:
    """Read a registry of landmasks; ``hash`` may be missing (s3scan writes none)."""
    for rows in read_rows(file, _LANDMASK_READ, reading):
        lat_i, lon_i = rows.centres()
        sha256, size = rows.hashes("hash"), rows.sizes("file_size")
        rows.drop_repeats(tile_slot(lat_i, lon_i), _known(size, sha256 and sha256[0]))
        n = len(rows)
        table = landmask_table(lat_i, lon_i, size=sizes(size, n), sha256=_digests(sha256, n))
        keep = wanted(rows, reading.selection.keeps(lat_i, lon_i))
        yield ManifestPart(
            reading.source, reading.dataset, landmasks=table if keep is None else table.filter(keep)
        )


def wanted(rows: Rows, selected: BoolArray | None) -> BoolArray | None:
    """Return the mask of rows that are valid and selected; None if all are."""
    keep = rows.good if selected is None else rows.good & selected
    return None if keep.all() else keep


def _digests(found: tuple[Hashes, BoolArray] | None, n: int) -> pa.Array:
    return digests(*found, n) if found else digests(None, None, n)


def _known(*columns: npt.NDArray[np.integer] | None) -> list[npt.NDArray[np.integer]]:
    return [c for c in columns if c is not None]
