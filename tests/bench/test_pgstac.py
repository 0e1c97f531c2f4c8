"""The figures of docs/pgstac.md: all real tile-years of July 2025 in pgSTAC, loaded and served."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from catalog_builder.catalog.folder import CatalogFolder
from tests.bench.measure import memory_of_tree
from tests.bench.peers import DATABASE, pgstac, tessera_on_pgstac
from tests.bench.searches import Box, in_box, pages
from tests.bench.serve import Ask, Server, measure, tessera
from tests.bench.tables import show
from tests.conformance.postgres import psql, running
from tests.support.backends import dsn_of, load
from tests.support.catalogs import build_from
from tests.support.needs import real_manifests

pytestmark = [pytest.mark.bench, pytest.mark.release]
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))


def _asks() -> dict[str, Callable[[Server], list[Ask]]]:
    rng = random.Random(11)

    def boxes(side: float) -> list[Box]:
        corners = [(rng.uniform(-9, 1 - side), rng.uniform(50, 58 - side)) for _ in range(50)]
        return [(w, s, w + side, s + side) for w, s in corners]

    one, five = boxes(1), boxes(5)
    text = quote('"tessera:utm_zone" = 30 AND "tessera:coverage" = \'full\'')

    def items(server: Server) -> list[Ask]:
        page = json.loads(server.get(in_box((-5, 50, 1, 55), 2024)))
        return [Ask(f"/collections/tessera-v1/items/{f['id']}") for f in page["features"]]

    return {
        "1 degree box, one year, 100 items": lambda _: [Ask(in_box(b, 2024)) for b in one],
        "an item": items,
        "pages 6 to 10 of 100 items": lambda server: pages(server, in_box((-10, 48, 2, 60), 2024), 6, 10),
        "5 degree box with a CQL2 filter": lambda _: [
            Ask(in_box(b, more=f"&filter-lang=cql2-text&filter={text}")) for b in five
        ],
        "5 degree box sorted by id, descending": lambda _: [
            Ask(in_box(b, 2024, more="&sortby=-id")) for b in five
        ],
    }


def test_loading_and_serving(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, real_manifests())
    folder = Path(tempfile.mkdtemp(prefix="tessera-bench-pgstac-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg", shared_buffers="1GB") as env:
            _measure(catalog, env, tmp_path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(catalog: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    psql(env, f"CREATE DATABASE {DATABASE}")
    dsn = dsn_of(env, DATABASE)
    loads = [_load("first", catalog, dsn, migrate=True), _load("nothing changed", catalog, dsn)]
    later = [p for p in sorted(real_manifests().glob("registry_*.txt.xz")) if "2017" not in p.name]
    build_from(catalog, *later)
    loads.append(_load("one year less", catalog, dsn))
    psql(env, "VACUUM ANALYZE", DATABASE)
    size = int(psql(env, f"SELECT pg_database_size('{DATABASE}')")) / 1e6
    n = CatalogFolder(catalog).open_index().collections["tessera-v1"].n_items
    show(
        f"Loads; {n:,} items are {size:,.0f} MB in the database",
        ["load", "items", "loaded", "removed", "seconds"],
        loads,
    )
    servers: dict[str, Callable[[], Server]] = {
        "tessera-stac": lambda: tessera(catalog),
        "tessera-stac on pgSTAC": lambda: tessera_on_pgstac(env),
        "stac-fastapi-pgstac": lambda: pgstac(env),
    }
    rates: dict[str, list[str]] = {name: [] for name in _asks()}
    notes = []
    for name, start in servers.items():
        with start() as server:
            for kind, make in _asks().items():
                asks = make(server)
                for clients in (1, 8):
                    rate = measure(server, asks, clients, SECONDS)
                    rates[kind].append(f"{rate.per_second:,.0f} ({rate.median_ms:.1f})")
            memory = memory_of_tree(server.process.pid)
            notes.append([name, f"{server.start_up:.1f}", f"{memory:,.0f}"])
    heads = [f"{name}, {c} client{'s' * (c > 1)}" for name in servers for c in (1, 8)]
    show(
        "Requests a second (median ms), one worker", ["request", *heads], [[k, *v] for k, v in rates.items()]
    )
    show("Servers", ["server", "first response s", "memory MB"], notes)


def _load(name: str, catalog: Path, dsn: str, **options: Any) -> list[str]:
    began = time.perf_counter()
    done = load(catalog, dsn, **options)
    seconds = time.perf_counter() - began
    return [name, f"{done.items:,}", f"{done.loaded:,}", f"{done.removed:,}", f"{seconds:.1f}"]
