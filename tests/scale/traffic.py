"""What the clients of a soak ask: every kind of request, in the proportions of a public server.

A kind draws a request and says what its answer must be; :func:`kinds` has them all with their weights.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from tests.scale.checks import COLLECTION, Questions
from tests.scale.client import Request, Response
from tests.scale.manifests import YEARS
from tests.support.oracle import Oracle

SYNTHETIC = "tessera-synthetic"
KNOWN = 120
"""Boxes whose answer brute force has worked out beforehand."""
WRONG = (
    "/search?bbox=1,2,3",
    "/search?bbox=1,2,3,north",
    "/search?bbox=0,60,1,50",
    "/search?limit=0",
    "/search?datetime=yesterday",
    "/search?datetime=2024-01-01T00:00:00Z/2020-01-01T00:00:00Z",
    "/search?colections=tessera-v1",
    "/search?filter=nothing%20=%201",
    "/search?filter=%22tessera:year%22%20=%20'a",
    "/search?sortby=-nothing",
    "/search?token=abc",
    "/search?intersects=%7B%22type%22:%22Polygon%22%7D",
    "/aggregate?aggregations=everything",
    "/coverage/tiles/tessera-v1/2/9/9.png",
    "/coverage/at?collection=tessera-v1&lon=east&lat=1",
)

Draw = Callable[[random.Random], "Asked"]


class WrongAnswerError(AssertionError):
    """An answer that is not as it must be."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and what must be true of its answer."""

    request: Request
    status: int = 200
    check: Callable[[Response], None] | None = None

    def examine(self, response: Response) -> None:
        """Check an answer.

        Raises
        ------
        WrongAnswerError
            Saying what is wrong with it.
        """
        if response.status != self.status:
            raise WrongAnswerError(f"{response.status} {response.body[:200]!r}, expected {self.status}")
        if self.check is not None:
            self.check(response)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request."""

    name: str
    weight: float
    draw: Draw
    follow: int = 0
    """Pages that are read on from the first, one after another; each counts as a request."""


def items(limit: int, inside: list[float] | None = None) -> Callable[[Response], None]:
    """Return a check of a page of items: at most so many, each of them touching a box."""

    def check(response: Response) -> None:
        found = response.json()
        features = found["features"]
        if not len(features) == found["numberReturned"] <= limit:
            raise WrongAnswerError(f"{len(features)} items, asked for {limit}")
        for feature in features if inside is not None else ():
            west, south, east, north = feature["bbox"]
            low, bottom, high, top = inside
            along = low <= east and west <= high if low <= high else low <= east or west <= high
            if not (along and bottom <= north and south <= top):
                raise WrongAnswerError(f"{feature['id']} is not in {inside}")

    return check


def exactly(ids: list[str], matched: int) -> Callable[[Response], None]:
    """Return a check that a page has these items, of so many."""

    def check(response: Response) -> None:
        found = response.json()
        if [f["id"] for f in found["features"]] != ids or found["numberMatched"] != matched:
            raise WrongAnswerError(f"expected {matched} with {ids[:2]}..., found {found['numberMatched']}")

    return check


def json_with(*names: str) -> Callable[[Response], None]:
    """Return a check that the answer is an object with some members."""

    def check(response: Response) -> None:
        missing = set(names) - set(response.json())
        if missing:
            raise WrongAnswerError(f"without {', '.join(sorted(missing))}")

    return check


def begins(*starts: bytes, size: int | None = None) -> Callable[[Response], None]:
    """Return a check of the body's first bytes, and of its size."""

    def check(response: Response) -> None:
        if not response.body.startswith(starts) or size not in (None, len(response.body)):
            raise WrongAnswerError(f"{len(response.body)} bytes that begin {response.body[:20]!r}")

    return check


