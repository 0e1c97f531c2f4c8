"""Our tables in a pgSTAC database: what was loaded, and what the server needs to know.

They are in a separate schema, ``tessera_stac``, which pgSTAC's migrations do not touch, and are written
after the items they describe: a load that is killed in between redoes a part and loses nothing.

- ``collection``: the catalogue's own record of a collection, and the root URL of its items.
- ``loaded``: per collection, year and degree of latitude, which cells have an item and a digest of each.

:func:`prepare` also gives pgSTAC the operators and the types of properties that the server's filters
need (:mod:`api.pgstac.filters`): pgSTAC's own arithmetic has no parentheses, no ``%``, ``div`` and ``^``,
and an error instead of nothing where it divides by zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import zstandard

from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import StorageError
from catalog_builder.tile.grid import N_COLS, TileId

SCHEMA_VERSION = 3
"""Incremented whenever the tables, operators or properties change; a server rejects other versions."""

_LOCK = 0x7E55E7A
"""Advisory lock of loads: two at once would each record half of the state."""

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS tessera_stac;
CREATE TABLE IF NOT EXISTS tessera_stac.meta(name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE IF NOT EXISTS tessera_stac.collection(
  id text PRIMARY KEY REFERENCES pgstac.collections(id) ON DELETE CASCADE,
  record text NOT NULL, url text NOT NULL);
-- cells: int32, ascending, row * 3600 + column; digests: uint64; both zstd
CREATE TABLE IF NOT EXISTS tessera_stac.loaded(
  collection text REFERENCES pgstac.collections(id) ON DELETE CASCADE,
  year int, band int, items int NOT NULL, cells bytea NOT NULL, digests bytea NOT NULL,
  PRIMARY KEY(collection, year, band));
-- PostgreSQL's own fails where there is no power, and the search with it
CREATE OR REPLACE FUNCTION tessera_stac.power(a float8, b float8) RETURNS float8
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN a = 0 AND b < 0 OR a < 0 AND b <> trunc(b) THEN NULL
    WHEN a <> 0 AND b * ln(abs(a)) > 709 THEN NULL
    WHEN a <> 0 AND b * ln(abs(a)) < -744 THEN 0
    ELSE power(a, b) END $$;
"""

OPERATORS: Mapping[str, str] = {
    "exact_number": "(%s)::float8",
    "exact_add": "(%s + %s)",
    "exact_subtract": "(%s - %s)",
    "exact_multiply": "(%s * %s)",
    "exact_divide": "(%s / nullif(%s, 0))",
    "exact_div": "trunc(%s / nullif(%s, 0))",
    "exact_modulo": "(mod((%s)::numeric, nullif((%s)::numeric, 0)))::float8",
    "exact_power": "tessera_stac.power(%s, %s)",
    "exact_casei": "lower(%s)",
    "exact_accenti": "unaccent(%s)",
    "exact_is_null": "(%s) IS NULL",
}
"""Operators added to pgSTAC's operator table. A name that starts with t or s would be taken as temporal or
spatial."""

PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    "gsd": {"title": "Ground sample distance", "type": "number"},
    "tessera:year": {"title": "Year", "type": "number"},
    "tessera:utm_zone": {"title": "UTM zone", "type": "number"},
    "tessera:valid_fraction": {"title": "Share of valid pixels", "type": "number"},
    "tessera:refused_fraction": {"title": "Largest share of refused pixels", "type": "number"},
}
"""Properties that pgSTAC must treat as numbers; it treats all others as text."""

Cells = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Band:
    """The items of a year in one degree of latitude."""

    band: int
    """Rows of the grid divided by 10."""
    cells: Cells
    """Ascending."""
    digests: npt.NDArray[np.uint64]

    @classmethod
    def empty(cls, band: int) -> Self:
        """Return a band without items."""
        return cls(band, np.zeros(0, np.int32), np.zeros(0, np.uint64))

    def differs_from(self, old: Band) -> npt.NDArray[np.bool_]:
        """Return the mask of items that the other band lacks or has with another digest."""
        if not len(old.cells):
            return np.ones(len(self.cells), np.bool_)
        place = np.minimum(np.searchsorted(old.cells, self.cells), len(old.cells) - 1)
        same: npt.NDArray[np.bool_] = (old.cells[place] == self.cells) & (old.digests[place] == self.digests)
        return ~same

    def with_rows(self, cells: Cells, digests: npt.NDArray[np.uint64]) -> Band:
        """Return the band with additional items, which must be new."""
        if not len(cells):
            return self
        both = np.concatenate([self.cells, cells])
        order = np.argsort(both)
        return Band(self.band, both[order], np.concatenate([self.digests, digests])[order])

    def equals(self, other: Band) -> bool:
        """Return whether both contain the same items."""
        return np.array_equal(self.cells, other.cells) and np.array_equal(self.digests, other.digests)


