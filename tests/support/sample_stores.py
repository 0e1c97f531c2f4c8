"""The sample in all containers, made once for all tests and kept in .cache.

:func:`sample_stores` has the same four tiles as ``.npy`` files, in a Zarr store and in an Icechunk
repository; :func:`irregular_repository` has them with what real repositories have and samples have not.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import catalog_builder.synthetic
from catalog_builder.synthetic.sample import SampleSet, sample_set
from catalog_builder.synthetic.stores.icechunk_store import Irregularities, ZoneYear
from catalog_builder.synthetic.stores.sample import DEFAULT_STORE_SET, SampleStore, sample_store
from catalog_builder.tile import datasets, grid
from tests.support.environments import CACHE

YEAR = 2024
IRREGULARITIES = Irregularities(
    incomplete=frozenset({ZoneYear("34N", YEAR)}),
    refilled=frozenset({ZoneYear("33N", YEAR)}),
    refused={(ZoneYear("33N", YEAR), "chunk_1_18"): 1.0, (ZoneYear("33S", YEAR), "chunk_432_16"): 0.25},
)
"""Zone 34N broke off; 33N was filled twice, its lower block was refused, as was a quarter of one of 33S."""


@dataclass(frozen=True)
class SampleStores:
    """Files and stores with the same tile-years."""

    npy: SampleSet
    """One ``written`` per tile-year, in the order of ``DEFAULT_STORE_SET``."""
    zarr: SampleStore
    icechunk: SampleStore


@pytest.fixture(scope="session")
def sample_stores() -> SampleStores:
    """Return the sample's four tiles in all containers: do not change them."""
    with _folder() as folder:
        npy = _npy(folder)
        return SampleStores(
            npy, sample_store(folder, "zarr", tiles=npy), sample_store(folder, "icechunk", tiles=npy)
        )


@pytest.fixture(scope="session")
def irregular_repository() -> SampleStore:
    """Return a repository of the same tiles with :data:`IRREGULARITIES`: do not change it."""
    with _folder() as folder:
        return sample_store(
            folder / "irregular", "icechunk", tiles=_npy(folder), irregularities=IRREGULARITIES
        )


def _npy(folder: Path) -> SampleSet:
    # In this process: pools of processes are for tests of services.
    return sample_set(folder / "npy", tile_years=DEFAULT_STORE_SET, workers=1)


@contextmanager
def _folder() -> Iterator[Path]:
    """Yield the folder that goes with the present code; older ones are removed, others wait."""
    sources = [Path(str(module.__file__)) for module in (datasets, grid)]
    sources += sorted(Path(catalog_builder.synthetic.__path__[0]).rglob("*.py"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    CACHE.mkdir(exist_ok=True)
    home = CACHE / f"sample-stores-{key}"
    with (CACHE / "sample-stores.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # several test processes may want it at once
        for old in CACHE.glob("sample-stores-*/"):
            if old != home:
                shutil.rmtree(old, ignore_errors=True)
        yield home
