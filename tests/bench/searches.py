"""How the benchmarks word their searches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from urllib.parse import urlsplit

from tests.bench.serve import Ask, Server

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""


def interval(year: int) -> str:
    """Return a year as ``datetime`` has it."""
    return f"{year}-01-01T00:00:00Z/{year}-12-31T23:59:59Z"


def comma(box: Sequence[float]) -> str:
    """Return a box as ``bbox`` has it."""
    return ",".join(f"{v:.4f}" for v in box)


def in_box(box: Sequence[float], year: int | None = None, limit: int = 100, more: str = "") -> str:
    """Return the path of a search in a box; ``more`` are parameters, ``&`` first."""
    when = f"&datetime={interval(year)}" if year else ""
    return f"/search?bbox={comma(box)}{when}&limit={limit}{more}"


def pages(server: Server, path: str, first: int, last: int) -> list[Ask]:
    """Walk along the next links of a search; return the requests for some of its pages, counted from 1."""
    return [Ask(p) for p in islice(_walk(server, path), first - 1, last)]


def _walk(server: Server, path: str) -> Iterator[str]:
    while True:
        yield path
        links = json.loads(server.get(path))["links"]
        href = urlsplit(next(x["href"] for x in links if x["rel"] == "next"))
        path = f"{href.path}?{href.query}"
