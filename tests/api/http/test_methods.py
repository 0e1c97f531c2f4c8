"""``Allow`` and OPTIONS say what each route really does."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.http.methods import Methods, flat_routes
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve

pytestmark = pytest.mark.service
EVERY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    home = tmp_path_factory.mktemp("methods")
    build_from(home / "c", write_manifest(home / "v1", 2024, patch(0, 52, 2, 1)))
    return create_app(home / "c")


@pytest.fixture(scope="module")
def http(app: FastAPI) -> Iterator[httpx.Client]:
    with serve(app) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def paths(app: FastAPI) -> list[str]:
    names = {
        "collection_id": "tessera-v1", "item_id": "grid_0.05_52.05_2024", "year": "2024", "area": "0,52,1",
        "path": "config.js", "z": "9", "x": "256", "y": "168",
    }  # fmt: skip
    routes = [r.path.replace(":path", "").format(**names) for r in flat_routes(app.routes)]
    assert len(routes) > 40
    return [*routes, "/data/catalog.json", "/source/v1/2024/grid_0.05_52.05/", "/data/none"]


def listed(answer: httpx.Response, header: str = "allow") -> set[str]:
    return set(answer.headers[header].split(", "))


def test_every_method_of_every_route(app: FastAPI, http: httpx.Client) -> None:
    """Those that Allow names work, the others are 405 with the same Allow."""
    for path in paths(app):
        options = http.options(path)
        assert options.status_code in (200, 204), path
        allowed = listed(options)
        assert listed(options, "access-control-allow-methods") == allowed, path
        takes_bodies = path.endswith(("/points", "/zonal"))
        assert ({"OPTIONS"} if takes_bodies else {"GET", "HEAD", "OPTIONS"}) <= allowed, path
        assert ("GET" in allowed) != takes_bodies, path
        assert ("POST" in allowed) == (takes_bodies or path.endswith(("/search", "/aggregate"))), path
        for method in EVERY:
            answer = http.request(method, path, json={} if method == "POST" else None)
            if method in allowed:
                assert answer.status_code not in (405, 501), (method, path)
            else:
                assert answer.status_code == 405, (method, path)
                assert listed(answer) == allowed, (method, path)


def test_a_path_that_is_none_allows_nothing(http: httpx.Client) -> None:
    for path in ("/nowhere", "/search/x", "/collections/tessera-v1/nothing", "/api.htm"):
        for method in EVERY:
            assert http.request(method, path).status_code == 404, (method, path)


def test_of_no_routes() -> None:
    assert Methods().of("/search") == ()