def prepare(connection: Any) -> None:
    """Create the tables, and add our operators and types to pgSTAC, unless this version's exist.

    It needs the right to create a schema in the database; later loads do not.

    Parameters
    ----------
    connection
        A psycopg connection.
    """
    if stored_version(connection) == str(SCHEMA_VERSION):
        return
    with connection.transaction():
        connection.execute(_SCHEMA)
        connection.execute(
            "INSERT INTO tessera_stac.meta VALUES ('schema_version', %s)"
            " ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
            [str(SCHEMA_VERSION)],
        )
        for op, template in OPERATORS.items():
            connection.execute(
                "INSERT INTO pgstac.cql2_ops(op, template) VALUES (%s, %s)"
                " ON CONFLICT (op) DO UPDATE SET template = EXCLUDED.template",
                [op, template],
            )
        for name, definition in PROPERTIES.items():
            connection.execute(
                "INSERT INTO pgstac.queryables(name, definition)"
                " SELECT %s, %s WHERE NOT EXISTS (SELECT FROM pgstac.queryables WHERE name = %s)",
                [name, _json(definition), name],
            )
        # Servers and later loads may run as other users, with pgSTAC's own roles.
        for role, rights in (("pgstac_read", "SELECT"), ("pgstac_ingest", "ALL")):
            connection.execute(f"GRANT USAGE ON SCHEMA tessera_stac TO {role}")
            connection.execute(f"GRANT {rights} ON ALL TABLES IN SCHEMA tessera_stac TO {role}")


def stored_version(connection: Any) -> str | None:
    """Return the version of our tables in a database; None if it has none."""
    if connection.execute("SELECT to_regclass('tessera_stac.meta')").fetchone() == (None,):
        return None
    found = connection.execute("SELECT value FROM tessera_stac.meta WHERE name = 'schema_version'").fetchone()
    return found[0] if found else None


