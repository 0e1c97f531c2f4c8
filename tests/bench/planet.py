"""What the search benchmarks measure on: synthetic tile-years, a catalogue built once and kept.

The planet has 14.4 million, for what the server must bear; Europe has one million, for the comparison
with servers that take minutes to load that many.
"""

from __future__ import annotations

import random
from pathlib import Path

from catalog_builder.index import SCHEMA_VERSION
from tests.bench.tables import YEARS, write_planet
from tests.catalogs import build_from

ROWS, COLS = range(1100, 1545), range(3600)
"""Latitude 20 to 64.5, all longitudes."""
EUROPE_ROWS, EUROPE_COLS = range(1250, 1610), range(1700, 2009)
CACHE = Path(__file__).parents[2] / ".cache" / "bench"


def planet_catalog() -> Path:
    """Return the planet's catalogue folder, building it the first time (about two minutes)."""
    return _built("planet", ROWS, COLS)


def europe_catalog() -> Path:
    """Return the catalogue folder of one million tile-years: latitude 35 to 71, longitude -10 to 20.9."""
    return _built("europe", EUROPE_ROWS, EUROPE_COLS)


def _built(name: str, rows: range, cols: range) -> Path:
    catalog = CACHE / f"{name}-{SCHEMA_VERSION}"
    if not (catalog / "index.sqlite").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        manifest = CACHE / f"{name}.parquet"
        write_planet(manifest, rows, cols)
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
