"""A tile-year's files: sizes of the published ``.npy`` pair by formula, roles of the converted ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_BANDS = 128
"""Dimensions of an embedding vector."""
ALL_BANDS = tuple(range(N_BANDS))
LEDGER = "ledger"
"""Default folder of the ledger, below the output of a conversion."""
ROLES = ("embeddings", "scales", "gain", "vrt", "window", "visual", "thumbnail")
"""Files of a converted tile-year, in the order in which they are published."""
ASSET_FACTS = tuple(
    (role, fact)
    for role in ROLES
    if role != "gain"  # a part of the window's view
    for fact in ("size", "sha256", "header")
    if fact != "header" or role in ("embeddings", "scales", "visual")
)
"""What is stored of those that are assets: size, SHA-256, and the header's size of a COG."""


def npy_size(height: npt.NDArray[np.integer], width: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the size in bytes of an int8 (H, W, 128) .npy file, including its header of 128 bytes."""
    return N_BANDS * height.astype(np.int64) * width + 128


def scales_size(height: npt.NDArray[np.integer], width: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the size in bytes of a float32 (H, W) .npy file."""
    return 4 * height.astype(np.int64) * width + 128
