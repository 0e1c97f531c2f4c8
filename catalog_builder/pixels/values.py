"""Pixels in memory: codes and scales, or float32 values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from catalog_builder.pixels.window import Mask

NODATA_CODE = -128
"""Code of a pixel without data, whose scale is NaN."""


class Status(IntEnum):
    """Why a pixel has no data, as far as its container says it."""

    DATA = 0
    NODATA = 1
    """No data, for a reason that the container does not say: water, or nothing could be computed."""
    WATER = 2
    """Water, by the landmask."""
    UNFILLED = 3
    """Land whose pixels are not in the store yet."""
    OUTSIDE = 4
    """Not within the array: past the edge of a zone's group."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Pixels as codes and scales."""

    codes: npt.NDArray[np.int8]
    """int8 (height, width, bands), -128 where there is no data."""
    scales: npt.NDArray[np.float32]
    """float32 (height, width), NaN where there is no data."""

    @classmethod
    def empty(cls, shape: tuple[int, int], bands: int) -> Quantized:
        """Return pixels without data."""
        return cls(
            np.full((*shape, bands), NODATA_CODE, dtype=np.int8), np.full(shape, np.nan, dtype=np.float32)
        )

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return float32 (height, width, bands), NaN where there is no data."""
        values = self.codes.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # scales of broken tiles are what they are
            values *= self.scales[:, :, None]
        return values

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 (n, bands) of some pixels."""
        picked = Quantized(self.codes[rows, cols][:, None], self.scales[rows, cols][:, None])
        return picked.dequantized()[:, 0]

    def has_data(self) -> Mask:
        """Return bool (height, width): where there is data."""
        return has_data(self.scales)

    def corrupt(self, max_scale: float) -> Mask:
        """Return bool (height, width): whose scale no embedding has.

        That is a scale that is negative, infinite, or at least ``max_scale``.
        """
        found: Mask = (self.scales < 0) | (self.scales >= max_scale)
        return found

    def blank(self, hidden: Mask) -> None:
        """Set the pixels of a mask (height, width) to no data."""
        self.codes[hidden] = NODATA_CODE
        self.scales[hidden] = np.nan


@dataclass(frozen=True, slots=True)
class Values:
    """Pixels as float32 values."""

    values: npt.NDArray[np.float32]
    """float32 (height, width, bands), NaN where there is no data."""

    @classmethod
    def empty(cls, shape: tuple[int, int], bands: int) -> Values:
        """Return pixels without data."""
        return cls(np.full((*shape, bands), np.nan, dtype=np.float32))

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return the values."""
        return self.values

    def at(self, rows: npt.NDArray[np.int64], cols: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return float32 (n, bands) of some pixels."""
        picked: npt.NDArray[np.float32] = self.values[rows, cols]
        return picked

    def has_data(self) -> Mask:
        """Return bool (height, width): where there is data, that is where all values are finite."""
        found: Mask = np.isfinite(self.values).all(axis=-1)
        return found

    def corrupt(self, max_scale: float) -> Mask:
        """Return bool (height, width): whose scale no embedding has.

        Values have no scale of their own: theirs is at least the largest by 127.
        """
        with np.errstate(invalid="ignore"):
            found: Mask = (np.abs(self.values) >= 127 * max_scale).any(axis=-1)
        return found

    def blank(self, hidden: Mask) -> None:
        """Set the pixels of a mask (height, width) to no data."""
        self.values[hidden] = np.nan


type Pixels = Quantized | Values


def has_data(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return where scales say that there is data: the rule of all containers, and of conversion.

    A scale that is zero, negative, infinite or NaN is that of a pixel without data.
    """
    found: npt.NDArray[np.bool_] = np.isfinite(scales) & (scales > 0)
    return found


@dataclass(frozen=True, slots=True)
class Picked:
    """Some pixels of a tile-year, in the order in which they were asked for."""

    pixels: Pixels
    """One row of them: (1, n, bands)."""
    status: npt.NDArray[np.uint8]
    """uint8 (n,) of :class:`Status`."""
