"""Regions on other grids: GDAL's own programs and rasterio are the oracle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.features import geometry_mask

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.errors import QueryError
from catalog_builder.get import Options, Report, get
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import dataset, source_path
from catalog_builder.tile.grid import TileId
from catalog_builder.vectors.regions.warp import Warp
from tests.support.needs import program
from tests.support.pixels import same
from tests.vectors.test_get import quiet

WEST, EAST = TileId.from_name("grid_17.95_78.25"), TileId.from_name("grid_18.05_78.25")
"""On either side of the edge between zones 33 and 34."""
REGION = shapely.Polygon([(17.97, 78.22), (18.02, 78.222), (18.03, 78.235), (17.98, 78.24)])
BANDS = (0, 7)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("zones")
    sample_set(root / "source", tile_years=[(WEST, 2023), (EAST, 2023), (WEST, 2024)], workers=1)
    embeddings = root / "source" / "global_0.1_degree_representation"
    build(
        [str(root / "source")],
        root / "catalog",
        BuildOptions(dataset("synthetic"), url="http://cat", source_root=str(embeddings)),
    )
    return root / "catalog"


def fetch(catalog: Path, out: Path, warp: Warp | None, **options: Any) -> Report:
    region, years = options.pop("region", REGION), options.pop("years", frozenset({2023}))
    return get(str(catalog), out, Options(region, years, bands=BANDS, warp=warp, **options), quiet)


def tile_file(catalog: Path, tile: TileId, folder: Path) -> Path:
    """Write the values of a whole tile, by numpy on its arrays."""
    root = catalog.parent / "source" / "global_0.1_degree_representation"
    codes = np.load(root / source_path(2023, tile.name)).astype(np.float32)[:, :, list(BANDS)]
    scales = np.load(root / source_path(2023, tile.name, "_scales.npy"))
    scales = np.where(np.isfinite(scales) & (scales > 0), scales, np.nan).astype(np.float32)
    values, raster = codes * scales[:, :, None], tile.raster()
    path = folder / f"{tile.name}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=2, nodata=np.nan, crs=f"EPSG:{raster.epsg}",
        transform=raster.transform, height=raster.height, width=raster.width,
    ) as dst:  # fmt: skip
        dst.write(np.moveaxis(values, -1, 0))
    return path


def gdalwarp(source: Path, like: Path, out: Path, resampling: str) -> np.ndarray[Any, Any]:
    """Return a raster on the grid of another one, by the program."""
    with rasterio.open(like) as src:
        crs, bounds, shape, size = src.crs.to_string(), src.bounds, src.shape, src.res[0]
    # the kernel's width, which GDAL would take from the extent of what it is given
    scale = () if resampling == "nearest" else ("-wo", f"XSCALE={10 / size}", "-wo", f"YSCALE={10 / size}")
    subprocess.run(
        [
            program("gdalwarp", "gdal-bin"), "-q", "-et", "0", "-r", resampling, *scale, "-t_srs", crs,
            "-te", *map(repr, bounds), "-ts", str(shape[1]), str(shape[0]), "-dstnodata", "nan", source, out,
        ],
        check=True,
    )  # fmt: skip
    with rasterio.open(out) as src:
        found: np.ndarray[Any, Any] = src.read()
    return found


def expected(catalog: Path, like: Path, folder: Path, resampling: str) -> np.ndarray[Any, Any]:
    """Each tile by gdalwarp, put together by the longitude of the pixel's centre, and cut by the region."""
    with rasterio.open(like) as src:
        crs, transform, shape = src.crs, src.transform, src.shape
    rows, cols = np.mgrid[0 : shape[0], 0 : shape[1]]
    x, y = transform @ (cols.ravel() + 0.5, rows.ravel() + 0.5)
    lon, _ = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(x, y)
    parts = [
        gdalwarp(tile_file(catalog, t, folder), like, folder / f"{t.name}_{resampling}.tif", resampling)
        for t in (WEST, EAST)
    ]
    values = np.where(np.reshape(lon, shape) < 18.0, parts[0], parts[1])
    fine = shapely.segmentize(REGION, 0.001)
    move = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform
    moved = shapely.transform(fine, lambda c: np.column_stack(move(c[:, 0], c[:, 1])))
    values[:, geometry_mask([moved], shape, transform)] = np.nan
    return values


def agree(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], within: float) -> None:
    """Equal but for pixels on an edge of the region or between two pixels: less than 0.3 %."""
    differ = ~(np.isclose(a, b, rtol=within, atol=within) | (np.isnan(a) & np.isnan(b)))
    assert differ.any(axis=0).sum() <= 0.003 * np.isfinite(b[0]).sum()
    assert np.isfinite(b[0]).sum() > 1000


