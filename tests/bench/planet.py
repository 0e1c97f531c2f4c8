"""The planet that the search benchmarks share: 14.4 million synthetic tile-years, built once."""

from __future__ import annotations

import random
from pathlib import Path

from tests.bench.tables import YEARS, write_planet
from tests.catalogs import build_from

ROWS, COLS = range(1100, 1545), range(3600)
"""Latitude 20 to 64.5, all longitudes."""
CACHE = Path(__file__).parents[2] / ".cache" / "bench"


def planet_catalog() -> Path:
    """Return the catalogue folder, building it the first time (about two minutes)."""
    catalog = CACHE / "planet"
    if not (catalog / "index.sqlite").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        manifest = CACHE / "manifest.parquet"
        write_planet(manifest, ROWS, COLS)
        build_from(catalog, manifest, url="http://127.0.0.1:8000")
        manifest.unlink()
    return catalog


def boxes(n: int, side: float = 1.0, seed: int = 1) -> list[tuple[tuple[float, float, float, float], int]]:
    """Return boxes (west, south, east, north) off the grid's lines, each with a year."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        west, south = rng.uniform(-180, 180 - side), rng.uniform(20, 64.5 - side)
        found.append(((west, south, west + side, south + side), rng.choice(YEARS)))
    return found
