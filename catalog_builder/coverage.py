"""Which tile has which years: classes, table, map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COVERAGE_NAMES = ("full", "latest", "partial")
"""Values of the item property ``tessera:coverage``, by code."""


def coverage_codes(mask: npt.NDArray[np.uint32], years: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Classify tiles by their years, as upstream's coverage map does, tested in this order.

    0 ``full``: every year of the collection; 1 ``latest``: only its newest year; 2 ``partial``:
    anything else. With a single-year collection everything is full (geotessera
    ``visualization.py``, the same rule from 0.5.1 to 0.11).

    Parameters
    ----------
    mask
        Years of each tile, bit i = year 2000 + i.
    years
        All years of the collection.
    """
    every = sum(1 << (y - 2000) for y in years)
    newest = 1 << (max(years) - 2000) if years else 0
    return np.where(mask == every, 0, np.where(mask == newest, 1, 2)).astype(np.uint8)
