"""A quarter of an hour of 32 clients on the planet: no error, memory and open files flat, latencies by kind.

``SOAK_SECONDS`` sets another length. The catalogue is the planet of ``test_planet.py`` and a few converted
synthetic tiles; the planet is rebuilt twice meanwhile, on the same cores.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.planet import CACHE, planet_catalog, planet_manifests
from tests.bench.tables import show
from tests.scale.soak import CLIENTS, WORKERS, run, soak_catalog

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
WARM = 1 / 3
"""Share of the time after which memory must be flat: caches are full then, and one rebuild was served."""
FLAT = 1.0
"""Growth of a process in MB a minute that counts as flat, of some 150 MB that it holds."""


def test_soak() -> None:
    now, later = planet_manifests(), planet_manifests(later=True)
    catalog: Path = soak_catalog(CACHE / "soak", planet_catalog())
    # The planet was built last from the later ones; both have the same tile-years.
    log = run(catalog, [later, now, later], SECONDS, every=5)
    answered = log.requests / log.seconds
    show(
        f"Soak: {log.seconds:,.0f} s, {CLIENTS} clients, {WORKERS} workers, {now.tile_years:,} items:"
        f" {log.requests:,} requests, {answered:,.0f} a second, {log.sent / 1e9:,.1f} GB,"
        f" {log.n_errors} errors; the clients took {log.client_cpu / log.seconds:.2f} of a core",
        ["request", "n", "median ms", "95 % ms", "99 % ms", "max ms"],
        log.table(),
    )
    print(f"\nAnswers by status: {dict(sorted(log.statuses.items()))}")
    spans = ", ".join(f"{a:,.0f} to {b:,.0f} s" for a, b in log.builds)
    print(f"Rebuilds beside it: {spans}; {len(log.generations)} builds were served")
    warm = log.seconds * WARM
    growth = log.growth(warm)
    show(
        f"Memory of each process after the first {warm:,.0f} s, {len(log.samples)} samples in all",
        ["process", "first MB", "last MB", "most MB", "MB a minute", "open files"],
        [
            [
                pid,
                f"{g.first:.1f}",
                f"{g.last:.1f}",
                f"{g.most:.1f}",
                f"{g.per_minute:+.3f}",
                f"{g.fewest_files} to {g.most_files}",
            ]
            for pid, g in growth.items()
        ],
    )
    assert not log.errors
    assert len(log.generations) == 3
    for pid, g in growth.items():
        assert g.per_minute < FLAT, (pid, g)
        # A connection a client and a thread; what a swap left open would add to that.
        assert g.most_files - g.fewest_files <= CLIENTS, (pid, g)
    last = [s.files for s in log.samples if s.at < log.seconds][-1]
    first = next(s.files for s in log.samples if s.at > warm)
    for pid in last.keys() & first.keys():
        assert abs(last[pid] - first[pid]) <= 4, "open files are not flat"
