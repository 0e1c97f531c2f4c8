"""Twenty seconds of the soak on a region: no error, and no file stays open.

``tests/bench/test_soak.py`` does it for a quarter of an hour on the planet, and asserts on memory.
"""

from __future__ import annotations

import os
from pathlib import Path

from catalog_builder.tile.grid import Bounds
from tests.scale.land import land_cells
from tests.scale.manifests import write_manifests
from tests.scale.soak import WORKERS, rebuild, run, soak_catalog
from tests.support.catalogs import build_from
from tests.support.needs import lacks

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
IRELAND = Bounds(-11, 51, -5, 56)


def test_no_error_and_no_file_left_open(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        lacks("this system does not tell in /proc what a process holds")
    cell = land_cells(IRELAND)
    now, later = (write_manifests(tmp_path / name, cell, years) for name, years in (("a", []), ("b", [2025])))
    build_from(tmp_path / "built", *now.sources, url="http://127.0.0.1:8000")
    catalog = soak_catalog(tmp_path / "catalog", tmp_path / "built")
    log = run(catalog, now, [rebuild(catalog, later), rebuild(catalog, now)], SECONDS, every=0.5, clients=8)
    assert not log.errors
    assert len(log.generations) == 3, "both rebuilds were served"
    assert log.statuses[400] > 0
    assert log.requests > 500
    # Each build has an index of its own, so what a swap leaves open shows as a second one. A process that a
    # worker has started looks for a new one when it is asked: it may hold an old one, but not both.
    held = [n for n in log.samples[-1].indexes.values() if n]
    assert len(held) >= WORKERS
    assert set(held) == {1}, held
