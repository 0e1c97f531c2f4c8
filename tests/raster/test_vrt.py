"""The VRT documents, read by GDAL 3.6, 3.10 and 3.12: values equal those of numpy bit for bit."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine

from catalog_builder.raster.label import RawArray, label_sidecar, raw_label
from catalog_builder.raster.vrt import (
    RAW_STRIP,
    VrtSource,
    band_name,
    band_vrt,
    cog_f32_vrt,
    cog_window_vrt,
    f32_vrt,
    gain_vrt,
    raw_bytes_vrt,
    raw_codes_vrt,
    raw_scales_vrt,
    tessera_metadata,
)
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import Raster, TileId
from tests.conftest import SUPPORT, plain_environment
from tests.support.arrays import POLAR, RawTile, same_bits, write_raw_tile
from tests.support.pixels import same

Arrays = list[npt.NDArray[Any]]
Codes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


def read(python: Path, path: Path, *reads: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Read windows in a fresh process, (rows, columns, bands) each, and what the file says of itself."""
    out = path.parent / "out.npz"
    command = [python, SUPPORT / "gdal_reader.py", path, out, json.dumps(reads or [{}])]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(out) as saved:
        return [np.moveaxis(saved[str(i)], 0, -1) for i in range(len(saved))], json.loads(done.stdout)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawTile:
    made = write_raw_tile(tmp_path_factory.mktemp("raw"))
    _write_views(made)
    return made


def _write_views(made: RawTile) -> None:
    raster, name = made.tile.raster(), made.tile.name
    tags = tessera_metadata(dataset("v1"), made.tile, made.year)
    bands = 1 if made.scales.ndim == 2 else 128
    codes = RawArray(f"{name}.npy", "Int8", 128)
    scales = RawArray(f"{name}_scales.npy", "Float32", bands)
    raw = (
        VrtSource(f"{name}_u8.vrt", "Byte", bands=128),
        VrtSource(f"{name}_scales.vrt", "Float32", bands=bands),
    )
    labels = (
        VrtSource(f"{name}.xml", "Int8", bands=128),
        VrtSource(f"{name}_scales.xml", "Float32", bands=bands),
    )
    views = {
        f"{name}.vrt": raw_codes_vrt(raster, codes, tags),
        f"{name}_u8.vrt": raw_bytes_vrt(raster, codes),
        f"{name}_scales.vrt": raw_scales_vrt(raster, scales, tags),
        f"{name}_f32.vrt": f32_vrt(raster, *raw, tags, strip=RAW_STRIP),
        f"{name}.xml": raw_label(raster, codes),
        f"{name}_scales.xml": raw_label(raster, scales),
        f"{name}_planes.xml": raw_label(raster, replace(codes, href="planes.bin", offset=0, planar=True)),
        f"{name}_planes.vrt": band_vrt(
            raster, replace(labels[0], href=f"{name}_planes.xml"), labels[1], 5, tags
        ),
        f"{name}_b005.vrt": band_vrt(raster, *labels, 5, tags),
    }
    (made.folder / "planes.bin").write_bytes(np.ascontiguousarray(np.moveaxis(made.codes, -1, 0)).tobytes())
    for file, text in views.items():
        (made.folder / file).write_text(text)


def test_raw_float32_is_numpys_product(raw: RawTile, any_gdal: Path) -> None:
    windows = [
        (0, 0, 180, 1121),
        (0, 0, 1, 1),
        (179, 1120, 1, 1),
        (17, 1, 60, 1),
        (50, 100, 64, 64),
        (3, 60, 99, 200),
    ]
    arrays, about = read(any_gdal, raw.folder / f"{raw.tile.name}_f32.vrt", *[{"window": w} for w in windows])
    for window, array in zip(windows, arrays, strict=True):
        assert same_bits(array, raw.product(*window)), window
    raster = raw.tile.raster()
    assert about["epsg"] == raster.epsg == 32631
    assert about["transform"] == list(raster.transform)[:6]
    assert about["nodata"] is None
    assert about["dtypes"] == ["float32"]
    assert about["descriptions"] == [f"Tessera_Band_{i}" for i in range(128)]
    assert about["tags"]["TESSERA_DATASET_VERSION"] == "1.0"
    assert about["tags"]["AREA_OR_POINT"] == "Area"


