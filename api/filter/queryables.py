"""The queryable properties of items: one entry each, for filters, sorting and the documents.

An entry defines how a property's value is computed from a row of the index, as SQL over ``t`` (the table
``tile``), and on which **axis** it lies: what it depends on. A condition on properties of one axis
is evaluated for the axis' few elements (9 years, 120 UTM zones and hemispheres) before any row is
read, and becomes a part of the key ranges that are; only what differs from row to row is scanned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from api.catalogue.snapshot import Snapshot
from api.request.times import year_span
from catalog_builder.catalog.index.keys import COL_SQL, LAT_I_SQL, LON_I_SQL, ORDINAL_SQL, ROW_SQL, YEAR_SQL
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import QueryError
from catalog_builder.item.item import Has
from catalog_builder.tile.grid import COLS_PER_ZONE, N_ROWS, centre_texts
from catalog_builder.tile.years import COVERAGE_NAMES, year_bits

ValueKind = Literal["number", "text", "boolean", "instant", "geometry"]
Axis = Literal["collection", "year", "zone", "coverage", "tile-year"]
"""What a property depends on; ``zone`` is a UTM zone and hemisphere, ``coverage`` the collection and the
years that a tile has."""

_ZONE = f"({COL_SQL} / {COLS_PER_ZONE} + 1)"
_HEMISPHERE = f"(CASE WHEN {ROW_SQL} < {N_ROWS // 2} THEN 32700 ELSE 32600 END)"
_LON = f"printf('%.2f', {LON_I_SQL} / 100.0)"
_LAT = f"printf('%.2f', {LAT_I_SQL} / 100.0)"
_TILE = f"('grid_' || {_LON} || '_' || {_LAT})"


@dataclass(frozen=True, slots=True)
class Queryable:
    """A property of items."""

    name: str
    kind: ValueKind
    axis: Axis
    sql: Callable[[Snapshot], str]
    """Its value; never NULL unless the property may be missing."""
    schema: Mapping[str, Any]
    """JSON Schema, for /queryables."""
    rank: Callable[[], str] | None = None
    """SQL that is cheaper than ``sql`` and orders items as it does; never NULL."""
    changes: bool = False
    """Whether another build of the catalogue may have another value for the same tile-year."""

    def order(self, snapshot: Snapshot) -> str:
        """Return SQL to sort by."""
        return self.rank() if self.rank is not None else self.sql(snapshot)

    @property
    def sortable(self) -> bool:
        """Whether items can be ordered by it."""
        return self.kind != "geometry"


@cache
def _tile_rank() -> str:
    """Return SQL that orders tiles by their names, as text: "-0.05" before "0.05" before "10.05".

    Longitudes and latitudes are ranked once, in two constants that SQLite cuts a number out of;
    writing both out as text for every row costs ten times as much.
    """

    def ranks(names: Sequence[str], at: str) -> str:
        place = {name: i for i, name in enumerate(sorted(names))}
        table = b"".join(place[name].to_bytes(2, "big") for name in names)
        return f"hex(substr(X'{table.hex()}', {at} * 2 + 1, 2))"

    lat, lon = centre_texts()
    return f"({ranks(lon, COL_SQL)} || {ranks(lat, ROW_SQL)})"


def _always(sql: str) -> Callable[[Snapshot], str]:
    return lambda _snapshot: sql


def _of_collection(value: Callable[[CollectionRecord], str | float]) -> Callable[[Snapshot], str]:
    """Return SQL for what is the same in a whole collection."""

    def sql(snapshot: Snapshot) -> str:
        cases = " ".join(f"WHEN {r.ordinal} THEN {quoted(value(r))}" for r in snapshot.collections.values())
        return f"(CASE {ORDINAL_SQL} {cases} END)"

    return sql


def _of_year(value: Callable[[int], int]) -> Callable[[Snapshot], str]:
    def sql(snapshot: Snapshot) -> str:
        return f"(CASE {YEAR_SQL} {' '.join(f'WHEN {y} THEN {value(y)}' for y in snapshot.years)} END)"

    return sql


def _title(snapshot: Snapshot) -> str:
    title = _of_collection(lambda r: r.dataset.title)(snapshot)
    return f"({title} || ', ' || {_LON} || ' ' || {_LAT} || ', ' || {YEAR_SQL})"


def _coverage(snapshot: Snapshot) -> str:
    """Return SQL of the class that :func:`catalog_builder.tile.years.coverage_codes` gives."""
    full, latest, partial = map(quoted, COVERAGE_NAMES)
    cases = " ".join(
        f"WHEN {r.ordinal} THEN CASE t.mask WHEN {year_bits(r.years)} THEN {full}"
        f" WHEN {year_bits((max(r.years),))} THEN {latest} ELSE {partial} END"
        for r in snapshot.collections.values()
        if r.years
    )
    return f"(CASE {ORDINAL_SQL} {cases} END)"


def quoted(value: str | float) -> str:
    """Return a constant of ours as SQL; what comes from requests is bound instead."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


