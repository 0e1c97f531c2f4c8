"""Staging and merge: many parts of many manifests become one table per year, in bounded memory.

Rows are spilled to one Arrow file per year as they arrive, so memory holds one year at a time
(1.6 million tile-years, about 200 MB) however many manifests there are.

When several rows describe one tile-year, they are folded in order of arrival, and **later wins**:

- Values of the later row replace those of the earlier one.
- Values missing from the later row (nulls) are completed from the earlier one, as long as the two do
  not contradict each other: a 0.7 registry has hashes, a 0.10 manifest has sizes, and
  together they provide both.
- If a size or hash that both have differs, they describe different file contents (v1 was
  republished under the same name in August 2025, geotessera issue 324): the earlier row's hashes,
  sizes and time are stale and none of them is used.
- The ``.npy`` pair, the exported GeoTIFF and the window of a store are different things and are merged
  separately.

Equal sizes are weak evidence, because a tile's size follows from its shape; a hash completed from
an older manifest is as old as that manifest. ``Staging(complete=False)`` uses later rows unchanged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog_builder.errors import TesseraError
from catalog_builder.manifests.part import ManifestPart
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.table import LANDMASK_SCHEMA, TILE_SCHEMA, cells

_SPILL_ROWS = 1 << 17
"""Rows of a year buffered before they are written: one big batch reads back faster than many small ones."""
_FOLD_CELLS = 1 << 17
"""Cells folded at a time."""
_LANDMASKS = 0
"""Key of the landmasks among the years."""

IndexArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_NPY = ("npy_size", "npy_sha256", "scales_size", "scales_sha256")
_GEOTIFF = ("geotiff_size",)
_STORE = ("in_store",)
_MASK = ("size", "sha256")


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source's contribution to the merge. ``rows`` is the sum of the four that follow it."""

    source: str
    rows: int
    """Tile-years and landmasks read from it."""
    new: int
    """Not in an earlier source."""
    identical: int
    """Already known, with the same content."""
    completed: int
    """Already known; the two rows complete each other."""
    replaced: int
    """Known with a different size or hash: replaced."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The result of the merge, by source in the order they were added."""

    sources: tuple[SourceReport, ...]
    tile_years: int
    landmasks: int
    by_year: dict[int, int]
    """Tile-years of each year."""

    @property
    def replaced(self) -> int:
        """Rows whose content differed from an earlier source's."""
        return sum(s.replaced for s in self.sources)


