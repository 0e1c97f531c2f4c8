"""``tessera-stac get``: the right pixels, in every format, and not one byte more than the region touches."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import tifffile
import xarray as xr
from pyproj import CRS, Transformer

from catalog_builder.errors import DatasetError, QueryError
from catalog_builder.get import Options, Report, get, sample_points
from catalog_builder.pixels.window import MAX_RANGE, byte_ranges
from catalog_builder.raster.gdal import READING
from catalog_builder.tile.datasets import dataset, source_path
from catalog_builder.tile.grid import TileId
from catalog_builder.tile.regions.region import region_of
from catalog_builder.vectors.find import find
from catalog_builder.vectors.regions.plan import plan
from catalog_builder.vectors.regions.write import FORMATS
from tests.conftest import plain_environment
from tests.support.containers import Contained
from tests.support.converted import FIRST, NEIGHBOUR, Converted
from tests.support.http_server import Server
from tests.support.pixels import YEARS, cog, same, tile_values
from tests.support.snippets import localised, run_python, snippets

REGION = shapely.Polygon([(15.67, 78.22), (15.735, 78.225), (15.74, 78.235), (15.68, 78.24)])
"""A quadrangle over the edge between two tiles."""
BBOX = (15.68, 78.22, 15.72, 78.23)
TESSERA = Path(sys.executable).with_name("tessera-stac")


def quiet(*_: object) -> None:
    """Report nothing."""


def fetch(catalog: str | Path, out: Path, **options: Any) -> Report:
    region = options.pop("region", REGION)
    dry_run = options.pop("dry_run", False)
    years = options.pop("years", frozenset({2024}))
    return get(str(catalog), out, Options(region, years, **options), quiet, dry_run=dry_run)


def oracle(
    values: Callable[[TileId, int], Any], year: int, raster: Any
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return float32 (128, height, width): each pixel's own tile by its centre's longitude, NaN outside."""
    height, width = raster.shape
    rows, cols = np.mgrid[0:height, 0:width]
    x, y = raster.transform @ (cols + 0.5, rows + 0.5)
    lon, lat = Transformer.from_crs(32633, "OGC:CRS84", always_xy=True).transform(x, y)
    inside = shapely.contains_xy(REGION, lon, lat)
    out = np.full((128, height, width), np.nan, np.float32)
    for tile in YEARS[year]:
        mine = inside & (np.floor(lon * 10) == math.floor(tile.lon * 10))
        mine_of, own = values(tile, year), tile.raster().transform
        r = np.round((own.f - y) / 10 - 0.5).astype(int)
        c = np.round((x - own.c) / 10 - 0.5).astype(int)
        out[:, mine] = mine_of[:, r[mine], c[mine]]
    return out


