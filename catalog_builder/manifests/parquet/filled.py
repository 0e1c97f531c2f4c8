"""``_registry.parquet`` beside a Zarr store of geotessera: the tiles that were filled into it.

A row is a tile-year. Stores that were filled by geotessera 0.11 or later may have none: their shards are then
all that is known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_builder.manifests.parquet.columns import Rows, read_rows, tile_slot
from catalog_builder.manifests.parquet.registry import wanted
from catalog_builder.manifests.part import ManifestPart, tile_table
from catalog_builder.manifests.reading import Reading

COLUMNS = ("year", "zone", "tile_lon", "tile_lat")
"""Columns that identify it (geotessera 0.11, ``zarr.py``)."""

_NAMES = {"tile_lon": "lon", "tile_lat": "lat"}


def read_filled(file: pq.ParquetFile, reading: Reading) -> Iterator[ManifestPart]:
    """Read which tile-years are in a store."""
    for found in read_rows(file, COLUMNS, reading):
        names = [_NAMES.get(name, name) for name in found.batch.schema.names]
        rows = Rows(
            found.batch.rename_columns(names), found.first_row, reading, np.ones(len(found), np.bool_)
        )
        lat_i, lon_i = rows.centres()
        year = rows.years()
        rows.drop_repeats(tile_slot(lat_i, lon_i, year), [])
        n = len(rows)
        table = tile_table(lat_i, lon_i, year, has_npy=pa.repeat(False, n), in_store=pa.repeat(True, n))
        keep = wanted(rows, reading.selection.keeps(lat_i, lon_i, year))
        yield ManifestPart(
            reading.source, reading.dataset, tiles=table if keep is None else table.filter(keep)
        )
