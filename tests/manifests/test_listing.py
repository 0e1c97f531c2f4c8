"""The data itself as a manifest: trees of every layout, and saved listings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from catalog_builder.tile.datasets import dataset
from tests.manifests.making import (
    TILES,
    digest,
    kinds,
    make_tree,
    masks_in,
    path_of,
    read,
    rows_in,
    tiles_in,
)

LEVEL = "global_0.1_degree_representation"


@pytest.mark.parametrize("below", ["", LEVEL, "npy/v1", "a/b/c"])
def test_npy_pairs(tmp_path: Path, below: str) -> None:
    make_tree(tmp_path / below, TILES)
    parts, problems = read(tmp_path)
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts
    assert {p.dataset for p in parts} == {dataset("v1") if "v1" in below else None}
    assert {p.root for p in parts} == {str(tmp_path / below).rstrip("/")}
    row = rows_in(parts)[TILES[2]]
    folder = tmp_path / below / path_of(TILES[2])
    assert row["npy_size"] == folder.stat().st_size
    assert row["mtime"].timestamp() == int(folder.stat().st_mtime)  # type: ignore[attr-defined]
    assert row["npy_sha256"] is None


def test_hashes_beside_the_tiles(tmp_path: Path) -> None:
    make_tree(tmp_path / LEVEL, TILES, hashes=True)
    masks = tmp_path / "global_0.1_degree_tiff_all"
    masks.mkdir()
    names = sorted({name for _, name in TILES})
    for name in names:
        (masks / f"{name}.tiff").write_bytes(b"mask")
    (masks / "SHA256SUM").write_text("".join(f"{digest(n)}  {n}.tiff\n" for n in names[1:]))
    parts, problems = read(tmp_path)
    assert not problems.counts
    import hashlib

    for tile, row in rows_in(parts).items():
        content = (tmp_path / LEVEL / path_of(tile)).read_bytes()
        assert row["npy_sha256"] == hashlib.sha256(content).digest()
        assert row["scales_sha256"] is not None
    found = masks_in(parts)
    assert sorted(found) == names
    assert [found[n]["sha256"] for n in names] == [None, *(bytes.fromhex(digest(n)) for n in names[1:])]
    assert {row["size"] for row in found.values()} == {4}


def test_geotiffs_of_every_naming(tmp_path: Path) -> None:
    files = {
        f"{LEVEL}/2024/grid_0.15_52.05/grid_0.15_52.05_2024.tiff": (2024, "grid_0.15_52.05"),
        "tessera_2023_lat52.05_lon0.15.tif": (2023, "grid_0.15_52.05"),
        "moved/grid_-0.05_-0.05_2022.tiff": (2022, "grid_-0.05_-0.05"),
        "2021/grid_-0.05_-0.05.tif": (2021, "grid_-0.05_-0.05"),
        "tessera_2024_utm31.tif": None,  # a zone mosaic is no tile
        "tessera_2024_lat52.05_lon0.15_pca.tif": None,
        "preview.png": None,
    }
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"tiff")
    parts, problems = read(tmp_path)
    assert not problems.counts
    rows = rows_in(parts)
    assert {t: r["geotiff"] for t, r in rows.items()} == {t: p for p, t in files.items() if t}
    assert {(r["has_npy"], r["geotiff_size"], r["npy_size"]) for r in rows.values()} == {(False, 4, None)}


def test_sidecar_says_the_dataset(tmp_path: Path) -> None:
    for name, version, variant in (("one", "1.1", "cambridge"), ("two", "2.0", "2B-L~beta2")):
        make_tree(tmp_path / name / LEVEL, TILES[:2])
        sidecar = {"dataset_version": version, "dataset_variant": variant, "format": "npy", "year": 2024}
        (tmp_path / name / "tessera_metadata.json").write_text(json.dumps(sidecar))
    parts, problems = read(tmp_path)
    assert not problems.counts
    for name in ("v1.1-cam", "v2-2B-L~beta2"):
        assert tiles_in(p for p in parts if p.dataset == dataset(name)) == TILES[:2]
    (tmp_path / "two" / "tessera_metadata.json").write_text("{")
    parts, problems = read(tmp_path)
    assert kinds(problems) == {"UNKNOWN_DATASET": 1}


def test_variant_behind_the_folder(tmp_path: Path) -> None:
    make_tree(tmp_path / "v1.1" / f"{LEVEL}.cambridge", TILES[:1])
    parts, _ = read(tmp_path)
    assert [p.dataset for p in parts] == [dataset("v1.1-cam")]


def test_flaws(tmp_path: Path) -> None:
    make_tree(tmp_path, TILES)
    (tmp_path / path_of(TILES[0], "_scales.npy")).unlink()
    (tmp_path / path_of(TILES[1])).unlink()
    folder = tmp_path / "2024" / "grid_0.35_52.05"
    folder.mkdir()
    (folder / "grid_0.45_52.05.npy").write_bytes(b"")
    (folder / "grid_0.40_52.05.npy").write_bytes(b"")
    (folder / "grid_0.35_52.05_2023.tiff").write_bytes(b"")
    make_tree(tmp_path, [(1980, "grid_0.15_52.05")])
    parts, problems = read(tmp_path)
    assert tiles_in(parts) == sorted(TILES[2:])
    assert kinds(problems) == {"HALF_PAIR": 2, "NAME_MISMATCH": 1, "OFF_GRID": 1, "WRONG_YEAR": 3}


def test_files_being_written_are_not_there_yet(tmp_path: Path) -> None:
    make_tree(tmp_path, TILES[:1])
    shutil.copy(tmp_path / path_of(TILES[0]), tmp_path / "2023" / TILES[0][1] / ".grid_0.15_52.05.npy.tmp")
    parts, problems = read(tmp_path)
    assert (tiles_in(parts), kinds(problems)) == (TILES[:1], {})


def test_manifests_beside_the_data_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "aaa_registry_2024.txt").write_text("x\n")
    make_tree(tmp_path / LEVEL, TILES[:1])
    parts, problems = read(tmp_path)
    assert tiles_in(parts) == TILES[:1]
    assert "aaa_registry_2024.txt" in problems.notes[0]


FORMS = {
    "aws s3 ls --recursive": "2025-08-20 12:34:56  {size:>10} tessera/npy/v1/{path}",
    "rclone lsl": "{size:>9} 2025-08-20 12:34:56.000000000 {path}",
    "find -printf": "{size} 1755693296.5012 ./{path}",
    "find -ls": "  1234567    {size} -rw-r--r--   1 tessera  tessera  {size:>8} Aug 20 12:34 ./x/{path}",
    "find": "/mnt/tessera/v1/{path}",
}


@pytest.mark.parametrize("form", FORMS)
def test_saved_listings(tmp_path: Path, form: str) -> None:
    files = [path_of(t, tail) for t in TILES for tail in (".npy", "_scales.npy")]
    files += ["readme.md", f"{TILES[0][1]}.tiff"]
    lines = [FORMS[form].format(size=1000 + i, path=path) for i, path in enumerate(files)]
    saved = tmp_path / "listing.txt"
    saved.write_text("\n".join(lines) + "\n")
    parts, problems = read(saved)
    assert tiles_in(parts) == sorted(TILES)
    assert set(masks_in(parts)) == {TILES[0][1]}
    assert not problems.counts
    assert rows_in(parts)[TILES[1]]["npy_size"] == (None if form == "find" else 1002)
    assert {p.dataset for p in parts if p.tiles} == {dataset("v1") if "v1" in FORMS[form] else None}
    saved.write_text("\n".join(lines[1:]) + "\n")
    parts, problems = read(saved)
    assert kinds(problems) == {"HALF_PAIR": 1}
    assert "line 1" in str(problems.kept[0])
