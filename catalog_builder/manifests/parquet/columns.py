"""Shared code of the Parquet formats: opening, row groups, and vectorised checks of columns."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog_builder.manifests.part import UNKNOWN, BoolArray, Hashes
from catalog_builder.manifests.paths.files import IndexArray
from catalog_builder.manifests.paths.names import FileKind, parse_paths
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.manifests.reading import Reading
from catalog_builder.tile import grid

BATCH_ROWS = 1 << 17
"""Rows read at a time."""

_HEX = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(slots=True)
class Rows:
    """A batch of rows and the mask of those still valid."""

    batch: pa.RecordBatch
    first_row: int
    """Number of the first row in the file, from 1."""
    reading: Reading
    good: BoolArray

    def __len__(self) -> int:
        """Return the number of rows, including invalid ones."""
        return int(self.batch.num_rows)

    def has(self, name: str) -> bool:
        """Whether the file has the column."""
        return name in self.batch.schema.names

    def place(self, row: int) -> str:
        """Return a row's position for messages."""
        return f"row {self.first_row + row}"

    def report(
        self, kind: ProblemKind, bad: BoolArray, describe: Callable[[int], str], *, drop: bool = True
    ) -> None:
        """Report the rows of a mask that are still valid, and drop them."""
        bad = bad & self.good
        rows = np.flatnonzero(bad)
        self.reading.problems.add_rows(
            kind, self.reading.source, rows, len(rows), lambda i: (self.place(i), describe(i))
        )
        if drop:
            self.good &= ~bad

    def integers(self, name: str) -> IndexArray | None:
        """Return a column as integers with UNKNOWN for null, negative and absent values.

        Rows with a fraction (floats come from pandas, where a column has nulls) are reported and dropped.
        """
        if not self.has(name):
            return None
        column = self.batch[name]
        if not pa.types.is_integer(column.type):
            column = pc.cast(column, pa.float64())
            values = column.to_numpy(zero_copy_only=False)
            whole = np.where(np.isfinite(values), values, UNKNOWN)
            self.report(
                ProblemKind.BAD_VALUE,
                whole != np.rint(whole),
                lambda i: f"column {name}: expected a whole number, found {values[i]}",
            )
            return whole.astype(np.int64)
        values = pc.fill_null(column.cast(pa.int64()), UNKNOWN).to_numpy()
        return np.where(values < 0, UNKNOWN, values)

    def sizes(self, name: str) -> IndexArray | None:
        """Return a column of sizes in bytes; 0, which geotessera writes for a missing file, is unknown."""
        values = self.integers(name)
        return None if values is None else np.where(values == 0, UNKNOWN, values)

    def times(self, name: str) -> IndexArray | None:
        """Return a timestamp column (any unit, naive is UTC) as seconds, UNKNOWN for null."""
        if not self.has(name) or not pa.types.is_timestamp(self.batch[name].type):
            return None
        column = self.batch[name]
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
        ticks = pc.fill_null(column.cast(pa.int64()), -per_second).to_numpy()
        seconds: IndexArray = ticks // per_second
        return seconds

    def hashes(self, name: str) -> tuple[Hashes, BoolArray] | None:
        """Return a column of hexadecimal SHA-256 as (n, 32) bytes and the mask of known ones.

        An invalid one is reported and treated as unknown; its row is kept.
        """
        if not self.has(name) or not _is_text(self.batch[name].type):
            return None
        column = self.batch[name].cast(pa.string())
        known = pc.equal(pc.binary_length(column), 64)
        known = pc.fill_null(known, False).to_numpy(zero_copy_only=False)
        text = column if known.all() else column.filter(pa.array(known))
        try:
            raw = binascii.unhexlify(_bytes_of(text))
        except binascii.Error:
            fits = pc.match_substring_regex(column, pattern=f"^{_HEX.pattern}$")
            known = pc.fill_null(fits, False).to_numpy(zero_copy_only=False)
            raw = binascii.unhexlify(_bytes_of(column.filter(pa.array(known))))
        given = pc.is_valid(column).to_numpy(zero_copy_only=False)
        self.report(
            ProblemKind.BAD_HASH,
            given & ~known,
            lambda i: f"column {name}: expected 64 hexadecimal digits, found '{str(column[i])[:80]}'",
            drop=False,
        )
        digests = np.zeros((len(self), 32), dtype=np.uint8)
        digests[known] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32)
        return digests, known

    def centres(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Return (lat_i, lon_i) of every row; rows that are off the grid are reported.

        Taken from the integer columns, otherwise from the degrees; if both exist they must agree.
        """
        return self._centre("lat", -grid.FIRST_LAT_I), self._centre("lon", -grid.FIRST_LON_I)

    def _centre(self, axis: str, limit: int) -> npt.NDArray[np.int16]:
        n = len(self)
        exact = degrees = None
        if self.has(f"{axis}_i"):
            exact = pc.fill_null(self.batch[f"{axis}_i"].cast(pa.int64()), 0).to_numpy()
        if self.has(axis):
            degrees = self.batch[axis].cast(pa.float64()).to_numpy(zero_copy_only=False) * 100
        if degrees is None:
            degrees = exact.astype(np.float64) if exact is not None else np.full(n, np.nan)
        with np.errstate(invalid="ignore"):
            rounded = np.where(np.isfinite(degrees), np.rint(degrees), 0)
            # float noise is far smaller; a value between two hundredths is not a tile's
            off = (
                ~(np.abs(degrees - rounded) < 1e-4)
                | (np.abs(rounded) > limit)
                | ((rounded + limit) % grid.STEP != 0)
            )
        name = {"lat": "latitude", "lon": "longitude"}[axis]
        self.report(
            ProblemKind.OFF_GRID,
            off,
            lambda i: (
                f"{name} {degrees[i] / 100:.6g} is not a tile centre: expected x.x5 within ±{limit / 100}"
            ),
        )
        if exact is not None:
            self.report(
                ProblemKind.BAD_VALUE,
                exact != rounded,
                lambda i: f"{axis}_i is {exact[i]}, but {axis} is {degrees[i] / 100:.6g}",
            )
        return np.where(off, 5, rounded).astype(np.int16)

    def centres_of_paths(self, column: str) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Return (lat_i, lon_i) from a column of embedding paths or URLs."""
        paths = pc.fill_null(self.batch[column].cast(pa.string()), "")
        names = parse_paths(paths)
        self.report(
            ProblemKind.OFF_GRID,
            names.kind != FileKind.NPY,
            lambda i: f"column {column}: '{paths[i]}' is not a tile's file",
        )
        return grid.centres(*grid.rows_cols(names.cell))

    def years(self) -> npt.NDArray[np.int16]:
        """Return the year column; rows out of the dataset's range are reported."""
        years = self.integers("year")
        if years is None:
            years = np.full(len(self), UNKNOWN, dtype=np.int64)
        first, last = self.reading.years
        off = (years < first) | (years > last)
        found = years
        self.report(
            ProblemKind.WRONG_YEAR,
            off,
            lambda i: f"expected a year from {first} to {last}, found {self.batch['year'][i]}",
        )
        return np.where(off, first, found).astype(np.int16)

    def drop_repeats(self, slot: IndexArray, contents: Sequence[npt.NDArray[np.integer]]) -> None:
        """Drop all but the last of the valid rows that share a slot; report them.

        Parameters
        ----------
        contents
            Columns in which a difference is a conflict; UNKNOWN does not count as different.
        """
        rows = np.flatnonzero(self.good)
        mine = slot[rows]
        if not np.any(mine[1:] <= mine[:-1]):
            return
        order = np.argsort(mine, kind="stable")
        rows, mine = rows[order], mine[order]
        again = np.flatnonzero(mine[1:] == mine[:-1]) + 1
        if not len(again):
            return
        new, old = rows[again], rows[again - 1]
        other = np.zeros(len(again), dtype=np.bool_)
        for values in contents:
            if values.ndim == 2:
                both = values[old].any(axis=1) & values[new].any(axis=1)
                other |= both & np.any(values[old] != values[new], axis=1)
            else:
                a, b = values[old], values[new]
                other |= (a != b) & (a != UNKNOWN) & (b != UNKNOWN)
        problems, source = self.reading.problems, self.reading.source
        for kind, mask in ((ProblemKind.DUPLICATE, ~other), (ProblemKind.CONFLICT, other)):
            how = "with different content; the later is used" if kind is ProblemKind.CONFLICT else "the same"

            def describe(i: int, how: str = how) -> tuple[str, str]:
                return (
                    self.place(int(new[i])),
                    f"the tile is already listed at {self.place(int(old[i]))}, {how}",
                )

            problems.add_rows(kind, source, np.flatnonzero(mask), int(mask.sum()), describe)
        self.good[old] = False


def tile_slot(
    lat_i: npt.NDArray[np.int16], lon_i: npt.NDArray[np.int16], year: npt.NDArray[np.int16] | None = None
) -> IndexArray:
    """Return one integer for each (year and) cell, shape (n,)."""
    slot = grid.cells(*grid.of_centres(lat_i, lon_i)).astype(np.int64)
    return slot if year is None else slot + year.astype(np.int64) * grid.N_CELLS


def open_parquet(path: Path, reading: Reading) -> pq.ParquetFile | None:
    """Open a Parquet file; report one that is truncated or damaged."""
    try:
        # not pre-buffered: a row group of a registry is 100 MB, and only a batch of it is needed at a time
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        reading.problems.add(
            ProblemKind.CORRUPT, reading.source, f"not a complete Parquet file: {_reason(error)}"
        )
        return None


def read_rows(file: pq.ParquetFile, columns: tuple[str, ...], reading: Reading) -> Iterator[Rows]:
    """Yield batches of the named columns that the file has.

    Row groups without a requested year are skipped by their statistics. A damaged row group is reported
    and left out.
    """
    names = file.schema_arrow.names
    columns = tuple(c for c in columns if c in names)
    first_row = 1
    for group in range(file.num_row_groups):
        n = file.metadata.row_group(group).num_rows
        if n and _may_hold_years(file, group, reading.selection.years):
            row = first_row
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns)):
                    yield Rows(batch, row, reading, np.ones(batch.num_rows, dtype=np.bool_))
                    row += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                reading.problems.add(
                    ProblemKind.CORRUPT,
                    reading.source,
                    f"row group {group} is damaged, its other rows are left out: {_reason(error)}",
                    place=f"row {row}",
                )
        first_row += n


def _may_hold_years(file: pq.ParquetFile, group: int, years: frozenset[int] | None) -> bool:
    if years is None or "year" not in file.schema_arrow.names:
        return True
    meta = file.metadata.row_group(group)
    for i in range(meta.num_columns):
        column = meta.column(i)
        if column.path_in_schema == "year" and column.statistics and column.statistics.has_min_max:
            low, high = column.statistics.min, column.statistics.max
            return not isinstance(low, int) or any(low <= y <= high for y in years)
    return True


def _is_text(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return bool(
        pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    )


def _bytes_of(text: pa.StringArray) -> bytes | memoryview:
    """Return the characters of a string array, joined."""
    if not len(text):
        return b""
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int32)[text.offset : text.offset + len(text) + 1]
    return memoryview(text.buffers()[2])[int(offsets[0]) : int(offsets[-1])]


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