def test_any_window_and_bands(raw: RawTile, any_gdal: Path) -> None:
    # GDAL before 3.12.3 zeroes parts of a derived band when its blocks are narrower than the raster
    rng = np.random.default_rng(0)
    reads = []
    for _ in range(40):
        x, y = int(rng.integers(0, 180)), int(rng.integers(0, 1121))
        width, height = int(rng.integers(1, 181 - x)), int(rng.integers(1, min(1122 - y, 300)))
        chosen = rng.choice(128, rng.integers(1, 20), replace=False) + 1
        reads.append({"window": [x, y, width, height], "bands": [int(b) for b in chosen]})
    arrays, _ = read(any_gdal, raw.folder / f"{raw.tile.name}_f32.vrt", *reads)
    for asked, array in zip(reads, arrays, strict=True):
        wanted = raw.product(*asked["window"])[..., np.array(asked["bands"]) - 1]
        assert same_bits(array, wanted), asked


def test_raw_codes_and_scales(raw: RawTile, gdal_python: Path) -> None:
    (codes,), about = read(gdal_python, raw.folder / f"{raw.tile.name}.vrt")
    assert about["dtypes"] == ["int8"]
    assert np.array_equal(codes, raw.codes)
    (scales,), about = read(gdal_python, raw.folder / f"{raw.tile.name}_scales.vrt")
    assert about["dtypes"] == ["float32"]
    assert same_bits(scales[..., 0], raw.scales)


def test_one_band(raw: RawTile, any_gdal: Path) -> None:
    (band,), about = read(any_gdal, raw.folder / f"{raw.tile.name}_b005.vrt")
    assert about["count"] == 1
    assert about["descriptions"] == ["Tessera_Band_5"]
    assert same_bits(band[..., 0], raw.product(0, 0, 180, 1121)[..., 5])


def test_raw_codes_are_refused_by_gdal_36(raw: RawTile, gdal36: Path) -> None:
    """It has no Int8: no values, and the reason, instead of 128 to 255."""
    command = [gdal36, SUPPORT / "gdal_reader.py", raw.folder / f"{raw.tile.name}.vrt", "out.npz", "[{}]"]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "Invalid dataType = Int8" in done.stderr


BUFFERS = ("float32", "float64", "int16", "complex64", "complex128")
"""Types in which callers read: gdallocationinfo takes complex128, gdal_translate -ot Int16 int16."""


def in_buffer(codes: Codes, scales: Floats, dtype: str) -> npt.NDArray[Any]:
    """Return numpy's product as GDAL puts it into a buffer: exact in double, converted once."""
    with np.errstate(all="ignore"):
        exact = codes.astype(np.float64) * scales.astype(np.float64)
        if dtype != "int16":
            return exact.astype(dtype)
        rounded = np.trunc(exact + np.copysign(0.5, exact))  # halves away from zero
        return np.nan_to_num(rounded, nan=0).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize(("view", "band"), [("f32", 127), ("f32", 6), ("b005", 1), ("planes", 1)])
def test_buffers_of_any_type_over_raw_arrays(raw: RawTile, any_gdal: Path, view: str, band: int) -> None:
    """Awkward scales are in row 1."""
    reads = [
        {"window": [0, 0 if dtype != "int16" else 2, 180, 40], "bands": [band], "dtype": dtype}
        for dtype in BUFFERS
    ]
    arrays, _ = read(any_gdal, raw.folder / f"{raw.tile.name}_{view}.vrt", *reads)
    number = 5 if band == 1 else band - 1
    for asked, array in zip(reads, arrays, strict=True):
        rows = slice(asked["window"][1], asked["window"][1] + 40)
        wanted = in_buffer(raw.codes[rows, :, number], raw.scales[rows], asked["dtype"])
        assert same_bits(array[..., 0], wanted), asked["dtype"]


