"""Writing the search index, in bulk: one year of a collection after another, sorted by cell.

What the tables mean, and reading them, is in :mod:`catalog_builder.catalog.index.reader`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from catalog_builder.catalog.index.blocks import BLOCK_CELLS
from catalog_builder.catalog.index.keys import collection_span, make_keys
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.schema import NO_TIME, SCHEMA, SCHEMA_VERSION
from catalog_builder.item.converted import COG_COLUMNS
from catalog_builder.tile import grid

IntArray = npt.NDArray[np.integer]

_INSERT_ROWS = 1 << 16
"""Rows handed to SQLite at a time: as Python objects they are ten times as large as in arrays."""


class IndexWriter:
    """Writes a new index; nothing reads the file until :meth:`close` has returned."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path.absolute().as_uri(), uri=True, isolation_level=None)
        # The file is new and unpublished: a crash throws it away, so nothing is journalled.
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=8192;"
            "PRAGMA cache_size=-65536; PRAGMA locking_mode=EXCLUSIVE;"
            + SCHEMA.format(cog=", ".join(COG_COLUMNS))
            + "BEGIN;"
        )
        self._db.execute("INSERT INTO meta VALUES('schema_version', ?)", (str(SCHEMA_VERSION),))

    def meta(self, name: str, value: str) -> None:
        """Store a property of the whole catalogue."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (name, value))

    def collection(self, record: CollectionRecord, document: str) -> None:
        """Store a collection: its record, and its STAC document (JSON)."""
        self._db.execute(
            "INSERT INTO collection VALUES(?, ?, ?, ?)",
            (record.ordinal, record.id, record.to_json(), document),
        )

    def tiles(self, ordinal: int, year: int, rows: IndexRows) -> None:
        """Store a year's tile-years, sorted by cell."""
        row, col = grid.rows_cols(rows.cell)
        keys = make_keys(ordinal, year, row, col)
        insert = self._db.executemany
        for start in range(0, len(keys), _INSERT_ROWS):
            part = slice(start, start + _INSERT_ROWS)
            mtime = [None if t == NO_TIME else t for t in rows.mtime[part].tolist()]
            columns = [keys[part].tolist(), rows.mask[part].tolist(), rows.has[part].tolist(), mtime]
            values = ["?"] * len(columns)
            for fractions in (rows.valid_fraction, rows.refused_fraction):
                values.append("NULL" if fractions is None else "?")
                if fractions is not None:
                    columns.append([None if v != v else v for v in fractions[part].tolist()])
            insert(f"INSERT INTO tile VALUES({', '.join(values)})", zip(*columns, strict=True))
        for at, facts in rows.source:
            insert(
                "INSERT INTO source VALUES(?, ?, ?, ?, ?, ?, ?)",
                ((key, *values) for key, values in zip(keys[at].tolist(), facts, strict=True)),
            )
        marks = ", ".join("?" * (len(COG_COLUMNS) + 1))
        for at, facts in rows.cogs:
            insert(
                f"INSERT INTO cog VALUES({marks})",
                ((key, *values) for key, values in zip(keys[at].tolist(), facts, strict=True)),
            )
        blocks, counts = np.unique(
            make_keys(ordinal, year, row // BLOCK_CELLS, col // BLOCK_CELLS), return_counts=True
        )
        insert("INSERT INTO block VALUES(?, ?)", zip(blocks.tolist(), counts.tolist(), strict=True))

    def landmasks(
        self, ordinal: int, cell: IntArray, sizes: Sequence[int | None], hashes: Sequence[bytes | None]
    ) -> None:
        """Store a collection's landmasks, sorted by cell."""
        keys = make_keys(ordinal, 0, *grid.rows_cols(cell))
        self._db.executemany(
            "INSERT INTO landmask VALUES(?, ?, ?)", zip(keys.tolist(), sizes, hashes, strict=True)
        )

    def copy_collection(self, old: Path, record: CollectionRecord, document: str) -> None:
        """Copy a collection from another index."""
        self.collection(record, document)
        self._db.execute("COMMIT")
        self._db.execute("ATTACH ? AS old", (f"{old.absolute().as_uri()}?mode=ro&immutable=1",))
        self._db.execute("BEGIN")
        span = collection_span(record.ordinal)
        for table in ("tile", "source", "landmask", "cog", "block"):
            self._db.execute(
                f"INSERT INTO main.{table} SELECT * FROM old.{table} WHERE key BETWEEN ? AND ?", span
            )
        self._db.execute("COMMIT")
        self._db.execute("DETACH old")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Commit and close."""
        self._db.execute("COMMIT")
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._db.close()


@dataclass(frozen=True, slots=True)
class IndexRows:
    """A year's rows for the index, sorted by cell."""

    cell: npt.NDArray[np.int32]
    """row * 3600 + column."""
    mask: npt.NDArray[np.uint32]
    has: npt.NDArray[np.int32]
    mtime: npt.NDArray[np.int64]
    """Seconds since 1970, :data:`NO_TIME` where unknown."""
    source: Iterable[tuple[IntArray, Iterable[tuple[Any, ...]]]] = field(default=())
    """Batches of (positions, facts of each as :data:`SOURCE_COLUMNS`)."""
    valid_fraction: npt.NDArray[np.float64] | None = None
    """NaN where a tile-year is not converted; None if none is."""
    refused_fraction: npt.NDArray[np.float64] | None = None
    """NaN where it was not measured; None if it nowhere was."""
    cogs: Iterable[tuple[IntArray, Iterable[tuple[Any, ...]]]] = field(default=())
    """Batches of (positions, facts of each as :data:`COG_COLUMNS`)."""
