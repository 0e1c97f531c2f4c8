"""A registry of blocks over land cells, of the published one's shape, and what DuckDB makes of it.

Blocks are those that land cells touch. Some zone-years were filled again, with other results; some are not
complete, and have no part. Which tile-years there are is worked out by DuckDB from the files and from the
tiles' rasters, which pyproj alone says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyproj import Transformer

from tests.scale.manifests import write_landmasks
from tests.support.registry import SCHEMA, TOP, WEST, boxes

YEARS = range(2017, 2026)
SIDE = 2048


@dataclass(frozen=True)
class Registry:
    """What was written."""

    parts: Path
    landmasks: Path
    rows: int
    n_parts: int
    tiles: pa.Table
    """cell, zone ('33N'), first and last row and column of the blocks that its raster lies in, its pixels."""


def rasters(cell: npt.NDArray[np.int32]) -> pa.Table:
    """Return where the rasters of tiles lie in the blocks of their zones."""
    row, col = np.divmod(cell, 3600)
    south = row < 900
    # every zone has the shape of zone 31, which begins at the prime meridian
    lon, lat = (col % 60) / 10, row / 10 - 90
    left, top, right, bottom = (np.zeros(len(cell)) for _ in range(4))
    for half, epsg in ((False, 32631), (True, 32731)):
        at = south == half
        to = Transformer.from_crs(4326, epsg, always_xy=True)
        x, y = zip(
            *(to.transform(lon[at] + dx, lat[at] + dy) for dx in (0, 0.1) for dy in (0, 0.1)), strict=True
        )
        west, north = np.minimum(x[0], x[1]), np.maximum(y[1], y[3])
        width = np.rint((np.maximum(x[2], x[3]) - west) / 10)
        height = np.rint((north - np.minimum(y[0], y[2])) / 10)
        left[at], top[at] = np.floor(np.round(west, 6) / 10), np.ceil(np.round(north, 6) / 10)
        right[at], bottom[at] = left[at] + width, top[at] - height
    origin = np.where(south, TOP["S"], TOP["N"]) / 10
    first_row, last_row = (origin - top) // SIDE, (origin - bottom - 1) // SIDE
    first_col, last_col = (left - WEST / 10) // SIDE, (right - WEST / 10 - 1) // SIDE
    zone = np.char.add(np.char.zfill((col // 60 + 1).astype(str), 2), np.where(south, "S", "N"))
    return pa.table(
        {
            "cell": cell,
            "zone": zone.tolist(),
            "first_row": first_row.astype(np.int32),
            "last_row": last_row.astype(np.int32),
            "first_col": first_col.astype(np.int32),
            "last_col": last_col.astype(np.int32),
        }
    )


def write_registry(
    folder: Path, cell: npt.NDArray[np.int32], incomplete: int = 14, refilled: int = 40, seed: int = 14
) -> Registry:
    """Write a registry and the list of land."""
    rng = np.random.default_rng(seed)
    tiles = rasters(cell)
    blocks = duckdb.sql(
        "SELECT DISTINCT zone, unnest(range(first_row, last_row + 1)) AS row, col FROM (SELECT *,"
        " unnest(range(first_col, last_col + 1)) AS col FROM tiles) ORDER BY ALL"
    ).arrow()
    blocks = blocks.read_all() if hasattr(blocks, "read_all") else blocks
    zones = np.array(blocks["zone"].to_pylist())
    row, col = blocks["row"].to_numpy(), blocks["col"].to_numpy()
    names = np.unique(zones).tolist()
    cells = [(zone, year) for zone in names for year in YEARS]
    chosen = [cells[i] for i in rng.permutation(len(cells))[: incomplete + refilled]]
    missing, again = set(chosen[:incomplete]), set(chosen[incomplete:])
    total = n_parts = 0
    for zone in names:
        at = zones == zone
        n = int(at.sum())
        fixed = {
            "tile": [f"chunk_{r}_{c}" for r, c in zip(row[at].tolist(), col[at].tolist(), strict=True)],
            "eligible_px": [SIDE * SIDE] * n,
            "chunk_px": [SIDE * SIDE] * n,
            **boxes(zone, row[at], col[at]),
        }
        for year in YEARS:
            if (zone, year) in missing:
                continue
            for run in ("b", "a") if (zone, year) in again else ("a",):
                embedded = rng.random(n) > (0.5 if run == "b" else 0.02)
                measured = rng.random(n) < 0.7
                counts = np.where(rng.random(n) < 0.1, rng.integers(0, SIDE * SIDE, n), 0)
                table = pa.table(
                    {
                        **fixed,
                        "run_id": [run] * n,
                        "assembled_at": [f"2026-0{2 if run == 'b' else 3}-01T00:00:00+00:00"] * n,
                        "embedded": embedded,
                        "refused_px": pa.array(counts, mask=~measured),
                    }
                ).select(SCHEMA.names)
                path = folder / "parts" / f"zone={zone}" / f"year={year}" / f"{run}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table.cast(SCHEMA), path)
                total, n_parts = total + n, n_parts + 1
    write_landmasks(folder / "landmasks.parquet", cell)
    return Registry(folder / "parts", folder / "landmasks.parquet", total, n_parts, tiles)


def by_brute_force(registry: Registry) -> duckdb.DuckDBPyRelation:
    """Return the tile-years: cell, year, known (whether refused pixels were measured in all its blocks)."""
    tiles = registry.tiles  # noqa: F841 - DuckDB finds it by its name
    return duckdb.sql(
        f"""
        WITH newest AS (
          SELECT zone, year, embedded, refused_px,
            CAST(split_part(tile, '_', 2) AS INTEGER) AS row, CAST(split_part(tile, '_', 3) AS INTEGER) AS col
          FROM read_parquet('{registry.parts}/**/*.parquet', hive_partitioning = true)
          QUALIFY row_number() OVER (PARTITION BY zone, year, tile ORDER BY assembled_at DESC) = 1
        ), touched AS (
          SELECT cell, zone, row, unnest(range(first_col, last_col + 1)) AS col FROM (
            SELECT *, unnest(range(first_row, last_row + 1)) AS row FROM tiles)
        )
        SELECT cell, CAST(year AS INTEGER) AS year, bool_and(refused_px IS NOT NULL) AS known
        FROM touched JOIN newest USING (zone, row, col)
        GROUP BY cell, year HAVING bool_or(embedded)
        """
    )
