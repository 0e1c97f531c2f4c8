"""A new build is noticed without a restart, and what is open stays good."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx

from api.app import create_app
from api.settings import Settings
from api.store import Store
from tests.api.pages import ids_of, link_of, ok
from tests.catalogs import build_from, patch, write_manifest
from tests.http_server import serve


def test_a_rebuild_is_served_at_once(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))
    app = create_app(catalog, Settings(refresh_seconds=0))
    with serve(app) as server, httpx.Client(base_url=server.url) as http:
        before = http.get("/search?limit=4")
        assert ok(before)["numberMatched"] == 9
        token = link_of(ok(before), "next")
        build_from(catalog, write_manifest(tmp_path / "b", 2024, patch(0, 52, 4, 3)))
        after = http.get("/search?limit=4", headers={"if-none-match": before.headers["etag"]})
        assert ok(after)["numberMatched"] == 12
        assert after.headers["etag"] != before.headers["etag"]
        # A token holds a place, not a page number: it survives the rebuild.
        assert token is not None
        everything = ids_of(ok(http.get("/search?limit=12")))
        last = ids_of(ok(before))[-1]
        following = ids_of(ok(http.get(token["href"])))
        assert following == everything[everything.index(last) + 1 :][:4]


def test_a_snapshot_in_use_stays_whole(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))
    store = Store(catalog, 0)
    old = store.current()
    for n in range(4, 7):
        build_from(catalog, write_manifest(tmp_path / str(n), 2024, patch(0, 52, n, 3)))
        assert sum(r.n_items for r in store.current().collections.values()) == 3 * n
    assert sum(r.n_items for r in old.collections.values()) == 9
    assert old.index.has_tile(0) == 0
    seen = []
    thread = threading.Thread(target=lambda: seen.append(store.current().index.has_tile(0)))
    thread.start()
    thread.join()
    assert seen == [0]
