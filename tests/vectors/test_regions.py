"""Regions whose tiles are not all well: nothing is left out, replaced or changed without a word."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.errors import QueryError
from catalog_builder.get import Options, Report, get
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import dataset, source_path
from catalog_builder.tile.grid import TileId
from tests.support.converted import FIRST, NEIGHBOUR
from tests.support.pixels import same
from tests.vectors.test_get import command, quiet

TILE_YEARS = ((FIRST, 2023), (NEIGHBOUR, 2023), (FIRST, 2024), (FIRST, 2022))
REGION = shapely.box(15.69, 78.22, 15.72, 78.225)
"""Over the edge between the two tiles."""
OTHER = shapely.box(15.66, 78.26, 15.67, 78.262)


@dataclass(frozen=True)
class World:
    """A catalogue of published arrays, which a test may spoil."""

    source: Path
    catalog: Path

    def file(self, tile: TileId, year: int, end: str = ".npy") -> Path:
        return self.source / "global_0.1_degree_representation" / source_path(year, tile.name, end)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("regions") / "source"
    sample_set(root, tile_years=list(TILE_YEARS), workers=1)
    return root


@pytest.fixture
def world(source: Path, tmp_path: Path) -> World:
    return built(source, tmp_path)


def built(source: Path, tmp_path: Path, *, as_listing: bool = False) -> World:
    mine = tmp_path / "source"
    if not mine.exists():
        shutil.copytree(source, mine)
    embeddings = mine / "global_0.1_degree_representation"
    options = BuildOptions(dataset("synthetic"), url="http://cat", source_root=str(embeddings))
    build([str(embeddings if as_listing else mine)], tmp_path / "catalog", options)
    return World(mine, tmp_path / "catalog")


def fetch(world: World, out: Path, **options: Any) -> Report:
    years = options.pop("years", frozenset({2023}))
    bands = options.pop("bands", (0, 7))
    region = options.pop("region", REGION)
    return get(str(world.catalog), out, Options(region, years, bands=bands, **options), quiet)


def read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, str]]:
    with rasterio.open(path) as src:
        return src.read(), src.tags()


# -------------------------------------------------------------------------------- two regions, one folder


@pytest.mark.parametrize("tiles", [False, True])
def test_a_second_region_replaces_nothing_unless_asked_to(world: World, tmp_path: Path, tiles: bool) -> None:
    out = tmp_path / "out"
    first = fetch(world, out, tiles=tiles).files[0]
    before, tags = read(first)
    assert tags["TESSERA_REGION"] == "15.69,78.22,15.72,78.225"
    near = shapely.box(15.685, 78.221, 15.695, 78.223)
    with pytest.raises(QueryError, match=r"is there, of another region .*15.69,78.22,15.72,78.225.*--force"):
        fetch(world, out, tiles=tiles, region=near)
    assert same(read(first)[0], before)
    # names tell regions apart
    named = fetch(world, out, tiles=tiles, region=near, name="near")
    assert named.files[0].name.startswith("near_")
    assert same(read(first)[0], before)
    assert fetch(world, out, tiles=tiles).kept == len(list(out.glob("synthetic_*.tif")))
    replaced = fetch(world, out, tiles=tiles, region=near, force=True)
    assert replaced.files[0] == first
    assert same(read(first)[0], read(named.files[0])[0])


def test_a_file_of_unknown_origin_is_not_replaced(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "synthetic_2023_utm33n.tif").write_bytes(b"mine")
    with pytest.raises(QueryError, match="does not say of which region"):
        fetch(world, out)
    assert (out / "synthetic_2023_utm33n.tif").read_bytes() == b"mine"


def test_new_sources_renew_a_file_of_the_same_region(world: World, tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    before, _ = read(fetch(world, out).files[0])
    codes = np.load(world.file(FIRST, 2023))
    np.save(world.file(FIRST, 2023), np.clip(codes, -126, 126) + np.int8(1))
    for checksums in world.source.rglob("SHA256"):
        checksums.unlink()
    renewed = built(source, tmp_path, as_listing=True)
    done = fetch(renewed, out)
    assert done.written == 1
    assert not same(read(done.files[0])[0], before)


# ------------------------------------------------------------------------------------- what is not there


def test_tiles_that_cannot_be_read_in_place_are_named(world: World, source: Path, tmp_path: Path) -> None:
    """Truncated arrays are listed, by their sizes not the tile's: today's reader cannot know their shape."""
    path = world.file(NEIGHBOUR, 2023)
    path.write_bytes(path.read_bytes()[:-1000])
    spoiled = built(source, tmp_path, as_listing=True)
    done = fetch(spoiled, tmp_path / "out")
    ((name, reason),) = done.failed.items()
    assert (name, done.written) == ("synthetic_2023_utm33n", 0)
    assert f"{NEIGHBOUR.name}_2023 is listed, but its pixels cannot be read in place" in reason
    # each tile by itself
    apart = fetch(spoiled, tmp_path / "tiles", tiles=True)
    assert (apart.written, list(apart.failed)) == (1, [f"synthetic_{NEIGHBOUR.name}_2023"])
    # and without it
    rest = fetch(spoiled, tmp_path / "out", skip_failed=True)
    assert (rest.written, list(rest.skipped)) == (1, [f"{NEIGHBOUR.name}_2023"])
    values, tags = read(rest.files[0])
    assert tags["TESSERA_SKIPPED"] == f"{NEIGHBOUR.name}_2023"
    assert np.isfinite(values).any()


@pytest.mark.service
def test_skip_failed_writes_the_rest_and_a_rerun_what_was_skipped(world: World, tmp_path: Path) -> None:
    path = world.file(NEIGHBOUR, 2023, "_scales.npy")
    whole = path.read_bytes()
    path.write_bytes(b"no array")
    out = tmp_path / "out"
    arguments = ("get", world.catalog, "--bbox=15.69,78.22,15.72,78.225", "--year", 2023, "--bands", "0,7")
    done = command(*arguments, "--out", out)
    assert (done.returncode, "failed: synthetic_2023_utm33n" in done.stderr) == (1, True)
    assert not list(out.glob("*.tif"))
    done = command(*arguments, "--out", out, "--skip-failed", "--json")
    assert done.returncode == 1
    assert f"skipped: {NEIGHBOUR.name}_2023: " in done.stderr
    assert list(json.loads(done.stdout)["skipped"]) == [f"{NEIGHBOUR.name}_2023"]
    (file,) = out.glob("*.tif")
    part, _ = read(file)
    path.write_bytes(whole)
    assert command(*arguments, "--out", out).returncode == 0
    now, tags = read(file)
    assert "TESSERA_SKIPPED" not in tags
    expected, _ = read(fetch(world, tmp_path / "expected").files[0])
    assert same(now, expected)
    kept = np.isfinite(part[0])
    assert same(part[:, kept], expected[:, kept])
    assert 0.2 < kept.sum() / np.isfinite(expected[0]).sum() < 0.8
    assert not (out / ".parts").exists()


@pytest.mark.service
def test_missing_years_and_cells_are_said(world: World, tmp_path: Path) -> None:
    done = command(
        "get", world.catalog, "--bbox=15.69,78.22,15.72,78.225", "--years", "2020-2024",
        "--bands", 0, "--out", tmp_path / "out",
    )  # fmt: skip
    said = "2022: 1 of 2 cells; 2024: 1 of 2 cells; 2020-2021 not in this region"
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    for path in (tmp_path / "out").glob("*.tif"):
        assert read(path)[1]["TESSERA_MISSING"] == said
    whole = fetch(world, tmp_path / "whole")
    assert whole.missing == ""
    assert "TESSERA_MISSING" not in read(whole.files[0])[1]
    with pytest.raises(QueryError, match=r"no pixels .* for these years: it has 2022-2024 there"):
        fetch(world, tmp_path / "none", years=frozenset({2019}))
    with pytest.raises(QueryError, match="are longitude and latitude swapped"):
        fetch(world, tmp_path / "none", region=shapely.box(78.22, 15.69, 78.225, 15.72))


# --------------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("form", ["bands", "float16", "float64", "big-endian"])
def test_scales_in_forms_that_convert_takes_are_read(
    world: World, source: Path, tmp_path: Path, form: str
) -> None:
    path = world.file(FIRST, 2023, "_scales.npy")
    scales = np.load(path).astype(np.float16).astype(np.float32)
    np.save(path, scales)
    plain, _ = read(fetch(built(source, tmp_path, as_listing=True), tmp_path / "plain").files[0])
    forms = {
        "bands": lambda: np.repeat(scales[:, :, None], 128, axis=2),
        "float16": lambda: scales.astype(np.float16),
        "float64": lambda: scales.astype(np.float64),
        "big-endian": lambda: scales.astype(">f4"),
    }
    np.save(path, forms[form]())
    done = fetch(built(source, tmp_path, as_listing=True), tmp_path / "out")
    assert done.failed == {}
    assert same(read(done.files[0])[0], plain)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda s: np.repeat(s[:, :, None], 128, axis=2) * np.arange(1, 129),
            "other scales in other bands",
        ),
        (lambda s: s.astype(np.float64) / 3, "float64 scales that float32 does not"),
        (lambda s: s[:-1], "the tile's formula expects"),
        (lambda s: s.astype(np.int32), "the tile's formula expects"),
    ],
)
def test_other_scales_are_a_reason(
    world: World, source: Path, tmp_path: Path, spoil: Any, reason: str
) -> None:
    path = world.file(FIRST, 2023, "_scales.npy")
    np.save(path, spoil(np.nan_to_num(np.load(path), nan=0.01)))
    done = fetch(built(source, tmp_path, as_listing=True), tmp_path / "out")
    assert reason in done.failed["synthetic_2023_utm33n"]


def test_corrupt_scales_are_counted_and_max_scale_drops_them(world: World, tmp_path: Path) -> None:
    """By numpy on the file: only finite scales above 0 have data, as in a COG; large ones by wish."""
    path = world.file(FIRST, 2023, "_scales.npy")
    scales = np.load(path)
    raster = FIRST.raster()
    odd = {"large": 3.0, "one": 1.0, "infinite": np.inf, "negative": -0.01, "zero": 0.0}
    clean, _ = read(fetch(world, tmp_path / "clean", region=OTHER).files[0])
    with rasterio.open(tmp_path / "clean" / "synthetic_2023_utm33n.tif") as src:
        transform = src.transform
    at = {}
    rows, cols = np.nonzero(np.isfinite(clean[0]))
    for i, (name, value) in enumerate(odd.items()):
        x, y = transform @ (int(cols[i * 5]) + 0.5, int(rows[i * 5]) + 0.5)
        row, col = int((raster.transform.f - y) // 10), int((x - raster.transform.c) // 10)
        scales[row, col] = value
        at[name] = int(rows[i * 5]), int(cols[i * 5])
    np.save(path, scales)
    kept = fetch(world, tmp_path / "kept", region=OTHER)
    assert kept.corrupt == 4
    values, _ = read(kept.files[0])
    codes = np.load(world.file(FIRST, 2023))
    for name in ("infinite", "negative", "zero"):
        assert np.isnan(values[(slice(None), *at[name])]).all(), name
    row, col = at["large"]
    x, y = transform @ (col + 0.5, row + 0.5)
    own = codes[int((raster.transform.f - y) // 10), int((x - raster.transform.c) // 10)]
    assert values[:, row, col].tolist() == (own[[0, 7]].astype(np.float32) * np.float32(3)).tolist()
    dropped = fetch(world, tmp_path / "dropped", region=OTHER, max_scale=1.0)
    assert dropped.corrupt == 4
    values, _ = read(dropped.files[0])
    for name, pixel in at.items():
        assert np.isnan(values[(slice(None), *pixel)]).all(), name
    assert np.isnan(values).sum() == np.isnan(clean).sum() + 2 * len(odd)


def test_grid_aligned_years_stack(world: World, tmp_path: Path) -> None:
    years = frozenset({2022, 2023})
    plain = fetch(world, tmp_path / "plain", years=years)
    shapes = {read(path)[0].shape for path in plain.files}
    assert len(shapes) == 2
    stacked = fetch(world, tmp_path / "out", years=years, grid_aligned=True)
    found = {}
    for path in stacked.files:
        with rasterio.open(path) as src:
            found[path.name] = (src.shape, src.transform)
    assert len(set(found.values())) == 1
    for one, other in zip(sorted(plain.files), sorted(stacked.files), strict=True):
        with rasterio.open(one) as a, rasterio.open(other) as b:
            values = b.read(window=b.window(*a.bounds))
            assert same(values, a.read())
            assert np.isfinite(b.read()).sum() == np.isfinite(values).sum()
