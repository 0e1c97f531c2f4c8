"""Requests that take long, in processes of their own: the same responses, and what goes wrong there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.deploy.processes import is_relayed
from tests.faults.server import Served, serving
from tests.support.converted import Converted
from tests.support.served import tiles
from tests.support.waiting import ended, until

__all__ = ["tiles"]

COLLECTION = "/collections/tessera-synthetic"
COUNTS = "/aggregate?aggregations=total_count,grid_degree_frequency"


@pytest.fixture(scope="module")
def plain(tiles: Converted) -> Iterator[Served]:
    """Serve without other processes."""
    with serving(tiles.catalog, TESSERA_STAC_PROCESSES="false") as served:
        yield served


@pytest.fixture(scope="module")
def served(tiles: Converted) -> Iterator[Served]:
    """Serve with the two processes, which have started."""
    with serving(tiles.catalog, TESSERA_STAC_SEARCH_SECONDS="3") as served:
        begin(served)
        yield served


def processes(parent: int) -> list[int]:
    """Return the processes that work for a server."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == parent and stat[0] != "Z" and is_relayed(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


def begin(served: Served) -> list[int]:
    """Have both processes started, so that requests are passed on to them; return them."""
    yields = min(os.getpriority(os.PRIO_PROCESS, served.process.pid) + 5, 19)

    def both() -> list[int] | None:
        item = served.get(f"{COLLECTION}/items?limit=1").json()["features"][0]["id"]
        assert served.get(f"{COLLECTION}/items/{item}/preview.png").status_code == 200
        assert served.get(COUNTS).status_code == 200
        found = processes(served.process.pid)
        # Searches are answered by the server until the process says that it is ready; then it yields.
        ready = [pid for pid in found if os.getpriority(os.PRIO_PROCESS, pid) == yields]
        return found if len(found) == len(ready) == 2 else None

    started = until(both, "the processes do not start")
    assert served.get("/_mgmt/ping").status_code == 200  # by now the server has heard it
    return started


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Context in which processes hang; those that are left go on afterwards, whatever happens."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def ask(served: Served, method: str, path: str, **how: object) -> httpx.Response:
    return httpx.request(method, served.url + path, timeout=60, trust_env=False, **how)  # type: ignore[arg-type]


LARGE = {
    "type": "Polygon",
    "coordinates": [[[-170 + n / 10, -60] for n in range(3000)] + [[-170, 80], [-170, -60]]],
}


def test_responses_are_the_same(served: Served, plain: Served) -> None:
    found = plain.get(f"{COLLECTION}/items?limit=1&filter=%22tessera:cog%22=true").json()["features"]
    item = f"{COLLECTION}/items/{found[0]['id']}"
    point = {"type": "Point", "coordinates": found[0]["geometry"]["coordinates"][0][0]}
    place = {"type": "Feature", "geometry": point, "properties": {}}
    places = {"type": "FeatureCollection", "features": [place]}
    asked: list[tuple[str, str, dict[str, object]]] = [
        ("GET", COUNTS, {}),
        ("GET", f"{COLLECTION}{COUNTS}", {"headers": {"accept-encoding": "zstd"}}),
        ("HEAD", COUNTS, {}),
        ("GET", "/search?limit=9999&view=bands", {}),
        ("HEAD", "/search?limit=9999", {}),
        ("GET", "/search?limit=9999&token=wrong", {}),
        ("GET", f"{item}/preview.png", {}),
        ("GET", f"{item}/preview.png?bands=3,4,5", {"headers": {"x-request-id": "mine"}}),
        ("GET", f"{item}/preview.png?bands=3,4,500", {}),
        ("GET", f"{item}/tiles/WebMercatorQuad/6/0/0.png", {}),
        ("GET", f"{item}no/preview.png", {}),
        ("GET", "/aggregate?aggregations=none", {}),
        ("GET", "/zarr/synthetic/utm33/scales/c/7/0/0", {}),
        ("HEAD", "/zarr/synthetic/utm33/scales/c/7/0/0", {}),
        ("GET", "/zarr/synthetic/utm33/scales/c/7/0/x", {}),
        ("POST", "/search", {"json": {"intersects": LARGE}}),
        ("POST", "/aggregate", {"json": {"intersects": LARGE, "aggregations": ["total_count"]}}),
        ("POST", "/search", {"content": b"[" * 30_000, "headers": {"content-type": "application/json"}}),
        ("POST", f"{COLLECTION}/points?bands=1,2", {"json": places}),
        ("POST", f"{COLLECTION}/points", {"json": {"type": "Nothing"}}),
    ]
    for method, path, how in asked:
        one, other = ask(served, method, path, **how), ask(plain, method, path, **how)
        assert one.status_code == other.status_code, (path, one.text[:300], other.text[:300])
        assert one.content.replace(served.url.encode(), b"") == other.content.replace(
            plain.url.encode(), b""
        ), path
        headers = [
            {
                k: v
                for k, v in r.headers.items()
                if k not in ("date", "etag", "x-request-id", "content-length")
            }
            for r in (one, other)
        ]
        assert headers[0] == headers[1], path
        if one.status_code == 200 and method == "GET":
            tag = {"if-none-match": one.headers["etag"]}
            assert ask(served, method, path, headers=tag).status_code == 304, path
    assert len(processes(served.process.pid)) == 2
    assert processes(plain.process.pid) == []
    there, here = errors(served), errors(plain)
    assert all(there[kind] >= n for kind, n in here.items()), "kinds of failures cross too"
    assert here["bad_request"] >= 4