@dataclass(slots=True)
class Spill:
    """The rows of one year, waiting and on disk."""

    path: Path
    waiting: list[pa.Table] = field(default_factory=list)
    waiting_rows: int = 0
    sink: pa.OSFile | None = None
    writer: pa.ipc.RecordBatchFileWriter | None = None
    counts: npt.NDArray[np.int64] | None = None
    """(n_sources, 4) of new, identical, completed, replaced, once merged."""
    merged_rows: int = 0

    def add(self, table: pa.Table) -> None:
        """Add rows; all of the same schema."""
        self.waiting.append(table)
        self.waiting_rows += table.num_rows
        if self.waiting_rows >= _SPILL_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if not self.waiting:
            return
        table = pa.concat_tables(self.waiting).combine_chunks()
        if self.writer is None:
            self.sink = pa.OSFile(str(self.path), "wb")
            self.writer = pa.ipc.new_file(self.sink, table.schema)
        self.writer.write_table(table)
        self.waiting, self.waiting_rows = [], 0

    def read(self) -> pa.Table:
        """Return all rows, memory-mapped."""
        self.close()
        with pa.memory_map(str(self.path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()

    def close(self) -> None:
        """Write what is waiting, and finish the file."""
        self.flush()
        if self.writer is not None and self.sink is not None:
            self.writer.close()
            self.sink.close()
            self.sink = None


class Staging:
    """A folder of spilled rows, and their merge.

    Parameters
    ----------
    directory
        Where to spill; a private folder is created in it and removed by :meth:`close`. None for the
        system's temporary folder.
    problems
        Receives tile-years that one source lists twice with different content.
    complete
        Whether to complete a later row from an earlier one; see the module.

    Examples
    --------
    >>> with Staging(None) as staging:
    ...     staging.add_all([])
    ...     staging.years()
    []
    """

    def __init__(
        self, directory: str | Path | None, *, problems: ProblemLog | None = None, complete: bool = True
    ) -> None:
        self._dir = tempfile.TemporaryDirectory(prefix="tessera-staging-", dir=directory)
        self._problems = problems
        self._complete = complete
        self._spills: dict[int, Spill] = {}
        self._sources: dict[str, int] = {}
        self._rows: list[int] = []
        self._reading = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the spilled rows. Tables already returned stay valid."""
        for spill in self._spills.values():
            spill.waiting.clear()
            spill.close()
        self._dir.cleanup()

    def add_all(self, parts: Iterable[ManifestPart]) -> None:
        """Add every part, in order."""
        for part in parts:
            self.add(part)

    def add(self, part: ManifestPart) -> None:
        """Spill a part's rows. Parts added later win.

        Raises
        ------
        TesseraError
            After the first call of :meth:`year`, :meth:`landmasks` or :meth:`report`.
        """
        if self._reading:
            raise TesseraError("this staging area is being read; parts must be added before")
        ordinal = self._sources.setdefault(part.source, len(self._sources))
        if ordinal == len(self._rows):
            self._rows.append(0)
        if part.tiles is not None and part.tiles.num_rows:
            self._rows[ordinal] += part.tiles.num_rows
            year_of_row = part.tiles["year"].to_numpy()
            found = np.unique(year_of_row)
            for year in found.tolist():
                rows = part.tiles if len(found) == 1 else part.tiles.filter(pa.array(year_of_row == year))
                self._spill(year, rows, ordinal)
        if part.landmasks is not None and part.landmasks.num_rows:
            self._rows[ordinal] += part.landmasks.num_rows
            self._spill(_LANDMASKS, part.landmasks, ordinal)

    def _spill(self, key: int, rows: pa.Table, ordinal: int) -> None:
        if key not in self._spills:
            self._spills[key] = Spill(Path(self._dir.name) / f"{key}.arrow")
        source = pa.array(np.full(rows.num_rows, ordinal, dtype=np.int32))
        self._spills[key].add(rows.append_column("source", source))

    def years(self) -> list[int]:
        """Return the years that have rows, ascending."""
        return sorted(k for k in self._spills if k != _LANDMASKS)

    def year(self, year: int) -> pa.Table:
        """Return a year's tiles, ``TILE_SCHEMA``, sorted by cell, one row a cell."""
        return self._merged(year, TILE_SCHEMA, _fold_tiles)

    def landmasks(self) -> pa.Table:
        """Return the landmasks, ``LANDMASK_SCHEMA``, sorted by cell, one row a cell."""
        return self._merged(_LANDMASKS, LANDMASK_SCHEMA, _fold_landmasks)

    def report(self) -> MergeReport:
        """Return the result of the merge; merges years that have not been requested yet."""
        for key, spill in self._spills.items():
            if spill.counts is None:
                self.landmasks() if key == _LANDMASKS else self.year(key)
        totals = np.zeros((len(self._sources), 4), dtype=np.int64)
        for spill in self._spills.values():
            if spill.counts is not None:
                totals += spill.counts
        by_year = {y: self._spills[y].merged_rows for y in self.years()}
        masks = self._spills.get(_LANDMASKS)
        return MergeReport(
            sources=tuple(
                SourceReport(name, self._rows[i], *map(int, totals[i])) for name, i in self._sources.items()
            ),
            tile_years=sum(by_year.values()),
            landmasks=masks.merged_rows if masks else 0,
            by_year=by_year,
        )

    def _merged(self, key: int, schema: pa.Schema, fold: Fold) -> pa.Table:
        self._reading = True
        spill = self._spills.get(key)
        if spill is None:
            return schema.empty_table()
        rows = spill.read()
        source = rows["source"].to_numpy()
        cell = cells(rows)
        order = np.argsort(cell, kind="stable")
        first = np.ones(len(cell), dtype=np.bool_)
        np.not_equal(cell[order][1:], cell[order][:-1], out=first[1:])
        counts = np.zeros((len(self._sources), 4), dtype=np.int64)
        counts[:, 0] = np.bincount(source[order][first], minlength=len(counts))
        if not first.all():
            already = spill.counts is not None
            table = pa.concat_tables(
                self._folded(rows.take(pa.array(order[part])), first[part], counts, fold, already=already)
                for part in _blocks(first)
            )
        elif np.all(cell[1:] > cell[:-1]):
            table = rows
        else:
            table = rows.take(pa.array(order))
        spill.counts, spill.merged_rows = counts, table.num_rows
        return table.select(schema.names).cast(schema)

    def _folded(
        self,
        rows: pa.Table,
        first: BoolArray,
        counts: npt.NDArray[np.int64],
        fold: Fold,
        *,
        already: bool,
    ) -> pa.Table:
        """Fold rows sorted by cell and arrival; fill ``counts``. ``already``: conflicts are reported."""
        facts = _Facts(rows, self._complete)
        source = rows["source"].to_numpy()
        starts = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        # rank of each row among those of its cell, in order of arrival
        rank = np.arange(len(first)) - starts[group]
        # For every column, the row that each cell's value is taken from: folding only moves indices.
        origin = {name: starts.copy() for name in rows.column_names}
        for r in range(1, int(rank.max()) + 1):
            later = np.flatnonzero(rank == r)
            which = group[later]
            earlier_source = source[origin["source"][which]]
            learnt, contradicts = fold(facts, origin, which, later)
            origin["source"][which] = later
            for column, mask in ((1, ~learnt & ~contradicts), (2, learnt & ~contradicts), (3, contradicts)):
                counts[:, column] += np.bincount(source[later][mask], minlength=len(counts))
            if not already:
                self._report_repeats(rows, later[contradicts & (earlier_source == source[later])])
        if "has_npy" in origin:
            origin["has_npy"] = origin["npy_size"]  # the row the pair is described by, see _fold_file
        return pa.table({name: rows[name].take(pa.array(origin[name])) for name in rows.column_names})

    def _report_repeats(self, rows: pa.Table, repeated: IndexArray) -> None:
        if self._problems is None or not len(repeated):
            return
        names = list(self._sources)

        def describe(row: int) -> tuple[str, str]:
            tile = TileId(rows["lat_i"][row].as_py(), rows["lon_i"][row].as_py())
            what = f"{rows['year'][row].as_py()}/{tile.name}" if "year" in rows.column_names else tile.name
            return "", f"'{what}' appears again with a different size or hash; the later row is used"

        by_source = rows["source"].to_numpy()[repeated]
        for ordinal in np.unique(by_source).tolist():
            mine = repeated[by_source == ordinal]
            self._problems.add_rows(ProblemKind.CONFLICT, names[ordinal], mine, len(mine), describe)


def _blocks(first: BoolArray) -> Iterator[slice]:
    """Split sorted rows into blocks of whole cells, so that only one block is folded in memory at a time."""
    starts = np.flatnonzero(first)
    edges = [*starts[::_FOLD_CELLS].tolist(), len(first)]
    return (slice(a, b) for a, b in pairwise(edges))


class _Facts:
    """Which values are known, and which rows disagree, column by column."""

    def __init__(self, rows: pa.Table, complete: bool) -> None:
        self._rows = rows
        self._known: dict[str, BoolArray] = {}
        self._values: dict[str, npt.NDArray[np.generic]] = {}
        self.complete = complete

    def known(self, name: str) -> BoolArray:
        """Return which rows have a value, shape (n,)."""
        if name not in self._known:
            self._known[name] = pc.is_valid(self._rows[name]).to_numpy()
        return self._known[name]

    def true(self, name: str) -> BoolArray:
        """Return a boolean column, shape (n,)."""
        if name not in self._values:
            self._values[name] = self._rows[name].to_numpy()
        return self._values[name].astype(np.bool_, copy=False)

    def differ(self, name: str, a: IndexArray, b: IndexArray) -> BoolArray:
        """Return where rows ``a`` and ``b`` both know the column and disagree."""
        both = self.known(name)[a] & self.known(name)[b]
        if both.any():
            mine, other = (self._rows[name].take(pa.array(rows[both])) for rows in (a, b))
            both[both] = pc.not_equal(mine, other).to_numpy()
        return both


type Fold = Callable[[_Facts, dict[str, IndexArray], IndexArray, IndexArray], tuple[BoolArray, BoolArray]]
"""Fold rows ``later`` onto cells ``which``, moving indices in ``origin``; returns which of them
completed the earlier row or were completed by it, and which contradict it."""


def _fold_file(
    facts: _Facts,
    origin: dict[str, IndexArray],
    which: IndexArray,
    later: IndexArray,
    present: BoolArray,
    compared: tuple[str, ...],
    carried: tuple[str, ...] = (),
) -> tuple[BoolArray, BoolArray]:
    """Fold the columns that describe one file (or pair).

    Parameters
    ----------
    present
        Which of all rows speak of the file at all; a row that does not changes nothing.
    compared, carried
        Columns of which one that differs makes a contradiction, and columns that only follow. The
        first of ``compared`` always stays with the row that the file is described by.
    """
    had, has = present[origin[compared[0]][which]], present[later]
    learnt, contradicts = had != has, np.zeros(len(which), dtype=np.bool_)
    both = had & has
    for name in compared:
        contradicts[both] |= facts.differ(name, origin[name][which[both]], later[both])
    whole = has & (~had | contradicts | (not facts.complete))
    for name in compared + carried:
        knew, knows = facts.known(name)[origin[name][which]], facts.known(name)[later]
        if name in compared:
            learnt |= both & (knew != knows)
        take = whole | (both & knows)
        origin[name][which[take]] = later[take]
    return learnt, contradicts


def _fold_landmasks(
    facts: _Facts, origin: dict[str, IndexArray], which: IndexArray, later: IndexArray
) -> tuple[BoolArray, BoolArray]:
    return _fold_file(facts, origin, which, later, facts.known("lat_i"), _MASK)


def _fold_tiles(
    facts: _Facts, origin: dict[str, IndexArray], which: IndexArray, later: IndexArray
) -> tuple[BoolArray, BoolArray]:
    pair = _fold_file(facts, origin, which, later, facts.true("has_npy"), _NPY, ("mtime",))
    tiff = _fold_file(facts, origin, which, later, facts.known("geotiff"), _GEOTIFF, ("geotiff",))
    window = _fold_file(facts, origin, which, later, facts.true("in_store"), _STORE, ("refused_fraction",))
    return pair[0] | tiff[0] | window[0], pair[1] | tiff[1] | window[1]
