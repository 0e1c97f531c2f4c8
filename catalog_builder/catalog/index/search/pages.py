"""Pages of an index's rows, in the order of their keys."""

from __future__ import annotations

import sqlite3
from typing import Any

from catalog_builder.catalog.index.keys import LANDMASK_KEY_SQL, Keys, ranges_json
from catalog_builder.catalog.index.search.connection import Connections
from catalog_builder.catalog.index.search.ranges import Ranges
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.item.converted import COG_COLUMNS

PAGE_SQL = f"""
SELECT t.key, t.mask, t.has, t.mtime, s.npy_size, s.npy_sha256, s.scales_size, s.scales_sha256,
  s.geotiff, s.geotiff_size, l.size, l.sha256, t.valid_fraction, t.refused_fraction,
  {", ".join("c." + n for n in COG_COLUMNS)}
FROM {{tiles}}
LEFT JOIN source s ON s.key = t.key
LEFT JOIN cog c ON c.key = t.key
LEFT JOIN landmask l ON l.key = {LANDMASK_KEY_SQL}
"""
Row = tuple[Any, ...]
"""What :data:`PAGE_SQL` selects of a tile-year; its key is first."""
# json_each gives the ranges in their order, and the tiles of a range come in key order: the rows are
# sorted as they are found, and LIMIT stops the walk as soon as the page is full.
RANGES_SQL = "json_each(?) r CROSS JOIN tile t ON t.key BETWEEN r.value->>0 AND r.value->>1"


def find_page(
    connections: Connections,
    key_ranges: Ranges,
    selection: Selection,
    limit: int,
    after: int | None = None,
    *,
    backwards: bool = False,
    seconds: float | None = None,
) -> list[Row]:
    """Return up to ``limit`` rows of a selection in key order, past ``after``.

    ``backwards`` walks to smaller keys (and still returns ascending rows): the previous page.

    Raises
    ------
    QueryTimeoutError
        If it takes longer than ``seconds``.
    """
    rows: list[Row] = []
    with connections.lend(seconds, selection) as db:
        for ranges in key_ranges.of(selection, after, backwards):
            if backwards:
                found = _page_backwards(db, selection, ranges, limit - len(rows))
            else:
                sql = PAGE_SQL.format(tiles=RANGES_SQL) + where_sql(selection.where) + " LIMIT ?"
                bound = (ranges_json(ranges), *selection.values, limit - len(rows))
                found = db.execute(sql, bound).fetchall()
            rows += found
            if len(rows) >= limit:
                break
    return rows[::-1] if backwards else rows


def _page_backwards(db: sqlite3.Connection, selection: Selection, ranges: Keys, limit: int) -> list[Row]:
    sql = (
        PAGE_SQL.format(tiles="tile t")
        + where_sql("t.key BETWEEN ? AND ?", selection.where)
        + " ORDER BY t.key DESC LIMIT ?"
    )
    rows: list[Row] = []
    for lo, hi in ranges.tolist():
        rows += db.execute(sql, (lo, hi, *selection.values, limit - len(rows))).fetchall()
        if len(rows) >= limit:
            break
    return rows


def where_sql(*conditions: str) -> str:
    """Return the WHERE clause of conditions, without empty ones."""
    used = [c for c in conditions if c]
    return " WHERE " + " AND ".join(used) if used else ""
