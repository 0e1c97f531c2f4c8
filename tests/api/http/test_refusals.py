"""What refuses a request, on every route: a page of elsewhere may read it, and 503 says when to retry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from api.app import create_app
from api.http.methods import flat_routes
from api.http.work.pool import Pool
from api.http.work.waiting import BusyError
from api.settings import Settings
from catalog_builder.errors import UnavailableError
from tests.support.http_server import serve

pytestmark = pytest.mark.service
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def app(catalog: Path) -> FastAPI:
    return create_app(catalog, Settings(catalog=str(catalog), max_waiting=0))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with serve(app) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def paths(app: FastAPI, client: httpx.Client) -> list[str]:
    """Return a path of every route, of something that exists where the route names it."""
    item = client.get("/collections/tessera-v1/items?limit=1").raise_for_status().json()["features"][0]
    tile, _, year = item["id"].rpartition("_")
    values = {
        "collection_id": "tessera-v1", "item_id": item["id"], "year": year, "area": "n50e000",
        "z": "9", "x": "0", "y": "0", "path": "index.html", "name": "x",
    }  # fmt: skip
    lane = f"/v1/{year}/{tile}/{tile}"
    ends = (".npy", ".vrt", "_b005.vrt", "_computed.vrt", ".tiff", "")
    found = ["/nothing"]
    for mount in (r.path for r in app.routes if isinstance(r, Mount)):
        found += [f"{mount}/nothing", f"{mount}/", *(f"{mount}{lane}{end}" for end in ends)]
    for path in (route.path for route in flat_routes(app.routes)):
        for name, value in values.items():
            path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
        assert "{" not in path, f"a value for {path}"
        found.append(path)
    assert len(found) > 40
    return found


def check(client: httpx.Client, paths: list[str], least: int) -> dict[int, int]:
    """Ask for every path in every way; return how often there was which error."""
    seen: dict[int, int] = {}
    for path in paths:
        for method in METHODS:
            for query in ("", "?no=such", "?limit=5000&filter=title%20LIKE%20%27%25a%25%27"):
                found = client.request(method, path + query)
                said = f"{method} {path}{query}: {found.status_code}"
                assert found.headers.get_list("access-control-allow-origin") == ["*"], said
                if found.status_code >= 400:
                    seen[found.status_code] = seen.get(found.status_code, 0) + 1
                if found.status_code == 503:
                    assert int(found.headers["retry-after"]) > 0, said
    assert sum(seen.values()) >= least
    return seen


def test_what_is_wrong(client: httpx.Client, paths: list[str]) -> None:
    assert {400, 404, 405} <= check(client, paths, 100).keys()


def test_pools_are_full(client: httpx.Client, paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise BusyError("the server is busy; try again")

    monkeypatch.setattr(Pool, "run", full)
    before = [p for p in paths if p.startswith("/source/v1/") and client.get(p).status_code == 503]
    assert before, "documents of direct access are made in a pool"
    assert check(client, paths, 100)[503] > 10


def test_there_is_no_catalogue_at_the_moment(
    app: FastAPI, client: httpx.Client, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> None:
        raise UnavailableError("the database does not respond")

    monkeypatch.setattr(app.state.store, "current", none)
    assert check(client, paths, 100)[503] > 100
