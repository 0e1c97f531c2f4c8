"""Number of tile-years in a selection."""

from __future__ import annotations

from dataclasses import replace

from catalog_builder.catalog.index.blocks import split_blocks
from catalog_builder.catalog.index.keys import ranges_json
from catalog_builder.catalog.index.search.connection import Connections
from catalog_builder.catalog.index.search.pages import RANGES_SQL
from catalog_builder.catalog.index.search.ranges import Ranges
from catalog_builder.catalog.index.search.selection import Count, Selection
from catalog_builder.catalog.index.search.year_blocks import YearBlocks
from catalog_builder.errors import QueryTimeoutError


def count(
    connections: Connections,
    key_ranges: Ranges,
    blocks: YearBlocks,
    selection: Selection,
    seconds: float | None = None,
) -> Count:
    """Return the number of tile-years in a selection; an estimate if time runs out."""
    if selection.keys is not None or selection.where:
        return _count_tiles(connections, key_ranges, blocks, selection, seconds)
    found = 0
    whole, rim = (None, None) if selection.runs is None else split_blocks(selection.runs)
    for ordinal, year in key_ranges.years_of(selection):
        of_year = blocks.of(ordinal, year)
        found += of_year.total if whole is None else of_year.count(whole)
    if rim is None or not len(rim.row):
        return Count(found)
    sql = f"SELECT count(*) FROM {RANGES_SQL}"
    try:
        with connections.lend(seconds, selection) as db:
            for ranges in key_ranges.of(replace(selection, runs=rim)):
                found += db.execute(sql, (ranges_json(ranges),)).fetchone()[0]
    except QueryTimeoutError:
        return Count(found, exact=False, at_least=found)
    return Count(found)


def _count_tiles(
    connections: Connections,
    key_ranges: Ranges,
    blocks: YearBlocks,
    selection: Selection,
    seconds: float | None,
) -> Count:
    """Count by examining each tile-year; if time runs out, extrapolate from what was seen."""
    found = seen = 0
    sql = f"SELECT count(*), total({selection.where or 1}) FROM {RANGES_SQL}"
    try:
        with connections.lend(seconds, selection) as db:
            for ranges in key_ranges.portions(selection):
                looked, matched = db.execute(sql, (*selection.values, ranges_json(ranges))).fetchone()
                seen += looked
                found += int(matched)
    except QueryTimeoutError:
        part = replace(selection, where="", values=(), cell_sets=(), keys=None)
        everything = len(selection.keys or ())
        if selection.keys is None:
            everything = count(connections, key_ranges, blocks, part, seconds).n
        estimate = round(found * max(everything, seen) / seen) if seen else everything
        return Count(max(estimate, found), exact=False, at_least=found)
    return Count(found)
