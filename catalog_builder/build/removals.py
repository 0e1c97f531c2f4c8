"""What a build may remove: nothing for a source that was not read to its end, little without being told."""

from __future__ import annotations

from collections.abc import Sequence

from catalog_builder.build.options import BuildOptions, YearChange
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.errors import CatalogError
from catalog_builder.manifests.problems import LEFT_OUT, UNREAD, ProblemLog


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
