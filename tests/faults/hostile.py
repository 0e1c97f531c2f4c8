"""All that strangers have done to a server, at once, for some seconds.

``python -m tests.faults.hostile URL SECONDS ITEM``: one thread for each kind. It prints as JSON how often
each kind got which status; 0 is a connection that was closed, by either side, before there was a response.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from api.request.token import seal
from api.search.query import from_texts
from api.settings import Settings
from catalog_builder.tile.grid import TileId

PAUSE = 0.02
"""Seconds between two requests of a kind."""
HELD = 5
"""Clients at the same time that ask for much and read nothing."""

Attack = Callable[[httpx.Client, random.Random], int]


def _status(response: httpx.Response) -> int:
    if response.status_code >= 400:
        assert response.json()["description"], response.text[:200]
    if response.status_code == 503:
        assert "retry-after" in response.headers
    return response.status_code


def _raw(client: httpx.Client, head: str, read: float | None) -> int:
    """Send a head as it is; read the status within some seconds, or leave at once."""
    where = urlsplit(str(client.base_url))
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=30) as sock:
        sock.sendall(head.encode())
        if read is None:
            time.sleep(0.05)
            return 0
        sock.settimeout(read)
        with contextlib.suppress(OSError):
            return int((sock.recv(64).split() or [b"", b"0"])[1])
    return 0


def map_tiles(item: str) -> Attack:
    """Return an attack by map tiles that show one item, and of its collection; each third is waited for."""
    collection = item.partition("/items/")[0]
    box = TileId.from_name(item.rpartition("/")[2].rpartition("_")[0]).bounds

    def attack(client: httpx.Client, rng: random.Random) -> int:
        of, zoom = (item, rng.randrange(15)) if rng.random() < 0.8 else (collection, rng.randrange(9, 15))
        x, y = place_at(zoom, rng.uniform(box.west, box.east), rng.uniform(box.south, box.north))
        path = f"{of}/tiles/WebMercatorQuad/{zoom}/{x}/{y}.png"
        query = rng.choice(["", "?bands=1,2,3", f"?bands={rng.randrange(128)},5,6"]) if of is item else ""
        if rng.random() < 0.6:
            return _raw(client, f"GET {path}{query} HTTP/1.1\r\nHost: a\r\n\r\n", None)
        return _status(client.get(path + query))

    return attack


def place_at(zoom: int, lon: float, lat: float) -> tuple[int, int]:
    """Return column and row of the map tile at a place."""
    north = math.asinh(math.tan(math.radians(lat))) / math.pi
    return int((lon + 180) / 360 * (1 << zoom)), int((1 - north) / 2 * (1 << zoom))


def previews(item: str) -> Attack:
    """Return an attack by images of one item that nobody waits for."""

    def attack(client: httpx.Client, rng: random.Random) -> int:
        return _raw(
            client, f"GET {item}/preview.png?bands={rng.randrange(128)},1,2 HTTP/1.1\r\nHost: a\r\n\r\n", None
        )

    return attack


def huge_pages(client: httpx.Client, rng: random.Random) -> int:
    """Read the largest page there is."""
    return _status(client.get(f"/search?limit=10000&view=bands&bbox=-180,-90,{rng.randrange(180)},90"))


def large_aggregations(client: httpx.Client, rng: random.Random) -> int:
    """Count everything."""
    box = f"-180,-90,{rng.randrange(1, 180)},90"
    return _status(client.get(f"/aggregate?aggregations=grid_degree_frequency,total_count&bbox={box}"))


def forged_tokens(client: httpx.Client, rng: random.Random) -> int:
    """Go to a page that never was, with a right seal."""
    settings = Settings(catalog="")
    given = {"limit": "2", "sortby": rng.choice(["id", "-tessera:valid_fraction", "-datetime,title"])}
    fingerprint = from_texts(given, settings).fingerprint
    body: Any = rng.choice(
        [0, None, [], {}, ["n", 2**63], ["n", "x"], ["p", -1, None, [1]], ["n", 1, 2, 3, 4], 1.5, "next:ff"]
    )
    return _status(client.get("/search", params={**given, "token": seal(body, fingerprint)}))


def filters(client: httpx.Client, rng: random.Random) -> int:
    """Filter by what can be NULL, by many polygons, by every tile-year."""
    ring = "((0 {y}, 1 {y}, 1 {z}, 0 {z}, 0 {y}))"
    polygons = " OR ".join(
        f"S_OVERLAPS(geometry, POLYGON{ring.format(y=y, z=y + 1)})" for y in range(-60, 60, 2)
    )
    cql2 = rng.choice(
        [
            'NOT (10/("tessera:year" - 2020) > 0)',
            '1/("tessera:utm_zone"-30) NOT IN (0,1) AND "tessera:utm_zone"=30',
            "NOT (1/0 = 1)",
            polygons,
            f"\"tessera:year\" * {rng.randrange(9)} > 3 AND title LIKE '%{rng.randrange(99)}%'",
        ]
    )
    return _status(client.get(f"/search?limit=10&filter={quote(cql2)}"))


def forged_headers(client: httpx.Client, rng: random.Random) -> int:
    """Claim another host, or two."""
    if rng.random() < 0.5:
        return _raw(
            client, "GET /collections HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 30
        )
    forged = {
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=1;host=evil.example",
        "X-Forwarded-For": "1.2.3.4",
    }
    return _status(client.get("/collections", headers=forged))


def compressed_bodies(client: httpx.Client, rng: random.Random) -> int:
    """Send what is small and says that it is large."""
    body, kind = rng.choice([(bytes(3_900_000), "gzip"), (b"[" * 3_900_000, "identity")])
    return _status(
        client.post(
            "/search", content=body, headers={"content-type": "application/json", "content-encoding": kind}
        )
    )


def hold(url: str, until: float) -> None:
    """Ask for huge pages, read nothing, and connect anew when dropped or after five seconds."""
    where = urlsplit(url)
    while time.monotonic() < until:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for _ in range(HELD):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect((where.hostname, where.port))
                sock.sendall(b"GET /search?limit=10000&view=bands HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(max(0.0, min(5.0, until - time.monotonic())))


def main(url: str, seconds: str, item: str) -> None:
    """Do it."""
    end = time.monotonic() + float(seconds)
    seen: dict[str, Counter[int]] = {}

    def repeat(name: str, attack: Attack, seed: int) -> None:
        rng, counted = random.Random(seed), seen.setdefault(name, Counter())
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            while time.monotonic() < end:
                try:
                    counted[attack(client, rng)] += 1
                except httpx.TransportError:
                    counted[0] += 1
                time.sleep(PAUSE)

    attacks = [
        map_tiles(item), previews(item), huge_pages, large_aggregations, forged_tokens, filters,
        forged_headers, compressed_bodies,
    ]  # fmt: skip
    names = [attack.__qualname__.partition(".")[0] for attack in attacks]
    threads = [
        threading.Thread(target=repeat, args=(n, a, i))
        for i, (n, a) in enumerate(zip(names, attacks, strict=True))
    ]
    threads.append(threading.Thread(target=hold, args=(url, end)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
