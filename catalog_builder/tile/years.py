"""Years of a tile as a bit mask, and the coverage classes derived from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

FIRST_YEAR = 2000
"""Year of bit 0."""
COVERAGE_NAMES = ("full", "latest", "partial")
"""Values of the item property ``tessera:coverage``, by code."""
Masks = npt.NDArray[np.uint32]


def coverage_codes(mask: Masks, years: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Classify tiles by their years, like upstream's coverage map; the first class that matches applies.

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
    """Return the bit mask of some years."""
    return sum(1 << (year - FIRST_YEAR) for year in set(years))


def years_of(mask: int) -> tuple[int, ...]:
    """Return the years of a mask, ascending.

    >>> years_of(year_bits([2024, 2017]))
    (2017, 2024)
    """
    return tuple(FIRST_YEAR + bit for bit in range(32) if mask >> bit & 1)
