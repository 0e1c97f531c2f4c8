"""What a build costs per tile-year, beside the usual ways to write STAC items."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.measure import REPORT, Cost, run
from tests.bench.tables import show
from tests.support.needs import real_manifests_or_none

pytestmark = pytest.mark.bench

BUILD = REPORT + (
    "import sys; from catalog_builder.cli import app;"
    "app(['build', sys.argv[1], '--out', sys.argv[2], '--quiet', '--json'], standalone_mode=False)"
)
# The item of one tile, as a plain dict, made with pystac and given to stac-geoparquet: 5,000 of them.
USUAL = (
    REPORT
    + """
import sys, json, time, datetime, pystac, pyarrow.parquet as pq, stac_geoparquet.arrow as sga
base = json.load(open(sys.argv[1]))
n = 5000
start = time.perf_counter()
dicts = []
for i in range(n):
    item = pystac.Item.from_dict(base, preserve_dict=True)
    item.id = f"{base['id']}_{i}"
    dicts.append(item.to_dict(include_self_link=False, transform_hrefs=False))
made = time.perf_counter()
table = sga.parse_stac_items_to_arrow(dicts)
sga.to_parquet(table, sys.argv[2])
print(json.dumps([(made - start) / n, (time.perf_counter() - made) / n]))
"""
)


def _build(name: str, source: Path, out: Path, n: int) -> list[str]:
    cost = run([sys.executable, "-c", BUILD, str(source), str(out)])
    size = sum(f.stat().st_size for f in (out / "tessera-v1").resolve().rglob("*.parquet"))
    index = (out / "index.sqlite").stat().st_size
    return _row(name, n, cost, f"{size / n:.0f} + {index / n:.0f}")


def _row(name: str, n: int, cost: Cost, size: str) -> list[str]:
    return [
        name,
        f"{n:,}",
        f"{cost.seconds:.1f}",
        f"{cost.seconds / n * 1e6:.1f}",
        f"{cost.peak_mb:,.0f}",
        size,
    ]


def test_build_cost(tmp_path: Path) -> None:
    rows = []
    if (real := real_manifests_or_none()) is not None:
        rows.append(_build("tessera-stac build, real text manifests", real, tmp_path / "real", 174_929))
        rows.append(_build("the same again, unchanged", real, tmp_path / "real", 174_929))
    show(
        "Build: manifest to index, stac-geoparquet and collection",
        [
            "what",
            "tile-years",
            "seconds",
            "us per tile-year",
            "peak MB",
            "bytes a tile-year, parquet + index",
        ],
        rows,
    )


def test_the_usual_way(tmp_path: Path) -> None:
    import json

    from catalog_builder.catalog.folder import CatalogFolder
    from tests.support.catalogs import api_items, build_from, patch, write_manifest

    build_from(tmp_path / "c", write_manifest(tmp_path, 2024, patch(0, 52, 1, 1)), url="http://host")
    (item,) = api_items(CatalogFolder(tmp_path / "c").open_index(), "http://host").values()
    (tmp_path / "item.json").write_text(json.dumps(item))
    cost = run([sys.executable, "-c", USUAL, str(tmp_path / "item.json"), str(tmp_path / "o.parquet")])
    make, write = json.loads(cost.output)
    show(
        "The same item by the usual libraries (5,000 items, no index)",
        ["what", "us per item", "peak MB"],
        [
            ["pystac: from_dict and to_dict", f"{make * 1e6:.0f}", f"{cost.peak_mb:,.0f}"],
            ["stac-geoparquet: to Arrow, to parquet", f"{write * 1e6:.0f}", ""],
        ],
    )
