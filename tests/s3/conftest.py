"""A store for all tests of a module, emptied before each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.s3_store import Store, s3_store


@pytest.fixture(scope="module")
def running_store() -> Iterator[Store]:
    with s3_store() as store:
        yield store


@pytest.fixture
def store(running_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with an empty bucket; the cache of indexes is the test's own."""
    running_store.empty()
    monkeypatch.setenv("TESSERA_STAC_CACHE", str(tmp_path / "cache"))
    return running_store
