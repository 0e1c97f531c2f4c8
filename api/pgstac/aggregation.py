"""Aggregations counted by the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.pgstac.counting import where_of
from api.pgstac.database import Database
from api.search.aggregation import Aggregation

_TEXT = "content->'properties'->>'{}'"
_KEYS: Mapping[str, str] = {
    "total_count": "0",
    "collection_frequency": "collection",
    "datetime_frequency": "extract(year FROM datetime)::int",
    "year_frequency": f"({_TEXT.format('tessera:year')})::int",
    "utm_zone_frequency": f"({_TEXT.format('tessera:utm_zone')})::int",
    "coverage_frequency": _TEXT.format("tessera:coverage"),
    "cog_frequency": f"({_TEXT.format('tessera:cog')})::boolean::int",
    # the south-western corner of a cell lies on a line of the grid, where a rounding must not push it off
    "grid_degree_frequency": "((floor(st_ymin(geometry) + 1e-6) + 90) * 1000"
    " + floor(st_xmin(geometry) + 1e-6) + 180)::int",
}
"""What items are grouped by, as :data:`api.search.aggregation.AGGREGATIONS` has it of tile-years."""


async def count_by(
    database: Database, body: Mapping[str, Any], wanted: Sequence[Aggregation], seconds: float
) -> list[dict[str, Any]]:
    """Return aggregations of a search, in the form of the extension."""

    async def count() -> list[dict[str, Any]]:
        found = []
        async with database.connection(seconds) as db:
            where = await where_of(db, body)
            for aggregation in wanted:
                rows = await db.fetch(
                    f"SELECT {_KEYS[aggregation.name]} AS key, count(*) FROM items WHERE {where} GROUP BY 1"
                )
                found.append(aggregation.document({key: n for key, n in rows if key is not None}))
        return found

    return await database.within(seconds, count)
