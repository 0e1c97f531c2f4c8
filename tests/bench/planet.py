"""What the search benchmarks measure on: synthetic manifests over real land, a catalogue built and kept.

The planet has 14.4 million tile-years (:mod:`tests.scale.land` says of which cells), for what the server
must bear; Europe has one million of a block of the grid, sea and all, for the comparison with servers that
take minutes to load that many.
"""

from __future__ import annotations

import random
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from catalog_builder.catalog.index.schema import SCHEMA_VERSION
from catalog_builder.tile.grid import N_COLS
from catalog_builder.tile.years import year_bits
from tests.scale.land import land_cells
from tests.scale.manifests import LANDMASKS, MANIFEST, YEARS, Written, write_manifest, write_manifests
from tests.support.catalogs import build_from

EUROPE_ROWS, EUROPE_COLS = range(1250, 1610), range(1700, 2009)
CACHE = Path(__file__).parents[2] / ".cache" / "bench"
URL = "http://127.0.0.1:8000"
PLANET = CACHE / f"land-{SCHEMA_VERSION}"
"""Folder of the planet's catalogue."""
REPLACED_YEAR = 2025
"""Of which some files were uploaded anew, in the second of the planet's manifests."""


@cache
def planet_manifests(*, later: bool = False) -> Written:
    """Return the planet's manifests, written the first time (20 s); ``later``: with one changed year."""
    folder = CACHE / ("manifests-later" if later else "manifests")
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        write_manifests(folder, land_cells(), [REPLACED_YEAR] if later else [])
        (folder / "whole").touch()
    rows = [pq.read_metadata(folder / name).num_rows for name in (MANIFEST, LANDMASKS)]
    return Written(folder / MANIFEST, folder / LANDMASKS, *rows)


def planet_catalog() -> Path:
    """Return the planet's catalogue folder, built the first time (about two minutes)."""
    if not (PLANET / "index.sqlite").exists():
        build_from(PLANET, *planet_manifests().sources, url=URL)
    return PLANET


def europe_catalog() -> Path:
    """Return the catalogue folder of one million tile-years: latitude 35 to 71, longitude -10 to 20.9."""
    catalog = CACHE / f"europe-{SCHEMA_VERSION}"
    if not (catalog / "index.sqlite").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        manifest = CACHE / "europe.parquet"
        row, col = np.meshgrid(np.array(EUROPE_ROWS), np.array(EUROPE_COLS), indexing="ij")
        cell = (row * N_COLS + col).ravel().astype(np.int32)
        write_manifest(manifest, cell, np.full(len(cell), year_bits(YEARS), np.uint32))
        build_from(catalog, manifest, url=URL)
        manifest.unlink()
    return catalog


def boxes(n: int, side: float = 1.0, seed: int = 1) -> list[tuple[tuple[float, float, float, float], int]]:
    """Return boxes (west, south, east, north) around places on land, each with a year."""
    rng, cell = random.Random(seed), land_cells()
    found = []
    for place in rng.sample(range(len(cell)), n):
        row, col = divmod(int(cell[place]), N_COLS)
        west = min(max(col / 10 - 180 + rng.uniform(-side, 0), -180), 180 - side)
        south = min(max(row / 10 - 90 + rng.uniform(-side, 0), -90), 90 - side)
        found.append(((west, south, west + side, south + side), rng.choice(YEARS)))
    return found
