"""From a file of labels to a table of vectors; what could not be read is read again by the next run."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.storage import Meter, write_atomic
from catalog_builder.tile.datasets import Dataset
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.reading import pool_of
from catalog_builder.vectors.points.rows import RowOptions, Rows
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.vectors import Indices, Outcome
from catalog_builder.vectors.tables.read import Points
from catalog_builder.vectors.tables.write import files_of, format_of, read_batches, table_writer

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


def points_to_file(
    catalog: str,
    labels: Points,
    out: Path,
    options: PointOptions,
    rows: RowOptions,
    *,
    workers: int = 4,
    dask: str | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> TableReport:
    """Write the vectors at labelled points: a row for each year and point, in the order of the labels.

    If tiles could not be read, a file beside the table says which rows they are; the same call again reads
    those only.

    Parameters
    ----------
    catalog
        A catalogue folder, its s3 URL, or the URL of a tessera-stac API.
    labels
        The points, see :func:`catalog_builder.vectors.tables.read.read_points`.
    out
        ``.parquet`` (GeoParquet), ``.arrow``, ``.csv`` or ``.npy``.
    options, rows
        What is read, and how it is written.
    workers, dask
        As of :func:`catalog_builder.vectors.points.reading.pool_of`.
    force
        Replace an existing file.
    progress
        Told of tile-years.

    Raises
    ------
    QueryError
        If there are no points, or the file exists already and is complete or of another request.
    StorageError
        If the file cannot be written.
    CatalogError, DatasetError
        As :func:`catalog_builder.vectors.find.find_cells`.
    """
    written = Rows(labels, options, rows, format_of(out))
    state = State(out, _fingerprint(catalog, labels, options, rows))
    again = None if force else state.load()
    with pool_of(workers, dask) as pool:
        sampling = Sampling.of(catalog, labels.lon, labels.lat, options, pool, progress)
        n = len(labels.lon)
        report = TableReport(
            sampling.listed.dataset, sampling.years, n * len(sampling.years), meter=sampling.meter
        )
        if again is None:
            batches = _all_rows(sampling, written, report, state)
        else:
            report.again = sum(map(len, again.values()))
            batches = _patched_rows(sampling, written, report, state, again)
        with table_writer(out, written.schema, report.rows) as write:
            for batch in batches:
                write(batch)
    state.save()
    report.files = files_of(out)
    return report


def _all_rows(
    sampling: Sampling, written: Rows, report: TableReport, state: State
) -> Iterator[pa.RecordBatch]:
    for found in sampling.read():
        _count(found, report, state)
        for start in range(0, len(found.at), BATCH):
            yield written.batch(found, np.arange(start, min(start + BATCH, len(found.at))))


def _count(found: PointYear, report: TableReport, state: State) -> None:
    """Add a year to the report."""
    state.add(found.year, found.at[found.outcome == Outcome.UNREADABLE])
    numbers = np.bincount(found.outcome, minlength=len(Outcome)).tolist()
    report.outcomes.update({Outcome(i).text: n for i, n in enumerate(numbers) if n})
    report.reasons.update(found.reasons.values())
    report.corrupt += found.corrupt


def _patched_rows(
    sampling: Sampling, written: Rows, report: TableReport, state: State, again: dict[int, Indices]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the existing file, with those that are read again in their places."""
    n, years = len(sampling.sites), sampling.years
    new: dict[int, tuple[PointYear, int]] = {}
    for number, found in enumerate(sampling.read(again)):
        _count(found, report, state)
        new |= {number * n + int(point): (found, i) for i, point in enumerate(found.at.tolist())}
    at = 0
    for batch in read_batches(state.out, written.schema, BATCH):
        rows = [i for i in range(at, at + len(batch)) if i in new] if new else []
        kept = np.ones(len(batch), np.bool_)
        kept[[i - at for i in rows]] = False
        report.outcomes.update(batch[written.status].filter(pa.array(kept)).to_pylist())
        if rows:
            order = np.arange(len(batch))
            order[~kept] = len(batch) + np.arange(len(rows))
            parts = [new[i] for i in rows]
            fresh = [written.batch(found, np.array([i])) for found, i in parts]
            batch = pa.Table.from_batches([batch, *fresh]).take(pa.array(order)).combine_chunks()
            batch = batch.to_batches()[0]
        at += len(batch)
        yield batch
    if at != n * len(years):
        raise StorageError(f"{state.out}: has {at} rows, expected {n * len(years)}: --force writes it anew")


def _fingerprint(catalog: str, labels: Points, options: PointOptions, rows: RowOptions) -> str:
    """Return 32 hex digits that change with anything that a table depends on."""
    digest = hashlib.sha256(f"{catalog} {options} {rows} {labels.columns.schema}".encode())
    digest.update(labels.lon.tobytes())
    digest.update(labels.lat.tobytes())
    return digest.hexdigest()[:32]


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
