"""One client that asks too often is told when it may; others are not slowed down."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.readers.allowance import Allowance
from api.settings import Settings
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve


def test_as_many_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    allowance = Allowance(2.0, 4)
    assert [allowance.wait("192.0.2.1", "/search") for _ in range(6)] == [0, 0, 0, 0, 1, 1]
    assert allowance.wait("192.0.2.2", "/search") == 0  # another client
    now += 1.0
    assert [allowance.wait("192.0.2.1", "/search") for _ in range(3)] == [0, 0, 1]
    now += 100.0
    assert [allowance.wait("192.0.2.1", "/search") for _ in range(5)] == [0, 0, 0, 0, 1]
    slow = Allowance(0.1, 1)
    assert [slow.wait("a", "/search") for _ in range(2)] == [0, 10]


def test_a_network_of_ipv6_is_one_client() -> None:
    allowance = Allowance(0.001, 1)
    assert allowance.wait("2001:db8::1", "/search") == 0
    assert allowance.wait("2001:db8::ffff:2", "/search") > 0
    assert allowance.wait("2001:db8:0:1::1", "/search") == 0
    assert allowance.wait("::ffff:192.0.2.1", "/search") == 0


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/search", True), ("/aggregate", True), ("/collections/a/aggregate", True),
        ("/collections/a/items", True),
        ("/collections/a/items/b/preview.png", True), ("/coverage/tiles/a/1/2/3.png", True),
        ("/source/v1/2024/a/a_f32.vrt", True), ("/source/v1/2024/a/a_f32.tif", True), ("/", False),
        ("/collections", False), ("/collections/a/items/b", False), ("/data/cogs/a.tif", False),
        ("/source/v1/2024/a/a.npy", False), ("/_mgmt/ping", False), ("/browser/js/a.js", False),
    ],
)  # fmt: skip
def test_what_counts(path: str, counts: bool) -> None:
    allowance = Allowance(0.001, 1)
    assert allowance.wait("192.0.2.1", path) == 0
    assert (allowance.wait("192.0.2.1", path) > 0) == counts


@pytest.mark.service
def test_in_the_server(tmp_path: Path) -> None:
    build_from(tmp_path / "c", write_manifest(tmp_path / "v1", 2024, patch(0, 52, 2, 1)))
    settings = Settings(client_rate=0.01, client_burst=3)
    with serve(create_app(tmp_path / "c", settings)) as server, httpx.Client(base_url=server.url) as http:
        found = [http.get("/search") for _ in range(5)]
        assert [a.status_code for a in found] == [200, 200, 200, 429, 429]
        assert found[-1].json()["code"] == "TooManyRequests"
        assert 0 < int(found[-1].headers["retry-after"]) <= 100
        assert found[-1].headers["access-control-allow-origin"] == "*"
        for path in ("/", "/collections", "/_mgmt/ping", "/data/catalog.json"):
            assert http.get(path).status_code == 200
        # by the address that a trusted proxy names, and not by what the client says of itself
        for first, status in (("203.0.113.1", 200), ("203.0.113.2", 200)):
            headers = {"x-forwarded-for": f"6.6.6.6, {first}"}
            assert [http.get("/search", headers=headers).status_code for _ in range(4)] == [status] * 3 + [
                429
            ]
        assert "too_many" in http.get("/_mgmt/metrics").text


@pytest.mark.service
def test_who_tries_passwords_is_slowed_down(tmp_path: Path) -> None:
    build_from(tmp_path / "c", write_manifest(tmp_path / "v1", 2024, patch(0, 52, 2, 1)))
    settings = Settings(private="*", readers="a:sha256$" + "0" * 64 + ":*", client_rate=0.01, client_burst=3)
    with serve(create_app(tmp_path / "c", settings)) as server:
        found = [
            httpx.get(f"{server.url}/", headers={"authorization": f"Bearer {i}"}).status_code
            for i in range(5)
        ]
        assert found == [401, 401, 401, 429, 429]
