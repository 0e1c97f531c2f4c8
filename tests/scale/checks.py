"""What a served catalogue answers, against brute force: the same checks for a region and for the planet."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import shapely
from shapely.geometry import mapping

from tests.scale.manifests import YEARS
from tests.support.oracle import Oracle, Rows
from tests.support.paging import follow, ids_of, link_of, ok, walk

COLLECTION = "tessera-v1"
WALKED = 8
"""Pages up to which every page of a question is read; of more, the first four are."""


@dataclass(frozen=True, slots=True)
class Question:
    """A search, and the rows that brute force finds, in order."""

    body: dict[str, Any]
    rows: Rows


def ask(http: httpx.Client, oracle: Oracle, question: Question) -> None:
    """Compare ids, order and count; every page where they are not too many."""
    first = ok(http.post("/search", json=question.body))
    wanted, limit = question.rows, question.body["limit"]
    assert ids_of(first) == oracle.ids(wanted[:limit]), question.body
    if first.get("tessera:matched_exact", True):
        assert first["numberMatched"] == len(wanted), question.body
    else:
        assert first["tessera:matched_at_least"] <= len(wanted), question.body
    if limit < len(wanted) <= WALKED * limit:
        found = [i for page in walk(http, first) for i in page]
        assert found == oracle.ids(wanted), question.body
    elif limit < len(wanted):
        page, at = first, limit
        for _ in range(3):
            following = link_of(page, "next")
            if following is None:
                assert at >= len(wanted), question.body
                break
            page = follow(http, following)
            assert ids_of(page) == oracle.ids(wanted[at : at + limit]), (question.body, at)
            at += limit


class Questions:
    """Draws searches around places that have tiles."""

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self._oracle = oracle
        self._rng = random.Random(seed)

    def draw(self, n: int) -> Iterator[Question]:
        """Yield questions of every kind, in turn."""
        kinds = (self._box, self._years, self._shape, self._ids, self._zone, self._coverage, self._newest)
        for i in range(n):
            yield kinds[i % len(kinds)]()

    def place(self) -> tuple[float, float]:
        """Return a point of land: on an edge or in the middle of a cell, or anywhere in it."""
        row = self._rng.randrange(len(self._oracle))
        aside = self._rng.choice([0.0, 0.05, self._rng.uniform(-0.05, 0.05)])
        lon, lat = int(self._oracle.lon_i[row]), int(self._oracle.lat_i[row])
        return round(lon / 100 + aside, 6), round(lat / 100 + aside, 6)

    def box(self, *sides: float) -> list[float]:
        """Return a box around a place; it may cross the antimeridian."""
        (lon, lat), side = self.place(), self._rng.choice(sides)
        west, east = lon - side / 2, lon + side / 2
        west, east = (west + 360 if west < -180 else west), (east - 360 if east > 180 else east)
        return [round(v, 6) for v in (west, max(lat - side / 2, -90), east, min(lat + side / 2, 90))]

    def _question(self, rows: Rows, **body: Any) -> Question:
        return Question({"limit": self._rng.choice([1, 10, 100, 500]), **body}, rows)

    def _box(self) -> Question:
        box = self.box(0.0, 0.1, 0.5, 2, 10, 60)
        return self._question(self._oracle.in_box(*box), bbox=box)

    def _years(self) -> Question:
        box = self.box(0.3, 1, 5, 30)
        first, last = sorted(self._rng.sample(YEARS, 2))
        rows = self._oracle.in_box(*box)
        year = self._oracle.year[rows]
        # Open before, for every other one; an item stands for its whole year.
        start = self._rng.choice(["..", f"{first}-12-31T23:59:59Z"])
        keep = (year <= last) & ((year >= first) | (start == ".."))
        return self._question(rows[keep], bbox=box, datetime=f"{start}/{last}-01-01T00:00:00Z")

    def _shape(self) -> Question:
        """Ask for a star around a place, or two of them."""
        stars = []
        for _ in range(self._rng.choice([1, 1, 2])):
            (lon, lat), radius = self.place(), self._rng.choice([0.07, 0.4, 2, 6])
            n = self._rng.choice([5, 12, 60])
            angle = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
            reach = radius * np.array([self._rng.uniform(0.4, 1) for _ in angle])
            ring = np.column_stack([lon + reach * np.cos(angle), lat + reach * np.sin(angle)])
            stars.append(shapely.Polygon(np.clip(ring, [-180, -90], [180, 90]).round(6)).buffer(0))
        shape = shapely.union_all(stars)
        year = self._rng.choice(YEARS)
        rows = self._oracle.touching(shape)
        rows = rows[self._oracle.year[rows] == year]
        return self._question(rows, intersects=mapping(shape), datetime=f"{year}-06-01T00:00:00Z")

    def _ids(self) -> Question:
        rows = np.unique(self._rng.sample(range(len(self._oracle)), 20))
        ids = [*self._oracle.ids(rows), "grid_0.15_-89.95_2020", "nonsense"]
        self._rng.shuffle(ids)
        return self._question(rows, ids=ids)

    def _zone(self) -> Question:
        """Ask for a zone's part of a box, or what of the box is not in the zone."""
        box = self.box(8, 20)
        rows = self._oracle.in_box(*box)
        zones, year = self._oracle.zone(rows), self._rng.choice(YEARS)
        zone = int(self._rng.choice(zones.tolist()))
        sign, keep = self._rng.choice([("=", zones == zone), ("<>", zones != zone)])
        rows = rows[keep & (self._oracle.year[rows] == year)]
        text = f'"tessera:utm_zone" {sign} {zone} AND "tessera:year" = {year}'
        return self._question(rows, **{"filter": text, "filter-lang": "cql2-text"}, bbox=box)

    def _coverage(self) -> Question:
        box = self.box(5, 15)
        rows = self._oracle.in_box(*box)
        wanted = self._rng.choice(["partial", "latest", "full"])
        rows = rows[self._oracle.coverage(rows) == wanted]
        tree = {"op": "=", "args": [{"property": "tessera:coverage"}, wanted]}
        return self._question(rows, **{"filter": tree, "filter-lang": "cql2-json"}, bbox=box)

    def _newest(self) -> Question:
        """Ask for the newest first."""
        box = self.box(0.5, 3, 20)
        rows = self._oracle.in_box(*box)
        rows = rows[np.argsort(-self._oracle.year[rows], kind="stable")]
        order = [{"field": "properties.datetime", "direction": "desc"}]
        return self._question(rows, bbox=box, sortby=order)


