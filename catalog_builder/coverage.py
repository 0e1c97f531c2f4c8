"""Which tile has which years: the classes, a table, and the tiles of a region.

Tiles come as two arrays: ``cell``, int32 ``row * 3600 + column`` (see :func:`catalog_builder.tiles.cells`),
and ``mask``, uint32 with bit i for the year 2000 + i. The map is drawn by
:mod:`catalog_builder.coverage_map`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

FIRST_YEAR = 2000
"""Year of bit 0."""
COVERAGE_NAMES = ("full", "latest", "partial")
"""Values of the item property ``tessera:coverage``, by code."""

Cells = npt.NDArray[np.int32]
Masks = npt.NDArray[np.uint32]


def coverage_codes(mask: Masks, years: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Classify tiles by their years, as upstream's coverage map does, tested in this order.

    0 ``full``: every year of the collection; 1 ``latest``: only its newest year; 2 ``partial``:
    anything else. With a single-year collection everything is full (geotessera
    ``visualization.py``, the same rule from 0.5.1 to 0.11).

    Parameters
    ----------
    mask
        Years of each tile, bit i = year 2000 + i.
    years
        All years of the collection; other bits are ignored.

    Returns
    -------
    ndarray
        uint8 codes, indices of :data:`COVERAGE_NAMES`, shaped like ``mask``.
    """
    every = np.uint32(year_bits(years))
    newest = np.uint32(year_bits([max(years)])) if years else np.uint32(0)
    present = mask & every
    return np.where(present == every, 0, np.where(present == newest, 1, 2)).astype(np.uint8)


def year_bits(years: Iterable[int]) -> int:
    """Return the mask of some years."""
    return sum(1 << (year - FIRST_YEAR) for year in set(years))


def years_of(mask: int) -> tuple[int, ...]:
    """Return the years of a mask, ascending.

    >>> years_of(year_bits([2024, 2017]))
    (2017, 2024)
    """
    return tuple(FIRST_YEAR + bit for bit in range(32) if mask >> bit & 1)


@dataclass(frozen=True, slots=True)
class CoverageTable:
    """How many tiles have which years."""

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
        The years that count; tiles with none of them are left out.
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
    """Say which tiles share a point with a region, (n,)."""
    from catalog_builder.cover import cover

    return np.isin(cell, cover(region).cells())
