"""What a build is asked to do, and what it says that it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from catalog_builder.build.merge import MergeReport
from catalog_builder.item.addresses import Mirrors
from catalog_builder.manifests import ProblemLog
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and of how much (0 if unknown)."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a build is asked to do."""

    dataset: Dataset
    years: frozenset[int] | None = None
    bounds: grid.Bounds | None = None
    update: bool = False
    """Keep tile-years of the present catalogue that the sources do not list."""
    strict: bool = False
    complete: bool = False
    """Fill what a later source does not say from an earlier one; see :mod:`catalog_builder.build.merge`."""
    url: str = "."
    """Address that the catalogue will be served at, for the addresses in its static files."""
    source_root: str | None = None
    """Where the source files are: a local folder, or an http(s) or s3 address. By default where the
    dataset is published, or the folder that was scanned."""
    landmask_root: str | None = None
    data_root: str | None = None
    """Address of the COGs; by default the catalogue's own ``cogs`` folder: in S3, or through the API."""
    mirrors: Mirrors = ()
    """Other addresses of the COGs, by name: what ``data_root`` is one of."""
    source_mirrors: Mirrors = ()
    """Other addresses of the source files, by name."""
    grid: grid.Grid = "utm"
    ledgers: tuple[str, ...] | None = None
    """Conversion ledgers: which tile-years are COGs. By default the one in the catalogue's own ``cogs``
    folder, if there is one; an empty tuple for none."""


@dataclass(frozen=True, slots=True)
class YearChange:
    """What a build did to one year."""

    year: int
    items: int
    added: int
    changed: int
    removed: int

    @property
    def untouched(self) -> bool:
        """Whether the year is as it was."""
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did."""

    collection: str
    items: int
    tiles: int
    years: tuple[YearChange, ...]
    merge: MergeReport
    problems: ProblemLog
    published: bool
    """False: the catalogue was up to date and is untouched."""

    @property
    def added(self) -> int:
        """Tile-years that are new."""
        return sum(y.added for y in self.years)

    @property
    def changed(self) -> int:
        """Tile-years whose files' sizes, hashes, times or landmask changed."""
        return sum(y.changed for y in self.years)

    @property
    def removed(self) -> int:
        """Tile-years that are gone."""
        return sum(y.removed for y in self.years)
