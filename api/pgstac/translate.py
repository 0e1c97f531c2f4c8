"""A :class:`~api.search.query.Query` as a search of pgSTAC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import shapely
from shapely.geometry import GeometryCollection, LineString, Point, mapping
from shapely.geometry.base import BaseGeometry

from api.filter.bounds import Bound
from api.filter.compile.compiler import Compiler
from api.filter.compile.conditions import all_of
from api.filter.free_text import collections_that_mention, own_bounds
from api.pgstac.filters import FALSE, Node, both, either, of_geometry, simple_parts, time_text, translate
from api.pgstac.snapshot import PgstacSnapshot
from api.request.area import Area
from api.request.times import Interval, year_span
from api.search.query import Query
from api.settings import Settings
from catalog_builder.catalog.index.keys import split_key
from catalog_builder.tile import grid
from catalog_builder.tile.grid import TileId

TIES = ("datetime", "collection", "id")
"""What decides between items that an order leaves equal, and the order where none is asked for."""
EVER = Interval(None, None)
"""All times."""
_SAME_ORDER = {"tessera:year": "datetime", "start_datetime": "datetime"}
"""Sortables that order tile-years as a column does, by which partitions are walked."""

_FEW_PARTS = 8
"""Up to here each part is looked up by itself: the two halves of a box across the antimeridian, as one
geometry, would span the globe."""

Json = dict[str, Any]


def search_body(snapshot: PgstacSnapshot, query: Query, settings: Settings) -> Json | None:
    """Return the search for pgSTAC; None if nothing can match.

    Raises
    ------
    QueryError
        If the filter does not fit the items, or pgSTAC cannot evaluate it.
    """
    wanted = query.collections
    if snapshot.is_part:  # the database has others, which must not be found
        wanted = tuple(c for c in snapshot.documents if wanted is None or c in wanted)
    if wanted == ():
        return None
    body: Json = {"limit": query.limit, "sortby": _order(query)}
    if wanted is not None:
        body["collections"] = list(wanted)
    if query.ids is not None:
        body["ids"] = list(query.ids)
    nodes: list[Node] = []
    if query.area is not None:
        parts = _parts(query.area)
        if not parts:
            return None
        if 1 < len(parts) <= _FEW_PARTS:
            nodes.append(either(*(of_geometry("s_intersects", p) for p in parts)))
        else:
            body["intersects"] = mapping(parts[0] if len(parts) == 1 else GeometryCollection(parts))
    interval = query.interval
    conditions = [c for c in (query.filter, query.query) if c is not None]
    if conditions:
        interval = _narrowed(snapshot, query, conditions, settings)
        if interval is None:
            return None
    if interval is not None and interval != EVER:
        start, end = _times(interval)
        if start <= end or ".." in (start, end):
            body["datetime"] = f"{start}/{end}"
        else:  # an instant between two of PostgreSQL's microseconds
            nodes += [_compared("datetime", "<=", end), _compared("end_datetime", ">=", start)]
    nodes += [translate(c) for c in conditions]
    if query.terms is not None:
        nodes.append(_mentions(snapshot, query.terms))
    if nodes:
        body["filter"] = both(*nodes)
        body["filter-lang"] = "cql2-json"
    return body


def _order(query: Query) -> list[Json]:
    terms: dict[str, bool] = {}
    for sort in query.sortby:
        terms.setdefault(_SAME_ORDER.get(sort.name, sort.name), sort.descending)
    for name in TIES:
        terms.setdefault(name, False)
    return [{"field": name, "direction": "desc" if down else "asc"} for name, down in terms.items()]


# ------------------------------------------------------------------------------------- space


def _parts(area: Area) -> list[BaseGeometry]:
    """Return an area as geometries that PostGIS can test; none if it is empty.

    A box without width or height is a line or a point: as a polygon it would be invalid.
    """
    if area.is_box:
        return [_box(b) for b in area.boxes]
    return simple_parts(shapely.from_wkb(area.wkb))


def _box(b: grid.Bounds) -> BaseGeometry:
    if b.west == b.east and b.south == b.north:
        return Point(b.west, b.south)
    if b.west == b.east or b.south == b.north:
        return LineString([(b.west, b.south), (b.east, b.north)])
    return shapely.box(*b)


# -------------------------------------------------------------------------------------- time


def _times(interval: Interval) -> tuple[str, str]:
    """Return an interval's ends as texts that sort as the times do; an open one as two dots."""
    start = ".." if interval.start is None else time_text(interval.start, up=True)
    end = ".." if interval.end is None else time_text(interval.end)
    return start, end


def _compared(name: str, op: str, time: str) -> Node:
    return {"op": op, "args": [{"property": name}, {"timestamp": time}]}


def _narrowed(
    snapshot: PgstacSnapshot, query: Query, conditions: Sequence[Node], settings: Settings
) -> Interval | None:
    """Check a search's filters; return its interval, cut to the years they can match; None for none.

    A filter on ``tessera:year`` is a test of every item to pgSTAC, an interval chooses partitions.
    """
    compiler = Compiler(snapshot, settings)
    bound = all_of([compiler.compile(c) for c in conditions]).bound
    given = query.interval or EVER
    chosen = snapshot.documents if query.collections is None else query.collections
    if bound.years is None or not all(c in snapshot.collections for c in chosen):
        return query.interval or EVER  # of items that are no tiles, the filter's years say nothing
    years = [y for y in bound.years if given.overlaps(*year_span(y))]
    if not years:
        return None
    first, last = year_span(min(years))[0], year_span(max(years))[1]
    return Interval(
        first if given.start is None else max(first, given.start),
        last if given.end is None else min(last, given.end),
    )


# -------------------------------------------------------------------------------------- text


def _mentions(snapshot: PgstacSnapshot, terms: Sequence[str]) -> Node:
    """Return the condition of mentioning one of some terms; see :mod:`api.filter.free_text`."""
    nodes: list[Node] = []
    for term in terms:
        words = term.strip().lower()
        if mentioned := collections_that_mention(words, snapshot):
            nodes.append(_one_of("collection", mentioned))
        nodes += [_member(bound, snapshot) for bound in own_bounds(words, snapshot)]
    return either(*nodes)


def _member(bound: Bound, snapshot: PgstacSnapshot) -> Node:
    """Return the condition of lying in a bound that a word stands for: it limits one dimension."""
    if bound.years is not None:
        return {"op": "in", "args": [{"property": "tessera:year"}, sorted(bound.years)]}
    if bound.keys is not None:
        return _one_of("id", sorted({_item_id(key) for key in bound.keys}))
    if bound.cells is None:
        return FALSE
    cells = bound.cells
    if (cells.first_col == 0).all() and (cells.last_col == grid.N_COLS - 1).all():
        lat = TileId.from_row_col(int(cells.row[0]), 0).name.rpartition("_")[2]
        return _like(f"grid\\_%\\_{lat}\\_%")
    tile = TileId.from_row_col(int(cells.row[0]), int(cells.first_col[0]))
    if len(cells.row) == 1:
        return _one_of("tessera:tile", [tile.name])
    return _like(f"grid\\_{tile.name.split('_')[1]}\\_%")


def _item_id(key: int) -> str:
    _, year, row, col = split_key(key)
    return f"{TileId.from_row_col(row, col).name}_{year}"


def _one_of(name: str, values: Sequence[str]) -> Node:
    return {"op": "in", "args": [{"property": name}, list(values)]}


def _like(pattern: str) -> Node:
    return {"op": "like", "args": [{"property": "id"}, pattern]}
