"""Aggregations: numbers of items by year, coverage, zone, and per degree for maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from api.catalogue.snapshot import IndexSnapshot, Snapshot
from api.filter.queryables import QUERYABLES, quoted
from catalog_builder.catalog.index.blocks import BLOCK_CELLS
from catalog_builder.catalog.index.keys import COL_SQL, ROW_SQL, ranges_json
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.pages import RANGES_SQL, where_sql
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.errors import QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.years import COVERAGE_NAMES

Counts = dict[Any, int]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A way to count items."""

    name: str
    data_type: str
    """``integer`` for a single number, else what the keys of its buckets are."""
    description: str
    sql: Callable[[Snapshot], str]
    """What tile-years are grouped by."""
    from_block: Callable[[Snapshot, int, int, int, int], Any] | None
    """The same of (collection, year, band, block column), where whole blocks have one value."""
    options: tuple[Any, ...] = ()
    """All values, where they are few: counted in one pass, without sorting the tile-years by them."""
    of_year: Callable[[Snapshot, CollectionRecord, int], Counts | None] | None = None
    """Counts of a collection's whole year, where they are known without looking at its tile-years."""

    def document(self, counts: Mapping[Any, int]) -> dict[str, Any]:
        """Return counts by key in the form of the extension."""
        if self.name == "total_count":
            return {"name": self.name, "data_type": "integer", "value": sum(counts.values())}
        kind = "frequency_distribution" if self.data_type != "datetime" else "datetime_frequency"
        return {
            "name": self.name,
            "data_type": kind,
            "buckets": [
                {"key": _key(self, value), "data_type": self.data_type, "frequency": counts[value]}
                for value in sorted(counts)
            ],
            "overflow": 0,
        }


def _property(name: str) -> Callable[[Snapshot], str]:
    return QUERYABLES[name].sql


def _degree_sql(snapshot: Snapshot) -> str:
    return f"({ROW_SQL} / {BLOCK_CELLS} * 1000 + {COL_SQL} / {BLOCK_CELLS})"


def _coverage_of_year(snapshot: Snapshot, record: CollectionRecord, year: int) -> Counts:
    """Count by the collection's summary: a full tile is in every year, a latest one in the newest."""
    tiles = orjson.loads(snapshot.tiles.documents[record.id])["tessera:coverage"]
    latest = tiles["latest"] if year == record.years[-1] else 0
    partial = record.counts[record.years.index(year)] - tiles["full"] - latest
    return {"full": tiles["full"], "latest": latest, "partial": partial}


def _cogs_of_year(_: Snapshot, record: CollectionRecord, year: int) -> Counts | None:
    """Count a collection of which nothing is converted."""
    return None if record.addresses.cogs else {0: record.counts[record.years.index(year)]}


AGGREGATIONS: dict[str, Aggregation] = {
    a.name: a
    for a in (
        Aggregation("total_count", "integer", "All items.", lambda _: "0", lambda *_: 0),
        Aggregation(
            "collection_frequency", "string", "By collection.", _property("collection"),
            lambda snapshot, ordinal, *_: snapshot.tiles.by_ordinal[ordinal].id,
        ),
        Aggregation(
            "datetime_frequency", "datetime", "By year, as times.", _property("tessera:year"),
            lambda _, __, year, *___: year,
        ),
        Aggregation(
            "year_frequency", "integer", "By tessera:year.", _property("tessera:year"),
            lambda _, __, year, *___: year,
        ),
        Aggregation(
            "utm_zone_frequency", "integer", "By tessera:utm_zone.", _property("tessera:utm_zone"),
            lambda _, __, ___, ____, col: col * BLOCK_CELLS // grid.COLS_PER_ZONE + 1,
        ),
        Aggregation(
            "coverage_frequency", "string", "By tessera:coverage.", _property("tessera:coverage"), None,
            COVERAGE_NAMES, _coverage_of_year,
        ),
        Aggregation(
            "cog_frequency", "boolean", "By tessera:cog.", _property("tessera:cog"), None, (0, 1),
            _cogs_of_year,
        ),
        Aggregation(
            "grid_degree_frequency", "string",
            "By cell of 1 degree, for maps; the key is the west and south edge, such as -3,51.",
            _degree_sql, lambda _, __, ___, band, col: band * 1000 + col,
        ),
    )
}  # fmt: skip
"""By name, in the order of the documents."""


