"""The public functions against numpy, the command's tables, xarray and GeoPandas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from api.app import create_app
from api.settings import Settings
from catalog_builder import public
from catalog_builder.errors import CatalogError, QueryError
from tests.support.converted import COLLECTION, Converted
from tests.support.http_server import Server, serve
from tests.support.pixels import same
from tests.vectors.test_points import LABELS, LAT, LON, oracle

YEARS = (2022, 2024)


def test_a_catalogue_says_what_it_has(tiles: Converted, tmp_path: Path) -> None:
    catalog = public.open_catalog(tiles.catalog)
    (only,) = catalog.collections
    assert (only.id, only.years, only.is_synthetic) == (COLLECTION, (2022, 2023, 2024), True)
    with pytest.raises(CatalogError):
        public.open_catalog(tmp_path)


def test_vectors_are_those_of_numpy(tiles: Converted) -> None:
    found = public.vectors(public.open_catalog(tiles.catalog), (LON, LAT), years=YEARS)
    assert found.embedding.dims == ("point", "year", "band")
    for year in YEARS:
        assert same(found.embedding.sel(year=year).to_numpy(), oracle(tiles, year))
    valid = found.status == "valid"
    assert bool((found.embedding.notnull().all("band") == valid).all())


def test_a_frame_goes_in_and_comes_back(tiles: Converted) -> None:
    labels = geopandas.GeoDataFrame({"crop": LABELS}, geometry=geopandas.points_from_xy(LON, LAT, crs=4326))
    found = public.vectors(tiles.catalog, labels.to_crs(32633), years=[2024], kind="geopandas")
    assert found.crs == "OGC:CRS84"
    assert found.crop.tolist() == LABELS
    assert np.allclose(found.geometry.x, LON, atol=1e-7)
    valid = found[found.status == "valid"]
    expected = oracle(tiles, 2024)
    assert same(np.stack(valid.embedding.to_numpy()).astype(np.float32), expected[valid.index])


def test_polygons_of_shapely_and_of_a_frame_are_the_same(tiles: Converted) -> None:
    field = shapely.Polygon([(15.62, 78.22), (15.64, 78.22), (15.63, 78.225)])
    frame = geopandas.GeoDataFrame({"field": ["a"]}, geometry=[field], crs="OGC:CRS84")
    one = public.zonal(tiles.catalog, [field], years=[2024], stat=["mean", "count"])
    other = public.zonal(tiles.catalog, frame, years=[2024], stat=["mean", "count"])
    assert other["field"].to_pylist() == ["a"]
    assert one["mean"].equals(other["mean"])
    assert one["count"].to_pylist()[0] > 0


def test_a_region_is_written(tiles: Converted, tmp_path: Path) -> None:
    report = public.region(tiles.catalog, (15.62, 78.22, 15.63, 78.222), tmp_path / "out", years=[2024])
    assert report.files
    assert all(file.exists() for file in report.files)


def test_what_is_no_points_is_said(tiles: Converted) -> None:
    with pytest.raises(QueryError, match="found int"):
        public.points(tiles.catalog, 7)
    with pytest.raises(QueryError, match="row 2"):
        public.points(tiles.catalog, ([15.6, np.nan], [78.2, 78.2]))


# ---------------------------------------------------------------------------------- read at the server


@pytest.fixture(scope="module")
def few(tiles: Converted) -> Iterator[Server]:
    """Lend a server that takes few rows of a request."""
    with serve(create_app(tiles.catalog, Settings(vector_rows=5, vector_pixels=10_000))) as running:
        yield running


@pytest.mark.service
@pytest.mark.parametrize(
    "options",
    [
        {"years": [2024, 2022]},
        {"dtype": "int8", "bands": [5, 0, 127]},
        {"nearest": 100.0, "years": [2024], "columns": True},
        {"window": 3, "years": [2023], "dtype": "float16"},
    ],
    ids=str,
)
def test_a_server_reads_the_same_points(tiles: Converted, few: Server, options: dict[str, Any]) -> None:
    labels = geopandas.GeoDataFrame(
        {"crop": LABELS, "lat": range(len(LAT))}, geometry=geopandas.points_from_xy(LON, LAT, crs=4326)
    )
    here = public.points(tiles.catalog, labels, **options)
    there = public.points(few.url, labels, **options, reader="server")
    assert there.schema.equals(here.schema, check_metadata=True)
    assert there.equals(here)
    assert {"valid", "outside"} <= set(there["status"].to_pylist())
    assert sum("/points" in request.path for request in few.log) > 2


@pytest.mark.service
def test_a_server_reads_the_same_polygons_and_frames(tiles: Converted, few: Server) -> None:
    boxes = [shapely.box(x, 78.25, x + 0.003, 78.251) for x in (15.72, 15.62, 15.698, 2.0)]
    for options in ({"stat": ["std", "mean"], "bands": [3, 1]}, {"coverage": "centre", "dtype": "float16"}):
        here = public.zonal(tiles.catalog, boxes, **options)
        assert public.zonal(few.url, boxes, **options, reader="server").equals(here)
    ours = public.vectors(tiles.catalog, (LON, LAT), years=YEARS)
    theirs = public.vectors(few.url, (LON, LAT), years=YEARS, reader="server")
    assert theirs.identical(ours)


@pytest.mark.service
def test_what_a_server_cannot_read_is_said(tiles: Converted, few: Server) -> None:
    at = (LON, LAT)
    with pytest.raises(QueryError, match="is no server"):
        public.points(tiles.catalog, at, reader="server")
    with pytest.raises(QueryError, match="the collection has 2022, 2023, 2024, found 1999"):
        public.points(few.url, at, years=[1999, 2024], reader="server")
    with pytest.raises(QueryError, match="max_scale"):
        public.points(few.url, at, max_scale=None, reader="server")
    with pytest.raises(QueryError, match="reader: expected here or server"):
        public.points(few.url, at, reader="there")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="'tessera-stac points' has no such limit"):
        public.points(few.url, at, window=101, years=[2024], reader="server")
