"""What docs/scale.md computes with is what the land is, and its disks are what it computes with."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.tile.datasets import DATASETS
from catalog_builder.tile.files import npy_size, scales_size
from catalog_builder.tile.grid import N_COLS, rasters
from tests.scale.land import land_cells
from tests.scale.manifests import YEARS

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15}


def _rows(head: str) -> list[list[str]]:
    """Return the cells of the table with a header."""
    _, _, text = PAGE.partition(f"\n| {head} |")
    lines = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _number(text: str) -> float:
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * UNITS.get(unit, 1)


def _stated(pattern: str) -> float:
    found = re.search(pattern, PAGE)
    assert found is not None, pattern
    return _number(found[1])


def test_every_dataset_is_counted() -> None:
    *each, everything = _rows("dataset")
    assert {row[0].strip("`") for row in each} == {d.directory for d in DATASETS if d.npy is not None}
    cells = _stated(r"the ([\d,]+) cells of 0\.1 degree")
    assert {_number(row[2]) for row in each} == {cells * len(YEARS)}
    assert _number(everything[2]) == cells * len(YEARS) * len(each)


def test_disks_are_bytes_times_tile_years() -> None:
    *each, everything = _rows("dataset")
    counts = [_number(each[0][1]), _number(each[0][2]), _number(everything[2])]
    rows = _rows("data | bytes per tile-year | v1 as published")
    assert len(rows) == 9
    for row in rows:
        bytes_each = _number(row[1])
        for count, size in zip(counts, row[2:], strict=True):
            # as many digits as are shown, of the bytes as of the product
            assert _number(size) == pytest.approx(bytes_each * count, rel=6e-3, abs=0.5 * count), row


@pytest.mark.service
def test_the_mean_tile_of_the_land() -> None:
    """Without the real manifests beside the checkout some islands are missing: 220 cells of 1.6 million."""
    cell = land_cells()
    raster = rasters(cell // N_COLS, cell % N_COLS)
    assert len(cell) == pytest.approx(_stated(r"the ([\d,]+) cells of 0\.1 degree"), abs=220)
    pixels = _stated(r"([\d,]+) pixels \(exact, by the grid's formula")
    assert np.mean(raster.height * raster.width) == pytest.approx(pixels, rel=1e-4)
    pair = npy_size(raster.height, raster.width) + scales_size(raster.height, raster.width)
    (source,) = (row for row in _rows("data | bytes per tile-year | v1 as published") if "npy" in row[0])
    assert pair.mean() == pytest.approx(_number(source[1]), rel=1e-4)