def named(names: Sequence[str] | None) -> list[Aggregation]:
    """Return aggregations by name; all of a few cheap ones if no name is given.

    Raises
    ------
    QueryError
        Naming those that are known.
    """
    for name in names or ():
        if name not in AGGREGATIONS:
            raise QueryError(
                f"aggregations: unknown '{name[:60]}'; expected one of: {', '.join(AGGREGATIONS)}"
            )
    return [AGGREGATIONS[n] for n in dict.fromkeys(names or ["total_count"])]


def aggregate(
    snapshot: IndexSnapshot, selection: Selection, wanted: Sequence[Aggregation], seconds: float
) -> list[dict[str, Any]]:
    """Return aggregations of a selection, in the form of the extension.

    Raises
    ------
    QueryTimeoutError
        If it takes longer than ``seconds``.
    """
    whole = selection.runs is None and selection.keys is None and not selection.where
    found = []
    for a in wanted:
        counts = from_years(snapshot, selection, a) if whole else None
        found.append(a.document(_from_tiles(snapshot, selection, a, seconds) if counts is None else counts))
    return found


def from_years(snapshot: Snapshot, selection: Selection, aggregation: Aggregation) -> Counts | None:
    """Count whole years by what is known of them: at any size in milliseconds. None if it is not known."""
    counts: Counts = {}
    for ordinal in selection.ordinals:
        record = snapshot.tiles.by_ordinal[ordinal]
        for year in record.years:
            if selection.years is not None and year not in selection.years:
                continue
            known: Counts | None = None
            if aggregation.from_block is not None:
                known = _of_blocks(snapshot, ordinal, year, aggregation.from_block)
            elif aggregation.of_year is not None:
                known = aggregation.of_year(snapshot, record, year)
            if known is None:
                return None
            for value, n in known.items():
                if n:
                    counts[value] = counts.get(value, 0) + n
    return counts


def _of_blocks(snapshot: Snapshot, ordinal: int, year: int, key: Callable[..., Any]) -> Counts:
    """Count a year by its blocks' own counts."""
    counts: Counts = {}
    table = snapshot.tiles.blocks(ordinal, year).counts
    for band, col in np.argwhere(table).tolist():
        value = key(snapshot, ordinal, year, band, col)
        counts[value] = counts.get(value, 0) + int(table[band, col])
    return counts


def _from_tiles(
    snapshot: IndexSnapshot, selection: Selection, aggregation: Aggregation, seconds: float
) -> Counts:
    """Count tile by tile."""
    counts: Counts = {}
    rows = f"FROM (SELECT {aggregation.sql(snapshot)} AS v FROM {RANGES_SQL}{where_sql(selection.where)})"
    totals = ", ".join(f"total(v = {quoted(option)})" for option in aggregation.options)
    query = f"SELECT {totals} {rows}" if totals else f"SELECT v, count(*) {rows} GROUP BY 1"
    with snapshot.index.lend(seconds, selection) as db:
        for ranges in snapshot.index.ranges(selection):
            found = db.execute(query, (ranges_json(ranges), *selection.values)).fetchall()
            pairs = zip(aggregation.options, map(int, found[0]), strict=True) if totals else found
            for value, n in pairs:
                if n:
                    counts[value] = counts.get(value, 0) + n
    return counts


def _key(aggregation: Aggregation, value: Any) -> Any:
    match aggregation.name:
        case "datetime_frequency":
            return f"{value}-01-01T00:00:00Z"
        case "grid_degree_frequency":
            return f"{value % 1000 - 180},{value // 1000 - 90}"
        case "cog_frequency":
            return bool(value)
    return value


def listing(links: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document of what there is."""
    return {
        "type": "AggregationCollection",
        "aggregations": [
            {
                "name": a.name,
                "data_type": "integer" if a.name == "total_count" else "frequency_distribution",
                "description": a.description,
            }
            for a in AGGREGATIONS.values()
        ],
        "links": list(links),
    }
