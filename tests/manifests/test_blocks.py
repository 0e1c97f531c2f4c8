"""The registry of blocks beside dClimate's Icechunk store, and geotessera's registry of filled tiles."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_builder.errors import DatasetError
from catalog_builder.manifests import ManifestPart, ProblemLog, read_dataset, read_manifests
from catalog_builder.manifests.reading import dataset_of_address
from catalog_builder.tile.datasets import dataset
from tests.support.registry import block_at, write_part
from tests.support.s3_store import s3_store

DCLIMATE = dataset("v1.1-dclimate")


def read(
    source: Path | str, years: frozenset[int] | None = None
) -> tuple[list[dict[str, object]], ProblemLog]:
    problems = ProblemLog()
    parts = list(read_dataset(source, DCLIMATE, problems=problems, years=years))
    tables = [p.blocks for p in parts if p.blocks is not None]
    return [row for t in tables for row in t.to_pylist()], problems


def registry(folder: Path) -> Path:
    write_part(folder, "31N", 2024, [block_at(0.15, 52.05, "31N"), (1, 2)], refused_px=[7, None])
    write_part(folder, "31S", 2023, [block_at(0.15, -52.05, "31S")], embedded=[False])
    write_part(folder, "01N", 2023, [block_at(-179.95, 65.0, "01N"), block_at(179.98, 65.0, "01N")])
    return folder / "parts"


def test_zone_and_year_are_in_the_path(tmp_path: Path) -> None:
    rows, problems = read(registry(tmp_path))
    assert not problems.counts
    assert sorted(
        (r["epsg"], r["year"], r["row"], r["col"], r["embedded"], r["refused_px"]) for r in rows
    ) == [
        (32601, 2023, *block_at(-179.95, 65.0, "01N"), True, 0),
        (32601, 2023, *block_at(179.98, 65.0, "01N"), True, 0),
        (32631, 2024, 1, 2, True, None),
        (32631, 2024, *block_at(0.15, 52.05, "31N"), True, 7),
        (32731, 2023, *block_at(0.15, -52.05, "31S"), False, 0),
    ]
    some, problems = read(tmp_path / "parts", frozenset([2024]))
    assert {r["year"] for r in some} == {2024}
    assert not problems.counts


@pytest.mark.parametrize("kind", ["tar", pytest.param("s3", marks=pytest.mark.service)])
def test_archives_and_buckets(tmp_path: Path, kind: str) -> None:
    folder = registry(tmp_path)
    expected, _ = read(folder)
    if kind == "tar":
        with tarfile.open(tmp_path / "registry.tar.gz", "w:gz") as archive:
            archive.add(folder, "parts")
        rows, problems = read(tmp_path / "registry.tar.gz")
    else:
        with s3_store() as store:
            for path in folder.rglob("*.parquet"):
                store.client.upload_file(str(path), store.bucket, path.relative_to(tmp_path).as_posix())
            rows, problems = read(f"s3://{store.bucket}/parts")
    assert not problems.counts
    assert sorted(map(str, rows)) == sorted(map(str, expected))


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"tile": ["chunk_999_1"]}, r"column tile: expected chunk_<0\.\.455>_<0\.\.32>, found 'chunk_999_1'"),
        ({"tile": ["x"]}, "found 'x'"),
        ({"assembled_at": ["yesterday"]}, "column assembled_at: expected a time, found 'yesterday'"),
        ({"refused_px": [5_000_000]}, "column refused_px: expected 0 to 4194304, found 5000000"),
        (
            {"tile": ["chunk_3_3"]},
            r"block chunk_3_3 of zone 31N has its centre at -16\.941, 83\.041, which its box",
        ),
    ],
)
def test_what_cannot_be_is_reported_and_left_out(
    tmp_path: Path, columns: dict[str, list[object]], why: str
) -> None:
    write_part(tmp_path, "31N", 2024, [(100, 5)], **columns)
    rows, problems = read(tmp_path / "parts")
    assert rows == []
    (problem,) = problems.kept
    assert re.search(why, str(problem)), str(problem)


def test_boxes_that_are_missing_are_not_compared(tmp_path: Path) -> None:
    none = {f"bbox_{side}": [None] for side in ("west", "south", "east", "north")}
    write_part(tmp_path, "31N", 2024, [(100, 5)], **none)
    rows, problems = read(tmp_path / "parts")
    assert len(rows) == 1
    assert not problems.counts


def test_a_part_outside_of_its_folders_says_nothing(tmp_path: Path) -> None:
    path = write_part(tmp_path, "31N", 2024, [(100, 5)])
    alone = path.rename(tmp_path / "run.parquet")
    rows, problems = read(alone)
    assert rows == []
    assert "expected a path 'zone=33N/year=2024/<run>.parquet'" in str(problems.kept[0])


def test_the_published_registry_is_of_its_dataset() -> None:
    assert DCLIMATE.tile_registry is not None
    for address in (DCLIMATE.tile_registry, f"{DCLIMATE.tile_registry}/", f"{DCLIMATE.icechunk}"):
        assert dataset_of_address(address) == DCLIMATE
    assert dataset_of_address("s3://tessera-embeddings/v1.1/dclimate.icechunk-2/x") is None


def test_registries_of_filled_tiles(tmp_path: Path) -> None:
    table = pa.table(
        {
            "year": [2024, 2024, 2023, 2024],
            "zone": [31, 31, 30, 31],
            "tile_lon": [0.15, 0.25, -0.15, 0.2],
            "tile_lat": [52.05, 52.05, -10.05, 52.05],
        }
    )
    pq.write_table(table, tmp_path / "_registry.parquet")
    problems = ProblemLog()
    parts: list[ManifestPart] = list(read_manifests(tmp_path / "_registry.parquet", problems=problems))
    rows = [row for p in parts if p.tiles is not None for row in p.tiles.to_pylist()]
    assert sorted((r["year"], r["lon_i"], r["lat_i"], r["in_store"], r["has_npy"]) for r in rows) == [
        (2023, -15, -1005, True, False),
        (2024, 15, 5205, True, False),
        (2024, 25, 5205, True, False),
    ]
    assert [p.kind.name for p in problems.kept] == ["OFF_GRID"]


def test_registries_of_other_datasets(tmp_path: Path) -> None:
    write_part(tmp_path / "npy" / "v1", "31N", 2024, [(100, 5)])
    with pytest.raises(DatasetError, match=r"holds dataset v1 .*not v1\.1-dclimate.*--dataset"):
        read(tmp_path)
