"""The table of datasets, and upstream's naming rule for what is not in it (geotessera 0.11, registry.py)."""

from __future__ import annotations

import pytest

from catalog_builder.errors import DatasetError
from catalog_builder.manifests.reading import dataset_in, dataset_of_address
from catalog_builder.tile.datasets import DATASETS, dataset, dataset_of

UPSTREAM = {
    ("1.0", "vultr"): ("v1", "v1", None),
    ("1.1", "dclimate"): (None, "v1.1-dclimate", "s3://tessera-embeddings/v1.1/dclimate.icechunk"),
    ("1.1", "cambridge"): ("v1.1-cam", "v1.1", None),
    ("2.0", "2B-L~beta1"): ("v2-2B-L~beta1", "v2-2B-L~beta1", None),
    ("2.0", "2B-L~beta2"): ("v2-2B-L~beta2", "v2-2B-L~beta2", None),
}
"""Where geotessera 0.11 says that each is: npy, zarr, icechunk."""


def test_the_table_is_upstreams() -> None:
    ours = {(d.version, d.variant): (d.npy, d.zarr, d.icechunk) for d in DATASETS if not d.is_synthetic}
    assert ours == UPSTREAM
    registries = [d.tile_registry for d in DATASETS if d.tile_registry]
    assert registries == ["s3://tessera-embeddings/v1.1/dclimate.registry/parts"]
    for one in DATASETS:
        names = (one.directory, one.collection_id, f"{one.version}/{one.variant}")
        assert [dataset(n) for n in names] == [one] * 3
        assert not one.by_rule


@pytest.mark.parametrize(
    ("version", "variant", "directory"),
    [
        ("2.0", "2B-L~beta9", "v2-2B-L~beta9"),
        ("v2", "2B-L~beta9", "v2-2B-L~beta9"),
        ("3.1", "x", "v3.1-x"),
        ("1.1", "other", "v1.1-other"),
    ],
)
def test_a_pair_that_is_not_in_the_table_follows_the_rule(version: str, variant: str, directory: str) -> None:
    found = dataset_of(version, variant)
    assert found.by_rule
    assert (found.directory, found.npy, found.zarr) == (directory, directory, directory)
    assert found.landmask_directory == directory.partition("-")[0]
    names = (directory, f"tessera-{directory}", f"{version}/{variant}")
    assert [dataset(n) for n in names] == [found] * 3
    assert dataset_in(f"npy/{directory}/2024") == found
    assert dataset_of_address(f"https://host.test/a/npy/{directory}/manifest.parquet") == found


def test_names_of_the_rule_that_are_in_the_table_are_the_table() -> None:
    assert dataset("v1.1-cambridge") == dataset("v1.1-cam")
    assert dataset("v1-vultr") == dataset("v1")
    assert dataset_in("zarr/v1.1") == dataset("v1.1-cam")
    assert dataset_in("zarr/v1.1-dclimate") == dataset("v1.1-dclimate")
    assert dataset_in("v1.1/global_0.1_degree_representation.cambridge") == dataset("v1.1-cam")


@pytest.mark.parametrize(
    "name", ["v2", "v1.1", "2.0", "nonsense", "v1-other", "v2-", "v2-a b", "v2-../x", "2.0/", "v2024-final"]
)
def test_what_follows_no_rule_is_unknown(name: str) -> None:
    with pytest.raises(DatasetError, match=r"expected one of v1, v1\.1-dclimate, .*v<version>-<variant>"):
        dataset(name)
    assert dataset_in(f"npy/{name.replace('/', '-')}x/2024") is None or name == "v2-"


@pytest.mark.parametrize(
    ("version", "variant", "why"),
    [
        ("1.1", None, "ambiguous dataset version '1.1'"),
        ("9.9", None, "unknown dataset version '9.9'"),
        ("1.0", "other", "unknown dataset version '1.0', variant 'other'"),
        ("1.1", "cam", "unknown dataset version '1.1', variant 'cam'"),
        ("x", "y", "unknown dataset version 'x', variant 'y'"),
    ],
)
def test_pairs_that_mean_nothing(version: str, variant: str | None, why: str) -> None:
    with pytest.raises(DatasetError, match=why):
        dataset_of(version, variant)
