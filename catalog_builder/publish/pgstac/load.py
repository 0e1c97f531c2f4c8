"""Loading of collections and items into PostgreSQL with pgSTAC, through pypgstac's loader.

Each year is a separate partition: a search for one year reads one partition, and a year can be
loaded again without touching the others. What was loaded is recorded beside it
(:mod:`catalog_builder.publish.pgstac.state`), so a load inserts what changed and deletes what is
gone, and one that was killed resumes where it stopped. An item's structural links are omitted: a
server on pgSTAC writes its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import orjson

from catalog_builder.catalog.extract import Extract, cells_of
from catalog_builder.catalog.index.blocks import BLOCK_CELLS
from catalog_builder.catalog.index.keys import split_key
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.extras import install_line
from catalog_builder.publish.pgstac.state import Band, Cells, LoadState, item_ids, prepare

if TYPE_CHECKING:
    from pypgstac.db import PgstacDB
    from pypgstac.load import Loader

Method = Literal["upsert", "insert", "insert_ignore", "delsert"]
"""How to treat existing items: update, fail, keep, or delete and insert."""
METHODS: tuple[str, ...] = get_args(Method)

_STRUCTURAL = ("self", "root", "parent", "collection", "items")
_CONNECT_SECONDS = 15
_BATCH = 20_000
"""Items between two updates of the state: the most that a load redoes after it was killed."""


@dataclass(slots=True)
class LoadReport:
    """The result of a load."""

    items: int = 0
    """Items compared with what was loaded before."""
    loaded: int = 0
    """Those of them that are new or changed."""
    removed: int = 0
    """Items that have left the catalogue."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.loaded:,} loaded, {self.items - self.loaded:,} unchanged, {self.removed:,} removed"


def load_pgstac(
    dsn: str,
    parts: Sequence[Extract],
    *,
    method: str = "upsert",
    migrate: bool = False,
    force: bool = False,
    report: Progress = no_progress,
) -> LoadReport:
    """Load collections and items: those that changed since the last load.

    Items are loaded in transactions of ten thousand. A load that is killed leaves complete items behind,
    and loading again completes it.

    Parameters
    ----------
    dsn
        Connection string, such as ``postgresql://user@host/database``; if empty, PGHOST and so on are used.
    parts
        The items. Anything outside of their years and cells is left unchanged.
    method
        One of :data:`METHODS`.
    migrate
        Install pgSTAC in the database, or migrate it to pypgstac's version.
    force
        Load everything, whatever was loaded before.
    report
        Receives the progress.

    Raises
    ------
    QueryError
        If there is no such method.
    StorageError
        If pypgstac is not installed, the database cannot be reached, has no pgSTAC, another version
        of it, or refuses, or another load is running in it.
    """
    if method not in METHODS:
        raise QueryError(f"--method: expected one of {', '.join(METHODS)}, found '{method}'")
    try:
        import psycopg
        from pypgstac.db import PgstacDB
        from pypgstac.load import Loader
        from pypgstac.migrate import Migrate
    except ImportError as exc:
        raise StorageError(f"loading into pgSTAC needs pypgstac ({exc}): {install_line('pgstac')}") from exc

    try:
        # The loader's pool would retry for half a minute; this reports at once what is wrong.
        psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS).close()
        db = PgstacDB(dsn=dsn)
        try:
            if migrate:
                Migrate(db).run_migration()
                db.connect().execute("RESET ROLE")  # it leaves its own role set
            _check_installed(db)
            loader = Loader(db)
            _check_version(loader)
            state = LoadState(db.connect())
            with state.locked():
                prepare(db.connect())
                return _Load(db, loader, state, method, force, report).run(parts)
        finally:
            db.disconnect()
            db.close()
    except psycopg.Error as exc:
        raise StorageError(f"pgSTAC: {_reason(exc)}") from exc


def _check_installed(db: PgstacDB) -> None:
    if db.query_one("SELECT to_regclass('pgstac.items')::text") is None:
        raise StorageError(
            "pgSTAC is not installed in this database: add --migrate, or run 'pypgstac migrate'"
        )


def _check_version(loader: Loader) -> None:
    try:
        loader.check_version()
    except Exception as exc:  # pypgstac raises plain Exception
        raise StorageError(f"pgSTAC: {_reason(exc)}; add --migrate to update it") from exc


@dataclass(slots=True)
class _Batch:
    """One batch to write: changed rows, ids that are gone, and the new state."""

    rows: list[Row] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)