@pytest.mark.service
@pytest.mark.parametrize(
    "warp",
    [
        Warp("EPSG:4326"),
        Warp("EPSG:3995", 25.0),
        Warp("EPSG:32633", 10.0),
        Warp("EPSG:3995", 30.0, resampling="bilinear"),
    ],
    ids=str,
)  # fmt: skip
def test_two_zones_are_one_raster_as_gdalwarp_makes_it(catalog: Path, tmp_path: Path, warp: Warp) -> None:
    done = fetch(catalog, tmp_path / "out", warp)
    assert done.failed == {}
    (path,) = done.files
    with rasterio.open(path) as src:
        found, tags, transform = src.read(), src.tags(), src.transform
        assert src.crs.to_string() == warp.crs
        assert src.descriptions == ("Tessera_Band_0", "Tessera_Band_7")
    assert tags["TESSERA_RESAMPLING"] == warp.resampling
    assert tags["TESSERA_ZONES"] == "EPSG:32633, EPSG:32634"
    if warp.resolution:
        assert (transform.a, transform.c % transform.a, transform.f % transform.a) == (warp.resolution, 0, 0)
    agree(
        found,
        expected(catalog, path, tmp_path, warp.resampling),
        0.0 if warp.resampling == "nearest" else 0.02,
    )
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.service
def test_the_grid_of_a_raster_is_taken_exactly(catalog: Path, tmp_path: Path) -> None:
    like, transform = tmp_path / "like.tif", Affine(20.5, 0, 565_003.25, 0, -19.5, 8_690_001.75)
    with rasterio.open(
        like, "w", driver="GTiff", dtype="uint8", count=1, crs="EPSG:32633", transform=transform,
        height=700, width=500,
    ) as dst:  # fmt: skip
        dst.write(np.zeros((1, 700, 500), np.uint8))
    (path,) = fetch(catalog, tmp_path / "out", Warp(like=like)).files
    with rasterio.open(path) as src:
        assert (src.crs.to_epsg(), src.transform, src.shape) == (32633, transform, (700, 500))
        agree(src.read(), expected(catalog, path, tmp_path, "nearest"), 0.0)
    # another format has the same pixels
    about = fetch(catalog, tmp_path / "npy", Warp(like=like), format="npy")
    with rasterio.open(path) as src:
        assert same(np.moveaxis(np.load(about.files[0]), -1, 0), src.read())


def test_one_file_keeps_the_lattice_of_the_main_zone(catalog: Path, tmp_path: Path) -> None:
    done = fetch(catalog, tmp_path / "out", None, one_file=True)
    (path,) = done.files
    native = next(p for p in fetch(catalog, tmp_path / "native", None).files if "utm33n" in p.name)
    with rasterio.open(path) as src, rasterio.open(native) as own:
        assert src.crs == own.crs
        window = src.window(*own.bounds)
        inside = np.isfinite(own.read(1))
        values = src.read(window=window, boundless=True, fill_value=np.nan)
        assert same(values[:, inside], own.read()[:, inside])
        assert np.isfinite(src.read(1)).sum() > inside.sum()
    # a region on one lattice is not resampled, and may be codes
    one = fetch(
        catalog,
        tmp_path / "one",
        None,
        one_file=True,
        region=shapely.box(17.96, 78.22, 17.97, 78.23),
        dtype="int8",
    )
    assert len(one.files) == 2
    with rasterio.open(one.files[0]) as src:
        assert "TESSERA_RESAMPLING" not in src.tags()


def test_all_years_have_one_grid(catalog: Path, tmp_path: Path) -> None:
    done = fetch(catalog, tmp_path / "out", Warp("EPSG:4326"), years=None)
    grids = set()
    for path in done.files:
        with rasterio.open(path) as src:
            grids.add((src.shape, src.transform))
    assert (len(done.files), len(grids), done.missing) == (2, 1, "2024: 1 of 2 cells")


def test_what_cannot_be_is_refused(catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="'EPSG:1' is not a CRS"):
        fetch(catalog, tmp_path, Warp("EPSG:1"))
    with pytest.raises(QueryError, match="int8 codes cannot be resampled"):
        fetch(catalog, tmp_path, Warp("EPSG:4326"), dtype="int8")
    with pytest.raises(QueryError, match="int8 codes cannot be resampled"):
        fetch(catalog, tmp_path, None, one_file=True, dtype="int8")
    with pytest.raises(QueryError, match="contradict"):
        fetch(catalog, tmp_path, None, one_file=True, tiles=True)
    with pytest.raises(QueryError, match="above 0"):
        Warp("EPSG:4326", -1.0)
    with pytest.raises(QueryError, match="give it alone"):
        Warp("EPSG:4326", like=Path("x"))


@pytest.mark.nightly
@pytest.mark.service
def test_a_raster_beyond_4_gib_is_bigtiff_made_in_bounded_memory(catalog: Path, tmp_path: Path) -> None:
    """5.6 GB of float32, of which most has no data; the same pixels on a part of the grid are the oracle."""
    step, width, part = 0.0002, 3300, (slice(1000, 1150), slice(900, 1200))

    def like(name: str, rows: slice, cols: slice) -> Path:
        transform = Affine(step, 0, 17.8 + cols.start * step, 0, -step, 78.45 - rows.start * step)
        shape = {"height": rows.stop - rows.start, "width": cols.stop - cols.start}
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", dtype="uint8", count=1, crs="EPSG:4326",
            transform=transform, sparse_ok=True, **shape,
        ):  # fmt: skip
            return tmp_path / name

    grids = {"large": like("large.tif", slice(0, width), slice(0, width)), "part": like("part.tif", *part)}
    found, peak = {}, {}
    for name, grid in grids.items():
        command = [sys.executable, "-m", "catalog_builder.cli", "get", str(catalog), "--year", "2023"]
        command += ["--dataset", "synthetic", "--bbox", "17.9,78.2,18.1,78.3", "--like", str(grid)]
        process = subprocess.Popen([*command, "--out", str(tmp_path / name), "--quiet"])
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        (found[name],) = (tmp_path / name).glob("*.tif")
        peak[name] = usage.ru_maxrss / 1024
    assert found["large"].read_bytes()[:4] == b"II\x2b\x00", "BigTIFF"
    with rasterio.open(found["large"]) as whole, rasterio.open(found["part"]) as other:
        assert whole.shape == (width, width)
        assert 4 * whole.count * width**2 > 1 << 32
        pixels = whole.read(window=rasterio.windows.Window.from_slices(*part))
        assert np.isfinite(pixels).any()
        agree(pixels, other.read(), 0)
    assert peak["large"] < peak["part"] + 400, "MB"
