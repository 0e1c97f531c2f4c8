"""How the index grows: a million rows, the planet's 14 million, and five times that in five collections.

Only the index, from the keys of the planet's land cells (synthetic years and times), written and read in
process: what ``docs/scale.md`` reasons from beyond one planet.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely

from catalog_builder.catalog.index.keys import make_key
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.catalog.index.writer import IndexRows, IndexWriter
from catalog_builder.item.item import Addresses, Has
from catalog_builder.tile.cover import cover
from catalog_builder.tile.datasets import DATASETS, Dataset
from catalog_builder.tile.grid import N_COLS
from catalog_builder.tile.years import year_bits
from tests.bench.planet import boxes
from tests.bench.tables import show
from tests.scale.land import land_cells
from tests.scale.manifests import YEARS, Cells, years_of

pytestmark = [pytest.mark.bench, pytest.mark.release, pytest.mark.timeout(3600)]

N = 200
RNG = random.Random(1)
HAS = int(Has.NPY | Has.RAW_LANE | Has.SIZES | Has.MTIME)
ADDRESSES = Addresses(source="https://example.org", landmasks="", lane="", data="", cogs=False)


def _write(path: Path, cell: Cells, datasets: tuple[Dataset, ...]) -> int:
    masks, n = years_of(cell), 0
    with IndexWriter(path) as writer:
        for ordinal, dataset in enumerate(datasets, 1):
            counts = []
            for year in YEARS:
                here = masks & np.uint32(year_bits([year])) != 0
                rng = np.random.default_rng(year)
                mtime = rng.integers(1_755_000_000, 1_763_000_000, here.sum())
                rows = IndexRows(cell[here], masks[here], np.full(here.sum(), HAS, np.int32), mtime)
                writer.tiles(ordinal, year, rows)
                counts.append(int(here.sum()))
            record = CollectionRecord(
                ordinal, dataset, YEARS, ADDRESSES, "utm", "https://example.org", "", tuple(counts), len(cell)
            )
            writer.collection(record, "{}")
            n += sum(counts)
    return n


def _ms(calls: list[Callable[[], object]], per_second: float = 1e3) -> str:
    for call in calls[: len(calls) // 10]:
        call()
    times = []
    for call in calls:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return f"{np.median(times) * per_second:.2f}"


def _read(index: Index, cell: Cells) -> list[str]:
    """Return the median milliseconds of typical searches."""
    everything = sorted(index.by_ordinal)
    small = [Selection([RNG.choice(everything)], [y], cover(shapely.box(*b))) for b, y in boxes(N)]
    large = [Selection(everything, None, cover(shapely.box(*b))) for b, _ in boxes(N, 10)]
    keys = [
        make_key(RNG.choice(everything), RNG.choice(YEARS), *divmod(int(RNG.choice(cell)), N_COLS))
        for _ in range(N)
    ]
    north = Selection([everything[-1]], [YEARS[-1]], cover(shapely.box(-180, 20, 180, 60)))
    deep = index.page(north, 5_000)[-1][0]
    return [
        _ms([lambda s=s: index.page(s, 100) for s in small]),
        _ms([lambda s=s: index.count(s) for s in large]),
        _ms([lambda s=s: index.page(s, 100) for s in large]),
        _ms([lambda k=k: index.has_tile(k) for k in keys], 1e6),
        _ms([lambda: index.page(north, 100, deep)] * N),
    ]


def test_growth(tmp_path: Path) -> None:
    cell = land_cells()
    rows = []
    for name, cells, datasets in (
        ("every 14th land cell", cell[::14], DATASETS[:1]),
        ("the planet", cell, DATASETS[:1]),
        ("five planets", cell, DATASETS[:5]),
    ):
        path = tmp_path / f"{len(rows)}.sqlite"
        start = time.perf_counter()
        n = _write(path, cells, datasets)
        written = time.perf_counter() - start
        index = Index(path)
        start = time.perf_counter()
        index.coverage(1)
        covered = time.perf_counter() - start
        times = _read(index, cells)
        last = index.by_ordinal[len(datasets)]
        start = time.perf_counter()
        with IndexWriter(tmp_path / "copy.sqlite") as copy:
            for record in index.collections.values():
                copy.copy_collection(path, record, "{}")
        copied = time.perf_counter() - start
        (tmp_path / "copy.sqlite").unlink()
        size = path.stat().st_size
        rows.append(
            [
                name,
                f"{n:,}",
                f"{size / 1e6:,.0f}",
                f"{size / n:.1f}",
                f"{written:.1f}",
                f"{copied:.1f}",
                f"{covered:.2f}",
                *times,
            ]
        )
        assert index.has_tile(make_key(last.ordinal, YEARS[0], *divmod(int(cells[0]), N_COLS))) == HAS
    show(
        "The index alone, in process (medians in ms)",
        [
            "what",
            "rows",
            "MB",
            "bytes a row",
            "written s",
            "copied s",
            "coverage of one s",
            "1 degree, a year: page of 100",
            "10 degrees, all: count",
            "10 degrees, all: page of 100",
            "a key, us",
            "page 51 of a year",
        ],
        rows,
    )
