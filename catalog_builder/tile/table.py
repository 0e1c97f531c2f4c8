"""TileTable: the table that all stages exchange. A row is a tile-year.

Manifest readers produce it, the builder merges and joins it, and items are generated from it. It is an
Arrow table with :data:`TILE_SCHEMA`; landmasks, which have no year, are passed alongside as a table
with :data:`LANDMASK_SCHEMA` until the builder joins them.
"""

from __future__ import annotations

import pyarrow as pa

from catalog_builder.tile import grid

SHA256 = pa.binary(32)

TILE_SCHEMA = pa.schema(
    [
        pa.field("lat_i", pa.int16(), nullable=False),  # tile centre x 100
        pa.field("lon_i", pa.int16(), nullable=False),
        pa.field("year", pa.int16(), nullable=False),
        # The manifest's metadata of the two source files; null where it has none.
        pa.field("npy_size", pa.int64()),  # bytes
        pa.field("npy_sha256", SHA256),
        pa.field("scales_size", pa.int64()),
        pa.field("scales_sha256", SHA256),
        pa.field("mtime", pa.timestamp("s", tz="UTC")),  # of the embedding file
        # A GeoTIFF exported by geotessera, where the source is a folder of those: path below the
        # source's root. A row has the .npy pair, or a GeoTIFF, or both,
        # or is in a store.
        pa.field("has_npy", pa.bool_(), nullable=False),
        pa.field("geotiff", pa.string()),
        pa.field("geotiff_size", pa.int64()),
        # A window of the arrays of the collection's store, instead of files or beside them.
        pa.field("in_store", pa.bool_(), nullable=False),
        # At most this share of the window's pixels was refused; null where it was not measured.
        pa.field("refused_fraction", pa.float64()),
    ]
)

LANDMASK_SCHEMA = pa.schema(
    [
        pa.field("lat_i", pa.int16(), nullable=False),
        pa.field("lon_i", pa.int16(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("sha256", SHA256),
    ]
)


def cells(table: pa.Table) -> grid.Cells:
    """Return each row's cell, see :func:`catalog_builder.tile.grid.cells`."""
    return grid.cells(*grid.of_centres(table["lat_i"].to_numpy(), table["lon_i"].to_numpy()))