class Traffic:
    """Draws requests around places that have tiles.

    Parameters
    ----------
    files
        Paths of converted files below ``/data``, and of local source files below ``/source``.
    """

    def __init__(self, oracle: Oracle, files: list[str], sources: list[str], seed: int = 5) -> None:
        self._oracle = oracle
        self._files, self._sources = files, sources
        self._places = Questions(oracle, seed)
        rng = random.Random(seed)
        self._known = [self._answered(rng) for _ in range(KNOWN)]
        cells = [(z, x, y) for z in range(6) for x in range(1 << z) for y in range(1 << z)]
        self._map_tiles = rng.sample(cells, 300)

    def _answered(self, rng: random.Random) -> Asked:
        box, limit = self._places.box(0.3, 1, 4), rng.choice([5, 20, 100])
        rows, year = self._oracle.in_box(*box), rng.choice([None, *YEARS])
        if year is not None:
            rows = rows[self._oracle.year[rows] == year]
        path = f"/search?bbox={_text(box)}&limit={limit}" + (f"&datetime={_interval(year)}" if year else "")
        return Asked(Request(path), check=exactly(self._oracle.ids(rows[:limit]), len(rows)))

    def kinds(self) -> list[Kind]:
        """Return every kind, and how often it is asked among 100."""
        return [
            Kind("box of 1 degree, a year, 100 items", 12, self._box(1, 100)),
            Kind("the same, gzip", 8, self._box(1, 100, gzip=True)),
            Kind("box whose result is known", 6, lambda rng: rng.choice(self._known)),
            Kind("box of 10 degrees, all years, 100 items", 5, self._box(10, 100, years=False)),
            Kind("polygon of 60 vertices, gzip", 6, self._polygon),
            Kind("20 ids", 4, self._ids),
            Kind("an item", 8, self._item),
            Kind("an item, 304", 2, self._item_again),
            Kind("pages 1 to 6 of 10 degrees, gzip", 1.2, self._box(10, 100, gzip=True), follow=5),
            Kind("CQL2: zone, year, not an area", 5, self._cql2),
            Kind("sorted by time, descending", 3, self._sorted("-datetime")),
            Kind("sorted by id", 1, self._sorted("-id", side=3)),
            Kind("count of a filter over 40 degrees", 1, self._count),
            Kind("aggregation of a box", 3, self._aggregation),
            Kind("collection", 3, self._fixed(f"/collections/{COLLECTION}", json_with("extent", "links"))),
            Kind("collections", 1, self._fixed("/collections", json_with("collections"))),
            Kind("queryables", 2, self._fixed("/queryables", json_with("properties"))),
            Kind("landing page, HEAD", 1, lambda _: Asked(Request("/", "HEAD"))),
            Kind("browse", 2, self._browse),
            Kind("coverage page", 0.3, self._fixed("/coverage", begins(b"<!doctype", b"<!DOCTYPE"))),
            Kind("coverage map tile", 6, self._map_tile),
            Kind("coverage of a place", 1, self._at),
            Kind("items with bands for stackstac", 1.5, self._bands),
            Kind("COG, range of 64 kB", 7, self._range(self._files, "/data/", 206)),
            Kind("COG, HEAD", 1, self._head),
            Kind("direct access, VRT", 3, self._raw),
            Kind("direct access, redirect", 1, self._redirect),
            Kind("direct access, range of 64 kB", 3, self._range(self._sources, "/source/", 206)),
            Kind("wrong, 400", 2, self._wrong),
        ]

    def _around(self, rng: random.Random, side: float) -> list[float]:
        lon, lat = self._place(rng)
        west = min(max(lon - rng.uniform(0, side), -180), 180 - side)
        south = min(max(lat - rng.uniform(0, side), -90), 90 - side)
        return [round(v, 4) for v in (west, south, west + side, south + side)]

    def _place(self, rng: random.Random) -> tuple[float, float]:
        row = rng.randrange(len(self._oracle))
        return int(self._oracle.lon_i[row]) / 100, int(self._oracle.lat_i[row]) / 100

    def _id(self, rng: random.Random) -> str:
        (found,) = self._oracle.ids([rng.randrange(len(self._oracle))])  # type: ignore[arg-type]
        return found

    def _box(self, side: float, limit: int, *, years: bool = True, gzip: bool = False) -> Draw:
        def draw(rng: random.Random) -> Asked:
            box = self._around(rng, side)
            when = f"&datetime={_interval(rng.choice(YEARS))}" if years else ""
            headers = {"accept-encoding": "gzip"} if gzip else {}
            path = f"/search?collections={COLLECTION}&bbox={_text(box)}&limit={limit}{when}"
            return Asked(Request(path, headers=headers), check=items(limit, box))

        return draw

    def _polygon(self, rng: random.Random) -> Asked:
        (lon, lat), radius = self._place(rng), rng.uniform(0.2, 3)
        ring = []
        for i in range(60):
            reach, angle = radius * rng.uniform(0.5, 1), 2 * math.pi * i / 60
            x, y = lon + reach * math.cos(angle), lat + reach * math.sin(angle)
            ring.append([round(min(max(x, -180), 180), 5), round(min(max(y, -90), 90), 5)])
        body = {
            "collections": [COLLECTION],
            "intersects": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
            "datetime": _interval(rng.choice(YEARS)),
            "limit": 50,
        }
        box = [max(lon - radius, -180), max(lat - radius, -90), min(lon + radius, 180), min(lat + radius, 90)]
        request = Request("/search", "POST", body, {"accept-encoding": "gzip"})
        return Asked(request, check=items(50, box))

    def _ids(self, rng: random.Random) -> Asked:
        rows = sorted({rng.randrange(len(self._oracle)) for _ in range(20)})
        ids = self._oracle.ids(rows)  # type: ignore[arg-type]
        body = {"ids": rng.sample(ids, len(ids)), "collections": [COLLECTION], "limit": 50}
        return Asked(Request("/search", "POST", body), check=exactly(ids, len(ids)))

    def _item(self, rng: random.Random) -> Asked:
        item = self._id(rng)

        def check(response: Response) -> None:
            if response.json()["id"] != item:
                raise WrongAnswerError(f"asked for {item}")

        return Asked(Request(f"/collections/{COLLECTION}/items/{item}"), check=check)

    def _item_again(self, rng: random.Random) -> Asked:
        """Draw a validator that any representation matches: what a cache does, whatever the build."""
        path = f"/collections/{COLLECTION}/items/{self._id(rng)}"
        return Asked(Request(path, headers={"if-none-match": "*"}), 304)

    def _cql2(self, rng: random.Random) -> Asked:
        box = self._around(rng, 12)
        inside = [box[0] + 3, box[1] + 3, box[0] + 5, box[1] + 5]
        shape = f"S_INTERSECTS(geometry, BBOX({_text(inside)}))"
        zone = int((box[0] + 186) // 6)
        text = f'"tessera:year" = {rng.choice(YEARS)} AND NOT {shape} AND "tessera:utm_zone" <> {zone}'
        path = f"/search?bbox={_text(box)}&limit=20&filter-lang=cql2-text&filter={quote(text)}"
        return Asked(Request(path), check=items(20, box))

    def _sorted(self, order: str, side: float = 10) -> Draw:
        def draw(rng: random.Random) -> Asked:
            box = self._around(rng, side)
            return Asked(Request(f"/search?bbox={_text(box)}&limit=20&sortby={order}"), check=items(20, box))

        return draw

    def _count(self, rng: random.Random) -> Asked:
        box = self._around(rng, 40)
        text = quote("\"tessera:coverage\" = 'partial'")
        return Asked(Request(f"/search?bbox={_text(box)}&limit=1&filter={text}"), check=items(1, box))

    def _aggregation(self, rng: random.Random) -> Asked:
        name = rng.choice(["year", "utm_zone", "grid_degree", "coverage"])
        box = self._around(rng, rng.choice([2, 10]))
        path = f"/aggregate?aggregations=total_count,{name}_frequency&bbox={_text(box)}"
        return Asked(Request(path), check=json_with("aggregations"))

    @staticmethod
    def _fixed(path: str, check: Callable[[Response], None]) -> Draw:
        return lambda _: Asked(Request(path), check=check)

    def _browse(self, rng: random.Random) -> Asked:
        lon, lat = self._place(rng)
        size = rng.choice([10, 1])
        west, south = math.floor(lon / size) * size, math.floor(lat / size) * size
        # The newest year has every tile that has any, but for a few.
        path = f"/collections/{COLLECTION}/browse/{YEARS[-1]}/{west},{south},{size}"
        return Asked(Request(path), check=json_with("links"))

    def _map_tile(self, rng: random.Random) -> Asked:
        z, x, y = rng.choice(self._map_tiles)
        year = rng.choice(["", f"?year={YEARS[0]}"])
        path = f"/coverage/tiles/{COLLECTION}/{z}/{x}/{y}.png{year}"
        return Asked(Request(path), check=begins(b"\x89PNG"))

    def _at(self, rng: random.Random) -> Asked:
        lon, lat = self._place(rng)
        path = f"/coverage/at?collection={COLLECTION}&lon={lon}&lat={lat}"
        return Asked(Request(path), check=json_with("items", "tile"))

    def _bands(self, rng: random.Random) -> Asked:
        box = self._around(rng, 1)
        return Asked(Request(f"/search?bbox={_text(box)}&limit=5&view=bands"), check=items(5, box))

    @staticmethod
    def _range(paths: list[str], prefix: str, status: int) -> Draw:
        def draw(rng: random.Random) -> Asked:
            start, size = rng.randrange(0, 1_000_000), 65_536
            headers = {"range": f"bytes={start}-{start + size - 1}"}
            return Asked(
                Request(prefix + quote(rng.choice(paths)), headers=headers), status, begins(b"", size=size)
            )

        return draw

    def _head(self, rng: random.Random) -> Asked:
        return Asked(Request(f"/data/{quote(rng.choice(self._files))}", "HEAD"))

    def _lane(self, rng: random.Random, end: str) -> Request:
        tile, _, year = self._id(rng).rpartition("_")
        return Request(f"/source/v1/{year}/{tile}/{tile}{end}")

    def _raw(self, rng: random.Random) -> Asked:
        return Asked(self._lane(rng, rng.choice([".vrt", "_f32.vrt", "_b017.vrt"])), check=begins(b"<VRT"))

    def _redirect(self, rng: random.Random) -> Asked:
        return Asked(self._lane(rng, ".npy"), 301)

    @staticmethod
    def _wrong(rng: random.Random) -> Asked:
        return Asked(Request(rng.choice(WRONG)), 400, json_with("code", "description"))


def following(response: Response) -> Iterator[str]:
    """Yield the path of the next page, if there is one."""
    for link in response.json()["links"]:
        if link["rel"] == "next":
            yield "/" + link["href"].split("/", 3)[3]


def _interval(year: int | None) -> str:
    return f"{year}-01-01T00:00:00Z/{year}-12-31T23:59:59Z"


def _text(box: list[float]) -> str:
    return ",".join(f"{v:g}" if v == round(v) else repr(round(v, 6)) for v in box)
