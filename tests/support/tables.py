"""TileTables made by hand, for tests of what comes after the manifests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from catalog_builder.tile.grid import TileId
from catalog_builder.tile.table import LANDMASK_SCHEMA, TILE_SCHEMA


def digest(text: str) -> bytes:
    """Return some SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def tile_table(tile_years: Iterable[tuple[TileId, int]], **columns: Sequence[object]) -> pa.Table:
    """Return a TileTable; by default each row has a .npy pair and its two hashes, and no sizes."""
    rows = list(tile_years)
    data: dict[str, object] = {
        "lat_i": [t.lat_i for t, _ in rows],
        "lon_i": [t.lon_i for t, _ in rows],
        "year": [y for _, y in rows],
        "npy_size": [None] * len(rows),
        "npy_sha256": [digest(f"{t.name}{y}") for t, y in rows],
        "scales_size": [None] * len(rows),
        "scales_sha256": [digest(f"{t.name}{y}s") for t, y in rows],
        "mtime": [None] * len(rows),
        "has_npy": [True] * len(rows),
        "geotiff": [None] * len(rows),
        "geotiff_size": [None] * len(rows),
        "in_store": [False] * len(rows),
        "refused_fraction": [None] * len(rows),
        **columns,
    }
    return pa.table(data, schema=TILE_SCHEMA)


def landmask_table(tiles: Iterable[TileId]) -> pa.Table:
    """Return a table of landmasks with sizes and hashes."""
    rows = list(tiles)
    return pa.table(
        {
            "lat_i": [t.lat_i for t in rows],
            "lon_i": [t.lon_i for t in rows],
            "size": [12_000 + i for i in range(len(rows))],
            "sha256": [digest(t.name) for t in rows],
        },
        schema=LANDMASK_SCHEMA,
    )


def text_manifest(tile_years: Iterable[tuple[TileId, int]], salt: str = "") -> str:
    """Return the lines of a geotessera 0.1.0 registry."""
    lines = []
    for tile, year in tile_years:
        for suffix in (".npy", "_scales.npy"):
            sha = digest(f"{tile.name}{year}{suffix}{salt}").hex()
            lines.append(f"{year}/{tile.name}/{tile.name}{suffix} {sha}\n")
    return "".join(lines)