def test_scales_per_band(tmp_path: Path, any_gdal: Path) -> None:
    made = write_raw_tile(tmp_path, per_band_scales=True)
    _write_views(made)
    (array,), _ = read(any_gdal, made.folder / f"{made.tile.name}_f32.vrt")
    assert same_bits(array, made.product(0, 0, 180, 1121))


def test_big_endian_scales_and_another_offset(tmp_path: Path) -> None:
    raster = Raster(32631, Affine(10, 0, 300000, 0, -10, 5800000), 3, 4)
    scales = np.arange(12, dtype=">f4").reshape(3, 4)
    (tmp_path / "s.bin").write_bytes(b"x" * 77 + scales.tobytes())
    array = RawArray("s.bin", "Float32", 1, offset=77, big_endian=True)
    (tmp_path / "s.xml").write_text(raw_label(raster, array))
    (tmp_path / "s.xml.aux.xml").write_text(label_sidecar(raster))
    (tmp_path / "s.vrt").write_text(raw_scales_vrt(raster, array))
    for name in ("s.xml", "s.vrt"):
        with rasterio.open(tmp_path / name) as ds:
            assert np.array_equal(ds.read(1), scales.astype(np.float32))
            assert (ds.crs.to_epsg(), ds.transform) == (32631, raster.transform)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Raster]:
    """Return a folder with two tiled GeoTIFFs with overviews, nodata as the converter writes it."""
    folder = tmp_path_factory.mktemp("pair")
    raster = Raster(32631, Affine(10, 0, 300000, 0, -10, 5800000), 400, 300)
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, (128, 400, 300)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, (1, 400, 300)).astype(np.float32)
    codes[:, :20, :30], scales[:, :20, :30] = -128, np.nan
    for name, array, nodata in (("q", codes, -128), ("s", scales, np.nan)):
        profile = {
            "width": 300,
            "height": 400,
            "count": len(array),
            "dtype": array.dtype.name,
            "nodata": nodata,
        }
        tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band"}
        path = folder / f"{name}.tif"
        place = {"crs": "EPSG:32631", "transform": raster.transform}
        with rasterio.open(path, "w", driver="GTiff", **place, **profile, **tiles) as ds:
            ds.write(array)
        with rasterio.open(path, "r+") as ds:
            ds.build_overviews([2, 4], rasterio.enums.Resampling.average)
    return folder, raster


def _level(folder: Path, name: str, level: int | None) -> npt.NDArray[Any]:
    options = {} if level is None else {"overview_level": level}
    with rasterio.open(folder / f"{name}.tif", **options) as ds:
        return np.moveaxis(ds.read(), 0, -1)


@pytest.mark.parametrize("block", [None, (128, 128)])
def test_cog_view(pair: tuple[Path, Raster], block: tuple[int, int] | None, gdal_python: Path) -> None:
    folder, raster = pair
    view = folder / "f32.vrt"
    view.write_text(cog_f32_vrt(raster, "q.tif", "s.tif", block=block, overviews=(2, 4)))
    (full, half, quarter), about = read(gdal_python, view, {}, {"overview": 0}, {"out": [100, 75]})
    assert about["overviews"] == [2, 4]
    assert about["nodata"] is None
    for array, level in ((full, None), (half, 0), (quarter, 1)):
        # code and scale of the same level; NaN where there is no data, not -128
        wanted = _level(folder, "q", level).astype(np.float32) * _level(folder, "s", level)
        assert same_bits(array, wanted), level
    assert np.isnan(full[0, 0]).all()


