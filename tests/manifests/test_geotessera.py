"""Upstream's own code as the oracle: what geotessera 0.7.5 writes and finds, we read and find."""

from __future__ import annotations

import argparse
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from geotessera import registry_cli

from catalog_builder.tile.grid import TileId
from tests.manifests.making import TILES, make_tree, masks_in, path_of, read, rows_in, tiles_in

LEVEL = "global_0.1_degree_representation"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_tree(tmp_path / LEVEL, TILES, hashes=True)
    masks = tmp_path / "global_0.1_degree_tiff_all"
    masks.mkdir()
    for name in {name for _, name in TILES}:
        (masks / f"{name}.tiff").write_bytes(name.encode())
    lines = [
        f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted(masks.glob("*.tiff"))
    ]
    (masks / "SHA256SUM").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def scanned(tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    # it forks workers; beside pyarrow's threads a forked child may hang
    monkeypatch.setattr(registry_cli, "ProcessPoolExecutor", ThreadPoolExecutor)
    out = tmp_path_factory.mktemp("registry")
    assert registry_cli.scan_command(argparse.Namespace(base_dir=str(tree), registry_dir=str(out))) == 0
    return out


def test_scan(tree: Path, scanned: Path) -> None:
    parts, problems = read(scanned)
    assert not problems.counts
    assert tiles_in(parts) == sorted(TILES)
    for tile, row in rows_in(parts).items():
        npy, scales = (tree / LEVEL / path_of(tile, tail) for tail in (".npy", "_scales.npy"))
        assert row["npy_sha256"] == hashlib.sha256(npy.read_bytes()).digest()
        assert row["scales_sha256"] == hashlib.sha256(scales.read_bytes()).digest()
        assert (row["npy_size"], row["scales_size"]) == (npy.stat().st_size, scales.stat().st_size)
        assert row["mtime"].timestamp() == int(npy.stat().st_mtime)  # type: ignore[attr-defined]
    masks = masks_in(parts)
    assert set(masks) == {name for _, name in TILES}
    assert all(row["sha256"] == hashlib.sha256(name.encode()).digest() for name, row in masks.items())
    assert all(row["size"] == len(name) for name, row in masks.items())


def test_the_tree_gives_what_the_scan_gives(tree: Path, scanned: Path) -> None:
    ours, theirs = rows_in(read(tree)[0]), rows_in(read(scanned)[0])
    assert ours == theirs


def test_its_registry_finds_the_same_tiles(scanned: Path, tmp_path: Path) -> None:
    from geotessera.registry import Registry

    registry = Registry(version="v1", cache_dir=tmp_path, embeddings_dir=tmp_path, registry_dir=scanned)
    theirs = sorted(
        (int(year), TileId.containing(lon, lat).name)
        for year, lon, lat in registry.get_available_embeddings()
    )
    assert theirs == tiles_in(read(scanned)[0])
    box = (0.12, 52.02, 0.18, 52.08)
    found = {
        (y, TileId.containing(lon, lat).name) for y, lon, lat in registry.iter_tiles_in_region(box, 2024)
    }
    assert found == {(2024, "grid_0.15_52.05")}
    assert int(registry.get_landmask_count()) == len(masks_in(read(scanned)[0]))


def test_file_scan(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("inventory") / "embedding_inventory.parquet"
    args = argparse.Namespace(input_dir=str(tree / LEVEL), output=str(out), output_file=str(out))
    assert registry_cli.file_scan_command(args) in (0, None)
    if not out.exists():
        out = tree / LEVEL / "embedding_inventory.parquet"
    parts, problems = read(out)
    assert not problems.counts
    assert tiles_in(parts) == sorted(TILES)
    sizes = {t: (tree / LEVEL / path_of(t)).stat().st_size for t in TILES}
    assert {t: row["npy_size"] for t, row in rows_in(parts).items()} == sizes


def test_export_manifests(scanned: Path, tmp_path: Path) -> None:
    args = argparse.Namespace(
        input_dir=str(scanned),
        output_dir=str(tmp_path / "out"),
        registry_dir=str(scanned),
        base_dir=str(scanned),
    )
    assert registry_cli.export_manifests_command(args) in (0, None)
    parts, problems = read(tmp_path / "out")
    assert not problems.counts
    assert tiles_in(parts) == sorted(TILES)
    theirs = rows_in(read(scanned)[0])
    assert {t: r["npy_sha256"] for t, r in rows_in(parts).items()} == {
        t: r["npy_sha256"] for t, r in theirs.items()
    }


def test_names_of_blocks() -> None:
    from geotessera.registry import block_from_world

    rng = np.random.default_rng(3)
    for row, col in zip(rng.integers(0, 1800, 500), rng.integers(0, 3600, 500), strict=True):
        tile = TileId.from_row_col(int(row), int(col))
        assert block_from_world(tile.lon, tile.lat) == (col // 50 * 5 - 180, row // 50 * 5 - 90)
