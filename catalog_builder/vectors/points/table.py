"""Tables that are written year by year, and completed by the next run where something could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.storage import Meter, write_atomic
from catalog_builder.tile.datasets import Dataset
from catalog_builder.vectors.find import Listed
from catalog_builder.vectors.points.vectors import Indices, Outcome
from catalog_builder.vectors.tables.write import files_of, read_batches, table_writer

BATCH = 32_768
"""Rows that are written together."""


@dataclass(slots=True)
class TableReport:
    """What became of a run that writes a table."""

    dataset: Dataset
    years: tuple[int, ...]
    rows: int
    """Points, or polygons, times years."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Rows by their status, of all the table."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rows by the reason why they are unreadable."""
    corrupt: int = 0
    """Pixels read in this run that were taken for no data because of their scales."""
    again: int | None = None
    """Rows that an earlier run could not read, and this one read again; None if it was the first."""
    meter: Meter = field(default_factory=Meter)
    files: list[Path] = field(default_factory=list)

    @property
    def unreadable(self) -> int:
        """Rows that could not be read."""
        return self.outcomes[Outcome.UNREADABLE.text]


class OfYear(Protocol):
    """What was found in a year, of points or of polygons."""

    year: int
    at: Indices
    """Which points or polygons, by their number."""
    outcome: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    """By position in ``at``."""
    corrupt: int


class Source[Y: OfYear](Protocol):
    """Points or polygons of a catalogue."""

    @property
    def listed(self) -> Listed:
        """What the catalogue has of their cells."""

    @property
    def years(self) -> tuple[int, ...]:
        """Years, in order."""

    @property
    def meter(self) -> Meter:
        """What was read so far."""

    def __len__(self) -> int:
        """Return the number of points or polygons."""

    def read(self, only: Mapping[int, Indices] | None = None) -> Iterator[Y]:
        """Yield what is found in each year, of some or all."""


class RowMaker[Y: OfYear](Protocol):
    """The rows of a table."""

    schema: pa.Schema
    status: str
    """Name of the column of statuses."""

    def batch(self, found: Y, part: Indices) -> pa.RecordBatch:
        """Return rows of a year, by position."""


def write_table[Y: OfYear](
    source: Source[Y], rows: RowMaker[Y], state: State, again: dict[int, Indices] | None
) -> TableReport:
    """Write a table, or what an earlier run could not read of it.

    Parameters
    ----------
    source
        What is read.
    rows
        How it is written.
    state
        Where, and what could not be read.
    again
        :meth:`State.load`.

    Raises
    ------
    StorageError
        If the file cannot be written, or an existing one has other rows.
    """
    listed, n = source.listed, len(source)
    report = TableReport(listed.dataset, source.years, n * len(source.years), meter=source.meter)
    if again is None:
        batches = _all_rows(source, rows, report, state)
    else:
        report.again = sum(map(len, again.values()))
        batches = _patched_rows(source, rows, report, state, again)
    with table_writer(state.out, rows.schema, report.rows) as write:
        for batch in batches:
            write(batch)
    state.save()
    report.files = files_of(state.out)
    return report


def _all_rows[Y: OfYear](
    source: Source[Y], rows: RowMaker[Y], report: TableReport, state: State
) -> Iterator[pa.RecordBatch]:
    for found in source.read():
        _count(found, report, state)
        for start in range(0, len(found.at), BATCH):
            yield rows.batch(found, np.arange(start, min(start + BATCH, len(found.at))))


def _count(found: OfYear, report: TableReport, state: State) -> None:
    """Add a year to the report."""
    state.add(found.year, found.at[found.outcome == Outcome.UNREADABLE])
    numbers = np.bincount(found.outcome, minlength=len(Outcome)).tolist()
    report.outcomes.update({Outcome(i).text: n for i, n in enumerate(numbers) if n})
    report.reasons.update(found.reasons.values())
    report.corrupt += found.corrupt


def _patched_rows[Y: OfYear](
    source: Source[Y], rows: RowMaker[Y], report: TableReport, state: State, again: dict[int, Indices]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the existing file, with those that are read again in their places."""
    n, years = len(source), source.years
    new: dict[int, tuple[Y, int]] = {}
    for number, found in enumerate(source.read(again)):
        _count(found, report, state)
        new |= {number * n + int(point): (found, i) for i, point in enumerate(found.at.tolist())}
    at = 0
    for batch in read_batches(state.out, rows.schema, BATCH):
        numbers = [i for i in range(at, at + len(batch)) if i in new] if new else []
        kept = np.ones(len(batch), np.bool_)
        kept[[i - at for i in numbers]] = False
        report.outcomes.update(batch[rows.status].filter(pa.array(kept)).to_pylist())
        if numbers:
            order = np.arange(len(batch))
            order[~kept] = len(batch) + np.arange(len(numbers))
            parts = [new[i] for i in numbers]
            fresh = [rows.batch(found, np.array([i])) for found, i in parts]
            batch = pa.Table.from_batches([batch, *fresh]).take(pa.array(order)).combine_chunks()
            batch = batch.to_batches()[0]
        at += len(batch)
        yield batch
    if at != n * len(years):
        raise StorageError(f"{state.out}: has {at} rows, expected {n * len(years)}: --force writes it anew")


class State:
    """The file beside a table that says which rows could not be read; it is there as long as there are some.

    Parameters
    ----------
    out
        The table.
    fingerprint
        Changes with anything that the table depends on.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        self.out, self._fingerprint = out, fingerprint
        self.path = out.with_name(out.name + ".unreadable.json")
        self._rows: dict[int, list[int]] = {}

    def add(self, year: int, rows: Indices) -> None:
        """Note rows of a year that could not be read."""
        if len(rows):
            self._rows[year] = rows.tolist()

    def load(self) -> dict[int, Indices] | None:
        """Return what an earlier run of the same request could not read; None if there is no table yet.

        Raises
        ------
        QueryError
            If there is a table that is complete, or of another request.
        """
        if not self.out.exists():
            return None
        if not self.path.exists():
            raise QueryError(f"{self.out}: exists already; --force replaces it")
        try:
            found = json.loads(self.path.read_text())
            same = found["request"] == self._fingerprint
            rows = {int(year): np.array(at, np.int64) for year, at in found["rows"].items()}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise StorageError(f"{self.path}: cannot be read: {error}") from error
        if not same:
            raise QueryError(f"{self.out}: exists already, of another request; --force replaces it")
        return rows

    def save(self) -> None:
        """Write the file, or remove it if everything could be read."""
        if not self._rows:
            self.path.unlink(missing_ok=True)
            return
        with write_atomic(self.path) as path:
            path.write_text(json.dumps({"request": self._fingerprint, "rows": self._rows}))
