"""``docs/vectors.md``: from a file to a table in one command each, as a new user would try it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pyogrio
import pytest
import rasterio
import rasterio.features
import shapely
from covjson_pydantic.coverage import Coverage
from PIL import Image
from pyproj import Transformer

from tests.conftest import plain_environment
from tests.support.http_server import Server
from tests.support.served import server, tiles
from tests.support.snippets import run_python, snippets

__all__ = ["server", "tiles"]

PAGE = Path(__file__).parents[2] / "docs" / "vectors.md"
BLOCKS = snippets(PAGE)
PROGRAM = f"{sys.executable} -m catalog_builder.cli"
N_LABELS = 2000
AREA = shapely.Polygon([(15.69, 78.21), (15.71, 78.21), (15.7, 78.22)])
COMMANDS = (
    "csv",
    "shapefile",
    "geopackage",
    "kml",
    "region-kml",
    "region-shapefile",
    "region-preview",
)
pytestmark = pytest.mark.service


def write_files(folder: Path) -> None:
    """Write what the page's commands read, over the tiles of the server."""
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(15.6, 15.8, N_LABELS), rng.uniform(78.2, 78.3, N_LABELS)
    crops = rng.choice(["oats", "rye"], N_LABELS)
    rows = [f"{c},{a!r},{b!r}" for c, a, b in zip(crops, lon.tolist(), lat.tolist(), strict=True)]
    (folder / "labels.csv").write_text("crop,lon,lat\n" + "\n".join(rows) + "\n")
    x, y = Transformer.from_crs("OGC:CRS84", "EPSG:27700", always_xy=True).transform(lon[:50], lat[:50])
    for name, crs, driver, geometry in (
        ("plots.shz", "EPSG:27700", "ESRI Shapefile", shapely.points(x, y)),
        ("fields.gpkg", "EPSG:27700", "GPKG", shapely.buffer(shapely.points(x, y), 80)),
        ("places.kml", "EPSG:4326", "KML", shapely.points(lon[:3], lat[:3])),
    ):
        pyogrio.raw.write(
            folder / name,
            shapely.to_wkb(geometry),
            [np.arange(len(geometry))],
            ["plot"],
            geometry_type=geometry[0].geom_type,
            crs=crs,
            driver=driver,
        )
    (folder / "plots.shz").rename(folder / "plots.zip")
    write_areas(folder)


def write_areas(folder: Path) -> None:
    """Write a triangle as KML, as a zipped shapefile, and as one of the layers of a GeoPackage."""
    degrees = geopandas.GeoSeries([AREA], crs="EPSG:4326")
    degrees.to_file(folder / "area.kml", driver="KML")
    degrees.to_crs("EPSG:32633").to_file(folder / "area.shz", driver="ESRI Shapefile")
    (folder / "area.shz").rename(folder / "area.zip")
    degrees.to_file(folder / "area.gpkg", layer="fields")
    degrees.representative_point().to_file(folder / "area.gpkg", layer="labels")


def test_its_commands_run(server: Server, tmp_path: Path) -> None:
    assert set(BLOCKS) == {"catalog", "train", "position", "patches", *COMMANDS}
    write_files(tmp_path)
    for name in COMMANDS:
        text = (BLOCKS["catalog"][1] + BLOCKS[name][1]).replace("http://localhost:8000/", server.url)
        done = subprocess.run(
            ["sh", "-c", text.replace("tessera-stac ", f"{PROGRAM} ")],
            cwd=tmp_path,
            env=plain_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    vectors = pyarrow.parquet.read_table(tmp_path / "vectors.parquet")
    assert len(vectors) == 3 * N_LABELS
    assert vectors.column_names == ["crop", "lon", "lat", "year", "status", "reason", "embedding", "geometry"]
    valid = vectors["status"].to_pylist().count("valid")
    assert valid > N_LABELS
    assert run_python(BLOCKS["train"][1], tmp_path) == f"({valid}, 128) float32 ['oats', 'rye']\n"
    patches = BLOCKS["patches"][1].replace("http://localhost:8000/", server.url)
    n, _, shape = run_python(patches, tmp_path).partition(" ")
    assert N_LABELS * 0.9 < int(n) <= N_LABELS
    assert shape.rpartition(" ")[0] == "(128, 32, 32) float32 (32, 32)"
    plots = pyarrow.parquet.read_table(tmp_path / "plots.parquet")
    assert (len(plots), {"distance", "scale", "plot"} <= set(plots.column_names)) == (50, True)
    assert plots["status"].to_pylist().count("valid") > 40
    fields = pyarrow.parquet.read_table(tmp_path / "fields.parquet")
    assert len(fields) == 100
    assert {"pixels", "count", "valid_fraction", "mean", "std", "median"} <= set(fields.column_names)
    asked = BLOCKS["position"][1].replace("http://localhost:8000", server.url)
    done = subprocess.run(
        ["sh", "-c", asked.replace("tessera-v1", "tessera-synthetic")], capture_output=True, check=True
    )
    assert Coverage.model_validate_json(done.stdout).ranges["b001"].values != [None] * 3
    places = pyarrow.csv.read_csv(tmp_path / "places.csv")
    assert len(places) == 3
    assert places.column_names[-4:] == ["b000", "b001", "b002", "b003"]
    check_rasters(tmp_path)


def check_rasters(folder: Path) -> None:
    """Every pixel that has data touches the area, and those inside have some."""
    area = geopandas.GeoSeries([AREA], crs="EPSG:4326").to_crs("EPSG:32633")[0]
    (one,) = (folder / "area").glob("*2024*.tif")
    two = sorted((folder / "years").glob("*.tif"))
    assert len(two) == 2
    with rasterio.open(one) as file, rasterio.open(two[1]) as other:
        assert (file.count, other.count) == (4, 4)
        valid = file.dataset_mask() > 0
        where = {"out_shape": file.shape, "transform": file.transform, "invert": True}
        touched = rasterio.features.geometry_mask([area.buffer(1)], all_touched=True, **where)
        inside = rasterio.features.geometry_mask([area.buffer(-10)], **where)
        assert not (valid & ~touched).any()
        assert valid[inside].mean() > 0.5
        assert (other.dataset_mask() > 0).sum() == pytest.approx(valid.sum(), rel=0.02)
    with Image.open(folder / "area.png") as image:
        assert image.size == pytest.approx((46, 112), abs=2)
