"""The number of matches: exact if it can be counted in time, otherwise an estimate, marked as such.

pgSTAC's own ``numberMatched`` caches a count for a day, even across a load, and does not mark which of
its counts are estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from api.pgstac.database import Database
from catalog_builder.catalog.index.search.selection import Count
from catalog_builder.errors import QueryTimeoutError


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
        How long counting may take; beyond it the number is an estimate.
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
