"""The search index: one SQLite file with a clustered integer key, written in bulk, read-only after.

A tile-year's key is ``collection | year | row | column``, so a box is one range of keys per latitude
row and year, the key is the order of results, and a page's token is its last key: paging is exact at
any depth. What a template can derive (geometry, raster, addresses, sizes) is not stored.

Counts of 1 degree blocks are kept beside, so that empty sea is skipped, and the number of matches of
any geometry is exact and cheap: whole blocks are summed, only cells at the rim are counted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.catalog.index.blocks import N_BANDS, N_BLOCK_COLS, Blocks, split_blocks
from catalog_builder.catalog.index.keys import (
    LANDMASK_KEY_SQL,
    Keys,
    cell_tester,
    collection_span,
    in_spans,
    key_spans,
    make_key,
    ordinals_years,
    past,
    ranges_json,
    rows_cols,
    split_key,
    year_span,
)
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.schema import SOURCE_COLUMNS, check_version
from catalog_builder.catalog.index.selection import Count, Selection
from catalog_builder.errors import (
    CatalogError,
    DamagedIndexError,
    QueryError,
    QueryTimeoutError,
)
from catalog_builder.item.converted import COG_COLUMNS
from catalog_builder.item.item import Has
from catalog_builder.tile import grid
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.table import LANDMASK_SCHEMA, SHA256, TILE_SCHEMA
from catalog_builder.tile.years import year_bits

PAGE_SQL = f"""
SELECT t.key, t.mask, t.has, t.mtime, s.npy_size, s.npy_sha256, s.scales_size, s.scales_sha256,
  s.geotiff, s.geotiff_size, l.size, l.sha256, t.valid_fraction, {", ".join("c." + n for n in COG_COLUMNS)}
FROM {{tiles}}
LEFT JOIN source s ON s.key = t.key
LEFT JOIN cog c ON c.key = t.key
LEFT JOIN landmask l ON l.key = {LANDMASK_KEY_SQL}
"""
# json_each gives the ranges in their order, and the tiles of a range come in key order: the rows are
# sorted as they are found, and LIMIT stops the walk as soon as the page is full.
RANGES_SQL = "json_each(?) r CROSS JOIN tile t ON t.key BETWEEN r.value->>0 AND r.value->>1"


class _Connection:
    """A connection, and what its function ``in_cells`` looks in.

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


