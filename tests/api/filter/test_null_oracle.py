"""Filters over expressions that can be NULL, against three-valued logic in plain Python, on both backends.

2,000 searches in every run, and 20,000 with ``-m nightly``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cql2
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog_builder.convert.ledger.rows import FileRow, LedgerRow
from catalog_builder.tile.grid import TileId
from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.oracle import Oracle
from tests.support.paging import ok
from tests.support.three_valued import Row, holds, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
# Their UTM zones are 30, 31 and 60, on both sides of the equator.
PLACES = {
    2019: [*patch(0, 52, 2, 2)],
    2020: [*patch(0, 52, 3, 2), *patch(-1, 52, 2, 1), *patch(5, -1, 2, 2)],
    2021: [*patch(0, 52, 2, 2), *patch(178, 60, 1, 2)],
    2024: [*patch(0, 52, 4, 2), *patch(-1, 52, 2, 1), *patch(5, -1, 1, 1)],
}
VALID = [0.0, 0.25, 0.5, 1.0]
"""Shares of valid pixels: every third tile-year of the first collection is converted, and has one."""
_HASH = "00" * 32


def _converted(tile: TileId, year: int, valid: float) -> LedgerRow:
    name = f"{year}/{tile.name}/{tile.name}_{year}_00000000_embeddings.tif"
    return LedgerRow(
        f"v1/{year}/{tile.name}", "ok", dataset="v1", lat_i=tile.lat_i, lon_i=tile.lon_i, year=year,
        kind="npy", profile="float32", grid="utm", content="00000000",
        embeddings=FileRow(name, 8_000_000, _HASH, 5000),
        valid_fraction=valid, finished="2025-01-01T00:00:00Z",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """Build two collections, the first with a few converted tiles; return the folder and the items."""
    home = tmp_path_factory.mktemp("null")
    for year, tiles in PLACES.items():
        write_manifest(home / "v1", year, tiles)
    write_manifest(home / "cam", 2020, patch(0, 52, 2, 2))
    chosen = [(tile, year) for year, tiles in PLACES.items() for tile in tiles][::3]
    valid = {(tile, year): VALID[i % len(VALID)] for i, (tile, year) in enumerate(chosen)}
    (home / "ledger").mkdir()
    lines = [_converted(*at, share).to_json() + b"\n" for at, share in valid.items()]
    (home / "ledger" / "a.jsonl").write_bytes(b"".join(lines))
    manifests = sorted((home / "v1").iterdir())
    build_from(home / "catalog", *manifests, ledgers=(str(home / "ledger"),))
    build_from(home / "catalog", *(home / "cam").iterdir(), dataset="v1.1-cam")
    shares = {f"{tile.name}_{year}": share for (tile, year), share in valid.items()}
    rows = [
        *rows_of("tessera-v1", manifests, shares, **{"tessera:variant": "vultr"}),
        *rows_of("tessera-v1.1-cam", (home / "cam").iterdir(), {}, **{"tessera:variant": "cambridge"}),
    ]
    assert {row["tessera:utm_zone"] for row in rows} == {30, 31, 60}
    assert len({row["tessera:valid_fraction"] for row in rows}) == len(VALID) + 1
    return home / "catalog", rows


@pytest.fixture(scope="module")
def api(made: tuple[Path, list[Row]], serve_on: Serve) -> Iterator[httpx.Client]:
    # other tests may leave it little of the machine for hours
    with (
        serve_on(made[0], search_seconds=60) as server,
        httpx.Client(base_url=server.url, timeout=90) as client,
    ):
        yield client


# ------------------------------------------------------------------------------------- drawing

NUMBERS = ["tessera:year", "tessera:utm_zone", "gsd", "tessera:valid_fraction"]
LITERALS = [-1, 0, 0.25, 0.5, 1, 2, 10, 30, 31, 2020, 2021, 2024]
TEXTS = {
    "id": ["grid_0.05_52.05_2020", "grid_5.05_-0.95_2024", "grid_0.15_52.05_1999"],
    "collection": ["tessera-v1", "tessera-v1.1-cam"],
    "proj:code": ["EPSG:32631", "EPSG:32731", "EPSG:32660"],
    "tessera:tile": ["grid_0.15_52.15", "grid_178.05_60.05"],
    "tessera:coverage": ["full", "latest", "partial"],
    "tessera:variant": ["vultr", "cambridge"],
}
TIMES = ["2019-12-31T23:59:59Z", "2020-01-01T00:00:00Z", "2021-06-01T00:00:00Z", "2024-12-31T23:59:59Z"]
SHAPES: list[Any] = [
    {"type": "Point", "coordinates": [0.12, 52.12]},
    {"type": "LineString", "coordinates": [[-1, 51], [1, 53]]},
    {"type": "Polygon", "coordinates": [[[0, 52], [0.2, 52], [0.2, 52.2], [0, 52.2], [0, 52]]]},
    {"type": "Polygon", "coordinates": [[[-10, -10], [10, -10], [10, 52.15], [-10, 52.15], [-10, -10]]]},
]
SPATIAL = ["s_intersects", "s_disjoint", "s_within", "s_touches", "s_overlaps", "s_crosses"]


def prop(name: str) -> dict[str, str]:
    return {"property": name}


def casei(text: Any) -> dict[str, Any]:
    return {"op": "casei", "args": [text]}


plain_numbers = st.sampled_from(NUMBERS).map(prop) | st.sampled_from(LITERALS)
whole_numbers = st.sampled_from(["tessera:year", "tessera:utm_zone"]).map(prop) | st.sampled_from(
    [-2, 0, 1, 3]
)
# zero for one year or one zone: what they divide is NULL there
zeros = st.builds(
    lambda pair: {"op": "-", "args": [prop(pair[0]), pair[1]]},
    st.sampled_from([("tessera:year", 2020), ("tessera:year", 2024), ("tessera:utm_zone", 30),
                     ("tessera:utm_zone", 31), ("gsd", 10), ("tessera:valid_fraction", 0.25)]),
)  # fmt: skip


def numbers(depth: int = 2) -> st.SearchStrategy[Any]:
    if depth == 0:
        return plain_numbers | zeros
    inner = numbers(depth - 1)
    ops = st.sampled_from(["+", "-", "*", "/", "div"])
    return st.one_of(
        plain_numbers,
        zeros,
        st.builds(lambda op, x, y: {"op": op, "args": [x, y]}, ops, inner, inner),
        st.builds(lambda x, y: {"op": "/", "args": [x, y]}, inner, zeros),
        # of whole numbers: a remainder of thirds is another one in decimals, which PostgreSQL counts in
        st.builds(lambda x, y: {"op": "%", "args": [x, y]}, whole_numbers, whole_numbers | zeros_of_whole),
        st.builds(lambda x, y: {"op": "^", "args": [x, y]}, zeros, st.sampled_from([-1, 0, 0.5, 2, 400])),
        st.builds(lambda x: {"op": "-", "args": [x]}, inner),
    )


zeros_of_whole = st.builds(
    lambda year: {"op": "-", "args": [prop("tessera:year"), year]}, st.sampled_from([2020, 2021])
)
texts = st.sampled_from(list(TEXTS)).flatmap(
    lambda name: st.tuples(
        st.just(prop(name)), st.lists(st.sampled_from(TEXTS[name]), min_size=1, max_size=3)
    )
)
comparisons = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
number = numbers()
leaves = st.one_of(
    st.booleans(),
    st.builds(lambda op, x, y: {"op": op, "args": [x, y]}, comparisons, number, number),
    st.builds(lambda x, lo, hi: {"op": "between", "args": [x, lo, hi]}, number, number, number),
    st.builds(
        lambda x, options: {"op": "in", "args": [x, options]},
        number,
        st.lists(plain_numbers | zeros | number, min_size=1, max_size=3),
    ),
    st.builds(lambda x: {"op": "isNull", "args": [x]}, number),
    st.builds(lambda op, t: {"op": op, "args": [t[0], t[1][0]]}, comparisons, texts),
    st.builds(lambda t: {"op": "in", "args": list(t)}, texts),
    st.builds(lambda t: {"op": "isNull", "args": [casei(t[0])]}, texts),
    st.builds(
        lambda t: {"op": "=", "args": [casei(t[0]), casei(t[1][0].upper())]},
        texts,
    ),
    st.builds(lambda t, n: {"op": "like", "args": [t[0], t[1][0][:n] + "%"]}, texts, st.integers(0, 12)),
    st.builds(
        lambda op, value: {"op": op, "args": [prop("tessera:cog"), value]},
        st.sampled_from(["=", "<>"]), st.booleans(),
    ),
    st.builds(lambda op, shape: {"op": op, "args": [prop("geometry"), shape]}, st.sampled_from(SPATIAL),
              st.sampled_from(SHAPES)),
    st.builds(
        lambda op, name, text: {"op": op, "args": [prop(name), {"timestamp": text}]},
        comparisons, st.sampled_from(["datetime", "start_datetime", "end_datetime"]), st.sampled_from(TIMES),
    ),
    st.builds(
        lambda op, ends: {"op": op, "args": [{"interval": [prop("start_datetime"), prop("end_datetime")]},
                                             {"interval": sorted(ends)}]},
        st.sampled_from(["t_after", "t_before", "t_during", "t_intersects"]),
        st.lists(st.sampled_from(TIMES), min_size=2, max_size=2),
    ),
)  # fmt: skip
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a: {"op": "not", "args": [a]}, inner),
        st.builds(
            lambda op, args: {"op": op, "args": args},
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=6,
)


def _check(api: httpx.Client, rows: list[Row], backend: str, condition: Any) -> None:
    wanted = [row for row in rows if holds(condition, row) is True]
    found = ok(
        api.post(
            "/search", json={"filter": condition, "limit": 1000, "fields": {"include": ["id", "collection"]}}
        )
    )
    if backend == "pgstac":
        wanted = sorted(wanted, key=lambda r: (r["tessera:year"], r["collection"], r["id"]))
    assert [(i["collection"], i["id"]) for i in found["features"]] == [
        (r["collection"], r["id"]) for r in wanted
    ]
    assert found["numberMatched"] == len(wanted)


def _searches(n: int) -> Any:
    return settings(
        max_examples=n,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@_searches(2_000)
@given(condition=conditions)
def test_null_is_neither_true_nor_false(
    api: httpx.Client, made: tuple[Path, list[Row]], backend: str, condition: Any
) -> None:
    _check(api, made[1], backend, condition)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@_searches(20_000)
@given(condition=conditions)
def test_null_is_neither_true_nor_false_all_night(
    api: httpx.Client, made: tuple[Path, list[Row]], backend: str, condition: Any
) -> None:
    _check(api, made[1], backend, condition)


@pytest.mark.parametrize(
    "text",
    [
        'NOT (10/("tessera:year" - 2020) > 0)',
        "NOT (1/0 = 1)",
        '1/("tessera:utm_zone"-30) NOT IN (0,1) AND "tessera:utm_zone"=30',
        '1/("tessera:utm_zone"-31) NOT BETWEEN 0 AND 1',
        'NOT ("tessera:year" % ("tessera:year" - 2020) = 0 AND "tessera:utm_zone" = 31)',
        'NOT ("tessera:year" = 2021 OR 1/("tessera:utm_zone"-30) = 1)',
        'NOT NOT (10/("tessera:year" - 2020) > 0)',
        '(10/("tessera:year" - 2020)) IS NULL',
        '(10/("tessera:year" - 2020)) IS NOT NULL',
        "NOT (("'"tessera:year" - 2020) ^ -1 > 5)',
    ],
)  # fmt: skip
def test_that_found_too_much(http: httpx.Client, oracle: Oracle, text: str) -> None:
    """Over all tile-years, and the same where the index is no help."""
    condition = cql2.parse_text(text).to_json()
    year, zone = oracle.year.tolist(), oracle.zone(oracle.all).tolist()
    known: dict[tuple[int, int], bool] = {}
    for pair in set(zip(year, zone, strict=True)):
        row = dict(zip(("tessera:year", "tessera:utm_zone"), pair, strict=True))
        known[pair] = holds(condition, row) is True
    wanted = sum(known[pair] for pair in zip(year, zone, strict=True))
    for filter_text in (text, f"({text}) AND id LIKE '%'"):
        found = ok(http.get("/aggregate", params={"filter": filter_text, "aggregations": "total_count"}))
        assert found["aggregations"][0]["value"] == wanted, filter_text
