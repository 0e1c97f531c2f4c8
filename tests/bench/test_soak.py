"""A quarter of an hour of 32 clients on the planet: no error, memory and open files flat, latencies by kind.

``SOAK_SECONDS`` sets another length. The catalogue is the planet of ``test_planet.py`` and a few converted
synthetic tiles; the planet is rebuilt twice meanwhile, on the same cores. A second test, half as long, puts
prepared builds in force one after the other.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.bench.planet import CACHE, planet_catalog, planet_manifests
from tests.bench.tables import show
from tests.scale.soak import CLIENTS, WORKERS, Log, rebuild, run, soak_catalog, swaps

pytestmark = [pytest.mark.bench, pytest.mark.release, pytest.mark.timeout(7200)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
SETTLE = SECONDS / 15
"""Seconds after a build, in which it is taken up and what the last one left is collected."""
FLAT = 1.0
"""Growth of a process in MB a minute that counts as flat while no build is made, of some 150 MB."""
SWAY = 0.10
"""Of what it holds, after the first rebuild: holes that the collection after a build gave back fill again."""
BUILD = 15.0
"""MB that a process may hold more after another build: one that is kept has 52 MB of coverage maps alone."""
SWAP_SECONDS = 22.0
"""Between two builds that are put in force; their remains are collected after 15."""


def _catalog() -> Path:
    # The planet was built last from the later manifests; both have the same tile-years.
    return soak_catalog(CACHE / "soak", planet_catalog())


def _show(log: Log, what: str) -> None:
    show(
        f"{what}: {log.seconds:,.0f} s, {CLIENTS} clients, {WORKERS} workers,"
        f" {planet_manifests().tile_years:,} items: {log.requests:,} requests,"
        f" {log.requests / log.seconds:,.0f} a second, {log.sent / 1e9:,.1f} GB, {log.n_errors} errors;"
        f" the clients took {log.client_cpu / log.seconds:.2f} of a core",
        ["request", "n", "median ms", "95 % ms", "99 % ms", "max ms"],
        log.table(),
    )
    print(f"\nAnswers by status: {dict(sorted(log.statuses.items()))}")
    for pid in log.samples[-1].memory:
        held = ", ".join(f"{mb:.0f}" for mb in log.by_minute(pid))
        print(f"\nProcess {pid}, MB that it holds alone, median of each minute: {held}")


def test_soak() -> None:
    catalog, now, later = _catalog(), planet_manifests(), planet_manifests(later=True)
    log = run(catalog, later, [rebuild(catalog, m) for m in (now, later)], SECONDS, every=5)
    _show(log, "Soak")
    spans = ", ".join(f"{a:,.0f} to {b:,.0f} s" for a, b in log.builds)
    print(f"Rebuilds beside it: {spans}; {len(log.generations)} builds were served")
    growth = {span: log.growth(span) for span in log.spans(SETTLE)}
    show(
        "What each process holds alone",
        ["seconds", "process", "median MB", "most MB", "MB a minute", "open files"],
        [
            [
                f"{span[0]:,.0f} to {span[1]:,.0f}",
                pid,
                f"{g.median:.1f}",
                f"{g.most:.1f}",
                f"{g.per_minute:+.3f}",
                f"{g.fewest_files} to {g.most_files}",
            ]
            for span, of in growth.items()
            for pid, g in of.items()
        ],
    )
    assert not log.errors
    assert len(log.generations) == 3
    calm, first, last = growth.values()
    for pid in calm:
        assert calm[pid].per_minute < FLAT, (pid, calm[pid])
        # Two builds at once leave a process larger: once, not with every build.
        held = log.by_minute(pid, log.spans(SETTLE)[1][0])
        assert max(held) - min(held) < SWAY * np.median(held), (pid, held)
        assert last[pid].median - first[pid].median < BUILD, (pid, first[pid], last[pid])
        assert abs(last[pid].most_files - first[pid].most_files) <= CLIENTS / 4, "open files are not flat"


def test_builds_put_in_force_one_after_the_other() -> None:
    catalog, seconds = _catalog(), SECONDS / 2
    log = run(
        catalog,
        planet_manifests(later=True),
        swaps(catalog, max(int(seconds / SWAP_SECONDS), 6)),
        seconds,
        every=2,
    )
    _show(log, f"{len(log.builds)} builds put in force")
    assert not log.errors
    for pid in log.samples[-1].memory:
        before = [g[pid].median for begun, _ in log.builds if (g := log.growth((begun - 5, begun)))]
        print(f"\nProcess {pid}, MB before each: {', '.join(f'{mb:.0f}' for mb in before)}")
        early, late = np.array_split(before[2:], 2)
        assert np.median(late) < 1.1 * np.median(early), (pid, before)