_TEXT = {"type": "string"}
_TIME = {"type": "string", "format": "date-time"}

QUERYABLES: dict[str, Queryable] = {
    q.name: q
    for q in (
        Queryable(
            "id", "text", "tile-year", _always(f"({_TILE} || '_' || {YEAR_SQL})"),
            {**_TEXT, "title": "Id", "description": "grid_<lon>_<lat>_<year>: tile centre and year"},
            lambda: f"({_tile_rank()} || {YEAR_SQL})",
        ),
        Queryable(
            "collection", "text", "collection", _of_collection(lambda r: r.id),
            {**_TEXT, "title": "Collection"},
        ),
        Queryable(
            "geometry", "geometry", "tile-year", _always("NULL"),
            {"title": "Geometry", "description": "The tile's 0.1 degree cell",
             "$ref": "https://geojson.org/schema/Geometry.json"},
        ),
        Queryable("title", "text", "tile-year", _title, {**_TEXT, "title": "Title"}),
        Queryable(
            "datetime", "instant", "year", _of_year(lambda y: year_span(y)[0]),
            {**_TIME, "title": "Datetime", "description": "1 January of the year"},
        ),
        Queryable(
            "start_datetime", "instant", "year", _of_year(lambda y: year_span(y)[0]),
            {**_TIME, "title": "Start of the year"},
        ),
        Queryable(
            "end_datetime", "instant", "year", _of_year(lambda y: year_span(y)[1]),
            {**_TIME, "title": "End of the year"},
        ),
        Queryable(
            "gsd", "number", "collection", _of_collection(lambda _: 10), {"type": "number", "title": "GSD"}
        ),
        Queryable(
            "proj:code", "text", "zone",
            _always(f"('EPSG:' || ({_HEMISPHERE} + {_ZONE}))"),
            {**_TEXT, "title": "CRS of the raster", "pattern": "^EPSG:32[67][0-9]{2}$"},
        ),
        Queryable(
            "tessera:dataset_version", "text", "collection", _of_collection(lambda r: r.dataset.version),
            {**_TEXT, "title": "Dataset version"},
        ),
        Queryable(
            "tessera:variant", "text", "collection", _of_collection(lambda r: r.dataset.variant),
            {**_TEXT, "title": "Dataset variant"},
        ),
        Queryable(
            "tessera:tile", "text", "tile-year", _always(_TILE), {**_TEXT, "title": "Tile"}, _tile_rank
        ),
        Queryable("tessera:year", "number", "year", _always(YEAR_SQL), {"type": "integer", "title": "Year"}),
        Queryable(
            "tessera:utm_zone", "number", "zone", _always(_ZONE),
            {"type": "integer", "minimum": 1, "maximum": 60, "title": "UTM zone"},
            lambda: _ZONE,
        ),
        Queryable(
            "tessera:grid", "text", "collection", _of_collection(lambda r: r.grid),
            {**_TEXT, "enum": ["utm", "source"], "title": "Raster grid"}, changes=True,
        ),
        Queryable(
            "tessera:cog", "boolean", "tile-year", _always(f"((t.has & {int(Has.COG)}) != 0)"),
            {"type": "boolean", "title": "Converted to COG"}, changes=True,
        ),
        Queryable(
            "tessera:valid_fraction", "number", "tile-year", _always("t.valid_fraction"),
            {"type": "number", "minimum": 0, "maximum": 1, "title": "Share of valid pixels, once converted"},
            changes=True,
        ),
        Queryable(
            "tessera:refused_fraction", "number", "tile-year", _always("t.refused_fraction"),
            {"type": "number", "minimum": 0, "maximum": 1,
             "title": "Share of pixels that the makers of the store refused, at most"},
            changes=True,
        ),
        Queryable(
            "tessera:coverage", "text", "coverage", _coverage,
            {**_TEXT, "enum": list(COVERAGE_NAMES), "title": "Years that the tile has"}, changes=True,
        ),
    )
}  # fmt: skip
"""By name, in the order of the documents. A new property is one entry here."""


def queryable(name: str, where: str) -> Queryable:
    """Return the entry of a property name, with or without ``properties.`` before it.

    Raises
    ------
    QueryError
        Naming those that are known.
    """
    found = QUERYABLES.get(name) or QUERYABLES.get(name.removeprefix("properties."))
    if found is None:
        raise QueryError(
            f"{where}: unknown property '{name[:60]}'; expected one of: {', '.join(sorted(QUERYABLES))}"
        )
    return found


def schema(address: str, title: str, names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON Schema document of the queryables (or, with ``names``, of the sortables)."""
    chosen = QUERYABLES if names is None else {n: QUERYABLES[n] for n in names}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": address,
        "type": "object",
        "title": title,
        "properties": {n: dict(q.schema) for n, q in chosen.items()},
        "additionalProperties": False,
    }
