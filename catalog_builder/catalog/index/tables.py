"""Whole years and collections of an index as columns, for builds and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.catalog.index.keys import collection_span, rows_cols, year_span
from catalog_builder.catalog.index.schema import SOURCE_COLUMNS
from catalog_builder.catalog.index.search.connection import Connections
from catalog_builder.item.converted import COG_COLUMNS
from catalog_builder.item.item import Has
from catalog_builder.tile import grid
from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.table import LANDMASK_SCHEMA, SHA256, TILE_SCHEMA
from catalog_builder.tile.years import year_bits


def converted(connections: Connections, ordinal: int, year: int) -> npt.NDArray[np.bool_]:
    """Return which tile-years of a year are converted, in the order of :func:`tile_table`."""
    rows = connections.rows(
        "SELECT has & ? FROM tile WHERE key BETWEEN ? AND ?", (int(Has.COG), *year_span(ordinal, year))
    )
    return np.array([has for (has,) in rows], dtype=np.bool_)


def cog_rows(connections: Connections, ordinal: int, year: int) -> list[tuple[Any, ...]]:
    """Return the converted tile-years of a year: key, flags, valid fraction, :data:`COG_COLUMNS`."""
    return connections.rows(
        f"SELECT t.key, t.has, t.valid_fraction, {', '.join('c.' + n for n in COG_COLUMNS)}"
        " FROM cog c JOIN tile t ON t.key = c.key WHERE c.key BETWEEN ? AND ?",
        year_span(ordinal, year),
    )


def coverage(
    connections: Connections, ordinal: int, years: Sequence[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    """Return the distinct cells of a collection (row * 3600 + column, ascending) and their years."""
    masks = np.zeros(grid.N_CELLS, dtype=np.uint32)
    seen = 0
    with connections.borrow() as connection:
        for year in years:
            # A mask holds all years of a tile: those of earlier years are known, and left in SQLite.
            rows = connection.db.execute(
                "SELECT key, mask FROM tile WHERE key BETWEEN ? AND ? AND NOT mask & ?",
                (*year_span(ordinal, year), seen),
            )
            seen |= year_bits([year])
            while part := rows.fetchmany(1 << 12):
                pairs = np.array(part, dtype=np.int64)
                masks[grid.cells(*rows_cols(pairs[:, 0]))] = pairs[:, 1]
    (cells,) = np.nonzero(masks)
    return cells.astype(np.int32), masks[cells]


def tile_table(connections: Connections, ordinal: int, year: int) -> pa.Table:
    """Return a year of a collection as ``TILE_SCHEMA``, as the builder wrote it."""
    rows = connections.rows(
        f"SELECT t.key, t.has, t.mtime, t.refused_fraction, {', '.join('s.' + c for c in SOURCE_COLUMNS)}"
        " FROM tile t LEFT JOIN source s ON s.key = t.key WHERE t.key BETWEEN ? AND ?",
        year_span(ordinal, year),
    )
    key, has, mtime, refused, n_size, n_sha, s_size, s_sha, geotiff, g_size = (
        zip(*rows, strict=True) if rows else ((),) * 10
    )
    row, col = rows_cols(np.array(key, dtype=np.int64))
    lat_i, lon_i = grid.centres(row, col)
    flags = np.array(has, dtype=np.int64)
    raster = grid.rasters(row, col)
    n = len(rows)

    def sizes(stored: Sequence[int | None], formula: npt.NDArray[np.int64]) -> pa.Array:
        exact = np.array([s or 0 for s in stored], dtype=np.int64)
        known = (flags & Has.SIZES) != 0
        values = np.where(exact > 0, exact, formula)
        return pa.array(values, mask=~(known | (exact > 0)))

    return pa.table(
        {
            "lat_i": pa.array(lat_i),
            "lon_i": pa.array(lon_i),
            "year": pa.array(np.full(n, year), pa.int16()),
            "npy_size": sizes(n_size, npy_size(raster.height, raster.width)),
            "npy_sha256": pa.array(n_sha, SHA256),
            "scales_size": sizes(s_size, scales_size(raster.height, raster.width)),
            "scales_sha256": pa.array(s_sha, SHA256),
            "mtime": pa.array(mtime, pa.timestamp("s", tz="UTC")),
            "has_npy": pa.array((flags & Has.NPY) != 0),
            "geotiff": pa.array(geotiff, pa.string()),
            "geotiff_size": pa.array(g_size, pa.int64()),
            "in_store": pa.array((flags & Has.STORE) != 0),
            "refused_fraction": pa.array(refused, pa.float64()),
        }
    ).cast(TILE_SCHEMA)


def landmask_table(connections: Connections, ordinal: int) -> pa.Table:
    """Return a collection's landmasks as ``LANDMASK_SCHEMA``."""
    rows = connections.rows(
        "SELECT key, size, sha256 FROM landmask WHERE key BETWEEN ? AND ?", collection_span(ordinal)
    )
    key, size, sha256 = zip(*rows, strict=True) if rows else ((),) * 3
    lat_i, lon_i = grid.centres(*rows_cols(np.array(key, dtype=np.int64)))
    return pa.table(
        {
            "lat_i": pa.array(lat_i),
            "lon_i": pa.array(lon_i),
            "size": pa.array(size, pa.int64()),
            "sha256": pa.array(sha256, SHA256),
        }
    ).cast(LANDMASK_SCHEMA)
