"""A region of the synthetic planet, built and served: every answer equals brute force over its manifest.

``tests/bench/test_planet.py`` asks the same of the whole planet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from api.app import create_app
from catalog_builder.tile.grid import Bounds
from tests.scale import checks
from tests.scale.land import land_cells
from tests.scale.manifests import Written, write_manifests
from tests.support.catalogs import build_from
from tests.support.http_server import serve
from tests.support.oracle import Oracle

pytestmark = pytest.mark.xdist_group("region")
FIJI = Bounds(175, -20, 180, -15)
"""Beside the antimeridian."""
IBERIA = Bounds(-10, 36, 4, 44)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Written:
    cell = np.unique(np.concatenate([land_cells(IBERIA), land_cells(FIJI)]))
    return write_manifests(tmp_path_factory.mktemp("region"), cell)


@pytest.fixture(scope="module")
def catalog(manifests: Written) -> Path:
    out = manifests.manifest.parent / "catalog"
    report = build_from(out, *manifests.sources, url="http://127.0.0.1:8000")
    assert (report.items, report.tiles) == (manifests.tile_years, manifests.tiles)
    assert not report.problems.counts
    return out


@pytest.fixture(scope="module")
def oracle(manifests: Written) -> Oracle:
    return Oracle.of_parquet(manifests.manifest)


@pytest.fixture(scope="module")
def http(catalog: Path) -> Iterator[httpx.Client]:
    with serve(create_app(catalog)) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


def test_the_cells_are_land(oracle: Oracle) -> None:
    """Madrid, Toulouse and Suva are; the Bay of Biscay is not."""
    tiles = set(zip(oracle.lon_i.tolist(), oracle.lat_i.tolist(), strict=True))
    assert {(-375, 4045), (145, 4365), (17845, -1815)} <= tiles
    assert (-545, 4395) not in tiles
    assert 50_000 < len(oracle) < 100_000


def test_searches(http: httpx.Client, oracle: Oracle) -> None:
    assert checks.check_searches(http, oracle, 63) > len(oracle)


def test_the_whole(http: httpx.Client, oracle: Oracle) -> None:
    checks.check_the_whole(http, oracle)


def test_aggregations(http: httpx.Client, oracle: Oracle) -> None:
    checks.check_aggregations(http, oracle)


def test_browsing(http: httpx.Client, oracle: Oracle) -> None:
    checks.check_browsing(http, oracle, 2020)


def test_coverage(http: httpx.Client, oracle: Oracle) -> None:
    checks.check_coverage(http, oracle, 40)


def test_the_coverage_table(catalog: Path, oracle: Oracle) -> None:
    checks.check_coverage_table(catalog, oracle)
