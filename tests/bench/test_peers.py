"""Our server beside stac-fastapi-pgstac and rustac: the same million items and clients, one worker each."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from catalog_builder.catalog.folder import CatalogFolder
from tests.bench.measure import memory_of_tree
from tests.bench.peers import pgstac, pgstac_database, rustac, tessera_on_pgstac
from tests.bench.planet import europe_catalog
from tests.bench.searches import Box, in_box, interval, pages
from tests.bench.serve import Ask, Rate, Server, measure, tessera
from tests.bench.tables import show
from tests.scale.manifests import YEARS

pytestmark = [pytest.mark.bench, pytest.mark.release]

SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
"""Of each measurement."""
N = 100
"""Different requests of a kind."""
FRANCE = (
    (-4.5, 48.4),
    (-1.6, 49.6),
    (2.5, 51.1),
    (8.1, 49.0),
    (6.1, 46.3),
    (7.6, 43.8),
    (3.1, 42.5),
    (-1.7, 43.4),
)
"""About the outline; see :func:`coast`."""
OURS, MENDED, PGSTAC, RUSTAC = "tessera-stac", "tessera-stac on pgSTAC", "stac-fastapi-pgstac", "rustac"


def coast(corners: Sequence[tuple[float, float]], per_side: int = 250) -> list[list[float]]:
    """Return a closed ring through the corners with as many vertices and bays as a country's outline has."""
    ring = []
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        for i in range(per_side):
            t = i / per_side
            bay = 0.08 * math.sin(math.pi * t) * math.sin(61 * t)
            ring.append([round(x0 + t * (x1 - x0) + bay, 5), round(y0 + t * (y1 - y0) - bay, 5)])
    return [*ring, ring[0]]


def _boxes(side: float, seed: int = 1) -> Iterator[tuple[Box, int]]:
    rng = random.Random(seed)
    for _ in range(N):
        west, south = rng.uniform(-10, 20.9 - side), rng.uniform(35, 71 - side)
        yield (west, south, west + side, south + side), rng.choice(YEARS)


@dataclass(frozen=True)
class Kind:
    """A kind of request, and how each server must be asked for it; a missing server cannot do it."""

    name: str
    asks: Mapping[str, Callable[[Server], list[Ask]]]
    count: Callable[[bytes], int] = lambda body: len(json.loads(body)["features"])
    """What of an answer must agree between the servers."""


def _everywhere(asks: list[Ask], *but: str) -> dict[str, Callable[[Server], list[Ask]]]:
    return {name: lambda _: asks for name in (OURS, MENDED, PGSTAC, RUSTAC) if name not in but}


def _page_50(server: Server) -> list[Ask]:
    """Walk to the 50th page of a search; return the requests for pages 41 to 50."""
    return pages(server, in_box((0, 45, 10, 55), 2021), 41, 50)


def _matched(body: bytes) -> int:
    found: int = json.loads(body)["numberMatched"]
    return found


