"""The tables of the index and the version of their schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from catalog_builder.errors import (
    SchemaVersionError,
)

SCHEMA_VERSION = 5
"""Incremented whenever the tables change; an index of another version is rejected with a message."""
SCHEMA = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE collection(ordinal INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record TEXT NOT NULL,
  document TEXT NOT NULL);
-- mask: years of the tile; has: flags; mtime: seconds since 1970; valid_fraction: of a converted tile,
-- here and not in cog, so that a filter on it reads one table; refused_fraction: of a window of a store, NULL
-- where it was not measured
CREATE TABLE tile(key INTEGER PRIMARY KEY, mask INTEGER NOT NULL, has INTEGER NOT NULL, mtime INTEGER,
  valid_fraction REAL, refused_fraction REAL);
-- only rows with hashes, with sizes that are not the formula's, or with a GeoTIFF
CREATE TABLE source(key INTEGER PRIMARY KEY, npy_size INTEGER, npy_sha256 BLOB, scales_size INTEGER,
  scales_sha256 BLOB, geotiff TEXT, geotiff_size INTEGER);
-- key without the year
CREATE TABLE landmask(key INTEGER PRIMARY KEY, size INTEGER, sha256 BLOB);
-- converted tile-years: parts of the names, sizes and hashes of their files, packed statistics
-- of the values, minima and maxima of the codes
CREATE TABLE cog(key INTEGER PRIMARY KEY, {cog});
-- tile-years per 1 degree block: key with row and column divided by 10
CREATE TABLE block(key INTEGER PRIMARY KEY, n INTEGER NOT NULL);
"""
SOURCE_COLUMNS = ("npy_size", "npy_sha256", "scales_size", "scales_sha256", "geotiff", "geotiff_size")
"""Columns of the table ``source``, in order; the names are the TileTable's."""
NO_TIME = np.iinfo(np.int64).min
"""Marks an unknown time in arrays."""


def check_version(path: Path, found: str) -> None:
    """Reject an index of another schema version.

    Raises
    ------
    SchemaVersionError
        With what to do about it.
    """
    if found == str(SCHEMA_VERSION):
        return
    newer = found.isascii() and found.isdigit() and int(found) > SCHEMA_VERSION
    advice = (
        "it was made by a newer tessera-stac: upgrade this one"
        if newer
        else "it was made by an older tessera-stac: run 'tessera-stac build' again"
    )
    raise SchemaVersionError(
        f"{path}: index schema {found[:40]}, this program reads {SCHEMA_VERSION}; {advice}", newer=newer
    )
