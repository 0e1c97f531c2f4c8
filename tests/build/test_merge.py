"""The merge against a plain dictionary that follows the documented rules row by row."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.build.staging import merge as merge_module
from catalog_builder.build.staging.merge import Staging
from catalog_builder.errors import ManifestError, TesseraError
from catalog_builder.manifests import ManifestPart, ProblemLog
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.table import LANDMASK_SCHEMA, TILE_SCHEMA, cells

Row = dict[str, Any]
NPY = ("npy_size", "npy_sha256", "scales_size", "scales_sha256")


def sha(i: int) -> bytes:
    return hashlib.sha256(bytes([i])).digest()


def row(tile: TileId, year: int, **facts: Any) -> Row:
    return dict.fromkeys(TILE_SCHEMA.names) | {
        "lat_i": tile.lat_i,
        "lon_i": tile.lon_i,
        "year": year,
        "has_npy": True,
        "in_store": False,
        **facts,
    }


def part(source: str, rows: list[Row]) -> ManifestPart:
    return ManifestPart(source, None, tiles=pa.Table.from_pylist(rows, schema=TILE_SCHEMA))


A = TileId.from_name("grid_0.15_52.05")
B = TileId.from_name("grid_0.25_52.05")


def fold(old: Row, new: Row) -> Row:
    """Merge two rows as the module's documentation says."""
    merged = dict(old)
    if new["has_npy"]:
        if not old["has_npy"]:
            merged |= {name: new[name] for name in (*NPY, "mtime", "has_npy")}
        else:
            stale = any(
                old[name] is not None and new[name] is not None and old[name] != new[name] for name in NPY
            )
            for name in (*NPY, "mtime"):
                if stale or new[name] is not None:
                    merged[name] = new[name]
    if new["geotiff"] is not None:
        stale = (
            None not in (old["geotiff_size"], new["geotiff_size"])
            and old["geotiff_size"] != new["geotiff_size"]
        )
        merged["geotiff"] = new["geotiff"]
        if stale or new["geotiff_size"] is not None or old["geotiff"] is None:
            merged["geotiff_size"] = new["geotiff_size"]
    if new["in_store"]:
        merged["in_store"] = True
        if new["refused_fraction"] is not None or not old["in_store"]:
            merged["refused_fraction"] = new["refused_fraction"]
    return merged


FACTS = st.one_of(
    st.fixed_dictionaries(
        {
            "npy_size": st.sampled_from([None, 5, 6]),
            "npy_sha256": st.sampled_from([None, sha(1), sha(2)]),
            "scales_size": st.sampled_from([None, 1]),
            "scales_sha256": st.sampled_from([None, sha(3), sha(4)]),
        }
    ),
    st.fixed_dictionaries(
        {
            "has_npy": st.just(False),
            "geotiff": st.sampled_from(["a.tiff", "b.tiff"]),
            "geotiff_size": st.sampled_from([None, 7, 8]),
        }
    ),
    st.fixed_dictionaries(
        {
            "has_npy": st.just(False),
            "in_store": st.just(True),
            "refused_fraction": st.sampled_from([None, 0.0, 0.25]),
        }
    ),
)
TILE = st.builds(TileId.from_row_col, st.integers(900, 902), st.integers(1800, 1802))
ROW = st.builds(lambda tile, year, facts: row(tile, year, **facts), TILE, st.integers(2023, 2024), FACTS)


@settings(max_examples=200, deadline=None)
@given(
    sources=st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=4),
    spill=st.sampled_from([1, 5, 1 << 17]),
)
def test_against_a_dictionary(sources: list[list[Row]], spill: int) -> None:
    expected: dict[tuple[int, int], Row] = {}
    with pytest.MonkeyPatch.context() as patch, Staging(None) as staging:
        patch.setattr(merge_module, "_SPILL_ROWS", spill)
        patch.setattr(merge_module, "_FOLD_CELLS", spill)
        for i, rows in enumerate(sources):
            staging.add(part(f"source {i}", rows))
            for r in rows:
                key = (
                    r["year"],
                    TileId(r["lat_i"], r["lon_i"]).row * 3600 + TileId(r["lat_i"], r["lon_i"]).col,
                )
                expected[key] = fold(expected[key], r) if key in expected else r
        tables = {year: staging.year(year) for year in staging.years()}
        report = staging.report()
    assert sum(t.num_rows for t in tables.values()) == len(expected) == report.tile_years
    for year, table in tables.items():
        assert table.schema.equals(TILE_SCHEMA)
        cell = cells(table)
        assert np.all(cell[1:] > cell[:-1])
        for c, found in zip(cell.tolist(), table.to_pylist(), strict=True):
            assert found == expected[year, c]
    for source, rows in zip(report.sources, sources, strict=True):
        assert source.rows == len(rows) == source.new + source.identical + source.completed + source.replaced
    assert sum(s.new for s in report.sources) == len(expected)


