"""Where a condition holds that depends on one thing: the collection, the year, or the UTM zone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from api.filter.bounds import EVERYTHING, NOTHING, Bound
from catalog_builder.catalog.index.keys import make_key, ordinal_of, split_key
from catalog_builder.errors import QueryError
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import from_mask
from catalog_builder.tile.cover import Runs

_HEMISPHERES = (0, grid.N_ROWS // 2)
"""Their first rows."""
_ZONES = range(0, grid.N_COLS, grid.COLS_PER_ZONE)
"""First columns of UTM zones."""
_ZONE_KEYS = [make_key(0, 0, row, col) for row in _HEMISPHERES for col in _ZONES]
"""One key per hemisphere and UTM zone."""


def bound_of(
    sql: str,
    values: tuple[Any, ...],
    axes: frozenset[str],
    ordinals: frozenset[int],
    years: frozenset[int],
) -> Bound:
    """Return where a condition holds, by asking SQLite about every element of the one axis it depends on.

    Parameters
    ----------
    sql, values
        The condition over ``t.key``, and what its ``?`` stand for.
    axes
        What it depends on; see :data:`api.filter.queryables.Axis`.
    ordinals, years
        Elements of the axes of collections and years.

    Raises
    ------
    QueryError
        If SQLite cannot compute it.
    """
    if not axes:
        return EVERYTHING if _holding(sql, values, [0]) else NOTHING
    (axis, *others) = axes
    if others or axis in ("coverage", "tile-year"):
        return EVERYTHING.inexact()
    if axis == "collection":
        held = _holding(sql, values, [make_key(o, 0, 0, 0) for o in sorted(ordinals)])
        return Bound(ordinals=frozenset(map(ordinal_of, held)))
    if axis == "year":
        held = _holding(sql, values, [make_key(0, y, 0, 0) for y in sorted(years)])
        return Bound(years=frozenset(split_key(key)[1] for key in held))
    return Bound(cells=_zones(_holding(sql, values, _ZONE_KEYS)))


def rows_holding(sql: str, values: tuple[Any, ...], rows: Sequence[tuple[int, int]]) -> list[int]:
    """Return the places of those of some rows, (key, mask), for which a condition holds.

    Raises
    ------
    QueryError
        If SQLite cannot compute it.
    """
    query = (
        "WITH t(place, key, mask) AS (SELECT key, value->>0, value->>1 FROM json_each(?))"
        f" SELECT place FROM t WHERE {sql}"
    )
    try:
        found = _memory().execute(query, (orjson.dumps(rows).decode(), *values))
        return [place for (place,) in found]
    except (sqlite3.Error, OverflowError) as exc:
        raise QueryError(f"filter: cannot be computed ({exc})") from None


def _holding(sql: str, values: tuple[Any, ...], keys: list[int]) -> list[int]:
    return [keys[place] for place in rows_holding(sql, values, [(key, 0) for key in keys])]


def _zones(keys: list[int]) -> Runs:
    """Return the cells of the hemispheres and zones that some keys stand for."""
    held = set(keys)
    parts: list[Runs] = []
    for hemisphere in _HEMISPHERES:
        cols = np.repeat([make_key(0, 0, hemisphere, col) in held for col in _ZONES], grid.COLS_PER_ZONE)
        rows = np.zeros(grid.N_ROWS, np.bool_)
        rows[hemisphere : hemisphere + grid.N_ROWS // 2] = True
        parts.append(from_mask(rows, cols))
    return Runs(*(np.concatenate(values) for values in zip(*parts, strict=True)))


_LOCAL = threading.local()


def _memory() -> sqlite3.Connection:
    """Return the thread's empty database, to compute in."""
    db: sqlite3.Connection | None = getattr(_LOCAL, "db", None)
    if db is None:
        db = _LOCAL.db = sqlite3.connect(":memory:")
    return db
