"""Tile-years of Zarr and Icechunk stores are converted bit for bit; a run fetches no chunk twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.convert.plan.job import ConvertOptions, Job, Plan, SourceFile
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ProcessWorkers
from catalog_builder.stores.open import open_store
from catalog_builder.stores.written import filled_tiles
from catalog_builder.tile.grid import TileId
from tests.conftest import plain_environment
from tests.support.catalogs import build_from
from tests.support.forked import tessera_stac
from tests.support.http_server import Server, serve
from tests.support.pixels import same
from tests.support.registry import write_land
from tests.support.s3_store import environment, s3_store
from tests.support.stores import EAST, NORTH, SOUTH, Stores, make_stores

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return make_stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def server(stores: Stores) -> Iterator[Server]:
    with serve(Starlette(routes=[Mount("/", StaticFiles(directory=stores.a.parent))])) as running:
        yield running


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    return tessera_stac("convert", *arguments, environment=plain_environment())


def job(address: str, tile: TileId, year: int = 2024) -> Job:
    return Job("store", SourceFile(address), dataset="v1.1-dclimate", tile=tile, year=year)


@pytest.mark.parametrize("layout", ["a", "b"])
@pytest.mark.parametrize("where", ["local", "http"])
def test_bit_exact_and_each_chunk_once(
    stores: Stores, server: Server, tmp_path: Path, layout: str, where: str
) -> None:
    path: Path = getattr(stores, layout)
    address = str(path) if where == "local" else f"{server.url}/{path.name}"
    jobs = [job(address, tile) for tile in (NORTH, EAST, SOUTH)]
    server.clear()
    options = ConvertOptions(str(tmp_path), verify=True)
    report = run(Plan(len(jobs), lambda: iter(jobs)), options, ProcessWorkers(2))
    assert report.exit_code == 0, report.failed
    for tile, (codes, scales) in stores.tiles.items():
        folder = tmp_path / "v1.1-dclimate" / "2024" / tile.name
        valid = np.isfinite(scales) & (scales > 0)
        (file,) = folder.glob("*_embeddings.tif")
        with rasterio.open(file) as ds:
            assert ds.crs.to_epsg() == tile.epsg
            assert ds.transform == tile.raster().transform
            assert same(np.moveaxis(ds.read(), 0, -1)[valid], codes[valid])
        (file,) = folder.glob("*_scales.tif")
        with rasterio.open(file) as ds:
            assert same(ds.read(1), np.where(valid, scales, np.float32("nan")))
    # of Icechunk's files no name says of which array they are: a shard of scales has 180 kB
    least = 100_000 if layout == "a" else 1_000_000
    large = [r for r in server.log if r.method == "GET" and r.sent > least]
    asked = Counter((r.path, r.range) for r in large if layout == "b" or "/embeddings/" in r.path)
    assert (sum(asked.values()) > 3) == (where == "http")
    assert max(asked.values(), default=1) == 1
    assert not overlapping(asked)
    assert not (tmp_path / ".staging").exists()
    again = run(Plan(len(jobs), lambda: iter(jobs)), options, ProcessWorkers(2))
    assert (again.converted, again.skipped) == (0, 3)


@pytest.mark.parametrize("workers", [("--workers", "2"), ("--dask", "local", "--workers", "2")], ids=" ".join)
def test_each_chunk_once_with_store_and_results_in_s3(
    stores: Stores, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    """Processes of a machine share chunks in its temporary folder, which is empty afterwards."""
    with s3_store() as store:
        for path in (p for p in stores.a.rglob("*") if p.is_file()):
            key = path.relative_to(stores.a.parent).as_posix()
            store.client.upload_file(str(path), store.bucket, key)
        out = f"{store.root}/cogs"
        command = [sys.executable, "-m", "catalog_builder.cli", "convert", f"{store.root}/{stores.a.name}"]
        command += ["--dataset", "v1.1-dclimate", "--years", "2024", "--out", out, "-q", *workers]
        settings = plain_environment(**environment(store), TMPDIR=str(tmp_path))
        done = subprocess.run(command, capture_output=True, text=True, env=settings)
        assert done.returncode == 0, done.stderr
        files = [key for key in store.stored("cogs/") if key.endswith("_embeddings.tif")]
        for tile, (codes, scales) in stores.tiles.items():
            (key,) = (key for key in files if f"/{tile.name}/" in key)
            store.client.download_file(store.bucket, key, str(tmp_path / "found.tif"))
            with rasterio.open(tmp_path / "found.tif") as ds:
                valid = np.isfinite(scales) & (scales > 0)
                assert same(np.moveaxis(ds.read(), 0, -1)[valid], codes[valid])
        read = [(a.path, a.headers.get("range", "")) for a in store.log if "/embeddings/c/" in a.path]
    spans = [(path, said, *said.removeprefix("bytes=").split("-")) for path, said in read]
    asked = Counter(
        (path, said) for path, said, *ends in spans if ends[0] and int(ends[1]) - int(ends[0]) > 100_000
    )
    assert sum(asked.values()) > 3
    assert max(asked.values()) == 1
    assert not overlapping(asked)
    assert not list(tmp_path.glob("tessera-stac-*"))


def overlapping(asked: Counter[tuple[str, str | None]]) -> list[object]:
    """Return ranges of one file that share more than is rather read than asked around."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for path, said in asked:
        start, _, last = (said or "").removeprefix("bytes=").partition("-")
        if start:
            spans.setdefault(path, []).append((int(start), int(last)))
    return [
        (path, one, other)
        for path, ranges in spans.items()
        for one, other in zip(sorted(ranges), sorted(ranges)[1:], strict=False)
        if one[1] >= other[0] + 64 * 1024
    ]


