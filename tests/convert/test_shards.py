"""Shards: disjoint, complete, of about one size; and N of them at once are one run."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.cli.convert import ARRAY_INDEX, parse_shard
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, in_shard, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.errors import QueryError
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.convert.making import COLUMN, FILES, contents, write_column
from tests.deploy.shards import EMBEDDINGS, at_once

YEARS = (2023, 2024)
IDS = [
    f"v1/{year}/{TileId(lat_i=lat_i, lon_i=lon_i).name}"
    for year in range(2017, 2025)
    for lat_i in range(4505, 5505, 50)
    for lon_i in range(-505, 1505, 50)
]


@settings(deadline=None)
@given(n=st.integers(1, 20))
def test_every_tile_is_in_one_shard_and_shards_are_of_one_size(n: int) -> None:
    sizes = Counter(i for job in IDS for i in range(n) if in_shard(job, (i, n)))
    assert sizes.total() == len(IDS), "each id in exactly one shard"
    mean = len(IDS) / n
    # 4.5 standard deviations of a fair draw
    assert all(abs(size - mean) <= 4.5 * mean**0.5 for size in sizes.values()), sizes
    assert len(sizes) == n


@pytest.mark.parametrize("n", range(1, 21))
def test_the_plans_of_shards_are_the_plan(tmp_path: Path, n: int) -> None:
    manifest = tmp_path / "registry_2024.txt"
    names = [f"2024/{TileId(lat_i=5205, lon_i=i).name}" for i in range(5, 405, 10)]
    files = [f"{name}/{name[5:]}{suffix}" for name in names for suffix in (".npy", "_scales.npy")]
    manifest.write_text("".join(f"{file} {zlib.crc32(file.encode()):064x}\n" for file in files))
    wanted = Wanted(dataset=dataset("v1"))
    whole = [job.id for job in plan([str(manifest)], wanted).jobs()]
    parts = [plan([str(manifest)], replace(wanted, shard=(i, n))) for i in range(n)]
    assert sorted(job.id for part in parts for job in part.jobs()) == sorted(whole)
    assert [part.total for part in parts] == [len(list(part.jobs())) for part in parts]


@pytest.mark.service
def test_three_shards_at_once_are_one_run(tmp_path: Path) -> None:
    """Three processes, one output, one ledger: files, rows and the catalogue are those of one run."""
    source = write_column(tmp_path / "src", YEARS)
    one, three = (tmp_path / name / "cogs" for name in ("one", "three"))
    run(plan([str(source)], Wanted()), ConvertOptions(str(one)), ExecutorWorkers(Inline(), 1))
    done = at_once([["--shard", f"{i}/3", "--workers", "0"] for i in range(3)], source, three)
    assert [p.returncode for p in done] == [0, 0, 0], [p.stderr for p in done]
    assert contents(three) == contents(one)
    assert len(contents(one)) == FILES * len(COLUMN) * len(YEARS)
    assert _rows(three) == _rows(one)
    assert len(list(read_rows(three / "ledger"))) == len(COLUMN) * len(YEARS), "none was done twice"
    assert not (three / ".staging").exists()
    tables = [_catalogue(source, out.parent) for out in (one, three)]
    assert tables[0].equals(tables[1])
    assert all(tables[0]["tessera:cog"].to_pylist())


def _rows(out: Path) -> dict[str, LedgerRow]:
    return {k: replace(r, finished="", seconds=0) for k, r in latest(read_rows(out / "ledger")).items()}


def _catalogue(source: Path, folder: Path):  # type: ignore[no-untyped-def]
    build([str(source / EMBEDDINGS)], folder, BuildOptions(dataset=dataset("synthetic"), url="http://cat"))
    return pq.read_table(folder / "tessera-synthetic" / "items")


@pytest.mark.parametrize("name", ARRAY_INDEX)
def test_an_array_job_says_its_number(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in ARRAY_INDEX:
        monkeypatch.delenv(other, raising=False)
    with pytest.raises(QueryError, match="so this is not an array job"):
        parse_shard("array/8")
    monkeypatch.setenv(name, "7")
    assert parse_shard("array/8") == (7, 8)
    with pytest.raises(QueryError, match="found '7/7'"):
        parse_shard("array/7")