def errors(served: Served) -> dict[str, float]:
    """Return failures that were counted, by kind."""
    lines = [
        each for each in served.get("/_mgmt/metrics").text.splitlines() if each.startswith("tessera_errors_t")
    ]
    return {each.split('"')[1]: float(each.split()[-1]) for each in lines}


def test_they_yield_and_are_measured(served: Served) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, served.process.pid)
    for pid in begin(served):
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(mine + 5, 19)
        assert f'tessera_worker_memory_bytes{{worker="{pid}"}}' in served.get("/_mgmt/metrics").text


def test_one_that_is_killed_is_started_again(served: Served) -> None:
    for pid in begin(served):
        os.kill(pid, signal.SIGKILL)
        until(partial(ended, pid))
    until(lambda: served.get(COUNTS).status_code == 200)
    assert begin(served)


def test_one_that_hangs_is_killed_at_the_deadline(served: Served) -> None:
    """Others that it was working on get 503 too, and the server goes on."""
    before = begin(served)
    found: list[httpx.Response] = []
    with stopped(before):
        threads = [threading.Thread(target=lambda: found.append(served.get(COUNTS))) for _ in range(5)]
        for thread in threads:
            thread.start()
        assert served.get("/search?limit=3").status_code == 200
        for thread in threads:
            thread.join()
        assert {r.status_code for r in found} == {503}
        assert all(
            r.headers["retry-after"] and r.headers["access-control-allow-origin"] == "*" for r in found
        )
        said = {r.json()["description"] for r in found}
        assert "this takes longer than a request may" in said, said
        # The responses do not wait for it: it is killed, and ends when it gets the processor.
        until(lambda: any(map(ended, before)), "it is not killed")
        assert sum(map(ended, before)) == 1, "that which draws was not asked"
    until(lambda: served.get(COUNTS).status_code == 200)
    assert begin(served)


def test_a_client_that_leaves_ends_its_request(served: Served) -> None:
    begin(served)
    slow = "/search?limit=9000&filter=" + "title%20LIKE%20%27%25a%25b%25c%27"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"GET {slow} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert served.get(COUNTS).status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_they_end_with_the_server(tiles: Converted, how: signal.Signals) -> None:
    with serving(tiles.catalog, "--workers", "2") as several:
        workers = several.workers()
        assert len(workers) == 2

        def some() -> list[int]:
            several.get(COUNTS)
            return [pid for worker in workers for pid in processes(worker)]

        working = until(some)
        os.kill(several.process.pid, how)
        for pid in (*workers, *working):
            until(partial(ended, pid), f"{pid} is left")


def test_private_collections_stay_private_there(tiles: Converted) -> None:
    token = "anna's"  # noqa: S105
    readers = f"anna:sha256${hashlib.sha256(token.encode()).hexdigest()}:tessera-*"
    with serving(
        tiles.catalog, TESSERA_STAC_PRIVATE="tessera-synthetic", TESSERA_STAC_READERS=readers
    ) as closed:

        def counted(who: dict[str, str]) -> int:
            found = ask(closed, "GET", "/aggregate?aggregations=total_count", headers=who)
            assert found.status_code == 200
            total: int = found.json()["aggregations"][0]["value"]
            return total

        anna, nobody = {"authorization": f"Bearer {token}"}, dict[str, str]()
        assert counted(anna) > 0
        until(lambda: len(processes(closed.process.pid)) == 1)
        for _ in range(50):
            assert counted(nobody) == 0
            assert counted(anna) > 0
            time.sleep(0.05)
        item = ask(closed, "GET", f"{COLLECTION}/items?limit=1", headers=anna).json()["features"][0]["id"]
        preview = f"{COLLECTION}/items/{item}/preview.png"
        assert ask(closed, "GET", preview, headers=anna).status_code == 200
        assert ask(closed, "GET", preview).status_code == 404
