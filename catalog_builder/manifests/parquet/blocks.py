"""The registry beside dClimate's Icechunk store: a row per block of 2048 x 2048 pixels and year.

A part is ``zone=33N/year=2024/<run_id>.parquet``: zone and year are in its path only. It is written when a
zone-year is finished; one that was filled again has several parts, of which the latest counts, block by
block.
The WGS84 box of a block is not needed to place it, since its number says where it is: it is compared with
the place, so that a registry on another grid cannot put tiles in the wrong places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_builder.manifests.parquet.columns import Rows, read_rows
from catalog_builder.manifests.part import ManifestPart
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading
from catalog_builder.tile.blocks import BLOCK_PIXELS, BLOCK_SCHEMA, ZONE_COLS, ZONE_ROWS, block_centres

COLUMNS = ("tile", "embedded", "assembled_at")
"""Columns that identify a part of the registry."""

_BOX = ("bbox_west", "bbox_south", "bbox_east", "bbox_north")
_READ = (*COLUMNS, "refused_px", *_BOX)
_PATH = re.compile(r"(?:^|[/!])zone=(\d\d)([NS])/year=(\d{4})/[^/]+$", re.ASCII)
_BLOCK = r"^chunk_(?P<row>\d{1,3})_(?P<col>\d{1,3})$"
_PIXEL_DEGREES = 1e-3
"""How far a box may miss a block's centre: far more than the box's own error, far less than a block."""


def read_blocks(file: pq.ParquetFile, reading: Reading) -> Iterator[ManifestPart]:
    """Read a part of the registry; see :data:`catalog_builder.tile.blocks.BLOCK_SCHEMA`."""
    named = _PATH.search(reading.source)
    if named is None or not 1 <= int(named[1]) <= 60:
        reading.problems.add(
            ProblemKind.MALFORMED,
            reading.source,
            "expected a path 'zone=33N/year=2024/<run>.parquet': zone and year of a registry of blocks are"
            " only there; give the folder above",
        )
        return
    zone, south, year = int(named[1]), named[2] == "S", int(named[3])
    first, last = reading.years
    if not first <= year <= last:
        reading.problems.add(
            ProblemKind.WRONG_YEAR, reading.source, f"expected a year from {first} to {last}, found {year}"
        )
        return
    if reading.selection.years is not None and year not in reading.selection.years:
        yield ManifestPart(reading.source, reading.dataset, blocks=BLOCK_SCHEMA.empty_table())
        return
    for rows in read_rows(file, _READ, reading):
        row, col = _numbers(rows, south=south)
        assembled = _times(rows)
        rows.report(
            ProblemKind.BAD_VALUE, pc.is_null(rows.batch["embedded"]).to_numpy(zero_copy_only=False), _no_flag
        )
        _compare_boxes(rows, zone, row, col, south=south)
        n = len(rows)
        table = pa.table(
            {
                "epsg": pa.array(np.full(n, (32700 if south else 32600) + zone, np.int32)),
                "year": pa.array(np.full(n, year, np.int16)),
                "row": pa.array(row),
                "col": pa.array(col),
                "embedded": pc.fill_null(rows.batch["embedded"], False),
                "refused_px": _refused(rows),
                "assembled_at": assembled,
            },
            schema=BLOCK_SCHEMA,
        )
        yield ManifestPart(
            reading.source,
            reading.dataset,
            blocks=table if rows.good.all() else table.filter(pa.array(rows.good)),
        )


def _no_flag(_row: int) -> str:
    return "column embedded: expected true or false, found null"


def _numbers(rows: Rows, *, south: bool) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return rows and columns of the blocks; report names of other forms, and numbers off the zone's grid."""
    names = pc.fill_null(rows.batch["tile"].cast(pa.string()), "")
    found = pc.extract_regex(names, pattern=_BLOCK)
    numbers = [
        pc.fill_null(pc.struct_field(found, key).cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
        for key in ("row", "col")
    ]
    row, col = numbers
    n_rows, n_cols = ZONE_ROWS[south] // BLOCK_PIXELS, ZONE_COLS // BLOCK_PIXELS
    off = (row < 0) | (row >= n_rows) | (col < 0) | (col >= n_cols)
    rows.report(
        ProblemKind.BAD_VALUE,
        off,
        lambda i: f"column tile: expected chunk_<0..{n_rows - 1}>_<0..{n_cols - 1}>, found '{names[i]}'",
    )
    return np.where(off, 0, row).astype(np.int32), np.where(off, 0, col).astype(np.int32)


def _times(rows: Rows) -> pa.Array:
    """Return the times of assembly; report what is none: which of two rows is newer could not be said."""
    column = rows.batch["assembled_at"]
    kind = pa.timestamp("us", tz="UTC")
    try:
        times = column.cast(kind)
    except pa.ArrowInvalid:
        times = pa.array([_time(text) for text in column.to_pylist()], kind)
    missing = pc.is_null(times).to_numpy(zero_copy_only=False)
    rows.report(
        ProblemKind.BAD_VALUE, missing, lambda i: f"column assembled_at: expected a time, found '{column[i]}'"
    )
    return pc.fill_null(times, pa.scalar(0, kind))


def _time(text: object) -> object:
    try:
        return pa.array([text], pa.string()).cast(pa.timestamp("us", tz="UTC"))[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _refused(rows: Rows) -> pa.Array:
    """Return the refused pixels, null where they were not measured; report impossible counts."""
    if not rows.has("refused_px"):
        return pa.nulls(len(rows), pa.int32())
    column = rows.batch["refused_px"].cast(pa.int64())
    counts = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    off = (counts < 0) | (counts > BLOCK_PIXELS**2)
    rows.report(
        ProblemKind.BAD_VALUE,
        off,
        lambda i: f"column refused_px: expected 0 to {BLOCK_PIXELS**2}, found {counts[i]}",
    )
    known = pc.is_valid(column).to_numpy(zero_copy_only=False) & ~off
    return pa.array(np.where(known, counts, 0).astype(np.int32), mask=~known)


def _compare_boxes(
    rows: Rows,
    zone: int,
    row: npt.NDArray[np.int32],
    col: npt.NDArray[np.int32],
    *,
    south: bool,
) -> None:
    """Report blocks whose number and whose box name different places; across the antimeridian west > east."""
    if not all(rows.has(name) for name in _BOX):
        return
    west, south_edge, east, north = (
        rows.batch[name].cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False) for name in _BOX
    )
    lons, lats = block_centres(south)
    lon, lat = lons[row, col] + 6 * zone - 183, lats[row, col]
    margin = _PIXEL_DEGREES
    within = ((lon - west + margin) % 360 <= (east - west) % 360 + 2 * margin) & (
        (lat >= south_edge - margin) & (lat <= north + margin)
    )
    unknown = np.isnan(west) | np.isnan(south_edge) | np.isnan(east) | np.isnan(north)
    names = rows.batch["tile"]
    rows.report(
        ProblemKind.BAD_VALUE,
        ~within & ~unknown & rows.good,
        lambda i: (
            f"block {names[i]} of zone {zone:02d}{'S' if south else 'N'} has its centre at {lon[i]:.3f},"
            f" {lat[i]:.3f}, which its box {west[i]:.3f}, {south_edge[i]:.3f}, {east[i]:.3f}, {north[i]:.3f}"
            " does not contain"
        ),
    )