def test_views_beside_each_other_in_a_mosaic(
    pair: tuple[Path, Raster], tmp_path: Path, any_gdal: Path
) -> None:
    """As STACIT and gdalbuildvrt make it: what is read of the second must not touch the first."""
    folder, raster = pair
    height, width = raster.shape
    view = folder / "f32.vrt"
    view.write_text(cog_f32_vrt(raster, "q.tif", "s.tif", overviews=(2, 4)))
    sources = "".join(
        f"<SimpleSource><SourceFilename>{view}</SourceFilename><SourceBand>7</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{x}" yOff="{y}" xSize="{width}" ySize="{height}"/></SimpleSource>'
        for x, y in ((0, 3), (width - 10, 0))
    )
    mosaic = tmp_path / "mosaic.vrt"
    mosaic.write_text(
        f'<VRTDataset rasterXSize="{2 * width - 10}" rasterYSize="{height + 3}"><SRS>EPSG:32631</SRS>'
        "<GeoTransform>300000, 10, 0, 5800030, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="Float32" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    (found,), _ = read(any_gdal, mosaic, {})
    one = _level(folder, "q", None)[..., 6].astype(np.float32) * _level(folder, "s", None)[..., 0]
    wanted = np.zeros((height + 3, 2 * width - 10), np.float32)
    wanted[3:, :width] = one
    wanted[:height, width - 10 :] = one
    assert same_bits(found[..., 0], wanted)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a view for windows over a pair of odd size, with its overviews: data and none side by side.

    Overviews are other pixels, so that no level passes for another one's means.
    """
    folder = tmp_path_factory.mktemp("windows")
    raster = Raster(32631, Affine(10, 0, 300000, 0, -10, 5800000), 409, 299)
    rng = np.random.default_rng(3)
    for name, count in (("q", 128), ("s", 1)):
        profile = {"width": raster.width, "height": raster.height, "count": count}
        tiles = {"tiled": True, "blockxsize": 48, "blockysize": 48, "interleave": "band"}
        place = {
            "crs": "EPSG:32631",
            "transform": raster.transform,
            "nodata": -128 if name == "q" else np.nan,
        }
        dtype = "int8" if name == "q" else "float32"
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", dtype=dtype, **place, **profile, **tiles
        ):
            pass
        with rasterio.open(folder / f"{name}.tif", "r+") as ds:
            ds.build_overviews([2, 4, 8], rasterio.enums.Resampling.nearest)
    for level in (None, 0, 1, 2):
        options = {} if level is None else {"OVERVIEW_LEVEL": level}
        with (
            rasterio.open(folder / "q.tif", "r+", **options) as q,
            rasterio.open(folder / "s.tif", "r+", **options) as s,
        ):
            codes = rng.integers(-127, 128, (128, *q.shape)).astype(np.int8)
            scales = rng.uniform(0.01, 0.1, q.shape).astype(np.float32)
            scales.ravel()[:8] = 0, -0.0, 1e-42, 3e38, np.inf, -np.inf, -0.5, 1
            codes[:, 1, 7] = -128  # with a scale: a value
            none = rng.random(q.shape) < 0.2
            codes[:, none], scales[none] = -128, np.nan
            q.write(codes)
            s.write(scales, 1)
    tags = tessera_metadata(dataset("v1"), TileId.from_name("grid_0.15_52.05"), 2024)
    (folder / "window.vrt").write_text(cog_window_vrt(raster, "q.tif", "gain.vrt", tags))
    (folder / "gain.vrt").write_text(gain_vrt(raster, "s.tif"))
    return folder


def _product(folder: Path, level: int | None) -> npt.NDArray[np.float32]:
    with np.errstate(invalid="ignore", over="ignore"):
        values: Floats = _level(folder, "q", level).astype(np.float32) * _level(folder, "s", level)
    return values


def test_window_view(windows: Path, gdal_python: Path) -> None:
    """Any window of any level: numpy's product of the two files' own pixels of that level."""
    levels = {level: _product(windows, level) for level in (None, 0, 1, 2)}
    assert all(0.7 < np.isfinite(values).mean() < 0.9 for values in levels.values())
    rng = np.random.default_rng(4)
    reads: list[dict[str, Any]] = []
    for level, values in levels.items():
        height, width = values.shape[:2]
        for _ in range(25):
            x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
            size = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
            reads.append({"window": [x, y, *size], "overview": level})
        reads.append({"overview": level})
    arrays, about = read(gdal_python, windows / "window.vrt", *reads)
    for asked, array in zip(reads, arrays, strict=True):
        values = levels[asked["overview"]]
        x, y, width, height = asked.get("window", (0, 0, *values.shape[1::-1]))
        assert same(array, values[y : y + height, x : x + width]), asked
    full = levels[None]
    assert np.isnan(full).all(axis=2).sum() > 1000, "no data, which is NaN in every band"
    assert (full[1, 7] == -128 * _level(windows, "s", None)[1, 7]).all(), "a code of -128 with a scale"
    assert (about["count"], about["dtypes"], about["nodata"]) == (128, ["float32"], None)
    assert (about["overviews"], about["epsg"]) == ([2, 4, 8], 32631)
    assert about["descriptions"] == [f"Tessera_Band_{i}" for i in range(128)]
    assert about["tags"]["TESSERA_YEAR"] == "2024"


def test_window_view_reduced(windows: Path, gdal_python: Path) -> None:
    """Fewer pixels than there are come from the stored level, not from full resolution."""
    sizes = [_level(windows, "s", level).shape[:2] for level in (0, 1, 2)]
    arrays, _ = read(gdal_python, windows / "window.vrt", *[{"out": list(size)} for size in sizes])
    for level, array in enumerate(arrays):
        assert same(array, _product(windows, level)), level


def test_window_view_in_any_buffer(windows: Path, gdal_python: Path) -> None:
    reads = [{"window": [60, 33, 50, 70], "dtype": dtype} for dtype in ("float32", "float64", "complex64")]
    arrays, _ = read(gdal_python, windows / "window.vrt", *reads)
    wanted = _product(windows, None)[33:103, 60:110]
    for array in arrays:
        assert same(array.real.astype(np.float32), wanted)


def test_window_view_is_refused_by_gdal_36(windows: Path, gdal36: Path) -> None:
    """With a reason, and without a value: docs/clients.md quotes it."""
    command = [gdal36, SUPPORT / "gdal_reader.py", windows / "window.vrt", "out.npz", "[{}]"]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    reason = "VRTRasterBand of unrecognized subclass 'VRTProcessedRasterBand'"
    assert reason in done.stderr
    assert reason in (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


def test_cog_view_on_gdal_36(pair: tuple[Path, Raster], gdal36: Path) -> None:
    """Overviews are right band by band, as QGIS reads; several bands reduced at once are refused."""
    folder, raster = pair
    view = folder / "f32.vrt"
    view.write_text(cog_f32_vrt(raster, "q.tif", "s.tif", overviews=(2, 4)))
    bands = (1, 2, 77, 128)
    reads = [{"bands": [b], "out": [100, 75]} for b in bands]
    (full, *quarters), about = read(gdal36, view, {}, *reads)
    assert about["overviews"] == [2, 4]
    assert same_bits(full, _level(folder, "q", None).astype(np.float32) * _level(folder, "s", None))
    wanted = _level(folder, "q", 1).astype(np.float32) * _level(folder, "s", 1)
    for band, array in zip(bands, quarters, strict=True):
        assert same_bits(array[..., 0], wanted[..., band - 1]), band
    command = [gdal36, SUPPORT / "gdal_reader.py", view, "out.npz", '[{"out": [100, 75]}]']
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "Recursion detected" in done.stderr


@pytest.mark.parametrize("band", [1, 128])
def test_buffers_of_any_type_over_cogs(pair: tuple[Path, Raster], any_gdal: Path, band: int) -> None:
    folder, raster = pair
    (folder / "f32.vrt").write_text(cog_f32_vrt(raster, "q.tif", "s.tif", overviews=(2, 4)))
    codes, scales = VrtSource("q.tif", "Int8", bands=128), VrtSource("s.tif", "Float32")
    (folder / "band.vrt").write_text(band_vrt(raster, codes, scales, band - 1, overviews=(2, 4)))
    for name, number in (("f32.vrt", band), ("band.vrt", 1)):
        for level in (None, 0, 1):
            reads = [{"bands": [number], "dtype": dtype, "overview": level} for dtype in BUFFERS]
            arrays, _ = read(any_gdal, folder / name, *reads)
            stored = _level(folder, "q", level)[..., band - 1], _level(folder, "s", level)[..., 0]
            for dtype, array in zip(BUFFERS, arrays, strict=True):
                assert same_bits(array[..., 0], in_buffer(*stored, dtype)), (name, level, dtype)


def test_sources_elsewhere(pair: tuple[Path, Raster], tmp_path: Path) -> None:
    folder, raster = pair
    (tmp_path / "f32.vrt").write_text(cog_f32_vrt(raster, str(folder / "q.tif"), str(folder / "s.tif")))
    with rasterio.open(tmp_path / "f32.vrt") as ds:
        assert same_bits(
            ds.read(3), (_level(folder, "q", None).astype("f4") * _level(folder, "s", None))[..., 2]
        )


def test_hrefs() -> None:
    def named(codes: str, scales: str) -> set[tuple[str | None, str]]:
        text = cog_f32_vrt(POLAR.raster(), codes, scales)
        found = ET.fromstring(text).iter("SourceFilename")  # noqa: S314
        return {(e.text, e.attrib["relativeToVRT"]) for e in found}

    assert named("https://example.org/v2~b/q.tif?a=1&b=2", "s & co.tif") == {
        ("/vsicurl/https://example.org/v2~b/q.tif?a=1&b=2", "0"),
        ("s & co.tif", "1"),
    }
    assert named("/a/b.tif", "s3://bucket/b.tif") == {("/a/b.tif", "0"), ("/vsis3/bucket/b.tif", "0")}


def test_no_derived_band_shows_nodata() -> None:
    text = f32_vrt(POLAR.raster(), VrtSource("q.tif", "Int8"), VrtSource("s.tif", "Float32"))
    for band in ET.fromstring(text).iter("VRTRasterBand"):  # noqa: S314
        assert band.findtext("HideNoDataValue") == "1"
        value = float(band.findtext("NoDataValue") or "nan")
        assert value not in range(-128, 128)
        assert float(np.float32(value)) != value, "no scale is it"


def test_metadata() -> None:
    tile = TileId.from_name("grid_-0.05_52.05")
    tags = tessera_metadata(dataset("v2-2B-L~beta1"), tile, 2021, "source")
    assert tags["TESSERA_DATASET_VERSION"] == "2.0"
    assert tags["TESSERA_DATASET_VERSION_PATH"] == "v2"
    assert tags["TESSERA_DATASET_VARIANT"] == "2B-L~beta1"
    assert (tags["TESSERA_TILE_LON"], tags["TESSERA_TILE_LAT"]) == ("-0.05", "52.05")
    assert tags["TESSERA_GRID"] == "source"
    assert "TESSERA_SYNTHETIC" not in tags
    assert tessera_metadata(dataset("synthetic"), tile, 2021)["TESSERA_SYNTHETIC"] == "YES"
    assert band_name(0) == "Tessera_Band_0"


@pytest.mark.parametrize("href", ["/etc/passwd", "../a.npy", "a/b.npy", "https://example.org/a.npy", ".."])
def test_an_array_must_be_beside_its_description(href: str) -> None:
    with pytest.raises(ValueError, match="not the name of a file in the same folder"):
        RawArray(href, "Int8", 128)


def test_bad_bands() -> None:
    sources = VrtSource("q.tif", "Int8"), VrtSource("s.tif", "Float32")
    for bands in ((), (128,), (-1, 3)):
        with pytest.raises(ValueError, match="bands must be"):
            f32_vrt(POLAR.raster(), *sources, bands=bands)
