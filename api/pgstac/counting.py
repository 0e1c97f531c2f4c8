"""The number of matches: from what was loaded, or counted by the database, or an estimate that is marked.

What depends only on collections, years, UTM zones, coverage and the area is known exactly from the loader's
records. All else is counted by the database, if it can in time. Then there is PostgreSQL's estimate for
its plan. It has statistics of places and times, but none of an item's properties, so for filters it may be
off by a hundred times: it is shown only where it cannot be off by more than a factor of two.

pgSTAC's own ``numberMatched`` caches a count for a day, even across a load, and does not mark which of
its counts are estimates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from api.filter.compile.axes import rows_holding
from api.pgstac.database import Database
from api.pgstac.snapshot import PgstacSnapshot
from api.search.page import select_on
from api.search.query import Query
from api.settings import Settings
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.selection import Count
from catalog_builder.errors import QueryTimeoutError

_OF_GROUPS = frozenset({"collection", "year", "zone"})
"""What all tile-years of a group have in common."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the loader's records say of the number of matches."""

    n: int | None = None
    """The number; None if they do not say it."""
    at_most: int | None = None


def known_matches(snapshot: PgstacSnapshot, query: Query, settings: Settings) -> Known:
    """Return what is known of a search's matches without asking the database.

    Raises
    ------
    QueryError
        If its filter does not fit the items.
    """
    chosen = snapshot.documents if query.collections is None else query.collections
    if any(c in snapshot.documents and c not in snapshot.collections for c in chosen):
        return Known()  # items of others are known to the database alone
    selection, axes = select_on(snapshot, query, settings)
    if selection.keys is not None:
        return Known(at_most=len(selection.keys))
    tiles = snapshot.tiles
    counts = {(o, year): n for o in selection.ordinals for year, n in _years_of(tiles.by_ordinal[o])}
    years = [pair for pair in counts if selection.years is None or pair[1] in selection.years]
    if selection.runs is None and not selection.where:
        return _exactly(sum(counts[pair] for pair in years))
    groups = [group for pair in years for group in tiles.groups(*pair, selection.runs)]
    n = sum(count for *_, count in groups)
    if selection.where:
        common = _OF_GROUPS | ({"coverage"} if snapshot.whole.issuperset(selection.ordinals) else set())
        if not axes <= common:
            return Known(at_most=n)
        rows = [(key, mask) for key, mask, _ in groups]
        n = sum(groups[place][2] for place in rows_holding(selection.where, selection.values, rows))
    return _exactly(n)


def _exactly(n: int) -> Known:
    return Known(n, n)


def _years_of(record: CollectionRecord) -> Iterator[tuple[int, int]]:
    """Return the years of a collection and their numbers of tile-years."""
    return zip(record.years, record.counts, strict=True)


async def where_of(connection: Any, body: Mapping[str, Any]) -> str:
    """Return the SQL condition that pgSTAC makes of a search."""
    asked = {k: v for k, v in body.items() if k not in ("limit", "token", "sortby")}
    sql = "SELECT pgstac.stac_search_to_where($1::text::jsonb)"
    return str(await connection.fetchval(sql, orjson.dumps(asked).decode()))


async def count_items(
    database: Database, body: Mapping[str, Any], seconds: float, most_seconds: float
) -> Count:
    """Return the number of items that a search finds.

    Parameters
    ----------
    database
        Where to count.
    body
        The search.
    seconds
        How long counting may take; beyond it the number is the planner's estimate.
    most_seconds
        How long estimating may take.
    """

    async def exactly() -> int:
        # a connection may be long in coming when many search; its time begins with the count
        async with database.connection(seconds, wait=most_seconds) as db:
            return int(await db.fetchval(f"SELECT count(*) FROM items WHERE {await where_of(db, body)}"))

    async def about() -> int:
        async with database.connection(most_seconds) as db:
            plan = await db.fetchval(
                f"EXPLAIN (FORMAT json) SELECT 1 FROM items WHERE {await where_of(db, body)}"
            )
            return int(plan[0]["Plan"]["Plan Rows"])

    try:
        return Count(await database.within(most_seconds, exactly))
    except QueryTimeoutError:
        return Count(await database.within(most_seconds, about), exact=False, at_least=0)


def presentable(found: Count, at_least: int, at_most: int | None, *, is_filtered: bool) -> Count | None:
    """Return a number of matches within its limits; None if it may be off by more than a factor of two.

    Parameters
    ----------
    found
        As counted, or as estimated by the planner.
    at_least, at_most
        What is certain: the items of the page, and what the search was narrowed to.
    is_filtered
        Whether it depends on properties, of which the planner knows nothing.
    """
    if found.exact:
        return found
    n = max(found.n, at_least)
    if at_most is not None:
        n = min(n, at_most)
    is_near = at_most is not None and at_most <= 2 * n and n <= 2 * at_least
    return Count(n, exact=False, at_least=at_least) if is_near or not is_filtered else None
