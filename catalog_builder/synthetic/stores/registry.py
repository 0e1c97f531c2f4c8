"""The registry beside an Icechunk store: a row per block of 2048 pixels and year, in Parquet.

Parts are ``parts/zone=33N/year=2024/<run_id>.parquet``; zone and year are in the path alone. A zone-year
that was filled again has several parts, and of a block the row with the latest ``assembled_at`` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_builder import __version__
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile.grid import PIXEL, Bounds

MIN_OBSERVATIONS = 15
"""Optical observations in a year without which a pixel is refused (dClimate's rule)."""

SCHEMA = pa.schema(
    [
        pa.field("tile", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("assembled_at", pa.string(), nullable=False),
        pa.field("embedded", pa.bool_(), nullable=False),
        *(
            pa.field(name, pa.int64())
            for name in (
                "eligible_px",
                "chunk_px",
                "refused_px",
                "refused_no_optical_px",
                "refused_thin_px",
                "refused_no_radar_px",
                "px_with_any_optical",
                "obs_max",
            )
        ),
        pa.field("median_obs_where_any", pa.float64()),
        pa.field("px_with_any_radar", pa.int64()),
        pa.field("radar_rule_enforced", pa.bool_()),
        pa.field("optical_min_obs", pa.int64()),
        *(pa.field(f"bbox_{side}", pa.float64()) for side in Bounds._fields),
        pa.field("code_version", pa.string()),
        pa.field("code_commit", pa.string()),
    ]
)
"""Columns as dClimate's ``storage/registry.py`` declares them; null means not measured."""


def block_name(row: int, col: int) -> str:
    """Return the name of a block, ``chunk_<row>_<column>``."""
    return f"chunk_{row}_{col}"


def block_bounds(zone: ZoneGroup, row: int, col: int, side: int) -> Bounds:
    """Return the box of a block in degrees; west > east if it crosses the antimeridian.

    Parameters
    ----------
    row, col
        Counted in blocks from the upper left.
    side
        Side of a block in pixels.
    """
    from pyproj import Transformer

    west, top = zone.west + col * side * PIXEL, zone.top - row * side * PIXEL
    # Edges are curved in degrees: the extreme may lie between two corners.
    along = np.linspace(0, side * PIXEL, 65)
    near, far = np.zeros_like(along), np.full_like(along, side * PIXEL)
    x, y = west + np.concatenate([along, along, near, far]), top - np.concatenate([near, far, along, along])
    lon, lat = Transformer.from_crs(zone.epsg, 4326, always_xy=True).transform(x, y)
    if np.ptp(lon) > 180:
        lon = np.where(lon < 0, lon + 360, lon)
    west, east = ((edge + 180) % 360 - 180 for edge in (lon.min(), lon.max()))
    return Bounds(float(west), float(lat.min()), float(east), float(lat.max()))


def write_part(
    registry: Path, zone: str, year: int, run_id: str, assembled_at: str, rows: Iterable[Mapping[str, Any]]
) -> Path:
    """Write the rows of a zone-year as one part; return its path.

    Parameters
    ----------
    registry
        Folder that ``parts`` is in.
    zone
        ``33N``.
    rows
        Values by column; what is missing is null.
    """
    fixed = {
        "run_id": run_id,
        "assembled_at": assembled_at,
        "optical_min_obs": MIN_OBSERVATIONS,
        "code_version": f"tessera-stac {__version__}",
    }
    table = pa.Table.from_pylist([{**fixed, **row} for row in rows], SCHEMA)
    about = {"zone": zone, "year": str(year), "note": "synthetic, not TESSERA data"}
    path = registry / "parts" / f"zone={zone}" / f"year={year}" / f"{run_id}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path)
    return path
