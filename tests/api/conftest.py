"""A served catalogue of all real tiles of July 2025, or of the sample that the package ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.backends import Serve
from tests.support.catalogs import build_from
from tests.support.containers import contained, contained_in, unconverted
from tests.support.http_server import Server
from tests.support.needs import real_manifests_or_none
from tests.support.oracle import Oracle

__all__ = ["contained", "contained_in", "unconverted"]


@pytest.fixture(scope="session")
def manifests() -> list[Path]:
    sample = Path(__file__).parents[2] / "catalog_builder" / "data" / "sample-manifests"
    found = sorted((real_manifests_or_none() or sample).rglob("registry_*.txt.xz"))
    assert found, "neither the shared manifests nor the packaged sample are there"
    return found


@pytest.fixture(scope="session")
def catalog(manifests: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "catalog"
    build_from(out, *manifests)
    return out


@pytest.fixture(scope="session")
def server(catalog: Path, serve_on: Serve) -> Iterator[Server]:
    # Ten thousand items of a database take seconds, and more where other tests run beside them.
    with serve_on(catalog, search_seconds=60) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def oracle(manifests: list[Path], backend: str) -> Oracle:
    return Oracle.of_texts(manifests, by_id=backend == "pgstac")
