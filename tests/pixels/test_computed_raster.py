"""The values of a tile-year at every level, and the GeoTIFF computed of them, from every container."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
from rio_cogeo.cogeo import cog_validate

from api.files.direct.raster import AT_ONCE, BLOCK, BLOCK_BYTES, ComputedRaster
from api.files.ranges import ContentChangedError, Span
from catalog_builder.pixels.read import read_values
from catalog_builder.pixels.window import Window
from tests.conftest import SUPPORT, plain_environment
from tests.pixels.conftest import ARRAYS, CONTAINERS, Files, Placed
from tests.support.pixels import same

TAGS = {"AREA_OR_POINT": "Area", "TESSERA_YEAR": "2024"}
LEVELS = ((1121, 180), (560, 90), (280, 45), (140, 22))


def level_of(files: Files, container: str, level: int) -> npt.NDArray[np.float32]:
    """Return float32 (rows, columns, 128) of a level: every so many pixels of the nearest that is stored."""
    rows, cols = LEVELS[level]
    place = files.places[container]
    own = 0
    if container not in ARRAYS:
        with rasterio.open(files.root / place.main) as ds:
            own = min(level, len(ds.overviews(1)))
    values = files.values(container)
    if own:
        with rasterio.open(files.root / place.main, overview_level=own - 1) as ds:
            values = np.moveaxis(ds.read(), 0, -1).astype(np.float32)
        if place.scales is not None:
            with rasterio.open(files.root / place.scales, overview_level=own - 1) as ds:
                values *= ds.read(1)[..., None]
    step = 1 << (level - own)
    return values[::step, ::step][:rows, :cols]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.service)])
def test_values_of_windows_and_levels(placed: Placed, files: Files, container: str, where: str) -> None:
    place = placed(container, where)
    for level, window in (
        (0, Window(0, 0, 48, 16)),
        (0, Window(1100, 170, 21, 10)),
        (1, Window(511, 33, 49, 57)),
        (3, Window(0, 0, 140, 22)),
        (3, Window(139, 21, 1, 1)),
    ):
        found = read_values(place, window, level)
        assert same(found, level_of(files, container, level)[window.slices])


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_file_is_a_geotiff_of_the_values(
    placed: Placed, files: Files, container: str, gdal36: Path, tmp_path: Path
) -> None:
    raster = ComputedRaster(placed(container, "local"), TAGS)
    path = tmp_path / "computed.tif"
    path.write_bytes(b"".join(raster.read(part) for part in raster.parts(Span(0, raster.size))))
    assert path.stat().st_size == raster.size
    with rasterio.open(path) as ds:
        assert (ds.shape, ds.count, set(ds.dtypes)) == (LEVELS[0], 128, {"float32"})
        assert (ds.crs.to_epsg(), ds.transform) == (raster.place.raster.epsg, raster.place.raster.transform)
        assert np.isnan(ds.nodata)
        assert ds.tags().items() >= TAGS.items()
        assert ds.overviews(1) == [2, 4, 8]
        assert (ds.block_shapes[0], ds.interleaving.value) == (BLOCK, "PIXEL")
        assert same(np.moveaxis(ds.read(), 0, -1), level_of(files, container, 0))
    for level in range(1, 4):
        with rasterio.open(path, overview_level=level - 1) as ds:
            assert ds.shape == LEVELS[level]
            assert same(np.moveaxis(ds.read(), 0, -1), level_of(files, container, level))
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    with tifffile.TiffFile(path) as tiff:  # independent of GDAL and of libtiff
        assert not tiff.is_bigtiff
        assert [page.shape[:2] for page in tiff.series[0].levels] == list(LEVELS)
        assert same(tiff.series[0].levels[3].asarray(), level_of(files, container, 3))
    reads = json.dumps([{"window": [90, 1000, 90, 121]}, {"overview": 2}])
    command = [gdal36, SUPPORT / "gdal_reader.py", path, tmp_path / "read.npz", reads]
    subprocess.run(command, env=plain_environment(), check=True, capture_output=True)
    with np.load(tmp_path / "read.npz") as found:
        assert same(np.moveaxis(found["0"], 0, -1), level_of(files, container, 0)[1000:1121, 90:180])
        assert same(np.moveaxis(found["1"], 0, -1), level_of(files, container, 3))


def test_any_range_is_that_part_of_the_file(placed: Placed) -> None:
    raster = ComputedRaster(placed("cog", "local"), TAGS)
    whole = b"".join(raster.read(part) for part in raster.parts(Span(0, raster.size)))
    header, stored = len(raster.header), BLOCK_BYTES + 8
    random = np.random.default_rng(0)
    spans = [Span(0, 1), Span(header - 3, header + 9), Span(raster.size - 1, raster.size)]
    spans += [Span(header + stored - 5, header + stored + 5)]
    for _ in range(20):
        start = int(random.integers(raster.size))
        spans.append(Span(start, min(start + int(random.integers(1, 3 * stored)), raster.size)))
    for span in spans:
        assert raster.read(span) == whole[span.start : span.stop]
        parts = list(raster.parts(span))
        assert (parts[0].start, parts[-1].stop) == span
        assert all(a.stop == b.start for a, b in pairwise(parts))
        assert all(0 < part.stop - part.start <= max(AT_ONCE * stored, header) for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_part_takes_bounded_memory_at_every_level(placed: Placed, container: str) -> None:
    """Also where coarse levels are picked from full resolution, of which a part covers the whole tile."""
    raster = ComputedRaster(placed(container, "local"), TAGS)
    first = next(part for part in raster.parts(Span(0, raster.size)) if part.start >= len(raster.header))
    for span in (first, Span(raster.size - 8 * BLOCK_BYTES, raster.size)):
        raster.read(Span(span.start, span.start + 1))  # opens stores, and fills what keeps chunks
        tracemalloc.start()
        for part in raster.parts(span):
            raster.read(part)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 64 << 20


def test_etag_follows_tags_and_files(placed: Placed, tmp_path: Path) -> None:
    place = placed("cog", "local")
    etag = ComputedRaster(place, TAGS).etag
    assert ComputedRaster(place, dict(TAGS)).etag == etag
    assert ComputedRaster(place, TAGS | {"TESSERA_YEAR": "2023"}).etag != etag
    assert ComputedRaster(replace(place, stamp="another checksum"), TAGS).etag != etag
    copy = tmp_path / "copy.tif"
    copy.write_bytes(Path(place.main).read_bytes())
    copied = ComputedRaster(replace(place, main=str(copy)), TAGS)
    before = copied.etag
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert copied.etag != before


def test_a_missing_file_is_said_without_its_folder(placed: Placed, tmp_path: Path) -> None:
    place = replace(placed("cog", "local"), main=str(tmp_path / "gone.tif"))
    raster = ComputedRaster(place, TAGS)
    assert raster.size > 0
    assert raster.read(Span(0, 16))[:4] == b"II*\0"
    with pytest.raises(ContentChangedError, match=r"gone\.tif: cannot be read") as refused:
        raster.read(Span(raster.size - 9, raster.size))
    assert str(tmp_path) not in str(refused.value)


def test_the_oracle_has_pixels_without_data(files: Files) -> None:
    assert 100 < np.isnan(files.values("cog")[..., 0]).sum() < files.scales.size / 2
