"""The capacity table of docs/operations.md: what so many items need, and what they are served at.

``CAPACITY_PLANET=1`` builds the planet's 14.4 million if they are not there from another benchmark. Clients
run on the same cores as the server, so a machine of its own for them would show more.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.synthetic.demo import MANIFESTS
from catalog_builder.tile.years import year_bits
from tests.bench.measure import memory_of_tree
from tests.bench.planet import PLANET, europe_catalog, planet_catalog
from tests.bench.searches import in_box
from tests.bench.serve import Ask, Server, measure, tessera
from tests.bench.tables import show
from tests.deploy.nginx_server import lay_out
from tests.support.catalogs import build_from
from tests.support.needs import real_manifests_or_none

pytestmark = [pytest.mark.bench, pytest.mark.release]

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
RUNS = ((1, 8), (1, 32), (2, 8), (2, 32))
"""Workers and clients."""
BLOCK = 65_536
"""Bytes of a range, about a block of a 128-band COG."""


def _catalogs(folder: Path) -> Iterator[Path]:
    """Lend catalogues from small to large; those that need data which is not here are left out."""
    build_from(folder / "britain", MANIFESTS)
    yield folder / "britain"
    if (real := real_manifests_or_none()) is not None:
        build_from(folder / "real", real)
        yield folder / "real"
    yield europe_catalog()
    if os.environ.get("CAPACITY_PLANET") or (PLANET / "index.sqlite").exists():
        yield planet_catalog()


def _asks(catalog: Path) -> dict[str, list[Ask]]:
    """Return requests that find something, spread over the catalogue."""
    index = CatalogFolder(catalog).open_index()
    record = max(index.collections.values(), key=lambda r: r.n_items)
    rng = random.Random(7)
    cells, masks = index.coverage(record.ordinal)
    boxes = []
    for at in rng.sample(range(len(cells)), 200):
        row, col = divmod(int(cells[at]), 3600)
        west, south = min(max(col / 10 - 180.5, -180), 179), min(max(row / 10 - 90.5, -90), 89)
        year = rng.choice([y for y in record.years if int(masks[at]) & year_bits([y])])
        box = (west, south, west + 1, south + 1)
        boxes.append(Ask(in_box(box, year, more=f"&collections={record.id}")))
    with tessera(catalog) as server:
        pages = [json.loads(server.ask(Ask(box.path.replace("limit=100", "limit=1")))) for box in boxes]
    ids = [f["id"] for page in pages for f in page["features"]]
    assert len(ids) == len(boxes)
    return {
        "box of 1 degree, a year, 100 items": boxes,
        "an item": [Ask(f"/collections/{record.id}/items/{i}") for i in ids],
        "search by id": [Ask(f"/search?collections={record.id}&ids={i}") for i in ids],
    }


def _megabytes(*files: Path) -> float:
    return sum(f.stat().st_size for f in files) / 1e6


def test_capacity_of_searches(tmp_path: Path) -> None:
    sizes, rates = [], []
    for catalog in _catalogs(tmp_path):
        index = CatalogFolder(catalog).open_index()
        items = sum(r.n_items for r in index.collections.values())
        parquet = _megabytes(*(p for c in index.collections for p in (catalog / c).rglob("*.parquet")))
        disk = _megabytes(index.path)
        asks = _asks(catalog)
        figures: dict[str, list[str]] = {name: [] for name in asks}
        started = memory = 0.0
        for workers, clients in RUNS:
            with tessera(catalog, workers) as server:
                for name, requests in asks.items():
                    figures[name].append(f"{measure(server, requests, clients, SECONDS).per_second:,.0f}")
                if (workers, clients) == RUNS[0]:
                    started, memory = server.start_up, memory_of_tree(server.process.pid)
        sizes.append(
            [
                f"{items:,}",
                f"{disk:,.0f}",
                f"{parquet:,.0f}",
                f"{(disk + parquet) * 1e6 / items:,.0f}",
                f"{memory:,.0f}",
                f"{started:.1f}",
            ]
        )
        rates += [[f"{items:,}", name, *found] for name, found in figures.items()]
    show(
        "Disk and memory",
        ["items", "index MB", "parquet MB", "bytes an item", "a worker MB (PSS)", "first response s"],
        sizes,
    )
    heads = [f"{w} worker{'s' * (w > 1)}, {c} clients" for w, c in RUNS]
    show("Requests a second", ["items", "request", *heads], rates)


def test_capacity_of_ranges(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, MANIFESTS)
    file = catalog / "cogs" / "v1" / "2024" / "grid_0.05_52.05" / "x_embeddings.tif"
    file.parent.mkdir(parents=True)
    file.write_bytes(np.random.default_rng(1).bytes(1 << 27))
    starts = np.random.default_rng(2).integers(0, (1 << 27) - BLOCK, 500).tolist()
    path = f"/data/{file.relative_to(catalog)}"
    asks = [Ask(path, range=f"bytes={at}-{at + BLOCK - 1}") for at in starts]
    rows = []
    for workers, clients in RUNS:
        with tessera(catalog, workers) as api:
            found = [measure(api, asks, clients, SECONDS)]
            folder = tmp_path / f"nginx-{workers}-{clients}"
            folder.mkdir()
            command, site = lay_out(folder, catalog, api.port, "plain.conf")
            with Server(command, site.port) as proxy:
                found.append(measure(proxy, asks, clients, SECONDS))
        for name, rate in zip(("the API", "nginx"), found, strict=True):
            megabytes = rate.per_second * BLOCK / 1e6
            rows.append(
                [
                    name,
                    workers,
                    clients,
                    f"{rate.per_second:,.0f}",
                    f"{megabytes:,.0f}",
                    f"{rate.median_ms:.1f}",
                ]
            )
    show(
        "Ranges of 64 kB of a converted tile, from the page cache",
        ["served by", "workers", "clients", "requests/s", "MB/s", "median ms"],
        rows,
    )
