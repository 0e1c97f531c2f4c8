"""The published TESSERA datasets: the one place where a dataset's layout is known.

A dataset is a (version, variant) pair. Embeddings of two datasets live in different vector spaces,
so a tile-year's name says nothing without its dataset, and two are never mixed in a collection.
Source of the table: geotessera 0.11, ``registry.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from catalog_builder.errors import DatasetError

PUBLISHED_ROOT = "https://data.source.coop/tessera/tessera"
"""Where upstream publishes the .npy files and landmasks (geotessera 0.10 and later)."""

SYNTHETIC = "synthetic"
"""Directory name of the dataset that ``tessera-stac sample`` makes: not TESSERA data."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One (version, variant), and where its files are published."""

    version: str
    """Upstream's version, ``1.0``."""
    variant: str
    """Upstream's variant, ``vultr``."""
    directory: str
    """Directory name in upstream's layout, ``v1.1-cam``; also names the collection."""
    landmask_directory: str
    """Landmasks are shared by the variants of a version: ``v1.1``."""
    title: str
    """One line for people."""
    years: tuple[int, int]
    """First and last year that the dataset may hold."""
    license: str = "CC0-1.0"
    """Licence of embeddings and weights (ucam-eo/tessera README); older texts say CC-BY-4.0."""

    @property
    def collection_id(self) -> str:
        """Id of the dataset's STAC collection."""
        return f"tessera-{self.directory}"

    @property
    def is_synthetic(self) -> bool:
        """Whether the pixels are made up."""
        return self.variant == SYNTHETIC

    @property
    def published_root(self) -> str | None:
        """Address below which ``<year>/<grid>/<grid>.npy`` is published; None if it is not."""
        return None if self.is_synthetic else f"{PUBLISHED_ROOT}/npy/{self.directory}"

    @property
    def published_landmasks(self) -> str | None:
        """Address below which ``<grid>.tiff`` landmasks are published; None if they are not."""
        return None if self.is_synthetic else f"{PUBLISHED_ROOT}/landmasks/{self.landmask_directory}"


DATASETS: tuple[Dataset, ...] = (
    Dataset("1.0", "vultr", "v1", "v1", "TESSERA v1 embeddings", (2017, 2025)),
    Dataset(
        "1.1", "cambridge", "v1.1-cam", "v1.1", "TESSERA v1.1 embeddings (Cambridge test run)", (2017, 2025)
    ),
    Dataset("2.0", "2B-L~beta1", "v2-2B-L~beta1", "v2", "TESSERA v2 embeddings, 2B-L beta 1", (2017, 2025)),
    Dataset("2.0", "2B-L~beta2", "v2-2B-L~beta2", "v2", "TESSERA v2 embeddings, 2B-L beta 2", (2017, 2025)),
    Dataset(
        "0.0",
        SYNTHETIC,
        SYNTHETIC,
        SYNTHETIC,
        "Synthetic tiles in TESSERA's formats (not real data)",
        (2017, 2025),
    ),
)
"""Every dataset that has .npy files, and the synthetic one."""


def dataset(name: str) -> Dataset:
    """Return the dataset of a directory name (``v1``), a collection id, or ``version/variant``.

    Raises
    ------
    DatasetError
        If no dataset has that name.
    """
    for ds in DATASETS:
        if name in (ds.directory, ds.collection_id, f"{ds.version}/{ds.variant}"):
            return ds
    raise DatasetError(
        f"unknown dataset '{name}': expected one of {', '.join(d.directory for d in DATASETS)}"
    )


def dataset_of(version: str, variant: str | None) -> Dataset:
    """Return the dataset of the version and variant that a manifest or a GeoTIFF tag states.

    ``v1`` and ``1.0`` are the same version. Without a variant (files older than 0.10) the version
    must have only one dataset.
    """
    plain = version.strip().removeprefix("v")
    plain = plain if "." in plain else f"{plain}.0"
    found = [d for d in DATASETS if d.version == plain and variant in (None, d.variant)]
    if len(found) == 1:
        return found[0]
    wanted = f"version '{version}'" + (f", variant '{variant}'" if variant is not None else "")
    known = ", ".join(f"{d.version}/{d.variant}" for d in DATASETS)
    raise DatasetError(f"{'ambiguous' if found else 'unknown'} dataset {wanted}: expected one of {known}")


def source_path(year: int, grid_name: str, suffix: str = ".npy") -> str:
    """Return a source file's path below a dataset's root: ``2024/grid_X_Y/grid_X_Y.npy``."""
    return f"{year}/{grid_name}/{grid_name}{suffix}"
