"""Page tokens forged by somebody who knows how they are sealed: a page or a 400, on both backends."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.request.token import seal
from api.search.query import Query, from_texts
from api.settings import Settings
from catalog_builder.catalog.index.keys import make_key
from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.paging import ids_of, link_of, ok

TILES = patch(0, 52, 3, 2)
N_ITEMS = 2 * len(TILES)
NUMBERS = st.integers(-(2**64), 2**65) | st.integers(0, 5000) | st.floats()
KEYS = NUMBERS | st.builds(
    make_key, st.integers(0, 3), st.integers(2015, 2026), st.integers(0, 1800), st.integers(0, 3600)
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
HEX = st.text("0123456789abcdef", max_size=8)
NAMES = st.sampled_from(
    [b"tessera-v1".hex(), b"hidden".hex(), b"grid_0.05_52.05_2020".hex(), "ff", "00", "0", ""]
)
POSITIONS = st.builds(
    lambda way, *names: ":".join((way, *names)),
    st.sampled_from(["next", "prev", "NEXT", ""]),
    NAMES | HEX,
    NAMES,
)
BODIES = st.one_of(
    JSON,
    POSITIONS,
    st.lists(SCALARS, max_size=5),
    st.builds(
        lambda way, key, values: [way, key, *values], st.sampled_from("npx"), KEYS, st.lists(JSON, max_size=3)
    ),
)
SEARCHES: tuple[dict[str, str], ...] = (
    {"limit": "2"},
    {"limit": "2", "sortby": "id"},
    {"limit": "2", "sortby": "-tessera:valid_fraction,tessera:tile"},
    {"limit": "2", "sortby": "tessera:year,-tessera:utm_zone,title"},
    {"limit": "2", "ids": "grid_0.05_52.05_2020,grid_0.15_52.05_2020", "sortby": "-datetime"},
)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory, serve_on: Serve) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("tokens")
    build_from(home / "c", *(write_manifest(home / "v1", year, TILES) for year in (2020, 2021)))
    with serve_on(home / "c") as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def sealed(body: Any, query: Query, backend: str) -> str:
    """Seal as the server does, which needs no secret."""
    return seal(
        body, f"pgstac {query.fingerprint}" if backend == "pgstac" else f"{query.fingerprint} tessera-v1"
    )


def forge(body: Any, search: dict[str, str], backend: str) -> str:
    try:
        return sealed(body, from_texts(search, Settings()), backend)
    except (TypeError, OverflowError):  # what JSON cannot say
        return "eA"


def is_page_or_refused(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400), (answer.status_code, answer.text[:300])
    if answer.status_code == 400:
        assert answer.json()["description"].startswith("token: ")
    else:
        assert len(ids_of(answer.json())) <= 2


def test_the_forger_knows_the_seal(http: httpx.Client, backend: str) -> None:
    """What the other tests forge is opened by the server: a true position is accepted."""
    for search in SEARCHES:
        following = link_of(ok(http.get("/search", params=search)), "next")
        if following is None:
            continue
        token = httpx.URL(following["href"]).params["token"]
        body = _opened(token)
        assert forge(body, search, backend) == token


def _opened(token: str) -> Any:
    return orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[6:])


@pytest.mark.parametrize("token", ["kXlDI2S1Ingi", "kXlDI2S1Ingi" * 400, "AAAAAAAAAAAA"])
def test_the_token_of_the_issue(http: httpx.Client, token: str) -> None:
    assert http.get("/search", params={"limit": "2", "token": token}).status_code == 400


FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(body=BODIES, at=st.integers(0, len(SEARCHES) - 1))
@example(body="x", at=0)
@example(body=["n"], at=0)
@example(body=["n", 2**62 - 1], at=0)
@example(body=["n", 2**63 - 1], at=0)
@example(body=["n", -1], at=0)
@example(body=["n", True], at=0)
@example(body=["n", 5, {}], at=1)
@example(body=["n", 5, [1]], at=1)
@example(body=["n", make_key(1, 2020, 1420, 1800), 2**63], at=2)
@example(body=["p", make_key(9, 2020, 1420, 1800)], at=3)
def test_no_forged_token_is_a_fault(http: httpx.Client, backend: str, body: Any, at: int) -> None:
    search = SEARCHES[at]
    token = forge(body, search, backend)
    is_page_or_refused(http.get("/search", params={**search, "token": token}))


@FUZZ
@given(body=BODIES)
@example(body=["n", -1])
@example(body=["p", 10**9])
def test_no_forged_token_of_collections_is_a_fault(http: httpx.Client, body: Any) -> None:
    query = from_texts({"limit": "1"}, Settings())
    try:
        token = seal(body, f"collections {query.fingerprint} ()")
    except (TypeError, OverflowError):
        return
    answer = http.get("/collections", params={"limit": "1", "token": token})
    assert answer.status_code in (200, 400), answer.text[:300]


def test_a_position_among_collections_is_accepted(http: httpx.Client) -> None:
    """The forger knows this seal too."""
    query = from_texts({"limit": "1"}, Settings())
    token = seal(["n", 1], f"collections {query.fingerprint} ()")
    assert ok(http.get("/collections", params={"limit": "1", "token": token}))["collections"] == []


def test_a_forged_token_is_no_damage(http: httpx.Client, backend: str) -> None:
    """A value that SQLite cannot bind was taken for a damaged index."""
    search = SEARCHES[2]
    for body in (
        ["n", make_key(1, 2020, 1420, 1800), [1], "x"],
        ["n", 1, 2**70, "x"],
        ["n", 1, {"a": 1}, None],
    ):
        answer = http.get("/search", params={**search, "token": forge(body, search, backend)})
        assert answer.status_code == 400
    assert http.get("/_mgmt/health").json()["status"] == "UP"
    assert len(ids_of(ok(http.get("/search", params={"limit": "100"})))) == N_ITEMS
