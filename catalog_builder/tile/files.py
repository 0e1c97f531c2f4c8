"""Sizes of a tile's published ``.npy`` files, by formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_BANDS = 128
"""Dimensions of an embedding vector."""
ALL_BANDS = tuple(range(N_BANDS))


def npy_size(height: npt.NDArray[np.integer], width: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the size in bytes of an int8 (H, W, 128) .npy file, including its header of 128 bytes."""
    return N_BANDS * height.astype(np.int64) * width + 128


def scales_size(height: npt.NDArray[np.integer], width: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the size in bytes of a float32 (H, W) .npy file."""
    return 4 * height.astype(np.int64) * width + 128
