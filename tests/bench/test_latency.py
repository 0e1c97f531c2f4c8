"""Box searches of 32 clients, alone and while the same server process reads vectors for others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.tile.grid import TileId
from tests.bench.searches import in_box
from tests.bench.serve import Ask, Server, measure, tessera
from tests.bench.tables import show
from tests.bench.test_vectors import FIRST, YEAR, write_arrays, write_points
from tests.support.catalogs import build_from, write_manifest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("BENCH_SECONDS", "15"))
CLIENTS = 32
N_POINTS = 2_000
READERS = 4
"""Requests for vectors at a time: two are read, and two wait."""
TILES = [TileId.from_row_col(FIRST.row + row, FIRST.col + col) for row in range(3) for col in range(300)]
SENDER = """
import sys, urllib.request
url, body, kind = sys.argv[1], open(sys.argv[2], "rb").read(), sys.argv[3]
while True:
    asked = urllib.request.Request(url, body, {"Content-Type": kind})
    with urllib.request.urlopen(asked) as response:
        while response.read(1 << 20):
            pass
    print("read", flush=True)
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latency")
    write_arrays(folder / "tiles", TILES[:20])
    arrays = folder / "tiles" / "global_0.1_degree_representation"
    about = {"dataset": "synthetic", "url": "http://localhost", "source_root": str(arrays)}
    build_from(folder / "catalog", write_manifest(folder / "manifest", YEAR, TILES), **about)
    write_points(folder / "points.parquet", TILES[:20], N_POINTS)
    return folder / "catalog"


@contextmanager
def reading(server: Server, body: Path, log: Path) -> Iterator[None]:
    """Have the server read vectors for other clients."""
    url = f"http://127.0.0.1:{server.port}/collections/tessera-synthetic/points?f=arrow"
    command = [sys.executable, "-c", SENDER, url, str(body), "application/vnd.apache.parquet"]
    with log.open("w") as out:
        senders = [subprocess.Popen(command, stdout=out, stderr=out) for _ in range(READERS)]
        try:
            yield
        finally:
            for sender in senders:
                sender.terminate()
                sender.wait()


def test_searches_beside_points(catalog: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    west = rng.uniform(TILES[0].lon, TILES[0].lon + 28, 200)
    asks = [Ask(in_box((w, 78.2, w + 1, 78.5), YEAR)) for w in west.tolist()]
    points, log = catalog.parent / "points.parquet", tmp_path / "log"
    rows, rates = [], {}
    with tessera(catalog) as server:
        for name in ("alone", "with points", "alone again"):
            if name == "with points":
                with reading(server, points, log):
                    rates[name] = measure(server, asks, CLIENTS, SECONDS)
            else:
                rates[name] = measure(server, asks, CLIENTS, SECONDS)
            rate = rates[name]
            rows.append([name, f"{rate.per_second:,.0f}", f"{rate.median_ms:.0f}", f"{rate.p95_ms:.0f}"])
    show(f"Box searches of {CLIENTS} clients", ["", "searches/s", "median ms", "95th percentile ms"], rows)
    answered = log.read_text().split()
    assert answered.count("read") > 0, answered[-20:]
    print(f"{answered.count('read')} requests of {N_POINTS:,} points were answered meanwhile")
