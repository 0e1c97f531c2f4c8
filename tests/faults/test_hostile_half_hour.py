"""Everything of ``tests/faults/hostile.py`` beside ordinary searches.

Short here; half an hour with ``HOSTILE_SECONDS=1800 HOSTILE_SLOWER=2``, on a machine with nothing else to do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.server import ROOT, Served, serving
from tests.faults.test_relayed import processes
from tests.faults.test_slow_readers import memory
from tests.scale.soak import soak_catalog
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.paging import ok

SECONDS = float(os.environ.get("HOSTILE_SECONDS", "12"))
QUIET = max(2.0, SECONDS / 10)
CLIENTS = 4
MOST_MEMORY = 500 << 20
SLOWER = float(os.environ.get("HOSTILE_SLOWER", "0"))
"""How many times slower searches may be at the 95th percentile; 0: as slow as the machine is."""


@pytest.mark.timeout(600 + 2 * SECONDS)
def test_hostile_clients_beside_ordinary_ones(tmp_path: Path) -> None:
    """No 5xx but the documented 503, and that to hostile clients alone; memory is bounded."""
    source = write_manifest(tmp_path, 2024, patch(0, 40, 110, 100))
    build_from(tmp_path / "built", source, source_root="https://tiles.example.org/v1")
    catalog = soak_catalog(tmp_path / "catalog", tmp_path / "built")
    with serving(catalog) as served:
        item = _converted(served)
        _searches(served, 2)
        quiet = _searches(served, QUIET)
        # They stand for other machines: where it counts, they must not take the processor from the server.
        command = [*(["nice", "-n", "19"] if SLOWER else []), sys.executable, "-m", "tests.faults.hostile"]
        hostile = subprocess.Popen(
            [*command, served.url, str(SECONDS), item],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            beside = _searches(served, SECONDS)
            output, errors = hostile.communicate(timeout=150)
        finally:
            hostile.kill()
        most, *others = (memory(pid) for pid in (served.process.pid, *processes(served.process.pid)))
        assert served.process.poll() is None
        ok(httpx.get(served.url + "/_mgmt/ready", timeout=30))
    assert "Traceback" not in errors, errors[-2000:]
    assert not hostile.returncode
    seen = {
        kind: {int(status): n for status, n in found.items()} for kind, found in json.loads(output).items()
    }
    before, after = (statistics.quantiles(times, n=20)[-1] * 1e3 for times in (quiet, beside))
    print(
        f"\n{SECONDS:g} s: searches' 95th percentile {before:.1f} ms quiet, {after:.1f} ms beside;"
        f" {most >> 20} MB, and {' and '.join(str(n >> 20) for n in others)} MB of the processes beside"
    )
    for kind, found in seen.items():
        print(f"  {kind}: {', '.join(f'{n} x {status}' for status, n in sorted(found.items()))}")
    assert all(seen.values()), "each kind was tried"
    assert {status for found in seen.values() for status in found} <= {0, 200, 400, 413, 415, 429, 503}
    assert seen["forged_tokens"].keys() == {400}
    assert seen["forged_headers"].keys() <= {200, 400}
    assert max(most, *others) < MOST_MEMORY
    assert len(others) == 2, "searches that take long and images were in processes of their own"
    if SLOWER:
        assert after < SLOWER * before


def _converted(served: Served) -> str:
    """Return the path of an item that has map tiles."""
    found = ok(served.get("/collections/tessera-synthetic/items?limit=1&filter=%22tessera:cog%22=true"))[
        "features"
    ][0]
    return f"/collections/tessera-synthetic/items/{found['id']}"


def _searches(served: Served, seconds: float) -> list[float]:
    """Return the times of ordinary searches by some clients; each is answered."""
    end, times, wrong = time.monotonic() + seconds, list[float](), list[str]()

    def search(n: int) -> None:
        with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
            while time.monotonic() < end:
                started = time.monotonic()
                response = client.get(f"/search?bbox=1,{41 + n},2,{42 + n}&limit=20")
                times.append(time.monotonic() - started)
                if response.status_code != 200:
                    wrong.append(f"{response.status_code} {response.text[:200]}")
                time.sleep(0.05)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) <= len(times) / 100, wrong[:5]
    return times
