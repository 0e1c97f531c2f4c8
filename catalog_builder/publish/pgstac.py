"""Collections and items into PostgreSQL with pgSTAC, through pypgstac's loader: the scale-out path.

Each year is a partition of its own: a search for one year reads one partition, and a year can be
loaded again without touching the others. An item's structural links are left out: a server on
pgSTAC writes its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.publish.extract import Extract, Progress, quiet

if TYPE_CHECKING:
    from pypgstac.db import PgstacDB

Method = Literal["upsert", "insert", "insert_ignore", "delsert"]
"""What to do with items that are there: bring up to date, fail, leave, or delete and insert."""
METHODS: tuple[str, ...] = get_args(Method)

_STRUCTURAL = ("self", "root", "parent", "collection", "items")
_CONNECT_SECONDS = 15


def load_pgstac(
    dsn: str,
    parts: Sequence[Extract],
    *,
    method: str = "upsert",
    migrate: bool = False,
    report: Progress = quiet,
) -> int:
    """Load collections and items; return how many items.

    Items arrive in transactions of ten thousand. A load that is killed leaves whole items behind,
    and loading again with ``upsert`` completes it.

    Parameters
    ----------
    dsn
        Connection string, as ``postgresql://user@host/database``; empty takes PGHOST and so on.
    parts
        Which items.
    method
        One of :data:`METHODS`.
    migrate
        Install pgSTAC in the database, or bring it to the version of pypgstac.
    report
        Told the progress.

    Raises
    ------
    QueryError
        If there is no such method.
    StorageError
        If pypgstac is not installed, or the database cannot be reached, has no pgSTAC or refuses.
    """
    if method not in METHODS:
        raise QueryError(f"--method: expected one of {', '.join(METHODS)}, found '{method}'")
    try:
        import psycopg
        from pypgstac.db import PgstacDB
        from pypgstac.load import Loader, Methods
        from pypgstac.migrate import Migrate
    except ImportError as exc:
        raise StorageError(
            f"loading into pgSTAC needs pypgstac: pip install 'tessera-stac[pgstac]' ({exc})"
        ) from exc

    try:
        # The loader's pool would try for half a minute; this says at once what is wrong.
        psycopg.connect(dsn, connect_timeout=_CONNECT_SECONDS).close()
        db = PgstacDB(dsn=dsn)
        try:
            if migrate:
                Migrate(db).run_migration()
            _check_installed(db)
            loader = Loader(db)
            of, done = sum(p.count() for p in parts), 0
            for part in parts:
                loader.load_collections(iter([part.document()]), Methods.upsert)
                _partition_by_year(db, part.id)
                loader.collection_json.cache_clear()
                for year in part.years:
                    report("loading items", done, of)
                    loader.load_items(_items(part, year), Methods(method))
                    done += part.count(year)
            report("loading items", done, of)
            return done
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


def _partition_by_year(db: PgstacDB, collection: str) -> None:
    """Part a collection by year; must precede its items."""
    db.connect().execute(
        "UPDATE collections SET partition_trunc = 'year'"
        " WHERE id = %s AND partition_trunc IS DISTINCT FROM 'year'",
        [collection],
    )


def _items(part: Extract, year: int) -> Iterator[dict[str, Any]]:
    for rows in part.pages(year):
        for text in part.texts(rows):
            item = orjson.loads(text)
            item["links"] = [link for link in item["links"] if link["rel"] not in _STRUCTURAL]
            yield item


def _reason(exc: Exception) -> str:
    """Return the first line of a database's message."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
