"""A catalogue of a registry of blocks, compared tile-year by tile-year with DuckDB."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pytest

from catalog_builder.catalog.folder import CatalogFolder
from tests.bench.measure import run_verb
from tests.scale.land import land_cells
from tests.scale.registry import Registry, by_brute_force, write_registry
from tests.support.catalogs import build_from


def compare(registry: Registry, catalog: Path) -> int:
    """Compare every tile-year; return how many there are."""
    index = CatalogFolder(catalog).open_index()
    expected = by_brute_force(registry).order("year, cell").fetchnumpy()
    n = 0
    for year in np.unique(expected["year"]).tolist():
        of_year = expected["year"] == year
        table = index.tile_table(1, year)
        cell = (table["lat_i"].to_numpy().astype(np.int64) + 8995) // 10 * 3600
        cell += (table["lon_i"].to_numpy().astype(np.int64) + 17995) // 10
        assert np.array_equal(cell, expected["cell"][of_year])
        assert table["in_store"].to_numpy().all()
        assert np.array_equal(table["refused_fraction"].is_valid().to_numpy(), expected["known"][of_year])
        n += len(cell)
    assert n == sum(index.collections["tessera-v1.1-dclimate"].counts)
    return n


def test_a_coarse_planet(tmp_path: Path) -> None:
    """Every zone, hemisphere and the antimeridian, of a few tiles each: no land mask is needed."""
    row, col = np.meshgrid(np.arange(305, 1700, 41), np.arange(0, 3600, 13), indexing="ij")
    near = np.concatenate([np.arange(3), np.arange(3597, 3600)])
    edge_row, edge_col = np.meshgrid(np.arange(898, 903), near, indexing="ij")
    edges = np.concatenate([row.ravel() * 3600 + col.ravel(), (edge_row * 3600 + edge_col).ravel()])
    registry = write_registry(tmp_path, np.unique(edges).astype(np.int32))
    report = build_from(
        tmp_path / "catalog",
        registry.parts,
        registry.landmasks,
        dataset="v1.1-dclimate",
        url="https://s.test",
    )
    assert not report.problems.counts
    wraps = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{registry.parts}/**/*.parquet') WHERE bbox_west > bbox_east"
    )
    assert wraps.fetchall()[0][0] > 100
    assert compare(registry, tmp_path / "catalog") == report.items > 50_000


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_the_published_size(tmp_path: Path) -> None:
    """994 parts and 3.25 million rows become 14 million items in bounded memory."""
    registry = write_registry(tmp_path, land_cells())
    catalog = tmp_path / "catalog"
    cost = run_verb(
        "build", registry.parts, registry.landmasks, "--dataset", "v1.1-dclimate", "--out", catalog,
        "--url", "https://stac.test", "--quiet", "--json",
    )  # fmt: skip
    n = json.loads(cost.output)["items"]
    print(
        f"{registry.n_parts} parts, {registry.rows:,} rows, {n:,} items: {cost.seconds:.1f} s,"
        f" {cost.cpu_seconds:.1f} s of CPU, {cost.cpu_seconds / n * 1e6:.1f} us per tile-year,"
        f" {cost.peak_mb:,.0f} MB"
    )
    assert 950 < registry.n_parts < 1100
    assert 3_000_000 < registry.rows < 3_700_000
    assert n > 13_000_000
    assert compare(registry, catalog) == n
    assert cost.cpu_seconds / n < float(os.environ.get("REGISTRY_US", "10")) * 1e-6
    assert cost.peak_mb < 2_500