def close_masks(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    """Equal bit for bit, but for pixels whose centre lies on an edge within a metre or two."""
    differ = (a.view("u4") != b.view("u4")) & ~(np.isnan(a) & np.isnan(b))
    assert differ.any(axis=0).sum() <= 0.002 * differ.shape[1] * differ.shape[2]


@pytest.mark.parametrize("by", ["folder", "API"])
def test_mosaic_equals_the_tiles(contained: Contained, tmp_path: Path, by: str) -> None:
    done = fetch(contained.catalog if by == "folder" else contained.server.url, tmp_path)
    assert (done.written, done.kept, done.failed) == (1, 0, {})
    (path,) = done.files
    assert path.name == "synthetic_2024_utm33n.tif"
    with rasterio.open(path) as src:
        assert src.crs.to_epsg() == 32633
        assert src.descriptions[:2] == ("Tessera_Band_0", "Tessera_Band_1")
        assert src.tags()["TESSERA_SYNTHETIC"] == "YES"
        found = src.read()
        close_masks(found, oracle(contained.values, 2024, src))
        # nothing but the region and its smallest rectangle
        assert not np.isnan(found[0]).all(axis=1).any()
    sidecar = json.loads((tmp_path / "tessera_metadata.json").read_text())
    assert (sidecar["dataset_version"], sidecar["dataset_variant"]) == ("0.0", "synthetic")
    assert "Not TESSERA" in sidecar["note"]


@pytest.mark.service
def test_every_format_holds_the_same(tiles: Converted, tmp_path: Path) -> None:
    bands = (0, 5, 127)
    found: dict[tuple[str, str], Any] = {}
    for kind in FORMATS:
        for dtype in ("float32", "int8"):
            done = fetch(tiles.catalog, tmp_path / f"{kind}-{dtype}", format=kind, dtype=dtype, bands=bands)
            assert all(p.exists() for p in done.files)
            found[kind, dtype] = opened(kind, done.files)
    wanted = found["geotiff", "float32"][0]
    codes, scales = found["geotiff", "int8"]
    assert (wanted.dtype, codes.dtype, scales.dtype) == (np.float32, np.int8, np.float32)
    assert wanted.shape == (3, *scales.shape)
    assert same(codes.astype(np.float32) * scales, wanted)
    for kind in FORMATS:
        assert same(found[kind, "float32"][0], wanted), kind
        assert same(found[kind, "int8"][0], codes), kind
        assert same(found[kind, "int8"][1], scales), kind


def opened(kind: str, files: list[Path]) -> list[Any]:
    """Return embeddings (bands, height, width), and scales if they are apart, by libraries not ours."""
    if kind == "npy":
        about = json.loads(files[-1].read_text())
        arrays = [np.load(p) for p in files[:-1]]
        assert about["crs"] == "EPSG:32633"
        assert about["shape"] == list(arrays[0].shape)
        assert about["TESSERA_SYNTHETIC"] == "YES"
        return [np.moveaxis(arrays[0], -1, 0), *arrays[1:]]
    if kind in ("netcdf", "zarr"):
        engine = {"engine": "h5netcdf"} if kind == "netcdf" else {"engine": "zarr", "consolidated": False}
        with xr.open_dataset(files[0], **engine) as ds:
            ds = ds.load()
        assert ds.band.values.tolist() == [0, 5, 127]
        assert CRS.from_cf(ds.spatial_ref.attrs).to_epsg() == 32633
        assert ds.x.values[1] - ds.x.values[0] == 10 == ds.y.values[0] - ds.y.values[1]
        names = ["embeddings", *(["scales"] if "scales" in ds else [])]
        return [
            ds[n].transpose("band", "y", "x").values if n == "embeddings" else ds[n].values for n in names
        ]
    arrays = []
    for path in files:
        with rasterio.open(path) as src:
            arrays.append(src.read() if src.count > 1 else src.read(1))
            if kind == "cog":
                assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    return arrays


def test_one_file_per_tile(tiles: Converted, tmp_path: Path) -> None:
    done = fetch(tiles.catalog, tmp_path, tiles=True, years=None)
    names = [
        f"synthetic_{t.name}_{y}.tif"
        for t, y in ((FIRST, 2022), (FIRST, 2023), (FIRST, 2024), (NEIGHBOUR, 2024))
    ]
    assert sorted(p.name for p in done.files) == sorted(names)
    assert done.tile_years == 4


def test_raw_arrays_are_read_by_exact_ranges(server: Server, tiles: Converted, tmp_path: Path) -> None:
    """Of each row the span that the region touches, and no other byte."""
    planned = fetch(server.url, tmp_path, years=frozenset({2022}), dry_run=True)
    assert planned.planned_exact
    server.clear()
    done = fetch(server.url, tmp_path, years=frozenset({2022}))
    arrays = [r for r in server.log if r.path.endswith(".npy")]
    assert {r.status for r in arrays} == {206}
    assert sum(r.sent for r in arrays) == planned.planned_bytes == done.read_bytes
    assert done.read_bytes < done.whole_bytes / 5
    # by the mask itself: rows of codes lie too far apart to be joined, rows of scales do not
    (output,) = plan(find(str(tiles.catalog), REGION, frozenset({2022}), None), REGION, tiles=False).outputs
    mask = output.parts[0].mask
    spans = sum(int(np.ptp(np.flatnonzero(row))) + 1 for row in mask)
    codes = sum(r.sent for r in arrays if not r.path.endswith("_scales.npy"))
    assert spans * 128 <= codes - 128 <= spans * 128 * 1.6
    with rasterio.open(done.files[0]) as src:
        wanted = oracle(partial(tile_values, tiles), 2022, src)
        inside = ~np.isnan(src.read(1))
        assert same(src.read()[:, inside], wanted[:, inside])


def test_cogs_are_read_by_the_blocks_that_are_touched(
    server: Server, tiles: Converted, tmp_path: Path
) -> None:
    box = "15.68,78.22,15.69,78.222"
    region = region_of(box)
    server.clear()
    # a process of its own: GDAL keeps what it fetched
    done = command("get", server.url, "--bbox", box, "--year", 2024, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    (output,) = plan(find(str(tiles.catalog), region, frozenset({2024}), None), region, tiles=False).outputs
    (part,) = output.parts
    for name in ("embeddings.tif", "scales.tif"):
        path = cog(tiles, FIRST, 2024, name)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            across = math.ceil(page.imagewidth / page.tilewidth)
            down = math.ceil(page.imagelength / page.tilelength)
            rows, cols = np.nonzero(part.mask)
            touched = {
                (r + part.window.row) // page.tilelength * across + (c + part.window.col) // page.tilewidth
                for r, c in zip(rows, cols, strict=True)
            }
            planes = 128 if name == "embeddings.tif" else 1
            blocks = sum(page.databytecounts[p * across * down + t] for p in range(planes) for t in touched)
        sent = sum(r.sent for r in server.log if r.path.endswith(path.name))
        # beside the blocks: the start of the file, and GDAL's grain of 16 kB at each end of a run
        start = READING["GDAL_INGESTED_BYTES_AT_OPEN"]
        assert blocks <= sent <= blocks + start + 4 * 16_384 * len(touched), (name, len(touched))


def test_dry_run_reads_no_pixels(server: Server, tmp_path: Path) -> None:
    server.clear()
    done = fetch(server.url, tmp_path / "out", dry_run=True)
    assert not [r for r in server.log if r.path.startswith(("/data", "/source"))]
    assert not (tmp_path / "out").exists()
    assert 0 < done.planned_bytes < done.whole_bytes


def test_again_reads_nothing(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    server.clear()
    done = fetch(server.url, tmp_path)
    assert (done.written, done.kept, done.read_bytes) == (0, 1, 0)
    assert not [r for r in server.log if r.path.startswith(("/data", "/source"))]
    # another choice is another output, which replaces nothing unless it is asked to
    with pytest.raises(QueryError, match=r"synthetic_2024_utm33n.tif is there, .*other options.*--force"):
        fetch(server.url, tmp_path, bands=(1,))
    assert fetch(server.url, tmp_path, bands=(1,), force=True).written == 1
    done.files[0].unlink()
    assert fetch(server.url, tmp_path, bands=(1,)).written == 1


def test_an_interrupted_mosaic_goes_on(tiles: Converted, tmp_path: Path) -> None:
    """Parts that were read are kept until the mosaic is whole."""
    source = tmp_path / "catalog"
    shutil.copytree(tiles.catalog, source, symlinks=True)
    missing = cog(Converted(tmp_path, source, tiles.embeddings), NEIGHBOUR, 2024, "embeddings.tif")
    away = missing.rename(missing.with_suffix(".away"))
    first = fetch(source, tmp_path / "out", workers=1)
    assert list(first.failed) == ["synthetic_2024_utm33n"]
    assert missing.name in first.failed["synthetic_2024_utm33n"]
    assert not list((tmp_path / "out").glob("*.tif"))
    away.rename(missing)
    shutil.rmtree(missing.parents[1] / FIRST.name)  # it must not be read again
    second = fetch(source, tmp_path / "out", workers=1)
    assert (second.written, second.failed) == (1, {})
    whole = fetch(tiles.catalog, tmp_path / "whole")
    with rasterio.open(second.files[0]) as a, rasterio.open(whole.files[0]) as b:
        assert same(a.read(), b.read())
    assert not (tmp_path / "out" / ".parts").exists()


def test_two_datasets_never_share_a_folder(tiles: Converted, tmp_path: Path) -> None:
    real = dataset("v1")
    (tmp_path / "tessera_metadata.json").write_text(
        json.dumps({"dataset_version": real.version, "dataset_variant": real.variant})
    )
    with pytest.raises(DatasetError, match=r"holds dataset 1.0/vultr, not 0.0/synthetic"):
        fetch(tiles.catalog, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tessera_metadata.json"]


def test_points_and_slivers_take_the_pixels_they_touch(tiles: Converted, tmp_path: Path) -> None:
    point = shapely.Point(15.6801, 78.2301)
    for i, region in enumerate(
        (point, shapely.LineString([(15.6801, 78.2301), (15.6802, 78.2301)]), point.buffer(1e-6))
    ):
        done = fetch(tiles.catalog, tmp_path / str(i), region=region)
        with rasterio.open(done.files[0]) as src:
            assert src.height == 1
            assert src.width <= 3


def test_too_large_is_refused_with_advice(tiles: Converted, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="--tiles"):
        fetch(tiles.catalog, tmp_path, max_bytes=1_000_000, format="cog")
    assert not (tmp_path / "synthetic_2024_utm33n.tif").exists()
    # what is written a window at a time needs no such limit
    assert fetch(tiles.catalog, tmp_path, max_bytes=1_000_000).written == 1


def test_no_request_is_larger_than_it_should_be(tiles: Converted) -> None:
    tile = TileId.from_name("grid_15.65_78.25")
    found = find(str(tiles.catalog), shapely.box(*tile.bounds), frozenset({2022}), None)
    (output,) = plan(found, shapely.box(*tile.bounds), tiles=True).outputs
    (part,) = output.parts
    ranges = byte_ranges(part.window, part.mask, 128, tile.raster().width)
    assert max(stop - start for start, stop in ranges) <= MAX_RANGE
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))


# ---------------------------------------------------------------------------------------- command line


def command(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TESSERA, *map(str, arguments)], cwd=folder, env=plain_environment(), capture_output=True, text=True
    )


def test_command_as_json(server: Server, tmp_path: Path) -> None:
    (tmp_path / "r.geojson").write_text(json.dumps(shapely.geometry.mapping(REGION)))
    out = tmp_path / "o"
    done = command(
        "get", server.url, "--region-file", tmp_path / "r.geojson", "--year", 2024, "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["synthetic"]
    assert said["files"] == [str(out / "synthetic_2024_utm33n.tif")]
    assert said["read_bytes"] > 0


@pytest.mark.service
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "a region is needed: --region west,south,east,north, or --region FILE"),
        (["--bbox", "0,0,1,1", "--region-file", "x"], 2, "--region: expected only one, found 0,0,1,1 and x"),
        (["--bbox", "0,0,1,1"], 2, "no pixels"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--format", "tiff"], 2, "expected one of geotiff"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--dtype", "int16"], 2, "float32 or int8"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--bands", "128"], 2, "0..127"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--year", "2024", "--years", "2023"], 2, "expected only one"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--layer", "x"], 2, "is a box"),
        (["--bbox", "15.7,78.2,15.71,78.3", "--dataset", "v1"], 2, "no collection tessera-v1"),
        (["--region-file", "none.geojson"], 2, "none.geojson"),
    ],
)
def test_wrong_usage_is_one_line(
    tiles: Converted, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    done = command("get", tiles.catalog, "--out", tmp_path / "o", *arguments)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.service
def test_a_missing_catalogue_is_a_failure(tmp_path: Path) -> None:
    for catalog in (tmp_path / "none", "http://127.0.0.1:9/"):
        done = command("get", catalog, "--out", tmp_path / "o", "--bbox", "0,0,1,1")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


@pytest.mark.service
def test_failed_outputs_are_named_and_the_rest_is_whole(tiles: Converted, tmp_path: Path) -> None:
    source = tmp_path / "catalog"
    shutil.copytree(tiles.catalog, source, symlinks=True)
    copy = Converted(tmp_path, source, tiles.embeddings)
    cog(copy, NEIGHBOUR, 2024, "scales.tif").write_bytes(b"not a tiff")
    done = command(
        "get", source, "--bbox", "15.68,78.22,15.72,78.23", "--year", 2024, "--tiles", "--out", tmp_path / "o"
    )
    assert done.returncode == 1
    assert f"failed: synthetic_{NEIGHBOUR.name}_2024" in done.stderr
    assert "1 written, 0 already there, 1 failed; SYNTHETIC" in done.stdout


def test_readme_snippet(server: Server, tmp_path: Path) -> None:
    """The lines of the document, one by one."""
    language, text = snippets()["get"]
    assert language == "sh"
    for line in localised(text, server.url, BBOX).strip().splitlines():
        _, *arguments = shlex.split(line)
        done = command(*arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "cambridge" / "synthetic_2024_utm33n.tif") as src:
        assert src.count == 3


def test_published_arrays_are_found_where_they_are_published(tiles: Converted) -> None:
    """A folder catalogue reads its local source root, whatever its items say."""
    (source,) = find(str(tiles.catalog), REGION, frozenset({2022}), None).readable
    assert source.place.main == str(tiles.embeddings / source_path(2022, FIRST.name))


@pytest.mark.parametrize("by", ["folder", "API"])
def test_points_equal_the_pixels_under_them(contained: Contained, by: str) -> None:
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(15.6, 15.8, 300), rng.uniform(78.2, 78.3, 300)
    where = str(contained.catalog) if by == "folder" else contained.server.url
    found = sample_points(where, lon, lat, [2024, 2022, 2021])
    assert found.values.shape == (300, 3, 128)
    assert found.is_synthetic
    assert np.isnan(found.values[:, 2]).all()
    to_utm = Transformer.from_crs("OGC:CRS84", 32633, always_xy=True)
    for i, year in enumerate((2024, 2022)):
        if year not in contained.years:
            assert np.isnan(found.values[:, i]).all()
            continue
        for tile in contained.years[year]:
            mine = np.floor(lon * 10) == math.floor(tile.lon * 10)
            col, row = ~tile.raster().transform @ to_utm.transform(lon[mine], lat[mine])
            wanted = contained.values(tile, year)[:, row.astype(int), col.astype(int)].T
            assert same(found.values[mine, i], wanted), (tile, year)
    with pytest.raises(QueryError, match="no tiles"):
        sample_points(str(contained.catalog), [0.0], [0.0], [2024])
    with pytest.raises(QueryError, match="of equal length"):
        sample_points(str(contained.catalog), [0.0, 1.0], [0.0], [2024])


def test_points_of_published_arrays_are_a_few_bytes_each(server: Server, tiles: Converted) -> None:
    """128 bytes of codes and 4 of scale a point, and the head of each file, in one request a file."""
    lon, lat = [15.61, 15.65, 15.69], [78.21, 78.25, 78.29]
    server.clear()
    found = sample_points(server.url, lon, lat, [2022])
    asked = [r for r in server.log if r.path.endswith(".npy")]
    lengths = [[_length(part) for part in (r.range or "").removeprefix("bytes=").split(",")] for r in asked]
    assert sorted(lengths) == [[128, 4, 4, 4], [128, 128, 128, 128]]
    sent = [r.sent for r in asked]
    assert sum(sent) < sum(map(sum, lengths)) + 8 * 150  # and the heads of the parts
    assert (found.requests, found.read_bytes) == (2, sum(sent))
    assert found.whole_bytes > 10_000 * found.read_bytes


def _length(span: str) -> int:
    first, _, last = span.partition("-")
    return int(last) - int(first) + 1


def test_points_snippet(server: Server, tmp_path: Path) -> None:
    text = localised(snippets()["sample-points"][1], server.url, BBOX)
    text = text.replace("[0.12, 0.13]", "[15.65, 15.66]").replace("[52.15, 52.16]", "[78.25, 78.26]")
    assert run_python(text, tmp_path).startswith("(2, 2, 128) ")
