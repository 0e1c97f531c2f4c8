"""Small raw tiles for tests: random codes, and scales with every value that arithmetic trips over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import TileId

POLAR = TileId.from_name("grid_0.05_83.65")
"""A small tile, 1121 x 180."""

# NaN, infinities, signed zeros, the largest, the smallest and other subnormals, 1.0 and more
_AWKWARD = [np.nan, np.inf, -np.inf, 0, -0.0, 3.4028235e38, 1e-45, 1e-40, 1, 3e38, -0.05, 1e6]


@dataclass(frozen=True, slots=True)
class RawTile:
    """A tile-year's arrays, and the root that they are stored below."""

    root: Path
    tile: TileId
    year: int
    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def folder(self) -> Path:
        return self.root / str(self.year) / self.tile.name

    def product(self, x: int, y: int, width: int, height: int) -> npt.NDArray[np.float32]:
        """Return numpy's float32 vectors of a window, (height, width, 128)."""
        rows, cols = slice(y, y + height), slice(x, x + width)
        scales = self.scales[rows, cols]
        with np.errstate(all="ignore"):
            product = self.codes[rows, cols].astype(np.float32) * (
                scales if scales.ndim == 3 else scales[..., None]
            )
        assert product.dtype == np.float32
        return product


def write_raw_tile(
    root: Path, tile: TileId = POLAR, year: int = 2024, *, per_band_scales: bool = False
) -> RawTile:
    """Write a tile-year's ``.npy`` pair below a root, as upstream lays it out."""
    rng = np.random.default_rng(tile.lat_i)
    height, width = tile.raster().shape
    codes = rng.integers(-128, 128, (height, width, 128), dtype=np.int8)
    shape = (height, width, 128) if per_band_scales else (height, width)
    scales = rng.uniform(0.01, 0.12, shape).astype(np.float32)
    scales.reshape(height, -1)[1, :60] = np.resize(np.array(_AWKWARD, np.float32), 60)
    for suffix, array in ((".npy", codes), ("_scales.npy", scales)):
        path = root / source_path(year, tile.name, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return RawTile(root, tile, year, codes, scales)


def same_bits(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    """Whether two arrays are equal bit for bit, signs of zeros and NaN included."""
    one, two = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
