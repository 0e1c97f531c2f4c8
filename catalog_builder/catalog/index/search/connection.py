"""Connections to an index: used by one thread at a time, under a time limit."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catalog_builder.catalog.index.keys import cell_tester, key_spans
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.errors import QueryError, QueryTimeoutError


class _Connection:
    """A connection, and the sets that its function ``in_cells`` searches.

    It is closed when its index is let go. A connection refers to itself (by its cache of statements), so it
    would stay open until a full garbage collection, which may be hours away; and every build that was
    served would stay open with it.
    """

    __slots__ = ("cell_sets", "db")

    def __init__(self, path: Path) -> None:
        # Immutable: a new build is a new file, so no locks and no change checks are needed.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self.db = sqlite3.connect(uri, uri=True, check_same_thread=False)
        # No mmap: reading from the page cache measured equally fast, and mapped pages would count as
        # the process' memory, once per connection.
        self.db.execute("PRAGMA mmap_size=0")
        self.db.execute("PRAGMA cache_size=-4096")
        self.db.execute("PRAGMA query_only=ON")
        # The function holds the list, not self: SQLite would keep that for ever, because Python cannot see
        # such a circle.
        self.cell_sets: list[tuple[list[int], list[int]]] = []
        self.db.create_function("in_cells", 2, cell_tester(self.cell_sets), deterministic=True)

    def __del__(self) -> None:
        if hasattr(self, "db"):
            self.db.close()


class Connections:
    """The connections to an index; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[_Connection] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[_Connection]:
        """Yield a connection for exclusive use.

        There are as many as were ever used at the same time. One per thread would be many more, each with
        a cache and an open file: a server has dozens of threads, of which a few search at a time.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self._path)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    @contextlib.contextmanager
    def lend(self, seconds: float | None, selection: Selection) -> Iterator[sqlite3.Connection]:
        """Yield a connection for a selection's ``where``, under a time limit.

        Raises
        ------
        QueryTimeoutError
            If the work with it takes longer.
        QueryError
            If SQLite cannot compute the condition.
        """
        with self.borrow() as connection:
            db = connection.db
            if selection.cell_sets:
                spans = map(key_spans, selection.cell_sets)
                connection.cell_sets[:] = [(lo.tolist(), hi.tolist()) for lo, hi in spans]
            if seconds is None:
                yield db
                return
            deadline = time.monotonic() + seconds
            db.set_progress_handler(lambda: time.monotonic() > deadline, 2000)
            try:
                yield db
            except sqlite3.OperationalError as exc:
                if "interrupted" in str(exc):
                    raise QueryTimeoutError(f"the search took longer than {seconds:g} s; narrow it") from exc
                # Of a filter; any other error comes from a damaged schema.
                if selection.where and any(word in str(exc) for word in (" too ", "overflow")):
                    raise QueryError(f"filter: cannot be computed ({exc})") from exc
                raise
            finally:
                db.set_progress_handler(None, 0)

    def rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.borrow() as connection:
            return connection.db.execute(sql, values).fetchall()
