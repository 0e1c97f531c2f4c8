"""Staging of converted tile-years between ledgers and a build: on disk, not in memory.

A converted tile-year has 3 kB of metadata, 7 kB as Python objects: the 14 million of a converted planet
would need 100 GB at once. They are spilled to a SQLite file, by year and cell, where the row that finished
later replaces the other, in whatever order they come; a build then reads them a batch at a time.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import orjson

from catalog_builder.tile.grid import N_CELLS

BATCH = 1 << 14
"""Rows held at a time."""

Facts = tuple[Any, ...]


class CogStaging:
    """A file of spilled rows. Safe to read from several threads: a build writes index and parquet at once.

    Parameters
    ----------
    directory
        Where to spill; a private folder is created in it and removed by :meth:`close`.
    columns
        Names of a row's facts, after its cell and year.
    """

    def __init__(self, directory: Path, columns: Sequence[str]) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="tessera-cogs-", dir=directory)
        self._db = sqlite3.connect(
            Path(self._dir.name) / "cogs.sqlite", isolation_level=None, check_same_thread=False
        )
        # Python's sqlite3 hands one prepared statement to two threads that run the same text at once.
        self._lock = threading.Lock()
        self.columns = tuple(columns)
        # Used only by this process, and discarded with it: nothing is journalled.
        self._db.executescript(
            "PRAGMA page_size=16384; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "PRAGMA cache_size=-65536; PRAGMA locking_mode=EXCLUSIVE;"
            "CREATE TABLE cog(slot INTEGER PRIMARY KEY, finished TEXT NOT NULL, origin BLOB, rivals INTEGER,"
            f" {', '.join(columns)});"
            "CREATE INDEX rival ON cog(slot) WHERE rivals"
        )
        self.num_rows = 0
        """Rows that were added, repeated ones too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the spilled rows."""
        self._db.close()
        self._dir.cleanup()

    def add(self, rows: Iterable[tuple[int, int, str, bytes | None, Facts]]) -> None:
        """Spill rows (year, cell, time finished, hash of the source, metadata).

        Per tile-year the last to finish is kept, and of several at the same time the last that is added;
        :meth:`rivals` are those of which another source was converted as well.
        """
        marks = ", ".join("?" * len(self.columns))
        sets = ", ".join(
            f"{name} = CASE WHEN excluded.finished >= cog.finished THEN excluded.{name} ELSE cog.{name} END"
            for name in ("finished", "origin", *self.columns)
        )
        sql = (  # in SQLite, every expression of an update sees the row as it was
            f"INSERT INTO cog VALUES(?, ?, ?, 0, {marks}) ON CONFLICT(slot) DO UPDATE SET"
            f" rivals = cog.rivals OR coalesce(excluded.origin <> cog.origin, 0), {sets}"
        )

        def bound() -> Iterator[Facts]:
            for year, cell, finished, origin, facts in rows:
                self.num_rows += 1
                yield (year * N_CELLS + cell, finished, origin, *facts)

        self._db.execute("BEGIN")
        self._db.executemany(sql, bound())
        self._db.execute("COMMIT")

    def years(self) -> list[int]:
        """Return the years that have rows, ascending."""
        found: list[int] = []
        slot, sql = -1, "SELECT slot FROM cog WHERE slot > ? LIMIT 1"
        with self._lock:
            while row := self._db.execute(sql, (slot,)).fetchone():
                found.append(row[0] // N_CELLS)
                slot = (found[-1] + 1) * N_CELLS - 1
        return found

    def cells(self, year: int) -> npt.NDArray[np.int32]:
        """Return the cells of a year that are converted, ascending."""
        with self._lock:
            rows = self._db.execute("SELECT slot FROM cog WHERE slot BETWEEN ? AND ?", self._span(year))
            return np.fromiter((slot - year * N_CELLS for (slot,) in rows), np.int32)

    def rivals(self, year: int) -> npt.NDArray[np.int32]:
        """Return the cells of a year of which several sources were converted, ascending."""
        with self._lock:
            rows = self._db.execute(
                "SELECT slot FROM cog WHERE rivals AND slot BETWEEN ? AND ? ORDER BY slot", self._span(year)
            )
            return np.fromiter((slot - year * N_CELLS for (slot,) in rows), np.int32)

    def rows(self, year: int, columns: Sequence[str] | None = None) -> Iterator[list[Facts]]:
        """Yield facts (all, or some) of a year's cells, ascending, in batches of :data:`BATCH`."""
        sql = f"SELECT {', '.join(columns or self.columns)} FROM cog WHERE slot BETWEEN ? AND ?"
        with self._lock:
            found = self._db.execute(sql, self._span(year))
            batch = found.fetchmany(BATCH)
        while batch:
            yield batch
            with self._lock:
                batch = found.fetchmany(BATCH)

    def rows_of(self, year: int, cell: npt.NDArray[np.integer]) -> list[Facts]:
        """Return the facts of some cells of a year, in their order.

        Raises
        ------
        KeyError
            If one of them is not converted.
        """
        slots = (cell.astype(np.int64) + year * N_CELLS).tolist()
        sql = f"SELECT slot, {', '.join(self.columns)} FROM json_each(?) j CROSS JOIN cog ON slot = j.value"
        with self._lock:
            rows = self._db.execute(sql, (orjson.dumps(slots).decode(),)).fetchall()
        found = {slot: facts for slot, *facts in rows}
        return [tuple(found[slot]) for slot in slots]

    @staticmethod
    def _span(year: int) -> tuple[int, int]:
        return year * N_CELLS, (year + 1) * N_CELLS - 1
