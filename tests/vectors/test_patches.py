"""Patches for training: their pixels against numpy and rasterio, and in other processes.

They are given to PyTorch's loader by hand: on the package index it is the build for CUDA, with gigabytes that
no other test needs. What a loader does is here: length, numbers in any order, pickles, processes that are
spawned, and arrays of one shape that can be stacked.
"""

from __future__ import annotations

import math
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import Transformer

from catalog_builder import public
from catalog_builder.errors import QueryError
from catalog_builder.vectors.patches import Patches
from tests.support.converted import FIRST, Converted
from tests.support.http_server import Server
from tests.support.pixels import YEARS, tile_values

TO_UTM = Transformer.from_crs("OGC:CRS84", 32633, always_xy=True)
LON, LAT = np.array([15.62, 15.6999, 15.65, 15.78, 3.0]), np.array([78.22, 78.25, 78.2001, 78.29, 51.0])
"""Inside, on the border of two tiles, at the southern edge, in a corner, and where there is nothing."""


def oracle(tiles: Converted, sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 (128, size, size) and whose cell the pixels are in, a pixel at a time by cells."""
    west, south, east, north = sample["bounds"]
    size = round((east - west) / 10)
    assert north - south == east - west
    x = west + 10 * np.arange(size) + 5
    y = north - 10 * np.arange(size) - 5
    xs, ys = np.meshgrid(x, y)
    lon, lat = TO_UTM.transform(xs, ys, direction="INVERSE")
    out = np.full((128, size, size), np.nan, np.float32)
    owned = np.zeros((size, size), bool)
    for tile in YEARS[sample["year"]]:
        values, raster = tile_values(tiles, tile, sample["year"]), tile.raster()
        col = np.floor((xs - raster.transform.c) / 10).astype(int)
        row = np.floor((raster.transform.f - ys) / 10).astype(int)
        own = (np.floor(lon * 10) == math.floor(tile.lon * 10)) & (
            np.floor(lat * 10) == math.floor(tile.lat * 10)
        )
        own &= (row >= 0) & (row < raster.height) & (col >= 0) & (col < raster.width)
        out[:, own] = values[:, row[own], col[own]]
        owned |= own
    return out, owned


def check(tiles: Converted, sample: dict[str, Any]) -> int:
    """Compare a sample with the oracle; return how many pixels have data."""
    expected, owned = oracle(tiles, sample)
    has = owned & np.isfinite(expected).all(axis=0)
    assert sample["valid"][has].all()
    assert (sample["image"][:, has] == expected[:, has]).all()
    assert not sample["image"][:, ~sample["valid"]].any()
    # where tiles overlap there may be more than the pixels of their own cells
    assert (sample["valid"] & ~owned).sum() <= 8 * max(sample["valid"].shape)
    return int(has.sum())


def test_patches_around_points_are_the_pixels_of_numpy(tiles: Converted) -> None:
    frame = geopandas.GeoDataFrame(
        {"crop": list("abcde")}, geometry=geopandas.points_from_xy(LON, LAT, crs=4326)
    ).to_crs(27700)
    data = public.patches(tiles.catalog, frame, size=33, label="crop", years=[2022, 2024])
    assert data.left_out == {"missing-year": 1, "outside": 2}
    assert len(data) == 2 * 5 - 3
    seen = set()
    for i in range(len(data)):
        sample = data[i]
        assert sample["image"].dtype == np.float32
        assert sample["image"].shape == (128, 33, 33)
        assert sample["crs"] == "EPSG:32633"
        assert sample["label"] == "abcde"[sample["point"]]
        x, y = TO_UTM.transform(LON[sample["point"]], LAT[sample["point"]])
        west, _, _, north = sample["bounds"]
        assert (math.floor((x - west) / 10), math.floor((north - y) / 10)) == (16, 16), "in the middle"
        assert check(tiles, sample) > 100
        seen.add((sample["point"], sample["year"]))
    assert seen == {(0, 2022), (0, 2024), (1, 2022), (1, 2024), (2, 2022), (2, 2024), (3, 2024)}
    with pytest.raises(IndexError):
        data[len(data)]
    assert data[-1]["year"] == data[len(data) - 1]["year"]


def test_codes_and_scales_are_the_values(tiles: Converted) -> None:
    at = (LON[:2], LAT[:2])
    options: dict[str, Any] = {"size": 64, "years": [2024], "bands": (3, 7, 100)}
    codes = public.patches(tiles.catalog, at, dtype="int8", **options)
    values = public.patches(tiles.catalog, at, **options)
    for one, other in zip(codes, values, strict=True):
        assert one["image"].dtype == np.int8
        valid = other["valid"]
        assert (one["valid"] == valid).all()
        assert (one["image"][:, ~valid] == -128).all()
        assert (one["image"].astype(np.float32) * one["scale"] == other["image"])[:, valid].all()


def test_a_grid_covers_a_region_once(tiles: Converted) -> None:
    area = shapely.Polygon([(15.66, 78.21), (15.74, 78.21), (15.7, 78.24)])
    data = public.patch_grid(tiles.catalog, area, size=40, years=[2024], bands=range(128))
    to_utm = shapely.transform(shapely.segmentize(area, 0.001), TO_UTM.transform, interleaved=False)
    boxes = [shapely.box(*sample["bounds"]) for sample in data]
    assert len(boxes) > 10
    assert sum(box.area for box in boxes) == pytest.approx(shapely.union_all(boxes).area), "none overlap"
    assert all(to_utm.buffer(1).contains(box.centroid) for box in boxes)
    # each middle of the lattice of steps that is inside has a patch
    west, south, east, north = to_utm.bounds
    x = np.arange(west // 400, east // 400 + 1) * 400 + 200
    y = np.arange(south // 400, north // 400 + 1) * 400 + 200
    xs, ys = np.meshgrid(x, y)
    assert len(boxes) == shapely.contains_xy(to_utm, xs, ys).sum()
    for i in (0, len(data) // 2, len(data) - 1):
        check(tiles, data[i])
    half = public.patch_grid(tiles.catalog, area, size=40, stride=20, years=[2024], bands=[0])
    assert len(half) == pytest.approx(4 * len(data), rel=0.15)


def read(data: Patches, i: int) -> dict[str, Any]:
    return data[i]


@pytest.mark.service
def test_processes_that_are_spawned_read_them(tiles: Converted, server: Server) -> None:
    """As the workers of a loader do: from COGs and arrays on the disk, and by ranges from a server."""
    here = public.patches(tiles.catalog, (LON, LAT), size=16, years=[2022, 2024], bands=[0, 5])
    there = public.patches(server.url, (LON, LAT), size=16, years=[2022, 2024], bands=[0, 5])
    assert len(pickle.dumps(here)) < 20_000, "no pixels, no open files"
    before = sum(request.sent for request in server.log)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        order = [5, 0, 3, 1]
        samples = list(pool.map(read, [here, there] * 4, np.repeat(order, 2).tolist()))
    for i, one, other in zip(order, samples[::2], samples[1::2], strict=True):
        for key in ("image", "valid", "bounds", "year", "point"):
            assert np.array_equal(one[key], other[key])
            assert np.array_equal(one[key], here[i][key])
    batch = np.stack([sample["image"] for sample in samples])
    assert batch.shape == (8, 2, 16, 16)
    assert sum(request.sent for request in server.log) - before < 3_000_000, "ranges, not tiles of 36 MB"


def test_what_is_wrong_is_said(tiles: Converted) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"size": 0}, "size"),
        ({"label": "x"}, "label: expected one of lon, lat, found 'x'"),
        ({"bands": (128,)}, "bands"),
        ({"dtype": "int4"}, "dtype"),
    ]
    for options, said in wrong:
        with pytest.raises(QueryError, match=said):
            public.patches(tiles.catalog, (LON, LAT), **options)
    with pytest.raises(QueryError, match="stride"):
        public.patch_grid(tiles.catalog, FIRST.bounds, stride=0)
