"""``manifest.parquet`` of geotessera 0.9 and later, and the inventory written by its file-scan.

A row is a tile-year with the sizes and times of its two files and, in the published manifests, its
dataset. There are no hashes. The URL columns are the bulk of the file and are read only where
the coordinates are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_builder.errors import DatasetError
from catalog_builder.manifests.parquet.columns import Rows, read_rows, tile_slot
from catalog_builder.manifests.parquet.registry import wanted
from catalog_builder.manifests.part import BoolArray, ManifestPart, sizes, tile_table, times
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading
from catalog_builder.tile.datasets import Dataset, dataset_of

COLUMNS = ("year", "grid_size")
"""Columns that identify a manifest, in addition to the coordinates or the URL."""

_READ = (
    "version",
    "variant",
    "year",
    "lat_i",
    "lon_i",
    "lat",
    "lon",
    "grid_size",
    "scales_size",
    "grid_mtime",
)


def read_manifest(file: pq.ParquetFile, reading: Reading) -> Iterator[ManifestPart]:
    """Read a manifest; rows of different datasets come in separate parts."""
    names = set(file.schema_arrow.names)
    located = {"lat", "lon"} <= names or {"lat_i", "lon_i"} <= names
    for rows in read_rows(file, _READ if located else (*_READ, "grid_path"), reading):
        groups = list(_datasets(rows))
        _leave_out_others(rows, groups)
        lat_i, lon_i = rows.centres() if located else rows.centres_of_paths("grid_path")
        year = rows.years()
        npy_size, scales_size = rows.sizes("grid_size"), rows.sizes("scales_size")
        slot = tile_slot(lat_i, lon_i, year)
        if len(groups) > 1:  # a tile-year's name is unique only within its dataset
            for i, (_, mask) in enumerate(groups):
                slot[mask] = slot[mask] * len(groups) + i
        rows.drop_repeats(slot, [c for c in (npy_size, scales_size) if c is not None])
        n = len(rows)
        table = tile_table(
            lat_i,
            lon_i,
            year,
            npy_size=sizes(npy_size, n),
            scales_size=sizes(scales_size, n),
            mtime=times(rows.times("grid_mtime"), n),
        )
        keep = wanted(rows, reading.selection.keeps(lat_i, lon_i, year))
        for dataset, mask in groups:
            mine = keep if mask is None else mask if keep is None else mask & keep
            yield ManifestPart(reading.source, dataset, tiles=table if mine is None else table.filter(mine))


def _leave_out_others(rows: Rows, groups: Sequence[tuple[Dataset | None, BoolArray | None]]) -> None:
    """Mark the rows of datasets that are not wanted as not good: what is wrong in them is not reported."""
    hint = rows.reading.hint
    for dataset, mask in groups:
        if hint is not None and dataset not in (None, hint):
            rows.good &= False if mask is None else ~mask


def _datasets(rows: Rows) -> Iterator[tuple[Dataset | None, BoolArray | None]]:
    """Yield the datasets of a batch and their rows (None: all); rows of unknown ones are reported."""
    if not rows.has("version"):
        yield rows.reading.dataset, None
        return
    versions = pc.fill_null(rows.batch["version"].cast(pa.string()), "")
    variants = (
        pc.fill_null(rows.batch["variant"].cast(pa.string()), "")
        if rows.has("variant")
        else pa.repeat("", len(rows))
    )
    pairs = pc.binary_join_element_wise(versions, variants, "/").dictionary_encode()
    codes = pairs.indices.to_numpy()
    for code, pair in enumerate(pairs.dictionary.to_pylist()):
        mask = None if len(pairs.dictionary) == 1 else codes == code
        version, _, variant = pair.partition("/")
        try:
            dataset = dataset_of(version, variant or None)
        except DatasetError as error:
            everywhere = np.ones(len(rows), dtype=np.bool_)
            why = str(error)
            rows.report(ProblemKind.UNKNOWN_DATASET, everywhere if mask is None else mask, partial(_say, why))
            continue
        yield dataset, mask


def _say(message: str, _row: int) -> str:
    return message
