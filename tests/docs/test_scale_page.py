"""docs/scale.md says what docs/scale.py computes, and that computes from what the land is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from catalog_builder.tile.datasets import DATASETS
from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.grid import N_COLS, rasters
from tests.scale.land import land_cells
from tests.scale.manifests import YEARS

SCRIPT = Path(__file__).parents[2] / "docs" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(scale: ModuleType) -> None:
    """`python docs/scale.py` makes its tables anew."""
    page = scale.PAGE.read_text()
    assert scale.filled(page) == page
    for name in scale.TABLES:
        assert f"<!-- table: {name} -->" in page


def test_every_dataset_is_counted(scale: ModuleType) -> None:
    assert set(scale.KNOWN) == {d.directory for d in DATASETS if not d.is_synthetic}
    assert len(YEARS) == scale.N_YEARS


def test_the_mean_tile_of_the_land(scale: ModuleType) -> None:
    """Without the real manifests beside the checkout some islands are missing: 220 cells of 1.6 million."""
    cell = land_cells()
    raster = rasters(cell // N_COLS, cell % N_COLS)
    assert len(cell) == pytest.approx(scale.CELLS, abs=220)
    assert np.mean(raster.height * raster.width) == pytest.approx(scale.MEAN_PIXELS, rel=1e-4)
    pair = npy_size(raster.height, raster.width) + scales_size(raster.height, raster.width)
    assert pair.mean() == pytest.approx(scale.PAIR, rel=1e-4)
