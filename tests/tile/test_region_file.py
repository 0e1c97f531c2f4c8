"""region_of(): a region is read from any file of polygons, in any CRS, or it is said why not."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import geopandas
import pytest
import shapely
from starlette.staticfiles import StaticFiles
from typer.testing import CliRunner

from catalog_builder.cli.main import app
from catalog_builder.errors import VectorFileError
from catalog_builder.tile.regions import files
from catalog_builder.tile.regions.region import region_of
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve
from tests.support.needs import lacks

REGION = shapely.Polygon([(0.1, 52.1), (0.2, 52.1), (0.15, 52.25)])
HALVES = [
    shapely.Polygon([(0.1, 52.1), (0.15, 52.1), (0.15, 52.25)]),
    shapely.Polygon([(0.15, 52.1), (0.2, 52.1), (0.15, 52.25)]),
]
"""Several features, which are united."""
FRAME = geopandas.GeoDataFrame(
    # a straight line in degrees is none on the British grid
    {"name": ["a", "b"]},
    geometry=shapely.segmentize(HALVES, 0.002),
    crs="EPSG:4326",
)
READ = r"expected GeoJSON, GeoPackage, FlatGeobuf, shapefile, KML or GeoParquet, zipped or not$"
NAMES = ["a b.gpkg", "r.fgb", "r.gml", "r.kml", "r.shp", "r.geojson", "r.json", "r.parquet", "r.tab"]


def written(folder: Path, name: str, frame: geopandas.GeoDataFrame = FRAME) -> Path:
    """Write a region, in British metres where it can be, in the format of a name's suffix."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_crs("EPSG:27700").to_parquet(path)
    elif path.suffix == ".kml":
        frame.to_file(path, driver="KML")
    elif path.suffix in (".geojson", ".json"):
        # GDAL writes the crs of 2008
        frame.to_crs("EPSG:27700").to_file(path, driver="GeoJSON")
        assert "27700" in path.read_text()
    else:
        frame.to_crs("EPSG:27700").to_file(path)
    return path


