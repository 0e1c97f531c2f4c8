"""A new build is noticed without a restart, and what is open stays good."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.catalogue.folder_store import FolderStore
from api.catalogue.snapshot import REMEMBERED
from api.settings import Settings
from catalog_builder.catalog.index.reader import Index
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve
from tests.support.needs import lacks
from tests.support.paging import ids_of, link_of, ok
from tests.support.waiting import until


@pytest.mark.service
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


@pytest.mark.service
@pytest.mark.parametrize("sortby", ["tessera:coverage", "-tessera:coverage,id", "tessera:year,tessera:cog",
                                    "tessera:valid_fraction", "tessera:grid,-id"])  # fmt: skip
def test_a_walk_by_what_a_rebuild_changes_is_refused_after_one(tmp_path: Path, sortby: str) -> None:
    """Items change their places in the order: some would be missed, others come twice."""
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2023, patch(0, 52, 3, 3)))
    app = create_app(catalog, Settings(refresh_seconds=0))
    with serve(app) as server, httpx.Client(base_url=server.url) as http:

        def page(of: dict[str, Any] | None, rel: str = "next") -> httpx.Response:
            link = None if of is None else link_of(of, rel)
            given = {"sortby": sortby, "limit": 4}
            return http.get("/search", params=given) if link is None else http.get(link["href"])

        first = ok(page(None))
        second = ok(page(first))
        assert ids_of(ok(page(second, "prev"))) == ids_of(first), "in the same build every page is there"
        assert len({*ids_of(first), *ids_of(second), *ids_of(ok(page(second)))}) == 9
        later = [write_manifest(tmp_path / "b", y, patch(0, 52, n, 3)) for y, n in ((2023, 3), (2024, 2))]
        build_from(catalog, *later)
        for rel in ("next", "prev"):
            refused = page(second, rel)
            assert refused.status_code == 400
            said = refused.json()["description"]
            assert said.startswith("token: the catalogue has been rebuilt")
            assert "start again" in said
        # Begun again, it is complete.
        pages = [ok(page(None))]
        while link_of(pages[-1], "next") is not None:
            pages.append(ok(page(pages[-1])))
        found = [i for one in pages for i in ids_of(one)]
        assert len(found) == len(set(found)) == 15


@pytest.mark.service
@pytest.mark.parametrize("sortby", [None, "-id", "tessera:utm_zone,-datetime", "title", "-tessera:year"])
def test_a_walk_by_what_stays_goes_on_after_a_rebuild(tmp_path: Path, sortby: str | None) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2023, patch(0, 52, 3, 3)))
    app = create_app(catalog, Settings(refresh_seconds=0))
    with serve(app) as server, httpx.Client(base_url=server.url) as http:
        given: dict[str, Any] = {"limit": 4, **({} if sortby is None else {"sortby": sortby})}
        pages = [ok(http.get("/search", params=given))]
        build_from(catalog, write_manifest(tmp_path / "b", 2023, patch(0, 52, 4, 3)))
        while (following := link_of(pages[-1], "next")) is not None:
            pages.append(ok(http.get(following["href"])))
        found = [i for page in pages for i in ids_of(page)]
        everything = ids_of(ok(http.get("/search", params={**given, "limit": 100})))
        last = ids_of(pages[0])[-1]
        assert found == ids_of(pages[0]) + everything[everything.index(last) + 1 :]


def test_a_snapshot_in_use_stays_whole(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))
    store = FolderStore(catalog, 0)
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


def test_answers_do_not_push_out_what_a_build_has_once(tmp_path: Path) -> None:
    build_from(tmp_path / "catalog", write_manifest(tmp_path / "a", 2024, patch(0, 52, 1, 1)))
    store = FolderStore(tmp_path / "catalog", 0)
    snapshot = store.current()
    map_, answer = snapshot.once("map", object), snapshot.remember(0, object)
    assert snapshot.remember(0, object) is answer
    for i in range(1, REMEMBERED + 1):
        snapshot.remember(i, object)
    assert snapshot.once("map", object) is map_
    assert snapshot.remember(0, object) is not answer, "the oldest answer is dropped"
    snapshot.retire()
    assert snapshot.once("map", object) is not snapshot.once("map", object)
    assert snapshot.remember(0, object) is not snapshot.remember(0, object)


@pytest.mark.service
def test_a_new_build_has_its_coverage_map_before_it_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, read = tmp_path / "catalog", []
    plain = Index.coverage

    def noted(index: Index, ordinal: int) -> Any:
        read.append(index)
        return plain(index, ordinal)

    monkeypatch.setattr(Index, "coverage", noted)
    build_from(catalog, write_manifest(tmp_path / "a", 2023, patch(0, 52, 3, 3)))
    with (
        serve(create_app(catalog, Settings(refresh_seconds=0))) as server,
        httpx.Client(base_url=server.url) as http,
    ):

        def years() -> list[int]:
            return [i["year"] for i in ok(http.get("/coverage/at?lon=0.05&lat=52.05"))["items"]]

        assert years() == [2023]
        old = ok(http.get("/_mgmt/health"))["generation"]
        build_from(catalog, *(write_manifest(tmp_path / str(y), y, patch(0, 52, 3, 3)) for y in (2023, 2024)))
        until(lambda: ok(http.get("/_mgmt/health"))["generation"] != old)
        assert len(read) == 2, "read before it was asked for"
        assert years() == [2023, 2024]
        assert len(read) == 2


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Leave circles uncollected: a server may not collect for hours."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.service
@pytest.mark.usefixtures("no_collection")
def test_old_builds_are_let_go(tmp_path: Path) -> None:
    """Nothing of them stays open, whatever was asked of them: a nightly build must not fill the server."""
    if not Path("/proc/self/fd").is_dir():
        lacks("this system does not list open files in /proc")
    catalog = tmp_path / "catalog"

    def open_indexes() -> set[str]:
        found = set()
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                found.add(str(descriptor.readlink()))
        return {path for path in found if path.startswith(str(catalog)) and "index.sqlite" in path}

    for n in range(3, 6):
        build_from(catalog, write_manifest(tmp_path / str(n), 2024, patch(0, 52, n, 3)))
        if n == 3:
            app = create_app(catalog, Settings(refresh_seconds=0))
            server = serve(app)
            url = server.__enter__().url
        with httpx.Client(base_url=url) as http:
            item = ok(http.get("/search?limit=1"))["features"][0]
            triangle = {"type": "Polygon", "coordinates": [[[0, 52], [1, 52], [0, 53], [0, 52]]]}
            within = {"op": "s_intersects", "args": [{"property": "geometry"}, triangle]}
            odd = {"op": "=", "args": [{"property": "tessera:utm_zone"}, 32]}
            asked = {"filter": {"op": "or", "args": [within, odd]}}
            assert ok(http.post("/search", json=asked))["numberMatched"] == 3 * n
            tile = f"/source/v1/2024/{item['id'][:-5]}/{item['id'][:-5]}.vrt"
            for path in ("/coverage", "/coverage/tiles/tessera-v1/3/4/2.png", tile, "/aggregate"):
                assert http.get(path).status_code == 200, path
        current = str(app.state.store.current().index.path)
        assert open_indexes() == {current}, n
    server.__exit__(None, None, None)


@pytest.mark.service
def test_what_urls_in_s3_need_is_imported_at_the_start(tmp_path: Path) -> None:
    """The import of boto3 took a second, on the event loop, of the first search."""
    tiles = write_manifest(tmp_path, 2024, patch(0, 52, 1, 1))
    build_from(tmp_path / "s3", tiles, source_root="s3://mine/v1")
    build_from(tmp_path / "web", tiles, source_root="https://tiles.example.org/v1")
    starts = (
        "import sys; from api.app import create_app; create_app(sys.argv[1]); print('boto3' in sys.modules)"
    )
    for name, said in (("s3", "True"), ("web", "False")):
        done = subprocess.run(
            [sys.executable, "-c", starts, str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == said, name