def test_what_is_not_there_is_a_reason(stores: Stores, tmp_path: Path) -> None:
    jobs = [
        job(str(stores.b), NORTH, 2023),
        job(str(stores.b), TileId.from_name("grid_100.05_10.05")),
        job(str(tmp_path / "none"), NORTH),
    ]
    options = ConvertOptions(str(tmp_path / "out"))
    report = run(Plan(len(jobs), lambda: iter(jobs)), options, ProcessWorkers(1))
    reasons = sorted(row.reason.rpartition(": ")[2] for row in report.failed)
    assert report.exit_code == 1
    assert reasons == [
        "expected a folder",
        "has no complete 2023 of zone 31",
        "has no complete 2024 of zone 47",
    ]


@pytest.mark.parametrize("name", ["tiles.icechunk", "tiles.zarr"])
@pytest.mark.parametrize("content", ["nothing", "other files", "a file", "not there"])
def test_what_is_called_a_store_and_is_none(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    if content == "a file":
        path.write_bytes(b"x")
    elif content != "not there":
        path.mkdir()
    if content == "other files":
        (path / "notes.txt").write_text("x")
    refused = convert(str(path), "--out", str(tmp_path / "out"))
    assert refused.returncode == 1
    reason = {
        "tiles.icechunk": "the Icechunk repository cannot be opened: the repository doesn't exist",
        "tiles.zarr": "not a Zarr v3 store: it has no root group",
    }[name]
    if content in ("a file", "not there"):
        reason = "not a store: expected a folder"
    assert refused.stderr.splitlines() == [f"error: {path}: {reason}"]


@pytest.mark.parametrize("layout", ["a", "b"])
@pytest.mark.parametrize("source", ["store", "catalogue"])
def test_from_the_command_line(stores: Stores, tmp_path: Path, layout: str, source: str) -> None:
    """A store, or the catalogue of one, is the source: the tiles that have data, by region and year."""
    store = getattr(stores, layout)
    given, out = str(store), tmp_path / "out"
    if source == "catalogue":
        land = write_land(tmp_path / "land", [NORTH, EAST, SOUTH])
        build_from(tmp_path / "catalog", store, land, dataset="v1.1-dclimate", url="https://stac.test")
        given, out = str(tmp_path / "catalog"), tmp_path / "catalog" / "cogs"
    region = ["--bbox", "3.01,84.51,3.19,84.59", "--years", "2024"]
    command = [given, "--dataset", "v1.1-dclimate", "--workers", "1", "--json", "-q"]
    command += [] if source == "catalogue" else ["--out", str(out)]
    done_first = convert(*command, *region)
    assert done_first.returncode == 0, done_first.stderr
    done = {p.parent.name: p for p in out.rglob("*_embeddings.tif")}
    assert set(done) == {NORTH.name, EAST.name}
    for tile in (NORTH, EAST):
        codes, scales = stores.tiles[tile]
        with rasterio.open(done[tile.name]) as ds:
            found = np.moveaxis(ds.read(), 0, -1)
        valid = np.isfinite(scales) & (scales > 0)
        assert same(found[valid], codes[valid])
        assert (found[~valid] == -128).all()
    assert convert(*command).returncode == 0
    assert {p.parent.name for p in out.rglob("*_embeddings.tif")} == {NORTH.name, EAST.name, SOUTH.name}


def test_tiles_of_which_only_neighbours_have_pixels(stores: Stores, tmp_path: Path) -> None:
    """Rasters overlap: what is at a tile's edge may be its neighbour's, and the tile not there at all."""
    made = make_stores(tmp_path, {NORTH: stores.tiles[NORTH]})
    store = open_store(str(made.a))
    filled = filled_tiles(store, None, lambda *_: None)
    assert filled.tiles == ((NORTH, 2024),)
    assert filled.edges > 0
    away = filled_tiles(store, [2023], lambda *_: None)
    assert (away.tiles, away.empty + away.edges) == ((), 0)


def test_a_dataset_is_needed(stores: Stores, tmp_path: Path) -> None:
    done = convert(stores.a, "--out", tmp_path)
    assert done.returncode == 2
    assert "does not state which dataset it holds; specify it with --dataset" in done.stderr