def test_registry_and_manifest_complete_each_other() -> None:
    old = row(A, 2024, npy_sha256=sha(1), npy_size=5, scales_sha256=sha(2))
    new = row(A, 2024, npy_size=5, scales_size=1)
    with Staging(None) as staging:
        staging.add_all([part("registry.parquet", [old]), part("manifest.parquet", [new, row(B, 2024)])])
        found = staging.year(2024).to_pylist()[0]
        report = staging.report()
    assert (found["npy_sha256"], found["scales_sha256"], found["scales_size"]) == (sha(1), sha(2), 1)
    assert [(s.new, s.completed, s.replaced) for s in report.sources] == [(1, 0, 0), (1, 1, 0)]
    assert report.by_year == {2024: 2}


def test_hashes_of_other_content_are_not_taken_over() -> None:
    old = row(A, 2024, npy_sha256=sha(1), npy_size=5, scales_sha256=sha(2))
    with Staging(None) as staging:
        staging.add_all([part("old", [old]), part("new", [row(A, 2024, npy_size=6)])])
        found = staging.year(2024).to_pylist()[0]
        assert staging.report().replaced == 1
    assert (found["npy_size"], found["npy_sha256"], found["scales_sha256"]) == (6, None, None)


def test_without_completion_the_later_row_is_taken_whole() -> None:
    old = row(A, 2024, npy_sha256=sha(1), geotiff="a.tiff")
    with Staging(None, complete=False) as staging:
        staging.add_all([part("old", [old]), part("new", [row(A, 2024, npy_size=6)])])
        found = staging.year(2024).to_pylist()[0]
    assert (found["npy_size"], found["npy_sha256"], found["geotiff"]) == (6, None, "a.tiff")


def test_conflict_within_a_source_is_reported_once() -> None:
    problems = ProblemLog()
    rows = [row(A, 2024, npy_size=5), row(A, 2024, npy_size=6)]
    with Staging(None, problems=problems) as staging:
        staging.add_all([part("list.txt", rows), part("later.txt", [row(A, 2024, npy_size=7)])])
        staging.year(2024)
        staging.year(2024)
        staging.report()
    assert problems.total == 1
    assert str(problems.kept[0]).startswith("list.txt: '2024/grid_0.15_52.05' appears again")
    with Staging(None, problems=ProblemLog(strict=True)) as staging:
        staging.add(part("list.txt", rows))
        with pytest.raises(ManifestError):
            staging.year(2024)


def test_landmasks() -> None:
    def masks(source: str, *rows: tuple[TileId, int | None, bytes | None]) -> ManifestPart:
        made = [{"lat_i": t.lat_i, "lon_i": t.lon_i, "size": s, "sha256": h} for t, s, h in rows]
        return ManifestPart(source, None, landmasks=pa.Table.from_pylist(made, schema=LANDMASK_SCHEMA))

    with Staging(None) as staging:
        staging.add(masks("one", (B, 1, sha(1)), (A, None, sha(2))))
        staging.add(masks("two", (A, 9, None), (B, 2, None)))
        table = staging.landmasks()
        assert staging.years() == []
        assert staging.report().landmasks == 2
    assert table.schema.equals(LANDMASK_SCHEMA)
    assert [(r["lon_i"], r["size"], r["sha256"]) for r in table.to_pylist()] == [
        (15, 9, sha(2)),
        (25, 2, None),
    ]


def test_nothing_and_too_late() -> None:
    with Staging(None) as staging:
        assert staging.year(2024).num_rows == staging.landmasks().num_rows == 0
        with pytest.raises(TesseraError, match="being read"):
            staging.add(part("late", [row(A, 2024)]))


def test_tables_outlive_the_staging_area() -> None:
    with Staging(None) as staging:
        staging.add(part("one", [row(A, 2024, npy_size=5), row(B, 2024)]))
        table = staging.year(2024)
    assert table["npy_size"].to_pylist() == [5, None]