def check_searches(http: httpx.Client, oracle: Oracle, n: int, seed: int = 1) -> int:
    """Ask ``n`` drawn questions; return how many items they match."""
    matched = 0
    for question in Questions(oracle, seed).draw(n):
        ask(http, oracle, question)
        matched += len(question.rows)
    return matched


def check_the_whole(http: httpx.Client, oracle: Oracle) -> None:
    """Ask without narrowing: the count of all, of each year, and items by other ways."""
    assert ok(http.get("/search", params={"limit": 1}))["numberMatched"] == len(oracle)
    for year in YEARS:
        place = oracle.of_year(year)
        when = f"{year}-01-01T00:00:00Z/{year}-12-31T23:59:59Z"
        found = ok(http.get(f"/collections/{COLLECTION}/items", params={"datetime": when, "limit": 7}))
        assert found["numberMatched"] == place.stop - place.start
        assert ids_of(found) == oracle.ids(np.arange(place.start, place.start + 7))
    (last,) = oracle.ids(np.array([len(oracle) - 1]))
    assert ok(http.get(f"/collections/{COLLECTION}/items/{last}"))["id"] == last


def check_aggregations(http: httpx.Client, oracle: Oracle, boxes: int = 3, seed: int = 2) -> None:
    """Compare counts by year, zone, coverage and degree: of the whole, a year, and boxes."""
    questions = Questions(oracle, seed)
    everything = np.arange(len(oracle))
    newest = everything[oracle.of_year(oracle.newest)]
    asked: list[tuple[Rows, dict[str, str]]] = [
        (everything, {}),
        (newest, {"datetime": f"{oracle.newest}-06-01T00:00:00Z"}),
    ]
    for _ in range(boxes):
        box = questions.box(2, 20)
        asked.append((oracle.in_box(*box), {"bbox": ",".join(map(str, box))}))
    for rows, params in asked:
        degrees = (oracle.lat_i[rows] + 9000) // 100 * 1000 + (oracle.lon_i[rows] + 18000) // 100
        keys, n = np.unique(degrees, return_counts=True)
        wanted = {
            "total_count": len(rows),
            "year_frequency": _counted(oracle.year[rows]),
            "utm_zone_frequency": _counted(oracle.zone(rows)),
            "coverage_frequency": _counted(oracle.coverage(rows)),
            "cog_frequency": {False: len(rows)},
            "grid_degree_frequency": {
                f"{k % 1000 - 180},{k // 1000 - 90}": c
                for k, c in zip(keys.tolist(), n.tolist(), strict=True)
            },
        }
        for name, expected in wanted.items():
            found = ok(http.get("/aggregate", params={"aggregations": name, **params}))
            (document,) = found["aggregations"]
            if name == "total_count":
                assert document["value"] == expected, params
            else:
                buckets = {b["key"]: b["frequency"] for b in document["buckets"]}
                assert buckets == expected, (name, params)


