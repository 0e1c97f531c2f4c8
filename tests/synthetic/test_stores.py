"""The sample as a Zarr store and as an Icechunk repository: geotessera reads them, and makes one."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import icechunk
import numpy as np
import numpy.typing as npt
import pyarrow.dataset as pds
import pytest
import rasterio
import zarr
from packaging.requirements import Requirement
from pyproj import Transformer
from zarr.codecs import BloscCodec
from zarr.codecs.numcodecs import PCodec

from catalog_builder.cli import main
from catalog_builder.errors import GridError, StorageError
from catalog_builder.extras import install_line
from catalog_builder.stores import extent
from catalog_builder.stores.open import open_store, read_region
from catalog_builder.synthetic.sample import Written
from catalog_builder.synthetic.stores import registry, zarr_store
from catalog_builder.synthetic.stores.icechunk_store import ARRAYS, zone_group
from catalog_builder.synthetic.stores.mosaic import BLOCK
from catalog_builder.synthetic.stores.sample import SampleStore, require, sample_store
from catalog_builder.synthetic.stores.shard import ShardWriter
from catalog_builder.tile.grid import PIXEL, TileId
from tests.conftest import SUPPORT, plain_environment
from tests.support.sample_stores import IRREGULARITIES, YEAR, SampleStores

pytestmark = pytest.mark.slow
SCRIPT = SUPPORT / "geotessera11.py"


class Tile(NamedTuple):
    """A tile's arrays as numpy reads them, and where its upper left pixel lies on the northern CRS."""

    written: Written
    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    land: npt.NDArray[np.bool_]
    west: float
    top: float

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        return self.scales > 0


def tiles_of(stores: SampleStores) -> list[Tile]:
    found = []
    for w in stores.npy.written:
        with rasterio.open(w.landmask) as mask:
            land = mask.read(1) > 0
        place = w.tile.raster("utm").transform
        top = place.f - 10_000_000 * (w.tile.lat < 0)
        found.append(Tile(w, np.load(w.npy), np.load(w.scales), land, place.c, top))
    return found


def oracle(python: Path, *args: object) -> str:
    command = [str(python), str(SCRIPT), *map(str, args)]
    environment = plain_environment(MPLBACKEND="agg", MPLCONFIGDIR="/tmp")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_repository(made: SampleStore) -> zarr.Group:
    place = icechunk.local_filesystem_storage(str(made.store))
    return zarr.open_group(icechunk.Repository.open(place).readonly_session("main").store, mode="r")


# --- geotessera reads them --------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["zarr", "icechunk"])
def test_geotessera_reads_what_the_npy_files_have(
    container: str, sample_stores: SampleStores, geotessera11: Path, tmp_path: Path
) -> None:
    """Whole tiles and windows of them, in both hemispheres and zones, across the borders of shards."""
    tiles, rng = tiles_of(sample_stores), np.random.default_rng(0)
    windows, expected = [], []
    for tile in tiles:
        height, width = tile.scales.shape
        parts = [(0, 0, height, width)]
        for _ in range(6):
            row, col = rng.integers(height - 70), rng.integers(width - 50)
            parts.append((int(row), int(col), 70, 50))
        for row, col, h, w in parts:
            left, upper = tile.west + col * PIXEL, tile.top - row * PIXEL
            bbox = [left, upper - h * PIXEL, left + w * PIXEL, upper]
            windows.append({"zone": tile.written.tile.utm_zone, "year": YEAR, "bbox": bbox})
            expected.append((tile, np.s_[row : row + h, col : col + w], [PIXEL, 0, left, 0, -PIXEL, upper]))
    made: SampleStore = getattr(sample_stores, container)
    oracle(geotessera11, "read", made.store, tmp_path / "read.npz", json.dumps(windows))
    with np.load(tmp_path / "read.npz") as found:
        for n, (tile, part, transform) in enumerate(expected):
            valid = (tile.valid & (tile.land if container == "zarr" else True))[part]
            codes = np.where(valid[..., None] | (container == "zarr"), tile.codes[part], 0)
            np.testing.assert_array_equal(found[f"codes_{n}"], codes)
            scales = np.where(valid, tile.scales[part], np.float32(np.nan))
            np.testing.assert_array_equal(found[f"scales_{n}"], scales)
            values = tile.codes[part].astype(np.float32) * scales[..., None]
            np.testing.assert_array_equal(found[f"values_{n}"], values)
            assert found[f"transform_{n}"].tolist() == transform
    everything = [tile for tile in tiles if (~tile.land).any() and (~tile.valid).any()]
    assert everything, "no tile has water and pixels without a vector"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ("zarr", ["valid", "water", "nodata", "outside"]),
        ("icechunk", ["valid", "valid", "nodata", "nodata"]),
    ],
)
def test_geotessera_tells_apart_what_has_no_vector(
    container: str, expected: list[str], sample_stores: SampleStores, geotessera11: Path
) -> None:
    """A pixel of land, one of water, one beside the tiles, and one beyond the shards of the first store."""
    tile = tiles_of(sample_stores)[3]
    to_degrees = Transformer.from_crs(tile.written.tile.epsg, 4326, always_xy=True)
    place = tile.written.tile.raster("utm").transform
    spots = [tuple(np.argwhere(tile.valid & land)[0]) for land in (tile.land, ~tile.land)]
    spots += [(500, 600), (500, -2000)]
    points = [to_degrees.transform(*(place @ (col + 0.5, row + 0.5))) for row, col in spots]
    made: SampleStore = getattr(sample_stores, container)
    assert json.loads(oracle(geotessera11, "probe", made.store, YEAR, json.dumps(points))) == expected


