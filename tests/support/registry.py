"""A registry of blocks as dClimate publishes it, made from nothing but the published grid and pyproj."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import Transformer

from catalog_builder.tile.grid import TileId

SIDE = 20_480.0
WEST = 163_840.0
TOP = {"N": 9_338_880.0, "S": 10_014_720.0}
"""dClimate, tessera-embeddings: ``storage/zone_grid.py``."""

SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("assembled_at", pa.string(), nullable=False),
        pa.field("embedded", pa.bool_(), nullable=False),
        pa.field("eligible_px", pa.int64()),
        pa.field("chunk_px", pa.int64()),
        pa.field("refused_px", pa.int64()),
        *(pa.field(f"bbox_{side}", pa.float64()) for side in ("west", "south", "east", "north")),
    ]
)


def epsg_of(zone: str) -> int:
    """Return the EPSG code of ``33N``."""
    return (32600 if zone[2] == "N" else 32700) + int(zone[:2])


def block_at(lon: float, lat: float, zone: str) -> tuple[int, int]:
    """Return row and column of the block that a point lies in."""
    x, y = Transformer.from_crs(4326, epsg_of(zone), always_xy=True).transform(lon, lat)
    return int((TOP[zone[2]] - y) // SIDE), int((x - WEST) // SIDE)


def boxes(zone: str, rows: Any, cols: Any) -> dict[str, Any]:
    """Return the columns of the blocks' WGS84 boxes; west > east across the antimeridian."""
    rows, cols = np.asarray(rows), np.asarray(cols)
    along = np.linspace(0, SIDE, 64)
    none, full = np.zeros(64), np.full(64, SIDE)
    dx, dy = np.concatenate([along, along, none, full]), np.concatenate([none, full, along, along])
    x = WEST + cols[:, None] * SIDE + dx
    y = TOP[zone[2]] - rows[:, None] * SIDE - dy
    lon, lat = Transformer.from_crs(epsg_of(zone), 4326, always_xy=True).transform(x, y)
    wraps = np.ptp(lon, axis=1) > 180
    turned = np.where(lon < 0, lon + 360, lon)
    west = np.where(wraps, turned.min(axis=1), lon.min(axis=1))
    east = np.where(wraps, turned.max(axis=1) - 360, lon.max(axis=1))
    return {
        "bbox_west": west,
        "bbox_south": lat.min(axis=1),
        "bbox_east": east,
        "bbox_north": lat.max(axis=1),
    }


def write_part(
    folder: Path,
    zone: str,
    year: int,
    blocks: Iterable[tuple[int, int]],
    at: str = "2026-01-02T00:00:00+00:00",
    run: str = "run-1",
    **columns: Any,
) -> Path:
    """Write a part of a registry; columns that are not given are: embedded, nothing refused."""
    blocks = list(blocks)
    n = len(blocks)
    data: Mapping[str, Any] = {
        "tile": [f"chunk_{row}_{col}" for row, col in blocks],
        "run_id": [run] * n,
        "assembled_at": [at] * n,
        "embedded": [True] * n,
        "eligible_px": [2048 * 2048] * n,
        "chunk_px": [2048 * 2048] * n,
        "refused_px": [0] * n,
        **boxes(zone, [row for row, _ in blocks], [col for _, col in blocks]),
        **columns,
    }
    path = folder / "parts" / f"zone={zone}" / f"year={year}" / f"{run}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data, schema=SCHEMA), path)
    return path


def write_land(folder: Path, tiles: Iterable[TileId]) -> Path:
    """Write a list of land as s3scan of geotessera does; return its path."""
    folder.mkdir(exist_ok=True)
    tiles = list(tiles)
    columns = {"lon": [t.lon for t in tiles], "lat": [t.lat for t in tiles], "file_size": [1] * len(tiles)}
    pq.write_table(pa.table(columns), folder / "landmasks.parquet")
    return folder / "landmasks.parquet"