class Index:
    """A read-only index; safe to share between threads."""

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
        self._idle: list[_Connection] = []
        self._blocks: dict[tuple[int, int], Blocks] = {}
        try:
            with self._connection() as connection:
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

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        """Lend a connection that nobody else uses meanwhile.

        There are as many as were ever used at the same time. One per thread would be many more, each with
        a cache and an open file: a server has dozens of threads, of which a few search at a time.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self.path)
        try:
            yield connection
        finally:
            self._idle.append(connection)

    @contextlib.contextmanager
    def lend(self, seconds: float | None, selection: Selection) -> Iterator[sqlite3.Connection]:
        """Lend a connection for a selection's ``where``, under a time limit.

        Raises
        ------
        QueryTimeoutError
            If what is done with it takes longer.
        QueryError
            If SQLite cannot compute the condition.
        """
        with self._connection() as connection:
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
                # Of a filter; what else is an "error" comes from a damaged schema.
                if selection.where and any(word in str(exc) for word in (" too ", "overflow")):
                    raise QueryError(f"filter: cannot be computed ({exc})") from exc
                raise
            finally:
                db.set_progress_handler(None, 0)

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._connection() as connection:
            return connection.db.execute(sql, values).fetchall()

    def page(
        self,
        selection: Selection,
        limit: int,
        after: int | None = None,
        *,
        backwards: bool = False,
        seconds: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return up to ``limit`` rows of a selection in key order, past ``after``.

        ``backwards`` walks to smaller keys (and still returns ascending rows): the page before.

        Raises
        ------
        QueryTimeoutError
            If it takes longer than ``seconds``.
        """
        rows: list[tuple[Any, ...]] = []
        with self.lend(seconds, selection) as db:
            for ranges in self.ranges(selection, after, backwards):
                if backwards:
                    found = self._page_backwards(db, selection, ranges, limit - len(rows))
                else:
                    sql = PAGE_SQL.format(tiles=RANGES_SQL) + where_sql(selection.where) + " LIMIT ?"
                    bound = (ranges_json(ranges), *selection.values, limit - len(rows))
                    found = db.execute(sql, bound).fetchall()
                rows += found
                if len(rows) >= limit:
                    break
        return rows[::-1] if backwards else rows

    @staticmethod
    def _page_backwards(
        db: sqlite3.Connection, selection: Selection, ranges: Keys, limit: int
    ) -> list[tuple[Any, ...]]:
        sql = (
            PAGE_SQL.format(tiles="tile t")
            + where_sql("t.key BETWEEN ? AND ?", selection.where)
            + " ORDER BY t.key DESC LIMIT ?"
        )
        rows: list[tuple[Any, ...]] = []
        for lo, hi in ranges.tolist():
            rows += db.execute(sql, (lo, hi, *selection.values, limit - len(rows))).fetchall()
            if len(rows) >= limit:
                break
        return rows

    def count(self, selection: Selection, seconds: float | None = None) -> Count:
        """Return how many tile-years a selection holds; an estimate if time runs out."""
        if selection.keys is not None or selection.where:
            return self._count_tiles(selection, seconds)
        found = 0
        whole, rim = (None, None) if selection.runs is None else split_blocks(selection.runs)
        years = list(self._years_of(selection))
        for ordinal, year in years:
            blocks = self.blocks(ordinal, year)
            found += blocks.total if whole is None else blocks.count(whole)
        if rim is None or not len(rim.row):
            return Count(found)
        sql = f"SELECT count(*) FROM {RANGES_SQL}"
        try:
            with self.lend(seconds, selection) as db:
                for ranges in self.ranges(replace(selection, runs=rim)):
                    found += db.execute(sql, (ranges_json(ranges),)).fetchone()[0]
        except QueryTimeoutError:
            return Count(found, exact=False, at_least=found)
        return Count(found)

    def _count_tiles(self, selection: Selection, seconds: float | None) -> Count:
        """Count by looking at each tile-year; what was seen when time runs out gives an estimate."""
        found = seen = 0
        sql = f"SELECT count(*), total({selection.where or 1}) FROM {RANGES_SQL}"
        try:
            with self.lend(seconds, selection) as db:
                for ranges in self._portions(selection):
                    looked, matched = db.execute(sql, (*selection.values, ranges_json(ranges))).fetchone()
                    seen += looked
                    found += int(matched)
        except QueryTimeoutError:
            part = replace(selection, where="", values=(), cell_sets=(), keys=None)
            everything = self.count(part, seconds).n if selection.keys is None else len(selection.keys)
            estimate = round(found * max(everything, seen) / seen) if seen else everything
            return Count(max(estimate, found), exact=False, at_least=found)
        return Count(found)

    def blocks(self, ordinal: int, year: int) -> Blocks:
        """Return the counts per block of a collection's year; read once."""
        made = self._blocks.get((ordinal, year))
        if made is None:
            counts = np.zeros((N_BANDS, N_BLOCK_COLS), np.int32)
            found = self._rows("SELECT key, n FROM block WHERE key BETWEEN ? AND ?", year_span(ordinal, year))
            if found:
                keys, n = np.array(found, np.int64).T
                counts[rows_cols(keys)] = n
            made = self._blocks[ordinal, year] = Blocks(counts)
        return made

    def _years_of(self, selection: Selection, step: int = 1) -> Iterator[tuple[int, int]]:
        """Yield the (ordinal, year) that a selection spans, in its order or against it."""
        if selection.order is not None:
            for ordinal, year in selection.order[::step]:
                if ordinal in selection.ordinals and (selection.years is None or year in selection.years):
                    yield ordinal, year
            return
        for ordinal in selection.ordinals[::step]:
            for year in self.by_ordinal[ordinal].years[::step]:
                if selection.years is None or year in selection.years:
                    yield ordinal, year

    def ranges(
        self, selection: Selection, after: int | None = None, backwards: bool = False, most: int = 16384
    ) -> Iterator[Keys]:
        """Yield key ranges (n, 2), in order, in batches that grow: the first pages need few of them."""
        if selection.keys is not None:
            yield from self._key_ranges(selection, after, backwards)
            return
        spans = None if selection.runs is None else key_spans(selection.runs)
        size = 32
        waiting = after is not None and selection.order is not None
        for ordinal, year in self._years_of(selection, -1 if backwards else 1):
            if selection.runs is None or spans is None:
                ranges = np.array([year_span(ordinal, year)], np.int64)
            else:
                ranges = self._held(ordinal, year, selection.runs, spans) + make_key(ordinal, year, 0, 0)
            if after is not None:
                # What was walked before the cursor's year is done; the year itself is cut at the cursor.
                if waiting and (ordinal, year) != split_key(after)[:2]:
                    continue
                if waiting or selection.order is None:
                    ranges = past(ranges, after, backwards)
                waiting = False
            if backwards:
                ranges = ranges[::-1]
            at = 0
            while at < len(ranges):
                yield ranges[at : at + size]
                at, size = at + size, min(size * 8, most)

    def _held(self, ordinal: int, year: int, runs: Runs, spans: tuple[Keys, Keys]) -> Keys:
        """Return the spans (n, 2) of the runs that may hold a tile-year."""
        lo, hi = spans
        if len(lo) == len(runs.row):  # whole rows that were joined are long: they need no skipping
            held = self.blocks(ordinal, year).may_hold(runs)
            if not held.all():
                lo, hi = lo[held], hi[held]
        return np.column_stack([lo, hi])

    def _portions(self, selection: Selection) -> Iterator[Keys]:
        """Yield key ranges in portions that take milliseconds each."""
        if selection.runs is not None or selection.keys is not None:
            yield from self.ranges(selection, most=256)
            return
        step = 60  # rows: 6 degrees of latitude
        for ordinal, year in self._years_of(selection):
            for row in range(0, grid.N_ROWS, step):
                lo, hi = make_key(ordinal, year, row, 0), make_key(ordinal, year, row + step, 0) - 1
                yield np.array([[lo, hi]], np.int64)

    def _key_ranges(self, selection: Selection, after: int | None, backwards: bool) -> Iterator[Keys]:
        """Yield the selection's own keys, narrowed by its other parts, as ranges of one."""
        keys = np.unique(np.array(selection.keys, np.int64))
        ordinal, year = ordinals_years(keys)
        keep = np.isin(ordinal, np.array(selection.ordinals, np.int64))
        if selection.years is not None:
            keep &= np.isin(year, np.array(selection.years, np.int64))
        if selection.runs is not None:
            keep &= in_spans(keys, key_spans(selection.runs))
        keys = keys[keep]
        ranges = np.column_stack([keys, keys])
        if after is not None:
            ranges = past(ranges, after, backwards)
        if len(ranges):
            yield ranges[::-1] if backwards else ranges

    def has_tile(self, key: int) -> int:
        """Return the :class:`Has` flags of a key, 0 if there is no such tile-year."""
        found = self._rows("SELECT has FROM tile WHERE key = ?", (key,))
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

    def converted(self, ordinal: int, year: int) -> npt.NDArray[np.bool_]:
        """Return which tile-years of a year are converted, in the order of :meth:`tile_table`."""
        rows = self._rows(
            "SELECT has & ? FROM tile WHERE key BETWEEN ? AND ?", (int(Has.COG), *year_span(ordinal, year))
        )
        return np.array([has for (has,) in rows], dtype=np.bool_)

    def cog_rows(self, ordinal: int, year: int) -> list[tuple[Any, ...]]:
        """Return the converted tile-years of a year: key, flags, valid fraction, :data:`COG_COLUMNS`."""
        return self._rows(
            f"SELECT t.key, t.has, t.valid_fraction, {', '.join('c.' + n for n in COG_COLUMNS)}"
            " FROM cog c JOIN tile t ON t.key = c.key WHERE c.key BETWEEN ? AND ?",
            year_span(ordinal, year),
        )

    def coverage(self, ordinal: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
        """Return the distinct cells of a collection (row * 3600 + column, ascending) and their years."""
        masks = np.zeros(grid.N_CELLS, dtype=np.uint32)
        seen = 0
        with self._connection() as connection:
            for year in self.by_ordinal[ordinal].years:
                # A mask holds all years of a tile: those of earlier years are known, and left in SQLite.
                rows = connection.db.execute(
                    "SELECT key, mask FROM tile WHERE key BETWEEN ? AND ? AND NOT mask & ?",
                    (*year_span(ordinal, year), seen),
                )
                seen |= year_bits([year])
                while part := rows.fetchmany(1 << 12):
                    pairs = np.array(part, dtype=np.int64)
                    masks[grid.cells(*rows_cols(pairs[:, 0]))] = pairs[:, 1]
        (cells,) = np.nonzero(masks)
        return cells.astype(np.int32), masks[cells]

    def tile_table(self, ordinal: int, year: int) -> pa.Table:
        """Return a year of a collection as ``TILE_SCHEMA``: what the builder once wrote."""
        rows = self._rows(
            f"SELECT t.key, t.has, t.mtime, {', '.join('s.' + c for c in SOURCE_COLUMNS)}"
            " FROM tile t LEFT JOIN source s ON s.key = t.key WHERE t.key BETWEEN ? AND ?",
            year_span(ordinal, year),
        )
        key, has, mtime, n_size, n_sha, s_size, s_sha, geotiff, g_size = (
            zip(*rows, strict=True) if rows else ((),) * 9
        )
        row, col = rows_cols(np.array(key, dtype=np.int64))
        lat_i, lon_i = grid.centres(row, col)
        flags = np.array(has, dtype=np.int64)
        raster = grid.rasters(row, col)
        n = len(rows)

        def sizes(stored: Sequence[int | None], formula: npt.NDArray[np.int64]) -> pa.Array:
            exact = np.array([s or 0 for s in stored], dtype=np.int64)
            known = (flags & Has.SIZES) != 0
            values = np.where(exact > 0, exact, formula)
            return pa.array(values, mask=~(known | (exact > 0)))

        return pa.table(
            {
                "lat_i": pa.array(lat_i),
                "lon_i": pa.array(lon_i),
                "year": pa.array(np.full(n, year), pa.int16()),
                "npy_size": sizes(n_size, npy_size(raster.height, raster.width)),
                "npy_sha256": pa.array(n_sha, SHA256),
                "scales_size": sizes(s_size, scales_size(raster.height, raster.width)),
                "scales_sha256": pa.array(s_sha, SHA256),
                "mtime": pa.array(mtime, pa.timestamp("s", tz="UTC")),
                "has_npy": pa.array((flags & Has.NPY) != 0),
                "geotiff": pa.array(geotiff, pa.string()),
                "geotiff_size": pa.array(g_size, pa.int64()),
            }
        ).cast(TILE_SCHEMA)

    def landmask_table(self, ordinal: int) -> pa.Table:
        """Return a collection's landmasks as ``LANDMASK_SCHEMA``."""
        rows = self._rows(
            "SELECT key, size, sha256 FROM landmask WHERE key BETWEEN ? AND ?", collection_span(ordinal)
        )
        key, size, sha256 = zip(*rows, strict=True) if rows else ((),) * 3
        lat_i, lon_i = grid.centres(*rows_cols(np.array(key, dtype=np.int64)))
        return pa.table(
            {
                "lat_i": pa.array(lat_i),
                "lon_i": pa.array(lon_i),
                "size": pa.array(size, pa.int64()),
                "sha256": pa.array(sha256, SHA256),
            }
        ).cast(LANDMASK_SCHEMA)


def where_sql(*conditions: str) -> str:
    """Return the WHERE clause of conditions, empty ones left out."""
    used = [c for c in conditions if c]
    return " WHERE " + " AND ".join(used) if used else ""