def zipped(path: Path, *names: str) -> Path:
    """Write an archive with the region in files of these names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/", "")
        archive.writestr("__MACOSX/inner/._a.geojson", "x")
        archive.writestr("inner/readme.txt", "a region")
        for name in names:
            part = written(path.parent / "unzipped" / name, Path(name).name)
            for each in part.parent.glob(f"{part.stem}.*"):
                archive.write(each, f"inner/{each.name}")
    return path


def is_the_region(found: shapely.Geometry) -> bool:
    return bool(found.is_valid and shapely.symmetric_difference(found, REGION).area < 1e-4 * REGION.area)


@pytest.mark.service
@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read_as_ogr2ogr_reads_it(tmp_path: Path, name: str) -> None:
    if shutil.which("ogr2ogr") is None:
        lacks("ogr2ogr")
    path = written(tmp_path / "in", name)
    found = region_of(path)
    assert is_the_region(found)
    if path.suffix == ".parquet":
        return  # which GDAL is often built without
    out = tmp_path / "out.geojson"
    command = ["ogr2ogr", "-f", "GeoJSON", "-lco", "RFC7946=YES", out, path]
    subprocess.run(command, check=True, capture_output=True)
    other = shapely.union_all([shapely.geometry.shape(f["geometry"]) for f in features(out)])
    assert shapely.symmetric_difference(found, other).area < 1e-4 * REGION.area


def features(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())["features"]
    return found


@pytest.mark.parametrize("name", [*NAMES, "r.GeoJSON", "R.SHP"])
def test_every_format_is_read_from_an_archive(tmp_path: Path, name: str) -> None:
    if name.isupper():
        path = tmp_path / "r.zip"
        written(tmp_path, "r.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for each in tmp_path.glob("r.*"):
                if each != path:
                    archive.write(each, f"inner/{each.name.upper()}")
    else:
        path = zipped(tmp_path / "r.zip", name)
    assert is_the_region(region_of(path))


def test_a_kmz_is_read(tmp_path: Path) -> None:
    kml = written(tmp_path, "doc.kml")
    with zipfile.ZipFile(tmp_path / "r.kmz", "w") as archive:
        archive.write(kml, "doc.kml")
    assert is_the_region(region_of(tmp_path / "r.kmz"))


def test_a_file_geodatabase_is_read_from_its_folder_and_from_an_archive(tmp_path: Path) -> None:
    FRAME.to_crs("EPSG:27700").to_file(tmp_path / "r.gdb", driver="OpenFileGDB")
    assert is_the_region(region_of(tmp_path / "r.gdb"))
    shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path, "r.gdb")
    assert is_the_region(region_of(tmp_path / "archive.zip"))


@pytest.mark.service
@pytest.mark.parametrize("name", ["r.geojson", "r.shp", "r.gpkg", "r.zip"])
def test_files_behind_urls_are_read(tmp_path: Path, name: str) -> None:
    if name == "r.zip":
        zipped(tmp_path / name, "r.gpkg")
    else:
        written(tmp_path, name)
    with serve(StaticFiles(directory=tmp_path)) as server:
        assert is_the_region(region_of(f"{server.url}/{name}"))


def test_what_an_archive_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "r.zip", "r.gpkg")
    monkeypatch.setattr(files, "MOST_BYTES", 50_000)
    with pytest.raises(VectorFileError, match=r"r\.zip: unpacks to [\d,]+ bytes, expected at most 50,000"):
        region_of(path)


@pytest.mark.parametrize("name", ["r.gpkg", "r.shp", "r.geojson"])
def test_an_archive_out_of_proportion_is_not_unpacked(tmp_path: Path, name: str) -> None:
    """A megabyte that would be a gigabyte on the disk, and in memory."""
    with (
        zipfile.ZipFile(tmp_path / "r.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(VectorFileError, match=r"r\.zip: unpacks to 314,572,800 bytes, expected at most 268,"):
        region_of(tmp_path / "r.zip")


def test_a_damaged_member_of_an_archive_is_said(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.geojson", "{}" * 1000)
    content = bytearray(path.read_bytes())
    content[39:43] = b"\xff" * 4  # of the compressed bytes, behind the name
    path.write_bytes(content)
    with pytest.raises(VectorFileError, match=r"r\.zip: (cannot be unpacked|not a zip archive): "):
        region_of(path)


def test_an_archive_writes_nothing_outside(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../tessera-outside.geojson", "{}")
    with pytest.raises(VectorFileError, match="outside"):
        region_of(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PAR1....", "Parquet"),
        (gzip.compress(b"{}", mtime=0), "gzip: unpack it"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x00\x00\x27\x0a" + bytes(96), "not JSON"),
        (b"\x00\xd8\xff", "not JSON"),
        (b"", "not JSON"),
        (b"PK\x03\x04....", "not a zip archive"),
    ],
    ids=repr,
)
def test_what_is_no_geojson_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "region.geojson"
    path.write_bytes(content)
    with pytest.raises(VectorFileError, match=rf"region.geojson: .*{says}.*{READ}"):
        region_of(path)


@pytest.mark.parametrize("name", ["r.gpkg", "r.shp", "r.kml", "r.fgb", "r.parquet", "r.zip", "r.doc"])
def test_a_damaged_file_is_named_with_what_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(VectorFileError, match=rf"{name}: .*{READ}"):
        region_of(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), f"holds inner/readme.txt; {READ}"),
        (
            ("a.gpkg", "b.shp"),
            r"2 files that may be meant \(inner/a\.gpkg, inner/b\.shp\): name one with --lay",
        ),
    ],
    ids=str,
)
def test_an_archive_without_one_region_says_what_it_holds(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    path = zipped(tmp_path / "region.zip", *names)
    with pytest.raises(VectorFileError, match=says):
        region_of(path)
    if names:
        assert is_the_region(region_of(path, "a"))
        assert is_the_region(region_of(path, "b"))


def test_a_layer_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "r.gpkg"
    FRAME.to_file(path, layer="outline")
    FRAME.set_geometry(FRAME.representative_point()).to_file(path, layer="labels")
    with pytest.raises(VectorFileError, match=r"r.gpkg: has layers outline, labels: choose one with --layer"):
        region_of(path)
    assert is_the_region(region_of(path, "outline"))
    with pytest.raises(VectorFileError, match=r"row 1: is a point: a region is given by polygons"):
        region_of(path, "labels")
    with pytest.raises(VectorFileError, match=r"has no layer 'x': it has outline, labels"):
        region_of(path, "x")


@pytest.mark.parametrize("epsg", [4326, 4277, 32633, 3995, 2263])
def test_shapefiles_in_any_crs(tmp_path: Path, epsg: int) -> None:
    """Also in other degrees, near a pole, and in feet."""
    place = [shapely.Polygon([(15.6, 78.1), (15.9, 78.1), (15.7, 78.25)])]
    if epsg in (4277, 2263):
        place = [REGION if epsg == 4277 else shapely.box(-74.1, 40.7, -73.9, 40.8)]
    fine = geopandas.GeoDataFrame(geometry=shapely.segmentize(place, 0.001), crs="EPSG:4326")
    fine.to_crs(epsg).to_file(tmp_path / "r.shp")
    found = region_of(tmp_path / "r.shp")
    assert shapely.symmetric_difference(found, place[0]).area < 1e-4 * place[0].area


def test_a_file_without_crs_must_be_in_degrees(tmp_path: Path) -> None:
    FRAME.to_file(tmp_path / "a.shp")
    FRAME.to_crs("EPSG:27700").to_file(tmp_path / "b.shp")
    for name in ("a.prj", "b.prj"):
        (tmp_path / name).unlink()
    assert is_the_region(region_of(tmp_path / "a.shp"))
    with pytest.raises(VectorFileError, match=r"b\.shp: does not say its CRS.*needs its \.prj"):
        region_of(tmp_path / "b.shp")


def test_geojson_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "region.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + shapely.to_geojson(REGION).encode())
    assert region_of(path).equals(REGION)


@pytest.mark.parametrize("verb", ["get", "coverage", "export"])
def test_every_verb_says_it(tmp_path: Path, verb: str) -> None:
    """A region is the same wherever it is given, and a bad file is wrong usage."""
    path = str(tmp_path / "r.gpkg")
    Path(path).write_text("no database")
    build_from(tmp_path / "c", write_manifest(tmp_path / "m", 2024, patch(0, 52, 1, 1)), url="http://e.test")
    arguments = {
        "get": ["get", str(tmp_path / "c"), "--region-file", path, "--out", str(tmp_path / "o")],
        "coverage": ["coverage", str(tmp_path / "c"), "--region", path],
        "export": ["export", str(tmp_path / "c"), "--to", "ndjson", "--out", "-", "--bbox", path],
    }[verb]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, VectorFileError)
    assert f"{path}: cannot be read" in str(done.exception)
