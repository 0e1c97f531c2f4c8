"""A catalogue is rebuilt beside a running server: nobody notices but by the new items."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx

from tests.deploy.processes import open_indexes, serve_catalog
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.figures import samples
from tests.support.waiting import until

ROWS = 3
FIRST, LAST = 3, 9
"""Columns of the first and the last build; each has one more than the build before."""


def _ids(columns: int) -> frozenset[str]:
    return frozenset(f"{t.name}_2024" for t in patch(0, 52, columns, ROWS))


def test_workers_follow_without_a_failed_request_or_an_open_file_left(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    manifests = {
        n: write_manifest(tmp_path / str(n), 2024, patch(0, 52, n, ROWS)) for n in range(FIRST, LAST + 1)
    }
    build_from(catalog, manifests[FIRST])
    right = {_ids(n): n for n in manifests}
    answers: list[int] = []
    wrong: list[str] = []
    stop = threading.Event()

    def ask(url: str, keep: bool) -> None:
        with httpx.Client(base_url=url, timeout=30) as http:
            while not stop.is_set():
                # a new connection meets the other worker; a kept one stays with its own
                headers = {} if keep else {"connection": "close"}
                try:
                    found = http.get("/search?limit=1000&sortby=-id", headers=headers)
                    page = found.json()
                    ids = frozenset(f["id"] for f in page["features"])
                except (httpx.HTTPError, ValueError, KeyError) as exc:
                    wrong.append(repr(exc))
                    continue
                if found.status_code != 200 or ids not in right or page["numberMatched"] != len(ids):
                    wrong.append(found.text[:500])
                else:
                    answers.append(right[ids])

    with serve_catalog(catalog, workers=2) as server:
        threads = [threading.Thread(target=ask, args=(server.url, n % 2 == 0)) for n in range(4)]
        workers = server.workers()
        for thread in threads:
            thread.start()
        for n in range(FIRST + 1, LAST + 1):
            build_from(catalog, manifests[n])
        current = {str((catalog / "index.sqlite").resolve())}
        until(lambda: all(open_indexes(pid) == current for pid in workers), "old indexes stay open")
        until(lambda: wrong or LAST in answers)
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[:3]
        assert {FIRST, LAST} <= set(answers), "asked from before the first rebuild until after the last"
        assert len(workers) == 2
        assert server.workers() == workers, "no worker was started anew"
        assert [open_indexes(pid) for pid in workers] == [current, current], "old indexes are closed"
        # These look for a new one when they are asked.
        until(lambda: all(len(open_indexes(pid)) == 1 for pid in server.relayed()), "old indexes stay open")
        for _ in range(20):
            found = httpx.get(f"{server.url}/search?limit=1").json()
            assert found["numberMatched"] == ROWS * LAST


def test_what_cannot_be_read_is_not_taken_up(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path, 2024, patch(0, 52, 4, 4)))
    index = (catalog / "index.sqlite").resolve()
    with serve_catalog(catalog, TESSERA_STAC_REFRESH_SECONDS="0") as server:
        other = index.with_name("other")
        other.write_bytes(b"of another program" * 1000)
        other.replace(index)
        assert httpx.get(f"{server.url}/search?limit=1").json()["numberMatched"] == 16
        figures = samples(httpx.get(f"{server.url}/_mgmt/metrics").text)
        assert figures["tessera_catalogue_refresh_failures_total", ()] >= 1
        assert figures["tessera_catalogue_items", ("tessera-v1",)] == 16
        build_from(catalog, write_manifest(tmp_path / "new", 2024, patch(0, 52, 5, 4)))
        assert httpx.get(f"{server.url}/search?limit=1").json()["numberMatched"] == 20
