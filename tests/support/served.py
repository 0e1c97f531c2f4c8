"""Fixtures: the catalogue with converted and unconverted tiles, served to real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.app import create_app
from tests.support.converted import Converted, converted
from tests.support.http_server import Server, serve


@pytest.fixture(scope="session")
def tiles() -> Converted:
    return converted()


@pytest.fixture(scope="session")
def server(tiles: Converted) -> Iterator[Server]:
    with serve(create_app(tiles.catalog)) as running:
        yield running
