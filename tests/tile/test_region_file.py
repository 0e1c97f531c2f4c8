"""region_of(): any vector file is read, or named with what is read and the command to get there."""

from __future__ import annotations

import gzip
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import geopandas
import pytest
import shapely
from typer.testing import CliRunner

from catalog_builder.cli.main import app
from catalog_builder.errors import StorageError
from catalog_builder.tile.regions.region_file import region_of
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.needs import lacks

REGION = shapely.Polygon([(0.1, 52.1), (0.2, 52.1), (0.15, 52.25)])
FRAME = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[REGION], crs="EPSG:4326")
READ = r"read from GeoJSON or a shapefile \(\.shp, or zipped\)"


def written(folder: Path, name: str) -> Path:
    """Write the region, in British metres, in the format of a name's suffix."""
    path = folder / name
    if path.suffix == ".parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_crs("EPSG:27700").to_file(path)
    return path


@pytest.mark.service
@pytest.mark.parametrize(
    ("name", "says"), [("a b.gpkg", "GeoPackage"), ("r.fgb", "FlatGeobuf"), ("r.gml", "KML, GML")]
)
def test_other_formats_are_named_and_the_command_converts(tmp_path: Path, name: str, says: str) -> None:
    if shutil.which("ogr2ogr") is None:
        lacks("ogr2ogr")
    path = written(tmp_path, name)
    with pytest.raises(StorageError, match=rf"{says}.*; a region is {READ}") as error:
        region_of(path)
    assert str(error.value).startswith(f"{path}: ")
    command = shlex.split(str(error.value).partition("To convert it: ")[2])
    assert command[-1] == str(path)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = region_of(tmp_path / "region.geojson")
    assert shapely.symmetric_difference(found, REGION).area < 1e-4 * REGION.area


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PAR1....", "a Parquet file"),
        (gzip.compress(b"{}", mtime=0), "gzip, unpack it"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x00\x00\x27\x0a" + bytes(96), r"does not end in \.shp"),
        (b"\x00\xd8\xff", "not JSON"),
        (b"", "not JSON"),
    ],
    ids=repr,
)
def test_what_is_no_geojson_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{says}.*{READ}"):
        region_of(path)


def zipped(folder: Path, *names: str) -> Path:
    path = folder / "region.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/", "")
        archive.writestr("__MACOSX/inner/._a.geojson", "x")
        for name in names:
            archive.write(written(folder, Path(name).name), f"inner/{name}")
    return path


def test_a_zipped_geojson_is_read(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "plain.geojson")
    path = tmp_path / "region.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "plain.geojson", "inner/A.GeoJSON")
        archive.writestr("inner/readme.txt", "a region")
    assert region_of(path).equals(REGION)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("a.gpkg",), r"holds inner/a\.gpkg; .*ogr2ogr .* /vsizip/\S+/region\.zip/inner/a\.gpkg$"),
        ((), f"holds nothing; a region is {READ}$"),
        (
            ("a.geojson", "b.geojson"),
            r"2 files that may be the region \(inner/a\.geojson, inner/b\.geojson\)",
        ),
    ],
    ids=str,
)
def test_a_zip_without_one_region_says_what_it_holds(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    with pytest.raises(StorageError, match=says):
        region_of(zipped(tmp_path, *names))


def test_geojson_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "region.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + shapely.to_geojson(REGION).encode())
    assert region_of(path).equals(REGION)


@pytest.mark.parametrize("verb", ["get", "coverage", "export"])
def test_every_verb_says_it(tmp_path: Path, verb: str) -> None:
    """A region is the same wherever it is given."""
    path = str(written(tmp_path, "r.gpkg"))
    build_from(tmp_path / "c", write_manifest(tmp_path / "m", 2024, patch(0, 52, 1, 1)), url="http://e.test")
    arguments = {
        "get": ["get", str(tmp_path / "c"), "--region-file", path, "--out", str(tmp_path / "o")],
        "coverage": ["coverage", str(tmp_path / "c"), "--region", path],
        "export": ["export", str(tmp_path / "c"), "--to", "ndjson", "--out", "-", "--bbox", path],
    }[verb]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "GeoPackage" in str(done.exception) + done.output
