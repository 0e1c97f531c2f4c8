"""Which cells of the grid hold land: the world's 1.6 million, from a land mask that PyPI ships.

A cell is land if any of its 144 pixels of 30 arc-seconds is land in NOAA's GLOBE, Antarctica (south of
60 S) left out as upstream leaves it out; and every cell of the real manifests of July 2025 is in, where
they lie beside the checkout: 220 of those are islands and coasts too small for the mask. That makes
1,598,871 cells, and upstream counts about 1.6 million tiles a year.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import numpy.typing as npt

from catalog_builder.tile.grid import N_COLS, N_ROWS, Bounds
from tests.support.environments import environment
from tests.support.needs import real_manifests_or_none
from tests.support.oracle import Oracle

LOCK = Path(__file__).parent / "land.lock"
ANTARCTICA = 300
"""Rows south of 60 S."""
_PIXELS = 12
"""Of the mask, along a cell's side."""

Cells = npt.NDArray[np.int32]


def _mask_file() -> Path:
    """Return the mask's data file; its package's code is not used."""
    python = environment(LOCK)
    code = "import importlib.util as i; print(i.find_spec('global_land_mask').submodule_search_locations[0])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) / "globe_combined_mask_compressed.npz"


def _touched() -> npt.NDArray[np.bool_]:
    """Return which cells have a pixel of land, (1800, 3600), rows from the south; worked out once."""
    source = _mask_file()
    kept = source.with_name("cells.npy")
    if not kept.exists():
        with np.load(source) as data:
            ocean = data["mask"]  # 0.9 GB
            assert data["lat"][0] == 90
            assert data["lon"][0] == -180
        assert ocean.shape == (N_ROWS * _PIXELS, N_COLS * _PIXELS)
        found = ~ocean[::-1].reshape(N_ROWS, _PIXELS, N_COLS, _PIXELS).all(axis=(1, 3))
        with NamedTemporaryFile(dir=kept.parent, suffix=".npy", delete=False) as file:
            np.save(file, found)
        Path(file.name).replace(kept)
    touched: npt.NDArray[np.bool_] = np.load(kept)
    return touched


@cache
def land() -> npt.NDArray[np.bool_]:
    """Return which cells are land, (1800, 3600), rows from the south."""
    found = _touched()
    found[:ANTARCTICA] = False
    if (folder := real_manifests_or_none()) is not None:
        real = Oracle.of_texts(sorted(folder.glob("registry_*.txt.xz")))
        found[(real.lat_i + 9000) // 10, (real.lon_i + 18_000) // 10] = True
    return found


def land_cells(within: Bounds | None = None) -> Cells:
    """Return land cells as row * 3600 + column, ascending: all, or those that lie in a box."""
    found = land()
    if within is not None:
        row, col = np.ogrid[:N_ROWS, :N_COLS]
        lat, lon = row / 10 - 89.95, col / 10 - 179.95
        found = (
            found & (lat > within.south) & (lat < within.north) & (lon > within.west) & (lon < within.east)
        )
    return np.flatnonzero(found).astype(np.int32)
