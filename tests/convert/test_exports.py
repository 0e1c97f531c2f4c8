"""Rasters with the names and tags of tiles that are none: converted as what they are, with a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window

from catalog_builder.synthetic.geotiff import write_geotiff_tile
from tests.convert.making import POLAR, YEAR, sample, write_pair
from tests.convert.test_odd_folders import convert, rows_of

pytestmark = pytest.mark.service
NAME = f"{POLAR.name}_{YEAR}.tiff"


def _write(path: Path, values: np.ndarray, tags: dict[str, str], **profile: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    of = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", **of | profile) as ds:
        ds.write(values)
        ds.update_tags(**tags)
    return path


def _some_bands(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    _write(path, ds.read([1, 6, 12]), tags, crs=ds.crs, transform=ds.transform)


def _clipped(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    window = Window(10, 200, 30, 150)
    _write(path, ds.read(window=window), tags, crs=ds.crs, transform=ds.window_transform(window))


def _in_degrees(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    transform, width, height = calculate_default_transform(
        ds.crs, "EPSG:4326", ds.width, ds.height, *ds.bounds, dst_width=300, dst_height=40
    )
    values = np.zeros((4, height, width), np.float32)
    where = {"src_transform": ds.transform, "src_crs": ds.crs}
    reproject(ds.read([1, 2, 3, 4]), values, dst_transform=transform, dst_crs="EPSG:4326", **where)
    _write(path, values, tags, crs="EPSG:4326", transform=transform)


def _codes(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    _write(path, sample().codes.transpose(2, 0, 1), tags, crs=ds.crs, transform=ds.transform)


def _moved(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    _write(path, ds.read(), tags, crs=ds.crs, transform=ds.transform @ Affine.translation(2, 0))


def _of_another_zone(ds: rasterio.DatasetReader, path: Path, tags: dict[str, str]) -> None:
    _write(path, ds.read([1]), tags, crs="EPSG:32633", transform=ds.transform)


EXPORTS: dict[str, tuple[Callable[[rasterio.DatasetReader, Path, dict[str, str]], None], str]] = {
    "some bands": (_some_bands, "it has 3 bands, but a TESSERA tile has 128"),
    "one band": (_of_another_zone, "it has 1 band, but a TESSERA tile has 128"),
    "clipped": (_clipped, f"its 150 x 30 pixels do not fit {POLAR.name}, which has 1115 x 58"),
    "EPSG:4326": (_in_degrees, "it has 4 bands"),
    "codes": (_codes, "its samples are int8, but an exported tile's are float32"),
    "moved by two pixels": (_moved, "its corner is"),
}


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_geotiff_tile(tmp_path_factory.mktemp("tile"), sample())


@pytest.mark.parametrize("named", ["as a tile", "freely", "as a landmask"])
@pytest.mark.parametrize("export", EXPORTS)
def test_what_is_no_whole_tile_is_an_ordinary_raster(
    tmp_path: Path, tile: Path, export: str, named: str
) -> None:
    make, why = EXPORTS[export]
    name = {"as a tile": NAME, "freely": "mine.tif", "as a landmask": f"{POLAR.name}.tiff"}[named]
    path = tmp_path / "src" / name
    with rasterio.open(tile) as ds:
        tags = {} if named == "as a tile" else ds.tags()
        make(ds, path, tags)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert (done.returncode, "1 converted" in done.stdout) == (0, True), done.stderr
    (row,) = rows_of(tmp_path / "out").values()
    assert (row.profile, row.dataset, row.tile, row.year) == ("raster", "", None, None)
    what = "name" if named == "as a tile" else "tags"
    assert row.note.startswith(f"an ordinary raster, not the tile {POLAR.name} of its {what}: {why}")
    assert row.note in done.stderr
    result = tmp_path / "out" / row.files["embeddings"].path
    with rasterio.open(path) as a, rasterio.open(result) as b:
        assert (a.crs, a.transform, a.dtypes) == (b.crs, b.transform, b.dtypes)
        np.testing.assert_array_equal(a.read(), b.read())
        assert a.tags().items() <= b.tags().items()


def test_beside_its_pair_an_export_is_neither_landmask_nor_left_out(tmp_path: Path, tile: Path) -> None:
    """A whole export is skipped for its pair, one of some bands is converted; the landmask stays one."""
    npy = write_pair(tmp_path / "src")
    with rasterio.open(tile) as ds:
        _some_bands(ds, npy.with_name(NAME), ds.tags())
        _some_bands(ds, npy.with_name(f"{POLAR.name}.tiff"), ds.tags())
        whole = npy.parents[1] / "elsewhere.tif"
        _write(whole, ds.read(), ds.tags(), crs=ds.crs, transform=ds.transform)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out").values()
    assert sorted(row.profile for row in rows) == ["native", "raster", "raster"]
    assert f"1 GeoTIFFs skipped, because their .npy pairs are present too, such as {whole}" in done.stderr
    (native,) = (row for row in rows if row.profile == "native")
    assert native.land_fraction == pytest.approx(float((sample().landmask > 0).mean()))


def test_a_whole_export_named_like_a_landmask_is_a_tile(tmp_path: Path, tile: Path) -> None:
    path = tmp_path / "src" / f"{POLAR.name}.tiff"
    with rasterio.open(tile) as ds:
        _write(path, ds.read(), ds.tags(), crs=ds.crs, transform=ds.transform)
    _write(
        tmp_path / "src/other.tif",
        np.zeros((1, 9, 9), np.uint8),
        {},
        crs="EPSG:3857",
        transform=Affine(9, 0, 0, 0, -9, 0),
    )
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert sorted((r.profile, r.tile) for r in rows_of(tmp_path / "out").values()) == [
        ("native", POLAR),
        ("raster", None),
    ]


@pytest.mark.parametrize(
    ("corner", "metres", "note"),
    [
        ("source", (0.0, 0.0), ""),
        ("utm", (0.0, 0.0), ""),
        ("source", (5.0, 0.0), "is 5.00 m east and 0.00 m north of the published one"),
        ("source", (0.0, -5.0), "is 0.00 m east and 5.00 m south of the published one"),
        ("source", (-0.5, 0.25), "is 0.50 m west and 0.25 m north of the published one"),
        ("utm", (10.0, 0.0), "m east"),
        ("source", (10.0, 0.0), "an ordinary raster"),
    ],
)
def test_a_shift_is_noted(
    tmp_path: Path, tile: Path, corner: str, metres: tuple[float, float], note: str
) -> None:
    path = tmp_path / "src" / NAME
    with rasterio.open(tile) as ds:
        at = POLAR.raster(corner).transform  # type: ignore[arg-type]
        moved = Affine(10, 0, at.c + metres[0], 0, -10, at.f + metres[1])
        _write(path, ds.read(), ds.tags(), crs=ds.crs, transform=moved)
    done = convert(tmp_path / "src", "--out", tmp_path / "out", "--workers", "0")
    assert done.returncode == 0, done.stderr
    (row,) = rows_of(tmp_path / "out").values()
    assert row.profile == ("raster" if note.startswith("an ordinary") else "native")
    assert (note in row.note) if note else (row.note == "")
    assert row.note in done.stderr
