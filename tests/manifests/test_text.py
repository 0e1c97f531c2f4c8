"""Text registries: every generation's lines, and everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_builder.errors import ManifestError
from catalog_builder.manifests import ProblemLog
from catalog_builder.manifests import reading as reading_module
from catalog_builder.tile.grid import Bounds, TileId
from tests.manifests.making import (
    TILES,
    digest,
    kinds,
    lines_of,
    masks_in,
    path_of,
    read,
    rows_in,
    text_of,
    tiles_in,
)

A, B = (2024, "grid_0.15_52.05"), (2024, "grid_0.25_52.05")


def write(folder: Path, text: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("form", ["lf", "crlf", "bom", "no final newline", "comments", "sha256sum", "prefix"])
def test_forms_of_a_registry(tmp_path: Path, form: str) -> None:
    text = text_of(TILES)
    if form == "crlf":
        text = text.replace("\n", "\r\n")
    elif form == "bom":
        text = "\ufeff" + text
    elif form == "no final newline":
        text = text.rstrip()
    elif form == "comments":
        text = "# TESSERA\n\n" + text.replace("\n", "\n\n# é\n", 1)
    elif form == "sha256sum":
        text = "".join(f"{h} *{p}\n" for p, h in (line.split() for line in lines_of(TILES)))
    elif form == "prefix":
        text = "".join(f"global_0.1_degree_representation/{line}\n" for line in lines_of(TILES))
    parts, problems = read(write(tmp_path, text))
    assert tiles_in(parts) == sorted(TILES)
    assert not problems.counts
    for tile, row in rows_in(parts).items():
        assert row["npy_sha256"] == bytes.fromhex(digest(path_of(tile)))
        assert row["scales_sha256"] == bytes.fromhex(digest(path_of(tile, "_scales.npy")))
        assert row["has_npy"] is True
        assert row["npy_size"] is row["mtime"] is row["geotiff"] is None
    assert {p.dataset for p in parts} == {None}


def test_landmasks(tmp_path: Path) -> None:
    names = ["grid_0.15_52.05", "grid_-179.95_-89.95"]
    parts, problems = read(write(tmp_path, "".join(f"{n}.tiff {digest(n)}\n" for n in names)))
    assert {n: r["sha256"] for n, r in masks_in(parts).items()} == {
        n: bytes.fromhex(digest(n)) for n in names
    }
    assert not problems.counts
    assert tiles_in(parts) == []


BAD = {
    "MALFORMED": ("what is this", "expected '<path> <sha256>', found 'what is this'"),
    "OFF_GRID": (f"2024/grid_0.10_52.05/grid_0.10_52.05.npy {digest('x')}", "0.1 is not a tile centre"),
    "NAME_MISMATCH": (
        f"2024/grid_0.15_52.05/grid_0.35_52.05.npy {digest('x')}",
        "the folder is 'grid_0.15_52.05', but the file is 'grid_0.35_52.05.npy'",
    ),
    "BAD_HASH": (f"{path_of(B)} {digest('x')[:-1]}", "expected 64 hexadecimal digits"),
    "WRONG_YEAR": (f"{path_of((1999, 'grid_0.15_52.05'))} {digest('x')}", "from 2017 to 2025, found 1999"),
    "HALF_PAIR": (f"{path_of((2023, 'grid_0.15_52.05'))} {digest('x')}", "without its _scales.npy"),
    "CONFLICT": (f"{path_of(A)} {digest('x')}", "is already listed at line 1, with different content"),
    "DUPLICATE": (f"{path_of(A)} {digest(path_of(A))}", "is already listed at line 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_problem_has_its_line_and_the_good_rows_stay(tmp_path: Path, kind: str) -> None:
    line, message = BAD[kind]
    good = lines_of([A])
    scales_of_b = f"{path_of(B, '_scales.npy')} {digest('y')}"
    lines = [*good, line, *([scales_of_b] if kind == "BAD_HASH" else [])]
    path = write(tmp_path, "\n".join(lines) + "\n")
    parts, problems = read(path)
    assert kinds(problems) == {kind: 1}
    assert str(problems.kept[0]).startswith(f"{path} line 3: ")
    assert message in str(problems.kept[0])
    assert A in tiles_in(parts)
    # a tile with a damaged hash exists all the same
    assert (B in tiles_in(parts)) == (kind == "BAD_HASH")
    if kind == "CONFLICT":
        assert rows_in(parts)[A]["npy_sha256"] == bytes.fromhex(digest("x"))
    with pytest.raises(ManifestError, match="line 3"):
        read(path, problems=ProblemLog(strict=True))


def test_scales_without_an_embedding(tmp_path: Path) -> None:
    parts, problems = read(write(tmp_path, f"{path_of(A, '_scales.npy')} {digest('x')}\n"))
    assert parts == []
    assert "line 1: '2024/grid_0.15_52.05/grid_0.15_52.05_scales.npy' without its .npy" in str(
        problems.kept[0]
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("registry_2023.txt", "WRONG_YEAR"),
        ("embeddings_2023_lon0_lat50.txt", "WRONG_YEAR"),
        ("registry_2024_lon5_lat50.txt", "OUTSIDE_BLOCK"),
        ("embeddings_2024_lon0_lat45.txt", "OUTSIDE_BLOCK"),
        ("embeddings_2024_lon0_lat50.txt", None),
        ("registry_2024.txt", None),
        ("anything.lst", None),
    ],
)
def test_a_registry_keeps_what_its_name_promises(tmp_path: Path, name: str, kind: str | None) -> None:
    parts, problems = read(write(tmp_path, text_of([A]), name))
    assert kinds(problems) == ({kind: 2} if kind else {})
    assert tiles_in(parts) == ([] if kind else [A])


@pytest.mark.parametrize(
    ("lon", "lat", "block"),
    [
        (-0.05, -0.05, "lon-5_lat-5"),
        (0.05, 0.05, "lon0_lat0"),
        (-5.05, 4.95, "lon-10_lat0"),
        (179.95, -89.95, "lon175_lat-90"),
    ],
)
def test_blocks_are_named_by_their_lower_left_corner(
    tmp_path: Path, lon: float, lat: float, block: str
) -> None:
    tile = (2024, TileId.containing(lon, lat).name)
    mask = f"{tile[1]}.tiff {digest('m')}\n"
    parts, problems = read(write(tmp_path, text_of([tile]), f"embeddings_2024_{block}.txt"))
    assert (tiles_in(parts), problems.summary()) == ([tile], "")
    parts, problems = read(write(tmp_path, mask, f"landmasks_{block}.txt"))
    assert (set(masks_in(parts)), problems.summary()) == ({tile[1]}, "")
    parts, problems = read(write(tmp_path, mask, "landmasks_lon10_lat10.txt"))
    assert kinds(problems) == {"OUTSIDE_BLOCK": 1}


def test_not_utf8(tmp_path: Path) -> None:
    text = text_of([A]).encode() + b"caf\xe9 " + b"\n" + text_of([B]).encode()
    parts, problems = read(write(tmp_path, text))
    assert tiles_in(parts) == [A, B]
    assert kinds(problems) == {"ENCODING": 1}
    assert "line 3" in str(problems.kept[0])
    parts, problems = read(write(tmp_path, text_of([A]).encode("utf-16"), "registry_2024.txt"))
    assert kinds(problems) == {"ENCODING": 1}
    assert "UTF-16" in str(problems.kept[0])


def test_years_and_box(tmp_path: Path) -> None:
    path = write(tmp_path, text_of(TILES))
    assert tiles_in(read(path, years=frozenset({2023}))[0]) == [TILES[0]]
    # a shared edge is not enough; a sliver of area is
    assert tiles_in(read(path, bounds=Bounds(0.0, 0.0, 0.1, 52.0))[0]) == []
    assert tiles_in(read(path, bounds=Bounds(-0.01, -0.01, 0.1, 52.0))[0]) == [TILES[2]]
    across = Bounds(179.0, -90.0, -179.0, 90.0)
    assert tiles_in(read(path, bounds=across)[0]) == sorted(TILES[3:])
    parts, problems = read(path, years=frozenset({2017}))
    assert parts == []
    assert "no tile found in the requested years and bounding box" in problems.kept[0].message


TILE = st.tuples(
    st.integers(2017, 2025),
    st.builds(lambda r, c: TileId.from_row_col(r, c).name, st.integers(0, 1799), st.integers(0, 3599)),
)


@settings(max_examples=60, deadline=None)
@given(tiles=st.lists(TILE, unique=True, min_size=1, max_size=30), chunk=st.integers(1, 4000), data=st.data())
def test_round_trip_in_any_order_and_chunking(
    tmp_path_factory: pytest.TempPathFactory, tiles: list[tuple[int, str]], chunk: int, data: st.DataObject
) -> None:
    lines = data.draw(st.permutations(lines_of(tiles)))
    path = write(tmp_path_factory.mktemp("t"), "".join(f"{line}\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_module.text_chunks, "__defaults__", (chunk,))
        parts, problems = read(path)
    assert tiles_in(parts) == sorted(tiles)
    assert not problems.counts
    for tile, row in rows_in(parts).items():
        assert row["npy_sha256"] == bytes.fromhex(digest(path_of(tile)))


def test_a_repeat_in_a_later_chunk(tmp_path: Path) -> None:
    path = write(tmp_path, text_of([A, B]) + f"{path_of(A)} {digest(path_of(A))}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_module.text_chunks, "__defaults__", (10,))
        parts, problems = read(path)
    assert tiles_in(parts) == [A, B]
    assert kinds(problems) == {"DUPLICATE": 1}


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=300))
def test_junk_never_crashes_and_never_costs_a_good_line(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    text = text_of([A]).encode() + junk.replace(b"\x00", b" ") + b"\n" + text_of([B]).encode()
    parts, _ = read(write(tmp_path_factory.mktemp("j"), text))
    assert {A, B} <= set(tiles_in(parts))
