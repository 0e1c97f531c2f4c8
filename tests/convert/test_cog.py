"""The COG writer against rasterio, tifffile, rio-cogeo, GDAL's own validator and GDAL's command line."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rio_cogeo import cog_validate

from catalog_builder.convert.encode import tiff
from catalog_builder.convert.encode.cog import BandStatistics, CogFile
from catalog_builder.convert.encode.cog import write_cog as write_to
from catalog_builder.errors import ConvertError
from tests.convert.conftest import VALIDATE
from tests.support.needs import program

UTM = {"crs_epsg": 32631, "transform": (10.0, 0.0, 300930.0, 0.0, -10.0, 5776130.0)}
SIZES = [(1, 1), (16, 16), (17, 33), (40, 7), (100, 70)]
LAYOUTS = ["tile", "band", "pixel"]


def write_cog(path: Path, levels: list[np.ndarray], **options: Any) -> CogFile:
    with path.open("wb") as stream:
        return write_to(stream, levels, **options)


def raster(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        values = rng.standard_normal(shape).astype(np.float32)
        values[rng.random(shape) < 0.1] = np.nan
        return values
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def pyramid(full: np.ndarray, block_size: int) -> list[np.ndarray]:
    levels = [full]
    while max(levels[-1].shape[:2]) > block_size:
        rows, cols = (max(1, n // 2) for n in levels[-1].shape[:2])
        levels.append(np.ascontiguousarray(levels[-1][:rows, :cols]))
    return levels


def with_rasterio(path: Path, level: int) -> np.ndarray:
    options = {} if level == 0 else {"overview_level": level - 1}
    with rasterio.open(path, **options) as dataset:
        return dataset.read().transpose(1, 2, 0)


def with_tifffile(path: Path, level: int) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        values = page.asarray()
        if values.ndim == 2:
            return values[..., None]
        return values.transpose(1, 2, 0) if page.planarconfig == 2 else values


def check(
    path: Path, levels: list[np.ndarray], readers: tuple[Any, ...] = (with_rasterio, with_tifffile)
) -> None:
    with rasterio.open(path) as dataset:
        assert len(dataset.overviews(1)) == len(levels) - 1
    for number, level in enumerate(levels):
        for reader in readers:
            got = reader(path, number)
            expected = level.reshape(got.shape)
            assert got.dtype == level.dtype
            assert got.tobytes() == expected.tobytes()  # bit for bit, NaN too


@pytest.mark.parametrize("interleave", LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "predictor"),
    [
        *((dtype, predictor) for dtype in ("int8", "uint8", "int16", "uint16") for predictor in (1, 2)),
        ("float32", 1),
        ("float32", 3),
    ],
)
@pytest.mark.parametrize("compression", ["zstd", "deflate", "none"])
def test_every_layout_reads_back(
    tmp_path: Path, interleave: Any, dtype: str, predictor: Any, compression: Any
) -> None:
    if compression == "none":
        predictor = 1
    for size in SIZES:
        for bands in (1, 5):
            levels = pyramid(raster((*size, bands), dtype), 32)
            path = tmp_path / f"{size[0]}x{size[1]}x{bands}.tif"
            write_cog(
                path,
                levels,
                **UTM,
                block_size=32,
                interleave=interleave,
                compression=compression,
                predictor=predictor,
            )
            check(path, levels)
            assert cog_validate(path, strict=True) == (True, [], [])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=hnp.arrays(np.int8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=40)),
    interleave=st.sampled_from(LAYOUTS),
    level=st.sampled_from([1, 3, 9]),
)
def test_any_int8_array_comes_back(tmp_path: Path, values: np.ndarray, interleave: Any, level: int) -> None:
    levels = pyramid(values, 16)
    write_cog(
        tmp_path / "a.tif", levels, **UTM, nodata=-128, block_size=16, interleave=interleave, level=level
    )
    check(tmp_path / "a.tif", levels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.floats(width=32)
    )
)
def test_any_scales_come_back(tmp_path: Path, values: np.ndarray) -> None:
    levels = pyramid(values, 16)
    write_cog(tmp_path / "s.tif", levels, **UTM, nodata=float("nan"), block_size=16)
    check(tmp_path / "s.tif", levels)


def test_an_array_in_another_order_or_byte_order(tmp_path: Path) -> None:
    values = raster((30, 40, 6), "int16")
    for other in (
        values.transpose(2, 0, 1).copy().transpose(1, 2, 0),
        values.astype(">i2"),
        values[::-1][::-1],
    ):
        result = write_cog(tmp_path / "a.tif", [other], **UTM, block_size=64)
        assert result.dtype == "int16"
        check(tmp_path / "a.tif", [values])


def test_metadata_is_read_by_rasterio(tmp_path: Path) -> None:
    bands = 3
    statistics = [BandStatistics(-5.0, 7.5, 0.25, 1.5, 91.0)] * bands
    write_cog(
        tmp_path / "a.tif",
        pyramid(raster((70, 50, bands), "int8"), 32),
        **UTM,
        nodata=-128,
        block_size=32,
        band_descriptions=["Tessera_Band_0", "<b> & 'c'", 'ü "q"'],
        band_statistics=statistics,
        band_scale_offset=[(0.5, 0.0), (0.25, -1.0), (1.0, 1e-9)],
        tags={"TESSERA_YEAR": "2024", "NOTE": "a < b & c\n“é”", 'we"ird': ""},
        overview_resampling="average",
    )
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.driver == "GTiff"
        assert dataset.crs.to_epsg() == 32631
        assert tuple(dataset.transform)[:6] == UTM["transform"]
        assert dataset.dtypes == ("int8",) * bands
        assert dataset.nodatavals == (-128.0,) * bands
        assert dataset.block_shapes == [(32, 32)] * bands
        assert dataset.descriptions == ("Tessera_Band_0", "<b> & 'c'", 'ü "q"')
        assert dataset.scales == (0.5, 0.25, 1.0)
        assert dataset.offsets == (0.0, -1.0, 1e-9)
        tags = dataset.tags()
        assert tags["TESSERA_YEAR"] == "2024"
        assert tags["NOTE"] == "a < b & c\n“é”"
        assert tags["AREA_OR_POINT"] == "Area"
        structure = dataset.tags(ns="IMAGE_STRUCTURE")
        assert structure["LAYOUT"] == "COG"
        assert structure["INTERLEAVE"] == "TILE"
        assert structure["COMPRESSION"] == "ZSTD"
        assert structure["OVERVIEW_RESAMPLING"] == "AVERAGE"
        band = dataset.tags(2)
        assert float(band["STATISTICS_MINIMUM"]) == -5
        assert float(band["STATISTICS_MAXIMUM"]) == 7.5
        assert float(band["STATISTICS_MEAN"]) == 0.25
        assert float(band["STATISTICS_STDDEV"]) == 1.5
        assert float(band["STATISTICS_VALID_PERCENT"]) == 91
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as dataset:
        assert dataset.nodatavals == (-128.0,) * bands


def test_nan_nodata_and_colour(tmp_path: Path) -> None:
    write_cog(tmp_path / "f.tif", [raster((9, 9), "float32")], **UTM, nodata=float("nan"), block_size=16)
    with rasterio.open(tmp_path / "f.tif") as dataset:
        assert np.isnan(dataset.nodata)
    for bands, last in ((3, "blue"), (4, "alpha")):
        path = tmp_path / f"{bands}.tif"
        write_cog(path, [raster((9, 9, bands), "uint8")], **UTM, block_size=16, interleave="pixel")
        with rasterio.open(path) as dataset:
            assert dataset.colorinterp[0].name == "red"
            assert dataset.colorinterp[-1].name == last


@pytest.mark.parametrize("epsg", [32631, 32755, 4326, 3035, 7844])
def test_crs(tmp_path: Path, epsg: int) -> None:
    write_cog(
        tmp_path / "a.tif",
        [raster((4, 4), "uint8")],
        crs_epsg=epsg,
        transform=UTM["transform"],
        block_size=16,
    )
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs.to_epsg() == epsg


@pytest.mark.parametrize(
    "transform",
    [(10.0, 0.0, 5.5, 0.0, 10.0, -7.25), (3.0, 1.0, 5.0, -1.0, 3.5, 9.0), rasterio.Affine(1, 0, 2, 0, -1, 3)],
)
def test_any_transform(tmp_path: Path, transform: Any) -> None:
    write_cog(
        tmp_path / "a.tif", [raster((4, 4), "uint8")], crs_epsg=32631, transform=transform, block_size=16
    )
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert tuple(dataset.transform)[:6] == tuple(transform)[:6]


@pytest.mark.parametrize("interleave", LAYOUTS)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_what_is_returned_is_what_is_there(tmp_path: Path, interleave: Any, bigtiff: bool) -> None:
    levels = pyramid(raster((100, 70, 4), "int8"), 32)
    path = tmp_path / "a.tif"
    result = write_cog(path, levels, **UTM, block_size=32, interleave=interleave, bigtiff=bigtiff)
    data = path.read_bytes()
    assert result == CogFile(
        size=len(data),
        header_size=result.header_size,
        sha256=hashlib.sha256(data).hexdigest(),
        shapes=((100, 70), (50, 35), (25, 17)),
        bands=4,
        dtype="int8",
        blocks=((32, 32),) * 3,
        interleave=interleave,
        predictor=2 if interleave == "pixel" else 1,
        bigtiff=bigtiff,
    )
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == bigtiff
        assert {page.predictor for page in file.pages} == {result.predictor}
        pages = list(file.pages)
        # The first block's leader begins right behind the header, and is of the smallest overview.
        assert min(pages[-1].dataoffsets) == result.header_size + 4
        starts = [min(page.dataoffsets) for page in pages]
        assert starts == sorted(starts, reverse=True)
        assert all(page.offset < result.header_size for page in pages)
        for page in pages:
            for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                assert struct.unpack_from("<I", data, offset - 4)[0] == size
                assert data[offset + size : offset + size + 4] == data[offset + size - 4 : offset + size]
        if interleave == "tile":
            # All bands of a position lie together: one range request.
            offsets = np.array(pages[0].dataoffsets).reshape(4, -1)
            order = offsets.T.ravel()
            assert (np.diff(order) > 0).all()
    check(path, levels)
    assert cog_validate(path, strict=True) == (True, [], [])


def test_bigtiff_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = raster((64, 64, 2), "int8")
    assert not write_cog(tmp_path / "a.tif", [values], **UTM, block_size=64).bigtiff
    monkeypatch.setattr(tiff, "_CLASSIC_LIMIT", 5000)
    assert write_cog(tmp_path / "a.tif", [values], **UTM, block_size=64).bigtiff
    check(tmp_path / "a.tif", [values])
    with pytest.raises(ConvertError, match="do not fit a classic TIFF"):
        write_cog(tmp_path / "b.tif", [values], **UTM, block_size=64, bigtiff=False)


def test_any_stream_and_threads_give_the_same_bytes(tmp_path: Path) -> None:
    levels = pyramid(raster((100, 90, 7), "int8"), 32)
    path = tmp_path / "a.tif"
    result = write_cog(path, levels, **UTM, block_size=32)
    for threads in (1, 2, 5):
        stream = io.BytesIO()
        assert write_to(stream, levels, **UTM, block_size=32, threads=threads) == result
        assert stream.getvalue() == path.read_bytes()


def test_small_block_sizes_are_stored_short(tmp_path: Path) -> None:
    write_cog(tmp_path / "a.tif", [raster((64, 64, 9), "int8")], **UTM, block_size=16)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].tags["TileByteCounts"].dtype == tifffile.DATATYPE.SHORT
    write_cog(tmp_path / "b.tif", [raster((512, 512), "int8")], **UTM, block_size=512, compression="none")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags["TileByteCounts"].dtype == tifffile.DATATYPE.LONG


# -- wrong arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        ([], {}, "no level"),
        ([np.zeros((0, 4), np.int8)], {}, "none of them 0"),
        ([np.zeros(4, np.int8)], {}, "expected .rows, cols, bands"),
        ([np.zeros((4, 4), np.float64)], {}, "cannot write float64"),
        ([np.zeros((4, 4), np.int8), np.zeros((3, 2), np.int8)], {}, "expected .2, 2, 1. int8"),
        ([np.zeros((4, 4), np.int8), np.zeros((2, 2), np.uint8)], {}, "expected .2, 2, 1. int8"),
        ([np.zeros((4, 4), np.int8)], {"block_size": 100}, "block size 100"),
        ([np.zeros((4, 4), np.int8)], {"predictor": 3}, "predictor 3"),
        ([np.zeros((4, 4), np.float32)], {"predictor": 2}, "predictor 2"),
        ([np.zeros((4, 4), np.int8)], {"predictor": 2, "compression": "none"}, "needs a compression"),
        ([np.zeros((4, 4), np.int8)], {"compression": "lzw"}, "'lzw'"),
        ([np.zeros((4, 4), np.int8)], {"interleave": "line"}, "'line'"),
        ([np.zeros((4, 4), np.int8)], {"band_descriptions": ["a", "b"]}, "2 band descriptions for 1 bands"),
        ([np.zeros((4, 4), np.int8)], {"tags": {"A": "\0"}}, "control character"),
        ([np.zeros((4, 4), np.int8)], {"crs_epsg": 60000}, "EPSG:60000"),
    ],
)
def test_wrong_arguments(levels: Any, options: dict[str, Any], message: str) -> None:
    stream = io.BytesIO()
    with pytest.raises(ConvertError, match=message):
        write_to(stream, levels, **{**UTM, **options})
    assert stream.getvalue() == b""


# -- GDAL's own judgement -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interleave", "bigtiff"), [("tile", False), ("tile", True), ("band", False), ("pixel", False)]
)
@pytest.mark.service
def test_gdal_full_check(tmp_path: Path, gdal_validator: Path, interleave: Any, bigtiff: bool) -> None:
    path = tmp_path / "a.tif"
    levels = pyramid(raster((600, 530, 3), "int8"), 128)
    result = write_cog(path, levels, **UTM, nodata=-128, interleave=interleave, bigtiff=bigtiff)
    command = [sys.executable, VALIDATE, gdal_validator, path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "is a valid cloud optimized GeoTIFF" in done.stdout
    assert f"{result.header_size + 4} bytes" in done.stdout  # GDAL counts the first block's leader
    # The check does look: break a leader and it says so.
    with path.open("r+b") as file:
        file.seek(result.header_size)
        file.write(b"\1")
    broken = subprocess.run(command, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "leader bytes" in broken.stdout


@pytest.mark.parametrize("interleave", LAYOUTS)
@pytest.mark.parametrize("cols", [530, 736])  # 16 divides 736: a strip as wide would not count as a tile
@pytest.mark.parametrize("size", [64, "strips"])
@pytest.mark.service
def test_levels_have_blocks_of_their_own(
    tmp_path: Path, gdal_validator: Path, interleave: Any, cols: int, size: Any
) -> None:
    """The full resolution one size, overviews another: every level is read alike, and the file is valid."""
    path = tmp_path / "a.tif"
    levels = pyramid(raster((600, cols, 3), "int8"), 144)
    result = write_cog(
        path, levels, **UTM, nodata=-128, block_size=size, overview_block_size=144, interleave=interleave
    )
    first = (64, 64) if size == 64 else (16, {530: 544, 736: 752}[cols])
    assert result.blocks == (first, *[(144, 144)] * (len(levels) - 1))
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == len(levels) == 4
        for number, (page, level, block) in enumerate(zip(file.pages, levels, result.blocks, strict=True)):
            assert (page.tilelength, page.tilewidth) == block
            at = {} if number == 0 else {"overview_level": number - 1}
            with rasterio.open(path, **at) as dataset:
                assert dataset.block_shapes == [block] * 3
                np.testing.assert_array_equal(dataset.read().transpose(1, 2, 0), level)
            theirs = page.asarray()
            np.testing.assert_array_equal(
                theirs if theirs.shape == level.shape else theirs.transpose(1, 2, 0), level
            )
    valid, errors, warnings = cog_validate(path, strict=True)
    assert valid, (errors, warnings)
    command = [sys.executable, VALIDATE, gdal_validator, path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "is a valid cloud optimized GeoTIFF" in done.stdout


@pytest.mark.service
def test_gdal_command_line(tmp_path: Path) -> None:
    """Whatever GDAL is installed reads the same values; before 3.7 int8 is a signed Byte."""
    translate, info = program("gdal_translate", "gdal-bin"), program("gdalinfo", "gdal-bin")
    values = raster((150, 70, 5), "int8")
    levels = pyramid(values, 64)
    for interleave in LAYOUTS:
        path = tmp_path / f"{interleave}.tif"
        write_cog(path, levels, **UTM, nodata=-128, block_size=64, interleave=interleave)  # type: ignore[arg-type]
        report = subprocess.run([str(info), path], capture_output=True, text=True, check=True).stdout
        assert "Type=Int8" in report or ("Type=Byte" in report and "PIXELTYPE=SIGNEDBYTE" in report)
        assert "NoData Value=-128" in report
        for number, level in enumerate(levels):
            out = tmp_path / "raw.img"
            overview = [] if number == 0 else ["-oo", f"OVERVIEW_LEVEL={number - 1}"]
            subprocess.run(
                [str(translate), "-q", "-of", "ENVI", "-co", "INTERLEAVE=BIP", *overview, path, out],
                check=True,
            )
            assert out.read_bytes() == level.tobytes()
