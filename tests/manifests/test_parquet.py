"""Parquet manifests of every generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from catalog_builder.errors import ManifestError
from catalog_builder.manifests import ProblemLog
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import Bounds, TileId
from tests.manifests.making import (
    TILES,
    degrees,
    digest,
    kinds,
    manifest_table,
    masks_in,
    path_of,
    read,
    registry_table,
    rows_in,
    tiles_in,
)


def save(folder: Path, table: pa.Table, name: str = "some.parquet", **options: object) -> Path:
    path = folder / name
    pq.write_table(table, path, **options)
    return path


def with_column(table: pa.Table, name: str, values: object) -> pa.Table:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return table.set_column(table.column_names.index(name), name, column)


def test_registry(tmp_path: Path) -> None:
    parts, problems = read(save(tmp_path, registry_table(TILES)))
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts
    assert {p.dataset for p in parts} == {None}
    row = rows_in(parts)[TILES[1]]
    assert row["npy_sha256"] == bytes.fromhex(digest(path_of(TILES[1])))
    assert row["scales_sha256"] == bytes.fromhex(digest(path_of(TILES[1], "_scales.npy")))
    assert (row["npy_size"], row["scales_size"]) == (101, 11)
    assert row["mtime"].timestamp() == 1_750_000_000  # type: ignore[attr-defined]


def test_registry_of_the_first_kind_has_fewer_columns(tmp_path: Path) -> None:
    table = registry_table(TILES).select(["lat", "lon", "year", "hash", "file_size"])
    parts, problems = read(save(tmp_path, table))
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts
    assert rows_in(parts)[TILES[0]]["scales_sha256"] is None


@pytest.mark.parametrize(
    "columns",
    [
        ["version", "variant", "year", "lon", "lat", "grid_size"],
        ["year", "lon_i", "lat_i", "grid_size"],
        ["year", "grid_path", "grid_size"],
        None,
    ],
)
def test_manifest(tmp_path: Path, columns: list[str] | None) -> None:
    table = manifest_table(TILES)
    table = table if columns is None else table.select(columns)
    parts, problems = read(save(tmp_path, table))
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts
    assert {p.dataset for p in parts} == {dataset("v1") if "version" in table.column_names else None}
    row = rows_in(parts)[TILES[1]]
    assert (row["npy_size"], row["npy_sha256"]) == (101, None)
    if columns is None:
        assert row["scales_size"] == 11
        assert row["mtime"].timestamp() == 1_760_000_000  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_columns_of_any_arrow_type(tmp_path: Path, text: pa.DataType) -> None:
    for table in (registry_table(TILES), manifest_table(TILES)):
        columns = [c.cast(text) if pa.types.is_string(c.type) else c for c in table.columns]
        parts, problems = read(save(tmp_path, pa.table(columns, names=table.column_names)))
        assert tiles_in(parts) == sorted(TILES)
        assert not problems.counts


def test_datasets_come_apart(tmp_path: Path) -> None:
    table = pa.concat_tables(
        [
            manifest_table(TILES),
            manifest_table(TILES, "1.1", "cambridge"),
            manifest_table(TILES[:2], "9.9", "a/b"),
            manifest_table(TILES[:3], "2.0", "2B-L~beta9"),
        ]
    )
    parts, problems = read(save(tmp_path, table))
    for name in ("v1", "v1.1-cam"):
        assert tiles_in(p for p in parts if p.dataset == dataset(name)) == sorted(TILES)
    by_rule = [p for p in parts if p.dataset is not None and p.dataset.by_rule]
    assert {p.dataset.directory for p in by_rule if p.dataset} == {"v2-2B-L~beta9"}
    assert tiles_in(by_rule) == sorted(TILES[:3])
    assert len(parts) == 3
    assert kinds(problems) == {"UNKNOWN_DATASET": 2}
    assert "row 11: unknown dataset version '9.9', variant 'a/b'" in str(problems.kept[0])


def test_landmasks_of_both_kinds(tmp_path: Path) -> None:
    lat, lon, _ = degrees(TILES[1:])
    names = {name for _, name in TILES[1:]}
    old = pa.table({"lat": lat, "lon": lon, "hash": [digest(str(v)) for v in lon], "file_size": [0, 5, 6, 7]})
    parts, problems = read(save(tmp_path, old))
    assert (set(masks_in(parts)), kinds(problems)) == (names, {})
    assert masks_in(parts)["grid_0.15_52.05"]["size"] is None  # geotessera writes 0 where it has no file
    new = pa.table({"lon": lon, "lat": lat, "file_size": [4, 5, 6, 7], "key": ["s3://…"] * 4})
    parts, problems = read(save(tmp_path, new))
    assert (set(masks_in(parts)), kinds(problems)) == (names, {})
    assert masks_in(parts)["grid_0.15_52.05"] == {"lat_i": 5205, "lon_i": 15, "size": 4, "sha256": None}


SPOILT: dict[str, tuple[Callable[[pa.Table], pa.Table], str, bool]] = {
    "OFF_GRID": (
        lambda t: with_column(t, "lat", [52.05, 52.0, -0.05, -89.95, 89.95]),
        "latitude 52 is not",
        False,
    ),
    "WRONG_YEAR": (lambda t: with_column(t, "year", [2023, 1924, 2024, 2024, 2024]), "found 1924", False),
    "BAD_HASH": (
        lambda t: with_column(t, "hash", [*t["hash"].to_pylist()[:1], "abc", *t["hash"].to_pylist()[2:]]),
        "column hash: expected 64 hexadecimal digits, found 'abc'",
        True,
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_bad_rows_are_named_and_the_others_stay(tmp_path: Path, kind: str) -> None:
    spoil, message, stays = SPOILT[kind]
    path = save(tmp_path, spoil(registry_table(TILES)))
    parts, problems = read(path)
    assert kinds(problems) == {kind: 1}
    assert str(problems.kept[0]).startswith(f"{path} row 2: ")
    assert message in str(problems.kept[0])
    assert tiles_in(parts) == sorted(t for t in TILES if stays or t != TILES[1])
    with pytest.raises(ManifestError, match="row 2"):
        read(path, problems=ProblemLog(strict=True))


def test_hash_of_the_right_length_but_no_digits(tmp_path: Path) -> None:
    table = registry_table(TILES)
    hashes = table["hash"].to_pylist()
    table = with_column(table, "hash", [None, "z" * 64, *hashes[2:]])
    parts, problems = read(save(tmp_path, table))
    assert kinds(problems) == {"BAD_HASH": 1}
    rows = rows_in(parts)
    assert [rows[t]["npy_sha256"] is None for t in TILES] == [True, True, False, False, False]


def test_repeats(tmp_path: Path) -> None:
    table = registry_table(TILES)
    again = with_column(table.slice(1, 1), "file_size", [999])
    parts, problems = read(save(tmp_path, pa.concat_tables([table, again, table.slice(0, 1)])))
    assert kinds(problems) == {"CONFLICT": 1, "DUPLICATE": 1}
    assert any("row 6: the tile is already listed at row 2, with different" in str(p) for p in problems.kept)
    assert tiles_in(parts) == sorted(TILES)
    assert rows_in(parts)[TILES[1]]["npy_size"] == 999


def test_integer_centres_must_agree_with_degrees(tmp_path: Path) -> None:
    table = manifest_table(TILES)
    table = with_column(table, "lat_i", pa.array([5205, 5215, -5, -8995, 8995], pa.int32()))
    parts, problems = read(save(tmp_path, table))
    assert kinds(problems) == {"BAD_VALUE": 1}
    assert "row 2: lat_i is 5215, but lat is 52.05" in str(problems.kept[0])
    assert tiles_in(parts) == sorted(t for t in TILES if t != TILES[1])


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, pa.table({"chunk": ["a"], "run_id": [1]}))
    parts, problems = read(path)
    assert parts == []
    assert kinds(problems) == {"UNKNOWN_COLUMNS": 1}
    message = str(problems.kept[0])
    assert "chunk, run_id" in message
    assert "grid_size" in message
    assert "file_size" in message


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = save(tmp_path, registry_table(TILES))
    path.write_bytes(path.read_bytes()[:keep])
    parts, problems = read(path)
    assert parts == []
    assert kinds(problems) == {"CORRUPT": 1}
    assert "not a complete Parquet file" in str(problems.kept[0])


def test_a_damaged_row_group_costs_only_itself(tmp_path: Path) -> None:
    n = 600
    ids = [TileId.from_row_col(900 + i // 100, i % 100) for i in range(n)]
    table = registry_table([(2024, t.name) for t in ids])
    path = save(tmp_path, table, row_group_size=200, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(3)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    parts, problems = read(path)
    assert kinds(problems) == {"CORRUPT": 1}
    assert "row 201: row group 1 is damaged" in str(problems.kept[0])
    assert len(tiles_in(parts)) == 400


def test_row_groups_without_a_wanted_year_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = [(year, "grid_0.15_52.05") for year in range(2017, 2026)]
    path = save(tmp_path, manifest_table(tiles), row_group_size=1)
    read_groups: list[int] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: object, row_groups: list[int], **options: object) -> object:
        read_groups.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    parts, _ = read(path, years=frozenset({2019, 2024}))
    assert tiles_in(parts) == [tiles[2], tiles[7]]
    assert read_groups == [2, 7]


def test_box(tmp_path: Path) -> None:
    parts, _ = read(save(tmp_path, manifest_table(TILES)), bounds=Bounds(0, 50, 1, 53))
    assert tiles_in(parts) == TILES[:2]


def test_float_noise_is_no_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows, cols = rng.integers(0, 1800, 5000), rng.integers(0, 3600, 5000)
    lat = -90 + 0.1 * rows + 0.05  # as upstream's arithmetic leaves it
    lon = -180 + 0.1 * cols + 0.05
    table = pa.table({"lat": lat, "lon": lon, "year": [2024] * 5000, "grid_size": [1] * 5000})
    parts, problems = read(save(tmp_path, table))
    assert set(kinds(problems)) <= {"DUPLICATE"}
    lat_i = pc.unique(pa.concat_tables(p.tiles for p in parts)["lat_i"]).to_pylist()
    assert set(lat_i) == set((rows * 10 - 8995).tolist())