def _json(value: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(value)


def pack(values: npt.NDArray[Any]) -> bytes:
    """Encode numbers for storage; cells as differences, which are small."""
    if values.dtype == np.int32:
        values = np.diff(values, prepend=np.int32(0))
    return zstandard.compress(values.astype(values.dtype.newbyteorder("<")).tobytes(), 3)


def unpack_cells(stored: bytes) -> Cells:
    """Decode stored cells."""
    return np.cumsum(np.frombuffer(zstandard.decompress(stored), "<i4"), dtype=np.int32)


def unpack_digests(stored: bytes) -> npt.NDArray[np.uint64]:
    """Decode stored digests."""
    return np.frombuffer(zstandard.decompress(stored), "<u8").astype(np.uint64)


def item_ids(cells: Cells, year: int) -> list[str]:
    """Return the ids of the items of some cells."""
    return [f"{TileId.from_cell(cell).name}_{year}" for cell in cells.tolist()]


class LoadState:
    """The tables of :data:`_SCHEMA`, read and written by loads.

    Parameters
    ----------
    connection
        A psycopg connection whose search path begins with ``pgstac``.
    """

    def __init__(self, connection: Any) -> None:
        self._db = connection

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other loads out.

        Raises
        ------
        StorageError
            If one is running.
        """
        (free,) = self._db.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone()
        if not free:
            raise StorageError("pgSTAC: another load is running in this database; try again when it is done")
        try:
            yield
        finally:
            if not self._db.closed:
                self._db.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])

    def write_collection(self, record: CollectionRecord, url: str) -> None:
        """Store the catalogue's record of a collection, and the root URL of its items."""
        self._db.execute(
            "INSERT INTO tessera_stac.collection VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE"
            " SET record = EXCLUDED.record, url = EXCLUDED.url",
            [record.id, record.to_json(), url],
        )

    def years(self, collection: str) -> set[int]:
        """Return the years that were loaded at least in part."""
        found = self._db.execute(
            "SELECT DISTINCT year FROM tessera_stac.loaded WHERE collection = %s", [collection]
        )
        return {year for (year,) in found}

    def bands(self, collection: str, year: int) -> dict[int, Band]:
        """Return what was loaded of a year, or the contents of the items table if the two disagree."""
        rows = self._db.execute(
            "SELECT band, cells, digests FROM tessera_stac.loaded WHERE collection = %s AND year = %s",
            [collection, year],
        ).fetchall()
        known = {b: Band(b, unpack_cells(cells), unpack_digests(digests)) for b, cells, digests in rows}
        (there,) = self._db.execute(
            f"SELECT count(*) FROM pgstac.items WHERE {_OF_YEAR}", _of_year(collection, year)
        ).fetchone()
        if there == sum(len(b.cells) for b in known.values()):
            return known
        # Loaded or removed by somebody else: all of it is treated as unknown.
        ids = self._db.execute(f"SELECT id FROM pgstac.items WHERE {_OF_YEAR}", _of_year(collection, year))
        return _unknown([text for (text,) in ids], year)

    def write(self, collection: str, year: int, bands: Sequence[Band], gone: Sequence[str]) -> None:
        """Remove items and record the new state, in one transaction."""
        if not bands and not gone:
            return
        with self._db.transaction():
            if gone:
                self._db.execute(
                    f"DELETE FROM pgstac.items WHERE {_OF_YEAR} AND id = ANY(%s)",
                    [*_of_year(collection, year), list(gone)],
                )
            for band in bands:
                self._db.execute(
                    "INSERT INTO tessera_stac.loaded VALUES (%s, %s, %s, %s, %s, %s)"
                    " ON CONFLICT (collection, year, band) DO UPDATE SET items = EXCLUDED.items,"
                    " cells = EXCLUDED.cells, digests = EXCLUDED.digests",
                    [collection, year, band.band, len(band.cells), pack(band.cells), pack(band.digests)],
                )
            self._db.execute(
                "DELETE FROM tessera_stac.loaded WHERE collection = %s AND year = %s AND items = 0",
                [collection, year],
            )

    def remove_year(self, collection: str, year: int) -> int:
        """Remove a year's items; return their number."""
        with self._db.transaction():
            gone = self._db.execute(
                f"DELETE FROM pgstac.items WHERE {_OF_YEAR}", _of_year(collection, year)
            ).rowcount
            self._db.execute(
                "DELETE FROM tessera_stac.loaded WHERE collection = %s AND year = %s", [collection, year]
            )
        return int(gone)

    def analyze(self) -> None:
        """Renew the planner's statistics, without which it takes a loaded table for an almost empty one.

        A role that does not own the table is warned by PostgreSQL, and statistics come with autovacuum.
        """
        self._db.execute("ANALYZE pgstac.items")

    def finish(self) -> None:
        """Notify servers of new data: set the time of the last load."""
        self._db.execute(
            "INSERT INTO tessera_stac.meta VALUES ('loaded', clock_timestamp()::text)"
            " ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value"
        )


_OF_YEAR = "collection = %s AND datetime >= %s AND datetime < %s"
"""Reads one partition."""


def _of_year(collection: str, year: int) -> list[Any]:
    return [collection, f"{year}-01-01T00:00:00Z", f"{year + 1}-01-01T00:00:00Z"]


def _unknown(ids: Sequence[str], year: int) -> dict[int, Band]:
    """Return bands whose digests match no item."""
    cells = []
    for text in ids:
        name, _, of = text.rpartition("_")
        if of == str(year):
            cells.append(TileId.from_name(name).cell)
    found = np.sort(np.array(cells, np.int32))
    band = found // (10 * N_COLS)
    return {
        int(b): Band(int(b), found[band == b], np.zeros(int((band == b).sum()), np.uint64))
        for b in np.unique(band)
    }
