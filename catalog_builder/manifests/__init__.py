"""Readers of all manifest formats; the reader is chosen by the content.

=================================  ==========================================================
module                             reads
=================================  ==========================================================
:mod:`~.text`                      text registries: one file a year (geotessera 0.1.0), 5 degree
                                   blocks (0.2 to 0.6), ``SHA256`` and ``SHA256SUM`` files
:mod:`~.parquet.registry`          ``registry.parquet``, ``landmasks.parquet`` (0.6 to 0.8)
:mod:`~.parquet.manifest`          ``manifest.parquet``, ``landmasks.parquet`` of s3scan (0.9 and
                                   later), the inventory of file-scan
:mod:`~.listing`                   the data itself: a folder, a bucket, a saved listing
=================================  ==========================================================

All yield :class:`ManifestPart` with the schemas of :mod:`catalog_builder.tile.table`, and report what is
wrong to a :class:`ProblemLog`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catalog_builder.manifests.part import ManifestPart, Subset
from catalog_builder.manifests.problems import Problem, ProblemKind, ProblemLog
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.grid import Bounds

__all__ = ["ManifestPart", "Problem", "ProblemKind", "ProblemLog", "read_manifests"]


def read_manifests(
    source: str | Path,
    *,
    problems: ProblemLog,
    years: frozenset[int] | None = None,
    bounds: Bounds | None = None,
    dataset_hint: Dataset | None = None,
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
        Keep tiles whose cell shares area with this box; west > east crosses the antimeridian.
    dataset_hint
        The dataset according to the user, if the manifest does not state one: years are checked
        year is checked against. It is not written into :attr:`ManifestPart.dataset`.

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

    yield from read_source(str(source), problems, Subset(years, bounds), dataset_hint)
