"""Coverage statistics: the classes, a table, and the tiles of a region.

Tiles come as two arrays: ``cell``, int32 ``row * 3600 + column`` (see
:func:`catalog_builder.tile.table.cells`),
and ``mask``, uint32 with bit i for the year 2000 + i. The map is drawn by
:mod:`catalog_builder.catalog.coverage.picture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from catalog_builder.tile.years import COVERAGE_NAMES, Masks, coverage_codes, year_bits, years_of

Cells = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class CoverageTable:
    """Numbers of tiles by year, class and combination of years."""

    n_tiles: int
    """Tiles with at least one of the years."""
    n_tile_years: int
    years: dict[int, int]
    """Tiles per year."""
    classes: dict[str, int]
    """Tiles per class of :data:`COVERAGE_NAMES`."""
    combinations: list[tuple[tuple[int, ...], int]]
    """(years, tiles) for every combination that occurs, the most frequent first."""


def coverage_table(mask: Masks, years: Sequence[int]) -> CoverageTable:
    """Count tiles per year, class and combination of years.

    Parameters
    ----------
    mask
        Years of each tile, (n,).
    years
        The years to consider; tiles with none of them are omitted.
    """
    present = mask & np.uint32(year_bits(years))
    present = present[present != 0]
    found, counts = np.unique(present, return_counts=True)
    per_class = np.zeros(len(COVERAGE_NAMES), np.int64)
    np.add.at(per_class, coverage_codes(found, years), counts)
    per_combination = [(years_of(int(m)), int(n)) for m, n in zip(found, counts, strict=True)]
    return CoverageTable(
        n_tiles=len(present),
        n_tile_years=sum(len(combination) * n for combination, n in per_combination),
        years={
            year: sum(n for combination, n in per_combination if year in combination)
            for year in sorted(set(years))
        },
        classes=dict(zip(COVERAGE_NAMES, per_class.tolist(), strict=True)),
        combinations=sorted(per_combination, key=lambda pair: (-pair[1], pair[0])),
    )


def touching(cell: Cells, region: BaseGeometry) -> npt.NDArray[np.bool_]:
    """Return the mask of tiles that share a point with a region, (n,)."""
    from catalog_builder.tile.cover import cover

    return np.isin(cell, cover(region).cells())
