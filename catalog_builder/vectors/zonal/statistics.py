"""Statistics of vectors with weights, as exactextract defines them; pure arithmetic."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Statistic = Literal["mean", "std", "count", "median", "min", "max", "sum"]
STATISTICS: tuple[Statistic, ...] = ("mean", "std", "count", "median", "min", "max", "sum")
"""``count`` is the sum of weights, one number; the others have one for each band."""
Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32]


@dataclass(slots=True)
class Moments:
    """What mean, spread and extremes follow from; of parts of a polygon they add up."""

    count: float
    """Sum of weights."""
    mean: Floats
    """(bands,)"""
    spread: Floats
    """Sum of weighted squares of the distances from the mean, (bands,)."""
    low: Floats
    high: Floats

    @classmethod
    def of(cls, values: Values, weight: Floats) -> Moments:
        """Return the moments of values (n, bands) with weights (n,), n at least 1."""
        exact = values.astype(np.float64)
        count = float(weight.sum())
        mean = weight @ exact / count
        low, high = exact.min(axis=0), exact.max(axis=0)
        exact -= mean
        np.square(exact, out=exact)
        return cls(count, mean, weight @ exact, low, high)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both parts (Chan, Golub and LeVeque)."""
        count = self.count + other.count
        away = other.mean - self.mean
        return Moments(
            count,
            self.mean + away * (other.count / count),
            self.spread + other.spread + away**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def statistics(self, wanted: Collection[Statistic]) -> dict[Statistic, Floats]:
        """Return those that follow from moments, (bands,) each."""
        found: dict[Statistic, Floats] = {
            "mean": self.mean,
            "std": np.sqrt(self.spread / self.count),
            "min": self.low,
            "max": self.high,
            "sum": self.mean * self.count,
        }
        return {name: found[name] for name in wanted if name in found}


def median(values: Values, weight: Floats) -> Floats:
    """Return the weighted median of each band, (bands,): that of numpy where all weights are equal.

    Parameters
    ----------
    values
        float32 (n, bands), n at least 1.
    weight
        (n,), above 0.
    """
    by_band = np.ascontiguousarray(values.T)
    order = np.argsort(by_band, axis=1)
    ordered = np.take_along_axis(by_band, order, axis=1).astype(np.float64)
    w = weight[order]
    n, below = len(weight), np.cumsum(w, axis=1) - w
    # where each value stands between the first, at 0, and the last, at (n - 1) times the sum of weights
    place = np.arange(n) * w + (n - 1) * below
    target = 0.5 * (n - 1) * float(weight.sum())
    right = np.clip((place < target).sum(axis=1), min(1, n - 1), n - 1)
    rows, left = np.arange(len(ordered)), np.maximum(right - 1, 0)
    gap = place[rows, right] - place[rows, left]
    share = np.divide(target - place[rows, left], gap, out=np.zeros(len(ordered)), where=gap > 0)
    low, high = ordered[rows, left], ordered[rows, right]
    found: Floats = low + share * (high - low)
    return found
