"""The search index: one SQLite file with a clustered integer key, written in bulk, read-only after.

A tile-year's key is ``collection | year | row | column``, so a box is one range of keys per latitude
row and year, the key is the order of results, and a page's token is its last key: paging is exact at
any depth. What the template can derive (geometry, raster, URLs, sizes) is not stored.

Counts of 1 degree blocks are stored too, so that empty sea is skipped, and the number of matches of
any geometry is exact and cheap: whole blocks are summed, only cells at the boundary are counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.catalog.index import tables
from catalog_builder.catalog.index.blocks import Blocks
from catalog_builder.catalog.index.keys import Keys, ordinal_of, split_key
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.schema import check_version
from catalog_builder.catalog.index.search import counts, pages, sorting
from catalog_builder.catalog.index.search.connection import Connections
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.catalog.index.search.ranges import Ranges
from catalog_builder.catalog.index.search.selection import Count, Selection
from catalog_builder.catalog.index.search.year_blocks import YearBlocks
from catalog_builder.errors import CatalogError, DamagedIndexError
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs


class Index:
    """A read-only index; safe to share between threads.

    It is a :class:`~catalog_builder.catalog.index.tiles.Tiles`.
    """

    def __init__(self, path: Path) -> None:
        """Open an index.

        Raises
        ------
        CatalogError
            If the file is missing, not an index, or of another schema version.
        """
        self.path = path
        if not path.is_file():
            found = "not a file" if path.exists() else "no such index"
            raise CatalogError(f"{path}: {found}; make one with 'tessera-stac build'")
        self._connections = Connections(path)
        try:
            with self._connections.borrow() as connection:
                query = connection.db.execute
                meta = dict(query("SELECT name, value FROM meta"))
                records = query("SELECT record, document FROM collection ORDER BY ordinal").fetchall()
        except sqlite3.DatabaseError as exc:
            raise CatalogError(
                f"{path}: not a tessera-stac index, or damaged ({exc}); run 'tessera-stac build' again"
            ) from exc
        check_version(path, meta.get("schema_version", "none"))
        self.meta: dict[str, str] = meta
        try:
            self.collections = {r.id: r for r in (CollectionRecord.from_json(rec) for rec, _ in records)}
        except (ValueError, KeyError, TypeError) as exc:
            raise DamagedIndexError(
                f"{path}: damaged: a collection's record cannot be read ({exc});"
                " run 'tessera-stac build' again"
            ) from exc
        self.by_ordinal = {r.ordinal: r for r in self.collections.values()}
        self.documents: dict[str, str] = {
            cid: doc for cid, (_, doc) in zip(self.collections, records, strict=True)
        }
        self._blocks = YearBlocks(self._connections)
        self._ranges = Ranges({o: r.years for o, r in self.by_ordinal.items()}, self._blocks)

    def only(self, ids: Collection[str]) -> Self:
        """Return the same index with some of its collections, as if it had no others."""
        found = copy(self)
        found.collections = {cid: r for cid, r in self.collections.items() if cid in ids}
        found.by_ordinal = {r.ordinal: r for r in found.collections.values()}
        found.documents = {cid: doc for cid, doc in self.documents.items() if cid in ids}
        found._ranges = Ranges({o: r.years for o, r in found.by_ordinal.items()}, self._blocks)
        return found

    def lend(self, seconds: float | None, selection: Selection) -> AbstractContextManager[sqlite3.Connection]:
        """Yield a connection for a selection's ``where``, under a time limit.

        Raises
        ------
        QueryTimeoutError
            If the work with it takes longer.
        QueryError
            If SQLite cannot compute the condition.
        """
        return self._connections.lend(seconds, selection)

    def ranges(self, selection: Selection) -> Iterator[Keys]:
        """Yield key ranges (n, 2) of a selection, in order, in batches that grow."""
        return self._ranges.of(selection)

    def page(
        self,
        selection: Selection,
        limit: int,
        after: int | None = None,
        *,
        backwards: bool = False,
        seconds: float | None = None,
    ) -> list[Row]:
        """Return up to ``limit`` rows in key order; see :func:`.search.pages.find_page`."""
        return pages.find_page(
            self._connections, self._ranges, selection, limit, after, backwards=backwards, seconds=seconds
        )

    def sorted_page(
        self,
        selection: Selection,
        order: Sequence[sorting.Term],
        limit: int,
        after: tuple[Sequence[Any], int] | None = None,
        *,
        backwards: bool = False,
        seconds: float | None = None,
    ) -> list[Row]:
        """Return up to ``limit`` rows in another order; see :func:`.search.sorting.sorted_page`."""
        return sorting.sorted_page(
            self._connections,
            self._ranges,
            selection,
            order,
            limit,
            after,
            backwards=backwards,
            seconds=seconds,
        )

    def sort_values(self, key: int, order: Sequence[sorting.Term]) -> list[Any]:
        """Return the sort values of a row, which with its key are its position in the order."""
        return sorting.values_of(self._connections, key, order)

    def count(self, selection: Selection, seconds: float | None = None) -> Count:
        """Return the number of tile-years in a selection; an estimate if time runs out."""
        return counts.count(self._connections, self._ranges, self._blocks, selection, seconds)

    def blocks(self, ordinal: int, year: int) -> Blocks:
        """Return the counts per block of a collection's year; read once."""
        return self._blocks.of(ordinal, year)

    def has_tile(self, key: int) -> int:
        """Return the :class:`Has` flags of a key, 0 if there is no such tile-year."""
        if ordinal_of(key) not in self.by_ordinal:
            return 0
        found = self._connections.rows("SELECT has FROM tile WHERE key = ?", (key,))
        return found[0][0] if found else 0

    def first_tiles(
        self, ordinal: int, limit: int, *, year: int | None = None, runs: Runs | None = None
    ) -> list[tuple[int, grid.TileId]]:
        """Return (year, tile) of the first tile-years of a collection, of a year and of some cells."""
        years = None if year is None else [year]
        found = []
        for key, *_ in self.page(Selection([ordinal], years, runs), limit):
            _, of, row, col = split_key(key)
            found.append((of, grid.TileId.from_row_col(row, col)))
        return found

    def coverage(self, ordinal: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """Return the distinct cells of a collection (row * 3600 + column, ascending) and their years."""
        return tables.coverage(self._connections, ordinal, self.by_ordinal[ordinal].years)

    def converted(self, ordinal: int, year: int) -> npt.NDArray[np.bool_]:
        """Return which tile-years of a year are converted, in the order of :meth:`tile_table`."""
        return tables.converted(self._connections, ordinal, year)

    def cog_rows(self, ordinal: int, year: int) -> list[tuple[Any, ...]]:
        """Return the converted tile-years of a year; see :func:`.tables.cog_rows`."""
        return tables.cog_rows(self._connections, ordinal, year)

    def tile_table(self, ordinal: int, year: int) -> pa.Table:
        """Return a year of a collection as ``TILE_SCHEMA``, as the builder wrote it."""
        return tables.tile_table(self._connections, ordinal, year)

    def landmask_table(self, ordinal: int) -> pa.Table:
        """Return a collection's landmasks as ``LANDMASK_SCHEMA``."""
        return tables.landmask_table(self._connections, ordinal)
