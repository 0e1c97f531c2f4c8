"""From a file of labels to a table of vectors; what could not be read is read again by the next run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog_builder.console import Progress, no_progress, say
from catalog_builder.vectors.points.options import PointOptions
from catalog_builder.vectors.points.reading import Pool, Threads
from catalog_builder.vectors.points.rows import RowOptions, Rows
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.table import State, TableReport, write_table
from catalog_builder.vectors.tables.read import Points
from catalog_builder.vectors.tables.write import format_of


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
        As of :func:`pool_of`.
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
        return write_table(sampling, written, state, again)


def _fingerprint(catalog: str, labels: Points, options: PointOptions, rows: RowOptions) -> str:
    """Return 32 hex digits that change with anything that a table depends on."""
    digest = hashlib.sha256(f"{catalog} {options} {rows} {labels.columns.schema}".encode())
    digest.update(labels.lon.tobytes())
    digest.update(labels.lat.tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def pool_of(workers: int, dask: str | None = None) -> Iterator[Pool]:
    """Yield who reads.

    Parameters
    ----------
    workers
        Number of threads, or of processes of a local cluster.
    dask
        Address of a Dask scheduler, or a scheduler file; ``local`` starts a cluster; None: threads.

    Raises
    ------
    ConvertError
        If Dask is not installed or does not respond.
    """
    if dask is None:
        threads = Threads(workers)
        try:
            yield threads
        finally:
            threads.close()
        return
    from catalog_builder.convert.workers.dask_start import LOCAL, connect, start_local
    from catalog_builder.convert.workers.processes import available_memory

    if dask == LOCAL:
        memory = (available_memory() or 4 << 30) // max(1, min(workers, os.cpu_count() or 1))
        cluster, about = start_local(workers, max(memory, 1 << 30))
    else:
        cluster, about = connect(dask)
    say(about)
    try:
        yield cluster
    except BaseException:
        cluster.kill()
        raise
    else:
        cluster.close()
