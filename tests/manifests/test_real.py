"""The real manifests of geotessera 0.1.0, July 2025: all 174,929 tile-years, and the sample of them."""

from __future__ import annotations

import hashlib
import lzma
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import catalog_builder.data
from catalog_builder.build.staging.merge import Staging
from catalog_builder.data import make_sample_manifests
from catalog_builder.manifests import ProblemLog, read_manifests
from catalog_builder.tile.grid import N_COLS
from catalog_builder.tile.table import cells
from tests.manifests.making import BRITAIN
from tests.support.needs import real_manifests

SAMPLE = Path(catalog_builder.data.__file__).parent / "sample-manifests"

COUNTS = {2017: 3994, 2018: 4050, 2019: 4055, 2020: 4057, 2021: 4055, 2022: 4220, 2023: 4046, 2024: 146_452}
"""Tile-years, counted independently with a regular expression."""
SAMPLE_COUNTS = {
    2017: 3969,
    2018: 4025,
    2019: 4030,
    2020: 4030,
    2021: 4030,
    2022: 4026,
    2023: 4021,
    2024: 4036,
}

LINE = re.compile(
    r"^(\d{4})/(grid_(-?\d+\.\d{2})_(-?\d+\.\d{2}))/\2(_scales)?\.npy ([0-9a-f]{64})$", re.MULTILINE
)


@pytest.fixture(scope="module")
def merged() -> dict[int, pa.Table]:
    problems = ProblemLog(strict=True)
    with Staging(None, problems=problems) as staging:
        staging.add_all(read_manifests(real_manifests(), problems=problems))
        return {year: staging.year(year) for year in staging.years()}


def test_counts(merged: dict[int, pa.Table]) -> None:
    assert {year: table.num_rows for year, table in merged.items()} == COUNTS
    per_cell = np.bincount(np.concatenate([cells(t) for t in merged.values()]))
    assert np.count_nonzero(per_cell) == 146_455
    assert np.count_nonzero(per_cell == 8) == 3976
    newest = cells(merged[2024])
    assert np.count_nonzero(per_cell[newest] == 1) == 142_229
    lat, lon = merged[2024]["lat_i"].to_numpy(), merged[2024]["lon_i"].to_numpy()
    assert (lon.min(), lon.max(), lat.min(), lat.max()) == (-17795, 17885, -5425, 6425)
    assert np.count_nonzero(lat < 0) == 63_666
    assert np.count_nonzero((lat == -5) | (lon == -5)) == 489


def test_every_row_against_a_regular_expression(merged: dict[int, pa.Table]) -> None:
    for year in (2022, 2024):
        text = lzma.decompress((real_manifests() / f"registry_{year}.txt.xz").read_bytes()).decode()
        expected: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
        for found_year, _, lon, lat, scales, sha in LINE.findall(text):
            assert int(found_year) == year
            expected[int(lat.replace(".", "")), int(lon.replace(".", ""))][scales] = sha
        table = merged[year]
        ours = zip(
            table["lat_i"].to_pylist(),
            table["lon_i"].to_pylist(),
            table["npy_sha256"].to_pylist(),
            table["scales_sha256"].to_pylist(),
            strict=True,
        )
        assert {(a, b): {"": h.hex(), "_scales": s.hex()} for a, b, h, s in ours} == expected


def test_as_five_degree_blocks_they_are_the_same(tmp_path: Path, merged: dict[int, pa.Table]) -> None:
    blocks: dict[str, list[str]] = defaultdict(list)
    for year in (2022, 2024):
        text = lzma.decompress((real_manifests() / f"registry_{year}.txt.xz").read_bytes()).decode()
        for line in text.splitlines(keepends=True):
            _, lon, lat = line.split("/")[1].split("_")
            x, y = (int(float(v) // 5 * 5) for v in (lon, lat))
            blocks[f"embeddings_{year}_lon{x}_lat{y}.txt"].append(line)
    assert len(blocks) == 259 + 11
    for name, lines in blocks.items():
        (tmp_path / name).write_text("".join(lines))
    problems = ProblemLog(strict=True)
    with Staging(None, problems=problems) as staging:
        staging.add_all(read_manifests(tmp_path, problems=problems))
        for year in (2022, 2024):
            assert staging.year(year).equals(merged[year])


def test_sample() -> None:
    problems = ProblemLog(strict=True)
    with Staging(None, problems=problems) as staging:
        staging.add_all(read_manifests(SAMPLE, problems=problems))
        tables = {year: staging.year(year) for year in staging.years()}
    assert {year: t.num_rows for year, t in tables.items()} == SAMPLE_COUNTS
    cell = np.concatenate([cells(t) for t in tables.values()])
    row, col = cell // N_COLS, cell % N_COLS
    assert (row.min() * 10 - 9000) / 100 >= BRITAIN.south
    assert (row.max() * 10 - 8990) / 100 <= BRITAIN.north
    assert (col.min() * 10 - 18000) / 100 >= BRITAIN.west
    assert (col.max() * 10 - 17990) / 100 <= BRITAIN.east
    provenance = (SAMPLE / "PROVENANCE.md").read_text()
    for file in SAMPLE.glob("*.xz"):
        assert f"| `{file.name}` |" in provenance
        assert hashlib.sha256(file.read_bytes()).hexdigest() in provenance
    assert f"{sum(SAMPLE_COUNTS.values()):,}" in provenance


def test_sample_is_every_tile_year_of_the_box_and_is_made_again_the_same(tmp_path: Path) -> None:
    problems = ProblemLog(strict=True)
    with Staging(None) as staging:
        staging.add_all(read_manifests(real_manifests(), problems=problems, bounds=BRITAIN))
        assert staging.report().by_year == SAMPLE_COUNTS
    assert make_sample_manifests.make(real_manifests(), tmp_path) == sum(SAMPLE_COUNTS.values())
    for file in SAMPLE.glob("registry_*"):
        # compressors may change between versions of the library; the lines may not
        assert lzma.decompress(file.read_bytes()) == lzma.decompress((tmp_path / file.name).read_bytes())