class _Load:
    """One load into one database."""

    def __init__(
        self, db: PgstacDB, loader: Loader, state: LoadState, method: str, force: bool, report: Progress
    ) -> None:
        self._db, self._loader, self._state = db, loader, state
        self._method, self._force, self._tell = method, force, report
        self._done = LoadReport()
        self._of = 0

    def run(self, parts: Sequence[Extract]) -> LoadReport:
        from pypgstac.load import Methods

        self._of = sum(p.count() for p in parts)
        for part in parts:
            self._loader.load_collections(iter([part.document()]), Methods.upsert)
            self._partition_by_year(part.id)
            self._loader.collection_json.cache_clear()
            self._state.write_collection(part.record, part.root)
            if part.runs is None and set(part.years) == set(part.record.years):
                for year in self._state.years(part.id) - set(part.years):
                    self._done.removed += self._state.remove_year(part.id, year)
            for year in part.years:
                self._year(part, year)
        self._tell("loading items", self._of, self._of)
        if self._done.loaded or self._done.removed:
            self._state.analyze()
        self._state.finish()
        return self._done

    def _partition_by_year(self, collection: str) -> None:
        """Partition a collection by year; must precede its items."""
        self._db.connect().execute(
            "UPDATE collections SET partition_trunc = 'year'"
            " WHERE id = %s AND partition_trunc IS DISTINCT FROM 'year'",
            [collection],
        )

    def _year(self, part: Extract, year: int) -> None:
        """Load what changed in a year, one band of one degree of latitude at a time."""
        before = self._state.bands(part.id, year)
        seed = _seed(part)
        region = None if part.runs is None else part.runs.cells()
        batch = _Batch()
        for band, rows in _bands_of(part, year):
            old = before.pop(band, Band.empty(band))
            new = Band(band, cells_of(rows), _digests(rows, seed))
            changed = np.ones(len(new.cells), np.bool_) if self._force else new.differs_from(old)
            batch.rows += [rows[i] for i in np.flatnonzero(changed).tolist()]
            self._replace(year, old, new, region, batch)
            self._done.items += len(rows)
            if len(batch.rows) >= _BATCH:
                self._write(part, year, batch)
                batch = _Batch()
            self._tell("loading items", self._done.items, self._of)
        for band, old in before.items():  # bands that no longer have tiles
            self._replace(year, old, Band.empty(band), region, batch)
        self._write(part, year, batch)

    @staticmethod
    def _replace(year: int, old: Band, new: Band, region: Cells | None, batch: _Batch) -> None:
        """Add a band's deleted items and its new state to the batch."""
        missing = ~np.isin(old.cells, new.cells, assume_unique=True)
        lost = missing
        if region is not None:
            lost = missing & np.isin(old.cells, region)  # the rest is not part of this load
        kept = missing & ~lost
        whole = new.with_rows(old.cells[kept], old.digests[kept])
        if lost.any() or not whole.equals(old):
            batch.gone += item_ids(old.cells[lost], year)
            batch.bands.append(whole)

    def _write(self, part: Extract, year: int, batch: _Batch) -> None:
        from pypgstac.load import Methods

        if batch.rows:
            self._loader.load_items(_items(part, batch.rows), Methods(self._method))
        # Only now: if killed before this, the next load redoes the batch.
        self._state.write(part.id, year, batch.bands, batch.gone)
        self._done.loaded += len(batch.rows)
        self._done.removed += len(batch.gone)


def _bands_of(part: Extract, year: int) -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows of a year by band of one degree of latitude; bands without rows are skipped."""
    now: list[Row] = []
    band = -1
    for rows in part.pages(year):
        for row in rows:
            at = split_key(row[0])[2] // BLOCK_CELLS
            if at != band:
                if now:
                    yield band, now
                now, band = [], at
            now.append(row)
    if now:
        yield band, now


def _seed(part: Extract) -> bytes:
    """Return what all items of an extract depend on, apart from their rows."""
    of = (repr(part.template), part.record.years, part.record.grid)
    return hashlib.blake2b(repr(of).encode(), digest_size=16).digest()


def _digests(rows: Sequence[Row], seed: bytes) -> Any:
    """Return a number per row that changes when its item does: cheaper than rendering the item."""
    start = hashlib.blake2b(seed, digest_size=8)
    found = []
    for row in rows:
        digest = start.copy()
        digest.update(repr(row).encode())
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), np.uint64)


def _items(part: Extract, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    for first in range(0, len(rows), 1000):
        for text in part.texts(rows[first : first + 1000]):
            item = orjson.loads(text)
            item["links"] = [link for link in item["links"] if link["rel"] not in _STRUCTURAL]
            yield item


def _reason(exc: Exception) -> str:
    """Return the first line of a database message."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