def _kinds() -> list[Kind]:
    small = [Ask(in_box(b, y)) for b, y in _boxes(1)]
    country = {"type": "Polygon", "coordinates": [coast(FRANCE)]}
    polygons = [
        Ask.post(
            {"intersects": country, "datetime": interval(y), "limit": 100, "collections": ["tessera-v1"]}
        )
        for y in YEARS
    ]
    rng = random.Random(2)
    ids = [
        f"/collections/tessera-v1/items/grid_{rng.randrange(-100, 209) / 10 + 0.05:.2f}"
        f"_{rng.randrange(350, 710) / 10 + 0.05:.2f}_{rng.choice(YEARS)}"
        for _ in range(N)
    ]
    by_zone = "&sortby=-properties.tessera:utm_zone"
    sorted_ = [Ask(in_box(b, y, more=by_zone)) for b, y in _boxes(10, 3)]
    by_id = [Ask(in_box(b, y, more="&sortby=-id")) for b, y in _boxes(10, 3)]
    text = quote('"tessera:utm_zone" = 31 AND "tessera:year" >= 2023 AND "tessera:coverage" = \'full\'')
    filters = [Ask(in_box(b, more=f"&filter-lang=cql2-text&filter={text}")) for b, _ in _boxes(10, 4)]
    counted = [
        {"bbox": [round(v, 4) for v in b], "datetime": interval(y), "limit": 1} for b, y in _boxes(10, 5)
    ]
    return [
        Kind("1 degree box, one year, 100 items", _everywhere(small)),
        Kind("country polygon of 2,000 vertices, one year, 100 items", _everywhere(polygons)),
        Kind(
            "one item by id",
            _everywhere([Ask(p) for p in ids]),
            count=lambda body: len(json.loads(body)["id"]),
        ),
        Kind("pages 41 to 50 of 100 items", {OURS: _page_50, MENDED: _page_50, PGSTAC: _page_50}),
        Kind("10 degree box, sorted by UTM zone", _everywhere(sorted_, RUSTAC)),
        Kind("10 degree box, sorted by id, descending", _everywhere(by_id, RUSTAC)),
        Kind("10 degree box with a CQL2 filter", _everywhere(filters, RUSTAC)),
        Kind(
            "count: 10 degree box, one year, 1 item",
            {
                OURS: lambda _: [Ask.post(body) for body in counted],
                MENDED: lambda _: [Ask.post(body) for body in counted],
                # It counts only when asked to, by this member of the body.
                PGSTAC: lambda _: [Ask.post({**body, "conf": {"context": "on"}}) for body in counted],
            },
            count=_matched,
        ),
    ]


def test_beside_other_servers() -> None:
    catalog = europe_catalog()
    n = CatalogFolder(catalog).open_index().collections["tessera-v1"].n_items
    with ExitStack() as stack:
        env, loading = stack.enter_context(pgstac_database())
        makers: dict[str, Callable[[], Server]] = {
            OURS: lambda: tessera(catalog),
            MENDED: lambda: tessera_on_pgstac(env),
            PGSTAC: lambda: pgstac(env),
            RUSTAC: lambda: rustac(f"{catalog}/tessera-v1/items/*/items.parquet"),
        }
        rates: dict[tuple[str, str, int], Rate] = {}
        notes: list[list[str]] = []
        seen: dict[str, dict[str, list[int]]] = {}
        for name, make in makers.items():
            # One at a time: a server that idles still has threads and connections.
            with make() as server:
                for kind in _kinds():
                    if name not in kind.asks:
                        continue
                    asks = kind.asks[name](server)
                    answers = [kind.count(server.ask(a)) for a in asks[:5]]
                    seen.setdefault(kind.name, {})[name] = answers
                    for clients in (1, 8):
                        rates[kind.name, name, clients] = measure(server, asks, clients, SECONDS)
                notes.append([name, f"{server.start_up:.2f}", _memory(name, server, env)])
    table = [
        [kind.name, *(_cells(rates.get((kind.name, name, c))) for c in (1, 8) for name in makers)]
        for kind in _kinds()
    ]
    head = ["request", *(f"{name}, {c} client{'s' * (c > 1)}" for c in (1, 8) for name in makers)]
    show(f"{n:,} items, one worker each: requests a second (median ms / 95 % ms)", head, table)
    show(
        f"Start-up to the first response, memory after the run; pgSTAC took {loading} to load",
        ["server", "start-up s", "memory MB"],
        notes,
    )
    differ = {
        name: answers for name, answers in seen.items() if len({tuple(a) for a in answers.values()}) > 1
    }
    show(
        "Answers that differ (first five requests)",
        ["request", "by server"],
        [[k, str(v)] for k, v in differ.items()],
    )


def _cells(rate: Rate | None) -> str:
    return "cannot" if rate is None else f"{rate.per_second:,.0f} ({rate.median_ms:.1f} / {rate.p95_ms:.0f})"


def _memory(name: str, server: Server, env: Mapping[str, str]) -> str:
    own = memory_of_tree(server.process.pid)
    if name not in (MENDED, PGSTAC):
        return f"{own:,.0f}"
    return f"{own:,.0f} + {memory_of_tree(int(env['POSTGRES_PID'])):,.0f} PostgreSQL"
