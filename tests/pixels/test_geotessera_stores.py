"""Windows of tile-years in stores are what geotessera 0.11 reads there: both layouts, both hemispheres."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.pixels.container.table import place_below
from catalog_builder.pixels.read import read_window
from catalog_builder.pixels.values import Quantized
from catalog_builder.pixels.window import Window
from catalog_builder.tile.grid import PIXEL
from tests.conftest import SUPPORT, plain_environment
from tests.support.pixels import same
from tests.support.sample_stores import YEAR, SampleStores

pytestmark = pytest.mark.slow
EACH = 60
"""Windows of each tile."""


@pytest.mark.parametrize("container", ["zarr", "icechunk"])
def test_hundreds_of_windows(
    container: str, sample_stores: SampleStores, geotessera11: Path, tmp_path: Path
) -> None:
    """Anywhere in a tile's raster, whose edges are the neighbours', or those of the zone."""
    store = str(getattr(sample_stores, container).store)
    rng, asked, ours = np.random.default_rng(11), [], []
    for written in sample_stores.npy.written:
        tile, raster = written.tile, written.tile.raster()
        place = place_below(store, tile, YEAR, "store")
        for n in range(EACH):
            height, width = (int(v) for v in rng.integers(1, 80, 2))
            height, width = min(height, raster.height), min(width, raster.width)
            row, col = (int(rng.integers(0, m + 1)) for m in (raster.height - height, raster.width - width))
            if n < 4:  # the corners
                row, col = (raster.height - height) * (n // 2), (raster.width - width) * (n % 2)
            found = read_window(place, Window(row, col, height, width))
            assert isinstance(found, Quantized)
            ours.append(found)
            west = raster.transform.c + col * PIXEL
            top = raster.transform.f - row * PIXEL - 10_000_000 * (tile.lat < 0)
            bbox = [west, top - height * PIXEL, west + width * PIXEL, top]
            asked.append({"zone": tile.utm_zone, "year": YEAR, "bbox": bbox})
    script, out = SUPPORT / "geotessera11.py", tmp_path / "o.npz"
    command = [geotessera11, script, "read", store, out, json.dumps(asked)]
    environment = plain_environment(MPLBACKEND="agg", MPLCONFIGDIR="/tmp")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(ours) == 4 * EACH
    with np.load(out) as theirs:
        for n, found in enumerate(ours):
            assert same(found.codes, theirs[f"codes_{n}"]), asked[n]
            # geotessera, too, gives NaN where a scale is infinite
            assert same(found.scales, theirs[f"scales_{n}"]), asked[n]
            assert same(found.dequantized(), theirs[f"values_{n}"]), asked[n]
    assert sum(np.isnan(found.scales).any() for found in ours) > EACH // 4