def _counted(values: np.ndarray) -> dict[Any, int]:
    keys, n = np.unique(values, return_counts=True)
    return dict(zip(keys.tolist(), n.tolist(), strict=True))


def check_browsing(http: httpx.Client, oracle: Oracle, year: int, areas: int = 3) -> int:
    """Walk the tree of a year: every 10 degree square, some of their degrees, and those's items.

    Returns how many documents were read.
    """
    rows = np.arange(len(oracle))[oracle.of_year(year)]
    lon, lat = (oracle.lon_i[rows] + 18000) // 100, (oracle.lat_i[rows] + 9000) // 100
    here = f"/collections/{COLLECTION}/browse/{year}"

    def children(path: str, rel: str = "child") -> list[str]:
        return [x["href"].rpartition("/")[2] for x in ok(http.get(path))["links"] if x["rel"] == rel]

    squares = children(here)
    assert set(squares) == {
        f"{x * 10 - 180},{y * 10 - 90},10"
        for x, y in set(zip((lon // 10).tolist(), (lat // 10).tolist(), strict=True))
    }
    degrees = [d for square in squares for d in children(f"{here}/{square}")]
    assert set(degrees) == {
        f"{x - 180},{y - 90},1" for x, y in set(zip(lon.tolist(), lat.tolist(), strict=True))
    }
    assert len(set(degrees)) == len(degrees)
    for degree in random.Random(3).sample(degrees, areas):
        west, south, _ = map(int, degree.split(","))
        inside = rows[(lon == west + 180) & (lat == south + 90)]
        assert sorted(children(f"{here}/{degree}", "item")) == sorted(oracle.ids(inside))
    return 1 + len(squares) + areas


def check_coverage(http: httpx.Client, oracle: Oracle, places: int, seed: int = 4) -> None:
    """Ask the coverage page's look-up at places, half of them anywhere on the globe."""
    questions, rng = Questions(oracle, seed), random.Random(seed)
    assert http.get("/coverage").status_code == 200
    for i in range(places):
        lon, lat = questions.place() if i % 2 else (rng.uniform(-180, 180), rng.uniform(-90, 90))
        found = ok(http.get("/coverage/at", params={"collection": COLLECTION, "lon": lon, "lat": lat}))
        # Cells are half-open; a point on an edge belongs to the cell to the east and north.
        west, south = found["bounds"][:2]
        lon_i, lat_i = round(west * 100) + 5, round(south * 100) + 5
        assert (lon_i - 5) / 100 <= lon < (lon_i + 5) / 100
        assert (lat_i - 5) / 100 <= lat < (lat_i + 5) / 100
        here = np.flatnonzero((oracle.lon_i == lon_i) & (oracle.lat_i == lat_i))
        assert [item["year"] for item in found["items"]] == oracle.year[here].tolist()
        assert found["coverage"] == (oracle.coverage(here[:1]).item() if len(here) else None)


def check_coverage_table(catalog: Path, oracle: Oracle, *arguments: str) -> None:
    """Compare what ``tessera-stac coverage`` counts."""
    command = [sys.executable, "-m", "catalog_builder.cli", "coverage", catalog, "--json", *arguments]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    table = json.loads(done.stdout)
    first = np.unique(oracle.lat_i * 100_000 + oracle.lon_i, return_index=True)[1]
    assert {int(y): n for y, n in table["years"].items()} == _counted(oracle.year)
    assert (table["n_tile_years"], table["n_tiles"]) == (len(oracle), len(first))
    # A tile with one year that is not the newest is partial by that row, the newest alone is latest.
    assert table["classes"] == {"full": 0, "latest": 0, "partial": 0} | _counted(oracle.coverage(first))