@pytest.mark.parametrize("container", ["zarr", "icechunk"])
def test_our_own_reader_finds_the_tiles(container: str, sample_stores: SampleStores) -> None:
    made: SampleStore = getattr(sample_stores, container)
    store = open_store(str(made.store))
    for tile in tiles_of(sample_stores):
        group = store.group_of(tile.written.tile)
        assert group is not None
        assert group.time(2023) == (6 if container == "zarr" else None)
        row, col = group.position(tile.written.tile.raster())
        rows, cols = (slice(at, at + n) for at, n in zip((row, col), tile.scales.shape, strict=True))
        time = group.time(YEAR)
        assert time == 7
        scales = read_region(store, group.name, "scales", (time, rows, cols))
        np.testing.assert_array_equal(np.isfinite(scales), tile.valid & (tile.land | (container != "zarr")))
        np.testing.assert_array_equal(scales[np.isfinite(scales)], tile.scales[np.isfinite(scales)])
        shards = {(s.row, s.col) for s in store.written(group.name) if s.time == time}
        side = 4096 if container == "zarr" else 2048
        assert {(r // side, c // side) for r in (row, row + 1000) for c in (col, col + 100)} <= shards


# --- geotessera makes the same ----------------------------------------------------------------------


def test_the_zarr_store_is_the_one_that_geotessera_makes(
    sample_stores: SampleStores, geotessera11: Path, tmp_path: Path
) -> None:
    """The coordinates and the shards of a zone to the byte, and what the metadata says of all."""
    theirs, mine = tmp_path / "theirs.zarr", sample_stores.zarr.store
    oracle(geotessera11, "make", sample_stores.npy.root, theirs, 2017, 2025, 34)
    not_filled = re.compile("utm33/(embeddings|scales)/c/")
    sums: list[dict[str, str]] = []
    nodes: list[dict[str, Any]] = []
    for store in (theirs, mine):
        files = {str(p.relative_to(store)): p for p in store.rglob("*") if p.is_file()}
        kept = {n: p for n, p in files.items() if p.name != "zarr.json" and not not_filled.match(n)}
        sums.append({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()})
        root = json.loads((store / "zarr.json").read_text())
        for own in ("geoemb:build_version", "tessera:synthetic", "description"):
            root["attributes"].pop(own, None)
        inner = root.pop("consolidated_metadata")["metadata"]
        # Statistics for geotessera's previews, which no reader of embeddings needs.
        known = {name: node for name, node in inner.items() if "/stretch_" not in name}
        nodes.append({"": root, **known})
        for name, node in known.items():
            alone = json.loads((store / name / "zarr.json").read_text())
            assert {k: v for k, v in node.items() if k in alone} == {
                k: v for k, v in alone.items() if k in node and k != "consolidated_metadata"
            }
    assert nodes[0] == nodes[1]
    assert {name for name in nodes[1] if name.endswith("/embeddings")} == {
        "utm33/embeddings",
        "utm34/embeddings",
    }
    assert sums[0] == sums[1]
    assert sum("/c/7/" in name for name in sums[1]) == 2


def test_tiles_lie_where_geotessera_puts_them(geotessera11: Path) -> None:
    """Tiles of any latitude, in the first and last zones too, and at the edges of zones."""
    rng = np.random.default_rng(3)
    zones: dict[int, list[TileId]] = {}
    for zone in (1, 17, 31, 33, 60):
        rows = [*rng.integers(100, 1740, 40), 100, 1739, 899, 900]
        cols = [*rng.integers(0, 60, 40), 0, 59, 30, 30]
        zones[zone] = [
            TileId.from_row_col(int(r), int(c) + 60 * (zone - 1)) for r, c in zip(rows, cols, strict=True)
        ]
    centres = {zone: [(tile.lon, tile.lat) for tile in tiles] for zone, tiles in zones.items()}
    theirs = json.loads(oracle(geotessera11, "place", json.dumps(centres)))
    for zone, tiles in zones.items():
        group = extent.zone_group(zone, np.array([tile.cell for tile in tiles]), [YEAR])
        mine = [[*group.position(t.raster()), *t.raster().shape] for t in tiles]
        assert [group.west, group.top, *group.shape, mine] == theirs[str(zone)]


def test_constants_are_geotesseras(geotessera11: Path) -> None:
    expected = {"SHARD_SIZE": extent.SHARD, "INNER_CHUNK": zarr_store.CHUNK, "N_BANDS": 128}
    assert json.loads(oracle(geotessera11, "constants")) == expected


# --- shards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["zarr", "icechunk", "scales"])
def test_shards_are_those_that_zarr_writes(layout: str) -> None:
    """To the byte: with chunks that are not there, in blocks that are not there and in others."""
    rows = {"zarr": 2, "icechunk": 1, "scales": 1}[layout]
    codec: dict[str, Any] = {"compressors": BloscCodec(cname="zstd", clevel=3)}
    if layout == "zarr":
        shape, chunks = (1, 6, 1024, 512), (1, 6, 32, 32)
    elif layout == "icechunk":
        shape, chunks, codec = (1, 1024, 512, 6), (1, 256, 256, 6), {}
    else:
        shape, chunks, codec = (1, 1024, 512), (1, 256, 256), {"serializer": PCodec(), "compressors": None}
    shards = tuple(512 if size == 1024 else size for size in shape)
    dtype, fill = (np.float32, np.nan) if layout == "scales" else (np.int8, 0)
    stored: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(stored),
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill,
        **codec,
    )
    values = np.random.default_rng(1).integers(-9, 9, shards).astype(dtype)

    def part(row: int, col: int, side: int) -> tuple[slice, ...]:
        key = [slice(None)] * len(shape)
        key[rows : rows + 2] = [slice(n * side, (n + 1) * side) for n in (row, col)]
        return tuple(key)

    values[part(1, 0, BLOCK)] = fill
    values[part(0, 3, 64)] = fill
    second = [slice(None)] * len(shape)
    second[rows] = slice(512, 1024)
    array[tuple(second)] = values
    (written,) = (data.to_bytes() for key, data in stored.items() if key.startswith("c/"))
    mine = io.BytesIO()
    count = ShardWriter(array, rows, rows + 1).write(
        mine, lambda r, c: None if (r, c) == (1, 0) else values[part(r, c, BLOCK)]
    )
    assert count == (3 if chunks[rows] == 256 else 4 * 64 - 64 - 4)
    assert mine.getvalue() == written
    assert ShardWriter(array, rows, rows + 1).write(io.BytesIO(), lambda _r, _c: None) == 0


# --- the Icechunk repository ------------------------------------------------------------------------


def test_groups_arrays_and_coordinates_of_the_repository(sample_stores: SampleStores) -> None:
    root = open_repository(sample_stores.icechunk)
    assert set(root.group_keys()) == {"33N", "33S", "34N"}
    assert root.attrs["tessera:synthetic"] is True
    assert (root.attrs["optical_min_obs"], root.attrs["geoemb:quantization"]["scale"]["nodata"]) == (
        15,
        "NaN",
    )
    for name, group in root.groups():
        south = name.endswith("S")
        epsg = (32700 if south else 32600) + int(name[:2])
        lattice = zone_group(epsg, [YEAR])
        assert set(group.array_keys()) == {
            *ARRAYS, "time", "time_bnds", "northing", "easting", "band", "month"
        }  # fmt: skip
        assert group.attrs["proj:code"] == group.attrs["crs"] == f"EPSG:{epsg}"
        assert group.attrs["spatial:shape"] == [lattice.rows, lattice.cols]
        assert group.attrs["years_complete"] == [YEAR]
        northing, easting = np.asarray(group["northing"]), np.asarray(group["easting"])
        assert (northing[0], easting[0]) == ((10_014_715 if south else 9_338_875), 163_845)
        assert (np.diff(northing) == -10).all()
        assert (np.diff(easting) == 10).all()
        times = np.asarray(group["time"]).astype("datetime64[ns]")
        assert times[YEAR - 2017] == np.datetime64("2024-01-01")
        assert len(times) == 9
        arrays = {key: array for key, array in group.arrays() if key in ARRAYS}
        assert all(a.shape[:3] == (9, lattice.rows, lattice.cols) for a in arrays.values())
        assert all(a.chunks[:3] == (1, 256, 256) and a.shards[:3] == (1, 2048, 2048) for a in arrays.values())
        assert {k: (str(a.dtype), a.shape[3:]) for k, a in arrays.items()} == {
            "embeddings": ("int8", (128,)),
            "scales": ("float32", ()),
            **{f"{s}_obs_count": ("uint16", ()) for s in ("s2", "s1_asc", "s1_desc")},
            **{f"{s}_month_covered": ("int8", (12,)) for s in ("s2", "s1_asc", "s1_desc")},
        }
        assert np.isnan(arrays["scales"].fill_value)
        assert isinstance(arrays["scales"].serializer, PCodec)


def rows_of(made: SampleStore) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the registry's rows by zone and block, the latest of each."""
    table = pds.dataset(made.registry / "parts", partitioning="hive").to_table()
    rows = sorted(table.to_pylist(), key=lambda row: row["assembled_at"])
    return {(row["zone"], row["tile"]): row for row in rows}


@pytest.mark.parametrize("irregular", [False, True])
def test_registry_agrees_with_the_repository(
    irregular: bool, sample_stores: SampleStores, irregular_repository: SampleStore
) -> None:
    """Counted in the arrays: which blocks were embedded, and which pixels were refused and why."""
    made = irregular_repository if irregular else sample_stores.icechunk
    root, rows = open_repository(made), rows_of(made)
    assert len(rows) == (4 if irregular else 6)
    for (zone, name), row in rows.items():
        shard = [slice(int(n) * 2048, (int(n) + 1) * 2048) for n in name.split("_")[1:]]
        group = root[zone]
        part = {a: np.asarray(group[a][YEAR - 2017, *shard]) for a in ARRAYS[1:]}
        embedded, seen = np.isfinite(part["scales"]), part["s2_obs_count"] > 0
        assert row["embedded"] == embedded.any()
        assert row["eligible_px"] - row["refused_px"] == embedded.sum()
        assert row["refused_thin_px"] == (seen & ~embedded).sum()
        assert row["refused_px"] == row["refused_thin_px"] + row["refused_no_optical_px"]
        assert (part["s2_obs_count"][embedded] >= row["optical_min_obs"]).all()
        assert (part["s2_obs_count"][~embedded] < row["optical_min_obs"]).all()
        assert row["obs_max"] == part["s2_obs_count"].max()
        months = part["s2_month_covered"].sum(axis=-1)
        np.testing.assert_array_equal(months, np.minimum(part["s2_obs_count"], 12))
        inside = Transformer.from_crs(int(group.attrs["crs"][5:]), 4326, always_xy=True).transform(
            np.asarray(group["easting"][shard[1]])[::2047, None] + np.zeros(2048),
            np.asarray(group["northing"][shard[0]])[None, :] + np.zeros((2, 1)),
        )
        assert (np.asarray(inside[0]) >= row["bbox_west"]).all()
        assert (np.asarray(inside[0]) <= row["bbox_east"]).all()
        assert (np.asarray(inside[1]) >= row["bbox_south"]).all()
        assert (np.asarray(inside[1]) <= row["bbox_north"]).all()
    assert any(row["refused_no_optical_px"] for row in rows.values())


def test_irregularities(irregular_repository: SampleStore) -> None:
    root, rows = open_repository(irregular_repository), rows_of(irregular_repository)
    (broken,) = IRREGULARITIES.incomplete
    assert broken.zone not in {zone for zone, _ in rows}
    assert root[broken.zone].attrs["years_complete"] == []
    assert np.isfinite(root[broken.zone]["scales"][YEAR - 2017, :2048, 14 * 2048 : 15 * 2048]).any()
    table = pds.dataset(irregular_repository.registry / "parts", partitioning="hive").to_table()
    older = [r for r in table.to_pylist() if r["zone"] == "33N" and r != rows["33N", r["tile"]]]
    assert [r["embedded"] for r in older] == [False, False]
    refused = {(fill.zone, name): rows[fill.zone, name] for fill, name in IRREGULARITIES.refused}
    whole, quarter = refused["33N", "chunk_1_18"], refused["33S", "chunk_432_16"]
    assert not whole["embedded"]
    assert whole["refused_px"] == whole["eligible_px"]
    assert quarter["embedded"]
    assert 0.1 < quarter["refused_thin_px"] / quarter["eligible_px"] < 0.5
    assert rows["33N", "chunk_0_18"]["refused_thin_px"] == 0


def test_boxes_of_blocks_across_the_antimeridian() -> None:
    """The westernmost blocks of zone 1 and the easternmost of zone 60, at the equator."""
    for epsg, col in ((32601, 0), (32660, 32)):
        box = registry.block_bounds(zone_group(epsg, [YEAR]), 455, col, 2048)
        assert 179.8 < box.west < 180
        assert -180 < box.east < -179.8
        assert box.south == pytest.approx(0, abs=1e-6)
        assert 0.18 < box.north < 0.19


# --- the land list, and the command -----------------------------------------------------------------


@pytest.mark.parametrize("container", ["zarr", "icechunk"])
def test_land_list(container: str, sample_stores: SampleStores) -> None:
    made: SampleStore = getattr(sample_stores, container)
    listed = dict(line.split() for line in made.land.read_text().splitlines())
    assert set(listed) == {f"{tile.name}.tiff" for tile, _ in made.tile_years}
    water = 0
    for name, digest in listed.items():
        path = made.land.parent / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        with rasterio.open(path) as mask:
            assert mask.shape == TileId.from_name(path.stem).raster().shape
            water += (mask.read(1) == 0).sum()
    assert (water > 0) == (container == "zarr")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tile = "grid_15.05_83.95_2024"

    def run(*more: str) -> int:
        command = [
            "tessera-stac",
            "sample",
            str(tmp_path),
            "--tile",
            tile,
            "--workers",
            "1",
            "--quiet",
            *more,
        ]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(str(ended.value.code))

    for container in ("icechunk", "zarr", "zarr"):  # the second time it is kept
        assert run("--container", container, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["tiles"], told["synthetic"]) == ([tile], True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["icechunk", "zarr"]
    assert zarr.open_group(told["store"], mode="r").attrs["tessera:synthetic"] is True
    assert run("--container", "zarr") == 0
    assert "synthetic tiles, not TESSERA data" in capsys.readouterr().out
    assert run("--container", "zarr", "--seed", "1") == 1
    assert f"{tmp_path / 'zarr'}: has a sample of other tiles" in capsys.readouterr().err
    assert run("--container", "cog") == 2
    assert "expected one of npy, zarr, icechunk, found 'cog'" in capsys.readouterr().err


def test_years_and_places_beyond_the_usual(tmp_path: Path) -> None:
    far = TileId.from_name("grid_15.05_84.05")  # Icechunk groups end at 84 degrees north
    with pytest.raises(GridError, match=r"grid_15\.05_84\.05 is not within 33N"):
        sample_store(tmp_path, "icechunk", tile_years=[(far, 2016)], workers=1)
    assert list(tmp_path.iterdir()) == []
    made = sample_store(tmp_path, "zarr", tile_years=[(far, 2016)], workers=1)
    group = zarr.open_group(made.store, mode="r")["utm33"]
    assert list(np.asarray(group["time"])) == list(range(2016, 2026))
    assert np.isfinite(group["scales"][0, :1200, :200]).any()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "zarr").mkdir()
    with pytest.raises(StorageError, match="was not made by tessera-stac sample"):
        sample_store(tmp_path, "zarr")


def test_without_the_optional_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("icechunk", "pcodec"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    require("zarr")
    with pytest.raises(StorageError, match="--container icechunk needs icechunk and pcodec: ") as error:
        require("icechunk")
    line = install_line("zarr")
    assert str(error.value).endswith(line)
    wanted = [Requirement(text) for text in shlex.split(line)[4:]]
    assert {r.name for r in wanted} == {"zarr", "icechunk", "numcodecs"}
    assert all(r.specifier for r in wanted)
    assert {extra for r in wanted for extra in r.extras} == {"pcodec"}
