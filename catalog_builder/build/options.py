"""Options of a build."""

from __future__ import annotations

from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.item.addresses import Mirrors
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of a build."""

    dataset: Dataset
    years: frozenset[int] | None = None
    bounds: grid.Bounds | BaseGeometry | None = None
    """A box, or polygons in degrees (OGC:CRS84): cells that share area with it."""
    update: bool = False
    """Keep tile-years of the existing catalogue that the sources do not list."""
    strict: bool = False
    complete: bool = False
    """Complete values missing in a later source; see :mod:`catalog_builder.build.staging.merge`."""
    url: str = "."
    """URL that the catalogue will be served at, for the hrefs in its static files."""
    source_root: str | None = None
    """Location of the source files: a local folder, or an http(s) or s3 URL. By default where the
    dataset is published, or the folder that was scanned."""
    landmask_root: str | None = None
    data_root: str | None = None
    """URL of the COGs; by default the catalogue's own ``cogs`` folder: in S3, or through the API."""
    mirrors: Mirrors = ()
    """Mirrors of the COGs, by name, in the form of ``data_root``."""
    source_mirrors: Mirrors = ()
    """Mirrors of the source files, by name."""
    grid: grid.Grid = "utm"
    ledgers: tuple[str, ...] | None = None
    """Conversion ledgers, which list the COGs. By default the one in the catalogue's own ``cogs``
    folder, if there is one; an empty tuple for none."""
    removal_limit: float = 0.05
    """Share of the collection's tile-years, 0 to 1, that may be removed without ``allow_removals``."""
    allow_removals: bool = False
    """Remove what the sources do not list, however much; never for a source that was not read to its end."""
    is_dataset_said: bool = True
    """Whether the user chose it: only then sources of a dataset that is not known are taken to be of it."""

    def __post_init__(self) -> None:
        """Check the URLs, which will stand in every item.

        Raises
        ------
        StorageError
            If one contains credentials or a query.
        """
        bases = (
            ("--url", self.url),
            ("--source-root", self.source_root),
            ("--landmask-root", self.landmask_root),
            ("--data-root", self.data_root),
            *(("--mirror", url) for _, url in self.mirrors),
            *(("--source-mirror", url) for _, url in self.source_mirrors),
        )
        for option, base in bases:
            if base is not None:
                storage.check_base(base, option)
