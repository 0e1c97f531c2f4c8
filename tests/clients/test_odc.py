"""odc-stac as it is on PyPI: several tiles and years, codes with scales, and values through the VRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pytest
import xarray as xr
from pystac_client import Client

from tests.support.containers import Contained
from tests.support.converted import COLLECTION, FIRST, NEIGHBOUR, Converted
from tests.support.http_server import Server
from tests.support.pixels import BBOX, mosaic, same
from tests.support.snippets import localised, run_python, snippets

pytestmark = [
    pytest.mark.filterwarnings("error"),
    # what libraries raise about each other, and Python does not show
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    # GDAL keeps connections to this process's server
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def items(server: Server, **more: Any) -> Any:
    return Client.open(f"{server.url}/").search(collections=[COLLECTION], bbox=BBOX, **more).items()


def test_codes_and_scales_equal_rasterio(server: Server, tiles: Converted) -> None:
    """Converted years: int8 stays int8, nodata stays -128, and where tiles overlap the first lies on top."""
    numbers = (1, 6, 128)
    bands = [*(f"embeddings.{n}" for n in numbers), "scales"]
    data = odc.stac.load(items(server, datetime="2023/2024"), bands=bands)
    assert data.time.dt.year.values.tolist() == [2023, 2024]
    assert data.rio.crs.to_epsg() == 32633 if hasattr(data, "rio") else True
    codes = mosaic(tiles, 2024, "embeddings.tif")
    # odc-stac takes the extent from all assets; the landmask's corner, upstream's, lies off the lattice
    top = min(FIRST.raster().transform, NEIGHBOUR.raster().transform, key=lambda t: -t.f).f
    row, col = round((float(data.y.max()) + 5 - top) / 10), 0
    height, width = codes.shape[1:]
    assert 0 <= data.sizes["y"] - height <= 1
    assert 0 <= data.sizes["x"] - width <= 1
    year = data.sel(time="2024").isel(y=slice(row, row + height), x=slice(col, col + width))
    assert (float(year.x[0]) - 5, float(year.y[0]) + 5) == (FIRST.raster().transform.c, top)
    for n in numbers:
        found = year[f"embeddings.{n}"].values[0]
        assert found.dtype == np.int8
        assert same(found, codes[n - 1])
    assert same(year["scales"].values[0], mosaic(tiles, 2024, "scales.tif")[0])
    assert float(data["embeddings.1"].attrs["nodata"]) == -128


@pytest.mark.parametrize("chunks", [None, {}], ids=["now", "dask"])
def test_float32_of_all_years_equals_rasterio(contained: Contained, chunks: dict[str, int] | None) -> None:
    """Of every container, converted or not, through the same asset."""
    numbers = (1, 6, 128)
    bands = [f"embeddings_f32.{n}" for n in numbers]
    data = odc.stac.load(items(contained.server), bands=bands, chunks=chunks)
    assert data.time.dt.year.values.tolist() == list(contained.years)
    raster = FIRST.raster()
    row = round((float(data.y.max()) + 5 - raster.transform.f) / 10)
    col = round((raster.transform.c - float(data.x.min()) + 5) / 10)
    for at, year in enumerate(contained.years):
        wanted = contained.values(FIRST, year)
        for n in numbers:
            found = data[f"embeddings_f32.{n}"][at, row : row + raster.height, col : col + raster.width]
            # the neighbour shows where this tile has no data
            mine, there = wanted[n - 1], found.compute().values
            there = np.where(np.isnan(mine), mine, there)
            assert same(there, mine), (year, n)


def test_everything_loads(server: Server) -> None:
    """No asset stands in the way of a load without a choice of bands."""
    data = odc.stac.load(items(server, datetime="2023"), resolution=640)
    assert {"embeddings.1", "embeddings.128", "embeddings_f32.128", "scales"} <= set(data)
    assert not any("visual" in str(name) or "thumbnail" in str(name) for name in data)


def test_readme_snippets(server: Server, tiles: Converted, tmp_path: Path) -> None:
    results = []
    for name in ("odc-stac-int8", "odc-stac-float32"):
        text = localised(snippets()[name][1], server.url, BBOX)
        save = "\nembeddings.rename('e').drop_attrs().to_netcdf('out.nc', engine='h5netcdf')\n"
        run_python(text + save, tmp_path)
        with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as ds:
            results.append(ds["e"].load())
    # the extent follows from the items; the lattice is one
    codes, values = xr.align(*(r.sel(time="2024") for r in results), join="inner", exclude=["band"])
    assert codes.shape[:2] == (3, 1)
    assert min(codes.shape[2:]) >= 468
    assert same(codes.values, values.values)
