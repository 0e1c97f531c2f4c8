"""What a build changes, and what it may remove: nothing for a source that was not read to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.staging.merge import MergeReport
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.errors import CatalogError
from catalog_builder.manifests.problems import LEFT_OUT, UNREAD, ProblemLog


@dataclass(frozen=True, slots=True)
class YearChange:
    """Changes of one year by a build."""

    year: int
    items: int
    added: int
    changed: int
    removed: int

    @property
    def untouched(self) -> bool:
        """Whether the year is unchanged."""
        return not (self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The result of a build."""

    collection: str
    items: int
    tiles: int
    years: tuple[YearChange, ...]
    merge: MergeReport
    problems: ProblemLog
    published: bool
    """False: the catalogue was up to date and is unchanged."""

    @property
    def added(self) -> int:
        """New tile-years."""
        return sum(y.added for y in self.years)

    @property
    def changed(self) -> int:
        """Tile-years whose files' sizes, hashes, times or landmask changed."""
        return sum(y.changed for y in self.years)

    @property
    def removed(self) -> int:
        """Removed tile-years."""
        return sum(y.removed for y in self.years)


def check_sources(folder: CatalogFolder, options: BuildOptions, problems: ProblemLog) -> None:
    """Refuse to replace a collection by what could be read of damaged or incomplete sources.

    With ``update`` nothing is removed, and a new collection has nothing to lose.

    Raises
    ------
    CatalogError
        Naming the first problem.
    """
    unread = problems.first(UNREAD)
    present = (folder.path / options.dataset.collection_id / "collection.json").exists()
    if unread is None or options.update or not present:
        return
    raise CatalogError(
        f"{unread}. A source that is damaged or incomplete replaces nothing, the catalogue is unchanged:"
        " get the source again, or add what can be read of it with --update"
    )


def check_removals(changes: Sequence[YearChange], options: BuildOptions, problems: ProblemLog) -> None:
    """Refuse a build that would remove more than a small share, or anything where rows were left out.

    Raises
    ------
    CatalogError
        With the numbers of each year.
    """
    removed = sum(c.removed for c in changes)
    if not removed or options.allow_removals:
        return
    before = removed + sum(c.items - c.added for c in changes)
    years = ", ".join(f"{c.year}: {c.removed:,}" for c in sorted(changes, key=lambda c: c.year) if c.removed)
    what = (
        f"{removed:,} of {before:,} tile-years ({100 * removed / before:.1f} %; {years}) would be removed,"
        " which the sources do not list"
    )
    how = "The catalogue is unchanged: if this is meant, give --allow-removals; to keep them, --update"
    left_out = problems.first(LEFT_OUT)
    if left_out is not None:
        raise CatalogError(f"{what}, and rows of the sources are left out, such as {left_out}. {how}")
    if removed > options.removal_limit * before:
        raise CatalogError(
            f"{what}, more than the limit of {100 * options.removal_limit:g} % (--removal-limit). {how}"
        )
