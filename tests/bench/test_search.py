"""Search latency over HTTP at 14.4 million items, beside DuckDB on the same stac-geoparquet."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator

import duckdb
import pytest

from tests.bench.planet import boxes, planet_catalog
from tests.bench.serve import Server, tessera
from tests.bench.tables import show

pytestmark = pytest.mark.bench

N = 200


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tessera(planet_catalog()) as running:
        yield running


def _time(calls: list[Callable[[], object]]) -> list[str]:
    for call in calls[:20]:
        call()
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return [f"{statistics.median(times):.2f}", f"{times[int(len(times) * 0.95)]:.2f}", f"{times[-1]:.1f}"]


def _interval(year: int) -> str:
    return f"{year}-01-01T00:00:00Z/{year}-12-31T23:59:59Z"


def test_search_latency(server: Server) -> None:
    def query(box: tuple[float, ...], year: int | None, limit: int = 100) -> str:
        when = f"&datetime={_interval(year)}" if year else ""
        return f"/search?bbox={','.join(f'{v:.4f}' for v in box)}{when}&limit={limit}"

    small = [query(*b) for b in boxes(N)]
    rows = []

    def measure(name: str, paths: list[str], **headers: str) -> None:
        size = statistics.median(len(server.get(p, **headers)) for p in paths[:20])
        rows.append(
            [name, *_time([lambda p=p: server.get(p, **headers) for p in paths]), f"{size / 1e3:,.0f}"]
        )

    measure("1 x 1 degree, one year, limit 100", small)
    measure("the same, gzip", small, **{"Accept-Encoding": "gzip"})
    measure("the same, limit 10", [query(*b, limit=10) for b in boxes(N)])
    measure("10 x 10 degrees, all years, limit 100", [query(b, None) for b, _ in boxes(N, 10)])
    measure("the whole world, one year, limit 100", [f"/search?datetime={_interval(2020)}&limit=100"] * N)
    ids = [f["id"] for f in json.loads(server.get(small[0]))["features"]]
    measure("by id", [f"/search?ids={ids[i % len(ids)]}" for i in range(N)])
    deep = f"/search?bbox=-180,20,180,60&datetime={_interval(2021)}&limit=100"
    paths = []
    for _ in range(50):
        paths.append(deep)
        links = json.loads(server.get(deep))["links"]
        deep = next(x["href"] for x in links if x["rel"] == "next").partition(f":{server.port}")[2]
    measure("page 50 of a continent-wide search", [paths[-1]] * N)
    show(
        f"Search over HTTP, one worker, 14,418,000 items; first answer {server.start_up:.2f} s after start,"
        f" memory {server.own_memory_mb():,.0f} MB and {server.memory_mb():,.0f} MB with the mapped index",
        ["search", "median ms", "95 % ms", "max ms", "kB"],
        rows,
    )


def test_duckdb_on_the_same_parquet() -> None:
    pattern = f"{planet_catalog()}/tessera-v1/items/*/*.parquet"
    with duckdb.connect() as db:
        db.execute(f"SET threads = {os.cpu_count()}")
        sql = (
            "SELECT * FROM read_parquet(?, hive_partitioning = true) WHERE year = ?"
            " AND bbox.xmin <= ? AND bbox.xmax >= ? AND bbox.ymin <= ? AND bbox.ymax >= ? LIMIT 100"
        )
        calls = [
            lambda b=b, y=y: db.execute(sql, [pattern, y, b[2], b[0], b[3], b[1]]).fetchall()
            for b, y in boxes(30)
        ]
        show(
            "DuckDB in process on the same stac-geoparquet (no HTTP, no order, no count)",
            ["search", "median ms", "95 % ms", "max ms"],
            [["1 x 1 degree, one year, limit 100", *_time(calls)]],
        )
