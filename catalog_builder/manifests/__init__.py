"""Readers of all manifest formats; the reader is chosen by the content.

=================================  ==========================================================
module                             reads
=================================  ==========================================================
:mod:`~.text`                      text registries: one file a year (geotessera 0.1.0), 5 degree
                                   blocks (0.2 to 0.6), ``SHA256`` and ``SHA256SUM`` files
:mod:`~.parquet.registry`          ``registry.parquet``, ``landmasks.parquet`` (0.6 to 0.8)
:mod:`~.parquet.manifest`          ``manifest.parquet``, ``landmasks.parquet`` of s3scan (0.9 and
                                   later), the inventory of file-scan
:mod:`~.parquet.blocks`            parts of the registry beside dClimate's Icechunk store
:mod:`~.parquet.filled`            ``_registry.parquet`` beside a Zarr store of geotessera
:mod:`~.listing`                   the data itself: a folder, a bucket, a saved listing
=================================  ==========================================================

All yield :class:`ManifestPart` with the schemas of :mod:`catalog_builder.tile.table`, and report what is
wrong to a :class:`ProblemLog`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from catalog_builder.errors import DatasetError
from catalog_builder.manifests.part import ManifestPart, Subset
from catalog_builder.manifests.problems import Problem, ProblemKind, ProblemLog
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import Bounds

__all__ = ["ManifestPart", "Problem", "ProblemKind", "ProblemLog", "read_dataset", "read_manifests"]


def read_manifests(
    source: str | Path,
    *,
    problems: ProblemLog,
    years: frozenset[int] | None = None,
    bounds: Bounds | BaseGeometry | None = None,
    dataset_hint: Dataset | None = None,
    is_said: bool = False,
) -> Iterator[ManifestPart]:
    """Read one or more manifests in any format.

    Parameters
    ----------
    source
        A file, a folder of manifests or of the data itself, a compressed file (.gz .bz2 .xz .zst), an
        archive (.tar, .tar.*, .zip) of manifests, or an http(s) or s3 URL of any of these.
    problems
        Receives every problem; the valid rows are kept.
    years
        Keep only these years.
    bounds
        Keep tiles whose cell shares area with this box (west > east crosses the antimeridian), or with these
        polygons in degrees (OGC:CRS84).
    dataset_hint
        The dataset that the user wants. Where a manifest does not state one, years are checked against
        its years; it is not written into :attr:`ManifestPart.dataset`. Rows of other datasets are neither
        checked nor kept: their parts are empty.
    is_said
        Whether that is said by the user, so that files of a dataset that is not known (of a folder ``v2``, or
        with a ``tessera_metadata.json`` that states none) are of it; otherwise they are a problem each, and
        left out.

    Yields
    ------
    ManifestPart
        A batch of rows; memory stays bounded however large the source.

    Raises
    ------
    ManifestError
        If nothing can be read, or at the first problem when ``problems`` is strict.
    StorageError
        If the source cannot be opened.
    """
    from catalog_builder.manifests.sources import read_source

    yield from read_source(str(source), problems, Subset(years, bounds), dataset_hint, is_said=is_said)


def read_dataset(
    source: str | Path,
    dataset: Dataset,
    *,
    problems: ProblemLog,
    years: frozenset[int] | None = None,
    bounds: Bounds | BaseGeometry | None = None,
    is_said: bool = True,
) -> Iterator[ManifestPart]:
    """Read the rows of one dataset from a source that may hold several.

    Parameters
    ----------
    source, problems, years, bounds, is_said
        As of :func:`read_manifests`.
    dataset
        Which rows are wanted. What does not state its dataset is taken to be this one's. That rows of others
        are left out is noted in ``problems``.

    Raises
    ------
    DatasetError
        If the source states datasets, and this is not among them.
    ManifestError, StorageError
        As :func:`read_manifests` does.
    """
    others: dict[Dataset, str] = {}
    found = False
    for part in read_manifests(
        source, problems=problems, years=years, bounds=bounds, dataset_hint=dataset, is_said=is_said
    ):
        if part.dataset is not None and part.dataset != dataset:
            others.setdefault(part.dataset, part.source)
            continue
        found = True
        yield part
    if not others:
        return
    listed = ", ".join(f"{d.directory} (version {d.version}, variant {d.variant})" for d in others)
    where = next(iter(others.values()))
    if not found:
        raise DatasetError(
            f"{where} holds dataset {listed}, not {dataset.directory}: datasets are never mixed in one"
            " collection; choose with --dataset, and build each with its own"
        )
    problems.note(
        f"{source}: also holds dataset {listed}, left out: --dataset {dataset.directory} is what is read"
    )
