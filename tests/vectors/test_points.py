"""Vectors at labelled points: from files to tables, against numpy on the tiles' own files."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pyogrio
import pytest
import shapely
from pyproj import Transformer

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import TileId
from catalog_builder.vectors.points.options import PointOptions, PointYear
from catalog_builder.vectors.points.reading import Threads
from catalog_builder.vectors.points.rows import RowOptions
from catalog_builder.vectors.points.run import points_to_file
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.table import TableReport
from catalog_builder.vectors.points.vectors import Outcome
from catalog_builder.vectors.tables.read import read_points
from tests.conftest import SUPPORT, plain_environment
from tests.support.catalogs import build_from
from tests.support.converted import FIRST, NEIGHBOUR, RAW_YEAR, Converted
from tests.support.http_server import Server
from tests.support.pixels import YEARS, same, tile_values
from tests.support.registry import write_land
from tests.support.sample_stores import SampleStores
from tests.support.stores import make_stores

TESSERA = Path(sys.executable).with_name("tessera-stac")
LON = np.array([15.61, 15.655, 15.6999, 15.7001, 15.79, 15.64, 2.35])
LAT = np.array([78.21, 78.255, 78.2501, 78.2502, 78.28, 78.2999, 48.85])
"""In both tiles, at the edge between them, and one far from both."""
LABELS = ["wheat", "oats", "ice", "ice", "fjord", "oats", "Paris"]
TO_UTM = Transformer.from_crs("OGC:CRS84", 32633, always_xy=True)
Floats = npt.NDArray[np.float32]


def pixel_of(tile: TileId, x: float, y: float) -> tuple[int, int]:
    transform = tile.raster().transform
    return math.floor((transform.f - y) / 10), math.floor((x - transform.c) / 10)


def cell_of(lon: float, lat: float) -> str:
    return f"grid_{math.floor(lon * 10) / 10 + 0.05:.2f}_{math.floor(lat * 10) / 10 + 0.05:.2f}"


def oracle(tiles: Converted, year: int) -> Floats:
    """Return float32 (points, 128): of each point the pixel of its own tile that contains it, NaN without."""
    out = np.full((len(LON), 128), np.nan, np.float32)
    for i, (lon, lat) in enumerate(zip(LON, LAT, strict=True)):
        for tile in YEARS.get(year, ()):
            if tile.name == cell_of(lon, lat):
                row, col = pixel_of(tile, *TO_UTM.transform(lon, lat))
                out[i] = tile_values(tiles, tile, year)[:, row, col]
    return out


def write_labels(path: Path, crs: str) -> Path:
    """Write the labels with GDAL or by hand; return the file."""
    x, y = Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(LON, LAT)
    if path.suffix == ".csv":
        lines = [f"{label},{a!r},{b!r}" for label, a, b in zip(LABELS, x.tolist(), y.tolist(), strict=True)]
        path.write_text("crop,x,y\n" + "\n".join(lines) + "\n")
        return path
    points = shapely.points(x, y)
    if path.suffix == ".parquet":
        from pyproj import CRS

        about = {"encoding": "WKB", "geometry_types": ["Point"], "crs": CRS(crs).to_json_dict()}
        geo = {"version": "1.1.0", "primary_column": "place", "columns": {"place": about}}
        table = pa.table({"place": pa.array(shapely.to_wkb(points), pa.binary()), "crop": LABELS})
        pa.parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
        return path
    drivers = {".geojson": "GeoJSON", ".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".shp": "ESRI Shapefile"}
    options = {"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}  # or it sorts them
    pyogrio.raw.write(
        path,
        shapely.to_wkb(points),
        [np.array(LABELS, object)],
        ["crop"],
        geometry_type="Point",
        crs=crs,
        driver=drivers.get(path.suffix, "KML"),
        **options,
    )
    if path.suffix == ".shp":
        archive = shutil.make_archive(str(path.with_suffix("")), "zip", path.parent, ".")
        return Path(archive)
    return path


def run(catalog: str | Path, labels: Path, out: Path, **options: Any) -> TableReport:
    crs = options.pop("crs", None)
    rows = RowOptions(**{k: options.pop(k) for k in ("dtype", "columns") if k in options})
    how = {k: options.pop(k) for k in ("workers", "dask", "force") if k in options}
    found = read_points(str(labels), crs=crs)
    return points_to_file(str(catalog), found, out, PointOptions(**options), rows, **how)


@pytest.mark.parametrize("crs", ["OGC:CRS84", "EPSG:32633", "EPSG:3035"])
@pytest.mark.parametrize("suffix", [".csv", ".geojson", ".gpkg", ".fgb", ".shp", ".kml", ".parquet"])
def test_labels_in_any_format_and_crs(tiles: Converted, tmp_path: Path, suffix: str, crs: str) -> None:
    """A row for each year and point, in their order, with the vector that numpy has."""
    if suffix in (".kml", ".geojson") and crs != "OGC:CRS84":
        crs = "OGC:CRS84" if suffix == ".kml" else crs
    if suffix == ".shp":
        (tmp_path / "shape").mkdir()
    labels = write_labels(tmp_path / ("shape" if suffix == ".shp" else "") / f"labels{suffix}", crs)
    asked = {"crs": crs} if suffix == ".csv" else {}
    report = run(tiles.catalog, labels, tmp_path / "out.parquet", years=(2021, 2024), **asked)
    assert report.outcomes == {"valid": 6, "missing-year": 6, "outside": 2}
    table = pa.parquet.read_table(tmp_path / "out.parquet")
    assert table["crop"].to_pylist() == LABELS * 2
    assert table["year"].to_pylist() == [2021] * 7 + [2024] * 7
    assert table["status"].to_pylist() == ["missing-year"] * 6 + ["outside"] + ["valid"] * 6 + ["outside"]
    assert table["embedding"].is_null().to_pylist() == [True] * 7 + [False] * 6 + [True]
    found = np.array(table["embedding"].to_pylist()[7:13], np.float32)
    assert same(found, oracle(tiles, 2024)[:6])
    # as any reader of GeoParquet sees it
    geometry = shapely.from_wkb(table["geometry"].to_numpy())
    assert np.allclose(shapely.get_x(geometry[:7]), LON, atol=1e-7)
    assert np.allclose(shapely.get_y(geometry[:7]), LAT, atol=1e-7)
    geo = json.loads(pa.parquet.read_schema(tmp_path / "out.parquet").metadata[b"geo"])
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx([2.35, 48.85, 15.79, 78.2999])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".npy"])
@pytest.mark.parametrize("columns", [False, True])
def test_tables(tiles: Converted, tmp_path: Path, suffix: str, dtype: str, columns: bool) -> None:
    """Read with the format's usual reader; codes times scales are the values."""
    labels, out = write_labels(tmp_path / "labels.csv", "OGC:CRS84"), tmp_path / f"out{suffix}"
    options = {"years": (2023, 2022), "bands": (5, 0, 127), "dtype": dtype, "columns": columns}
    if suffix == ".npy" and columns:
        with pytest.raises(QueryError, match="has no columns"):
            run(tiles.catalog, labels, out, **options)
        return
    run(tiles.catalog, labels, out, **options)
    rows = out.with_suffix(".rows.csv") if suffix == ".npy" else out
    table = {".parquet": pa.parquet.read_table, ".arrow": pa.feather.read_table}.get(suffix, pa.csv.read_csv)(
        rows
    )
    wanted = np.concatenate([oracle(tiles, 2023), oracle(tiles, 2022)])[:, [5, 0, 127]]
    valid = ~np.isnan(wanted[:, 0])
    assert valid.sum() == 8
    assert (np.array(table["status"].to_pylist()) == "valid").tolist() == valid.tolist()
    assert table["year"].to_pylist() == [2023] * 7 + [2022] * 7
    if suffix == ".npy":
        array = np.load(out)
        assert array.shape == (14, 3)
        assert array.dtype == dtype
        found = array[valid].astype(np.float32)
    elif columns or suffix == ".csv":
        found = np.column_stack([table[f"b{b:03d}"].to_numpy() for b in (5, 0, 127)])[valid]
    else:
        assert table.schema.field("embedding").type == pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), 3)
        found = np.array([v for v in table["embedding"].to_pylist() if v is not None], np.float32)
    found = found.astype(np.float32)
    if dtype == "int8":
        scale = table["scale"].to_numpy()
        assert np.isnan(scale[~valid]).all()
        found = found * scale[valid].astype(np.float32)[:, None]
    assert np.allclose(found, wanted[valid], rtol=1e-3 if dtype == "float16" else 1e-6, atol=0)


def test_names_that_labels_have_already(tiles: Converted, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("year,status,Lon,LAT\n1999,old,15.61,78.21\n")
    run(tiles.catalog, tmp_path / "a.csv", tmp_path / "o.csv", years=(2024,), bands=(0,))
    header, row = (tmp_path / "o.csv").read_text().splitlines()
    assert header.replace('"', "") == "year,status,Lon,LAT,tessera_year,tessera_status,reason,b000"
    assert row.startswith('1999,"old",15.61,78.21,2024,"valid",,')


BAD = {
    "crop,lon,lat\noats,15.6,78.2\n\nrye,nan,78.2\nrye,,78.2\n": (
        r"line 4: is at \(nan, 78.2\).*2 rows, also line 5"
    ),
    "crop,lon,lat\noats,east,78.2\n": "line 2: lon is 'east', expected a number",
    "crop,lon,lat\noats,555000,6200000\n": "line 2: .*such as --crs EPSG:27700",
    "crop,lon,lat\noats,15.6,98.2\n": r"line 2: is at \(15.6, 98.2\): expected degrees",
    "crop,a,b\noats,15.6,98.2\n": "no column called lon, longitude.*has crop, a, b; name it with --lon",
    "crop,lon,lat\n": "has no rows",
    "": "Empty CSV file",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_labels_are_named_by_their_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((QueryError, StorageError), match=BAD[text]) as error:
        read_points(str(tmp_path / "labels.csv"))
    assert str(tmp_path / "labels.csv") in str(error.value)


def test_layers_and_geometries(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    for layer, geometry in (("fields", shapely.box(0, 0, 1, 1)), ("places", shapely.Point(0, 0))):
        pyogrio.raw.write(
            path,
            shapely.to_wkb(np.array([geometry])),
            [],
            [],
            geometry_type=geometry.geom_type,
            crs="EPSG:4326",
            layer=layer,
            append=path.exists(),
        )
    with pytest.raises(QueryError, match="has layers fields, places: choose one with --layer"):
        read_points(str(path))
    with pytest.raises(QueryError, match="row 1: is no point: a polygon"):
        read_points(str(path), layer="fields")
    assert read_points(str(path), layer="places").lon.tolist() == [0.0]
    with pytest.raises(StorageError, match="no such file"):
        read_points(str(tmp_path / "none.gpkg"))
    (tmp_path / "broken.gpkg").write_text("no database")
    with pytest.raises(StorageError, match="cannot be read"):
        read_points(str(tmp_path / "broken.gpkg"))


# ---------------------------------------------------------------------------------------------- statuses


def sample(catalog: Path | str, lon: Any, lat: Any, **options: Any) -> list[PointYear]:
    threads = Threads(2)
    try:
        return list(Sampling.of(str(catalog), lon, lat, PointOptions(**options), threads).read())
    finally:
        threads.close()


def copied(tiles: Converted, folder: Path) -> Path:
    """Return a catalogue of the arrays alone, in a folder whose files may be changed."""
    shutil.copytree(tiles.embeddings, folder / "tiles" / tiles.embeddings.name)
    build_from(
        folder / "catalog",
        folder / "tiles",
        dataset="synthetic",
        url="http://cat",
        source_root=str(folder / "tiles" / tiles.embeddings.name),
    )
    return folder / "catalog"


@pytest.mark.service
def test_an_unreadable_tile_costs_its_points_and_is_read_again(tiles: Converted, tmp_path: Path) -> None:
    catalog = copied(tiles, tmp_path)
    broken = tmp_path / "tiles" / tiles.embeddings.name / source_path(2024, NEIGHBOUR.name)
    broken.rename(broken.with_suffix(".away"))
    labels, out = write_labels(tmp_path / "labels.csv", "OGC:CRS84"), tmp_path / "out.parquet"
    command = [TESSERA, "points", labels, "--catalog", catalog, "--years", "2023-2024", "--out", out, "-q"]

    def points(*more: str) -> tuple[int, Any, str]:
        done = subprocess.run(
            [*command, "--json", *more], capture_output=True, text=True, env=plain_environment()
        )
        return done.returncode, json.loads(done.stdout or "null"), done.stderr

    code, report, said = points()
    assert code == 1
    assert report["status"] == {"valid": 8, "missing-year": 2, "outside": 2, "unreadable": 2}
    assert f"{broken}: no such file (2 rows)" in said
    first = pa.parquet.read_table(out)
    assert first["reason"].to_pylist() == [None] * 10 + [f"{broken}: no such file"] * 2 + [None] * 2
    # one that is still broken, then one that is not
    assert points()[0] == 1
    broken.with_suffix(".away").rename(broken)
    code, report, _ = points()
    assert code == 0
    assert report["status"] == {"valid": 10, "missing-year": 2, "outside": 2}
    assert report["read_again"] == 2
    assert report["read_bytes"] == 2 * (128 + 4)
    again = pa.parquet.read_table(out)
    whole = tmp_path / "whole.parquet"
    run(catalog, labels, whole, years=(2023, 2024))
    assert again.equals(pa.parquet.read_table(whole))
    code, _, said = points()
    assert (code, said) == (2, f"error: {out}: exists already; --force replaces it\n")
    assert points("--force")[0] == 0


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".arrow"])
def test_other_tables_are_completed_too(tiles: Converted, tmp_path: Path, suffix: str) -> None:
    catalog = copied(tiles, tmp_path)
    broken = tmp_path / "tiles" / tiles.embeddings.name / source_path(2024, NEIGHBOUR.name)
    broken.rename(broken.with_suffix(".away"))
    labels, out = write_labels(tmp_path / "labels.csv", "OGC:CRS84"), tmp_path / f"out{suffix}"
    options: dict[str, Any] = {"years": (2024,), "dtype": "int8"}
    assert run(catalog, labels, out, **options).unreadable == 2
    with pytest.raises(QueryError, match="of another request"):
        run(catalog, labels, out, **options | {"years": (2023,)})
    broken.with_suffix(".away").rename(broken)
    assert run(catalog, labels, out, **options).again == 2
    run(catalog, labels, tmp_path / f"whole{suffix}", **options)
    for end in (suffix, ".rows.csv") if suffix == ".npy" else (suffix,):
        a, b = (tmp_path / f"{name}{end}" for name in ("out", "whole"))
        if suffix == ".arrow":  # what is under a null is not defined
            assert pa.feather.read_table(a).equals(pa.feather.read_table(b))
        else:
            assert a.read_bytes() == b.read_bytes()


def test_corrupt_scales_are_no_data(tiles: Converted, tmp_path: Path) -> None:
    """Of published arrays and of stores alike: negative, infinite, and from 1 or what is asked for."""
    catalog = copied(tiles, tmp_path)
    path = tmp_path / "tiles" / tiles.embeddings.name / source_path(2023, FIRST.name, "_scales.npy")
    scales, lon, lat = np.load(path), 15.65, 78.25
    row, col = pixel_of(FIRST, *TO_UTM.transform(lon, lat))
    for bad, is_counted in ((1.0, 1), (np.inf, 1), (-0.05, 1), (np.nan, 0), (0.0, 0)):
        scales[row, col] = bad
        np.save(path, scales)
        (found,) = sample(catalog, [lon], [lat], years=(2023,))
        assert (found.outcome.tolist(), found.corrupt) == ([Outcome.NODATA], is_counted)
        assert np.isnan(found.vectors.dequantized()).all()
    scales[row, col] = 0.4
    np.save(path, scales)
    assert sample(catalog, [lon], [lat], years=(2023,))[0].outcome == Outcome.VALID
    (found,) = sample(catalog, [lon], [lat], years=(2023,), max_scale=0.4)
    assert (found.outcome.tolist(), found.corrupt) == ([Outcome.NODATA], 1)


def test_water_and_what_is_not_filled_yet(tmp_path: Path) -> None:
    """A store says why there is nothing; its tiles are read together and give what single ones do."""
    stores = make_stores(tmp_path)
    catalog = tmp_path / "catalog"
    listed = write_land(tmp_path / "land", list(stores.tiles))
    build_from(catalog, stores.a, listed, dataset="synthetic", url="http://cat")
    for tile, (codes, scales) in stores.tiles.items():
        raster, rng = tile.raster(), np.random.default_rng(3)
        rows, cols = rng.integers(0, raster.height, 400), rng.integers(0, raster.width, 400)
        x, y = raster.transform @ (cols + 0.5, rows + 0.5)
        back = Transformer.from_crs(raster.epsg, "OGC:CRS84", always_xy=True)
        lon, lat = (np.asarray(v) for v in back.transform(x, y))
        (found,) = sample(catalog, lon, lat, years=(2024,))
        own = np.array([cell_of(a, b) == tile.name for a, b in zip(lon, lat, strict=True)])
        wanted = codes[rows, cols].astype(np.float32) * scales[rows, cols][:, None]
        assert own.sum() > 200
        assert same(found.vectors.dequantized()[own], wanted[own])
        no_value = np.isnan(scales[rows, cols])
        assert (found.outcome[own & no_value] == Outcome.WATER).all()
        assert (found.outcome[own & ~no_value] == Outcome.VALID).all()
        assert (own & no_value).any()


# -------------------------------------------------------------------------------------- pixels around them


def pixels_of_year(tiles: Converted, year: int) -> dict[str, tuple[TileId, Floats]]:
    return {tile.name: (tile, tile_values(tiles, tile, year)) for tile in YEARS[year]}


def around(tiles: dict[str, tuple[TileId, Floats]], lon: float, lat: float, half: int) -> list[Any]:
    """Return (distance, vector) of the pixels around a point, each from the tile that its centre lies in."""
    px, py = TO_UTM.transform(lon, lat)
    tile = tiles[cell_of(lon, lat)][0]
    row, col = pixel_of(tile, px, py)
    found = []
    for r in range(row - half, row + half + 1):
        for c in range(col - half, col + half + 1):
            x, y = tile.raster().transform @ (c + 0.5, r + 0.5)
            own = cell_of(*TO_UTM.transform(x, y, direction="INVERSE"))
            own = tile.name if (r, c) == (row, col) else own
            if own in tiles:
                other, values = tiles[own]
                i, j = pixel_of(other, x, y)
                found.append((math.hypot(x - px, y - py), values[:, i, j]))
    return found


def scattered(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(8)
    # half of them at the edge between the tiles, which no cell's window respects
    lon = np.where(np.arange(n) % 2, rng.uniform(15.61, 15.79, n), 15.7 + rng.normal(0, 0.0008, n))
    return lon, rng.uniform(78.21, 78.29, n)


def test_mean_of_a_window(tiles: Converted) -> None:
    lon, lat = scattered(60)
    (found,) = sample(tiles.catalog, lon, lat, years=(2024,), window=5, bands=(3, 90))
    pixels, values = pixels_of_year(tiles, 2024), found.vectors.dequantized()
    assert found.pixels is not None
    for i in range(60):
        near = np.array([v[[3, 90]] for _, v in around(pixels, lon[i], lat[i], 2)])
        near = near[~np.isnan(near[:, 0])]
        assert found.pixels[i] == len(near)
        assert (found.outcome[i] == Outcome.VALID) == bool(len(near))
        if len(near):
            assert np.allclose(values[i], near.mean(axis=0, dtype=np.float64), rtol=1e-6)
    with pytest.raises(QueryError, match="odd number"):
        PointOptions(window=4)


def test_nearest_pixel_with_data(tiles: Converted) -> None:
    pixels = pixels_of_year(tiles, 2024)
    lon, lat = [], []
    for tile, values in pixels.values():  # pixels without data, whatever is around them
        rows, cols = np.nonzero(np.isnan(values[0]))
        chosen = np.random.default_rng(2).choice(len(rows), 40, replace=False)
        x, y = tile.raster().transform @ (cols[chosen] + 0.3, rows[chosen] + 0.6)
        found = TO_UTM.transform(x, y, direction="INVERSE")
        own = [cell_of(a, b) == tile.name for a, b in zip(*found, strict=True)]
        lon += np.asarray(found[0])[own].tolist()
        lat += np.asarray(found[1])[own].tolist()
    lon.append(15.65), lat.append(78.25)
    (near,) = sample(tiles.catalog, lon, lat, years=(2024,), nearest=60.0)
    values, seen = near.vectors.dequantized(), set()
    assert near.distance is not None
    for i, (a, b) in enumerate(zip(lon, lat, strict=True)):
        with_data = [(d, v) for d, v in around(pixels, a, b, 7) if d <= 60 and not np.isnan(v[0])]
        seen.add(bool(with_data))
        assert (near.outcome[i] == Outcome.VALID) == bool(with_data)
        if with_data and i < len(lon) - 1:
            best = min(d for d, _ in with_data)
            assert near.distance[i] == pytest.approx(best, abs=1e-3)
            assert any(same(values[i], v) for d, v in with_data if d < best + 1e-6)
    assert near.distance[-1] == 0
    assert seen == {True, False}


@pytest.mark.service
def test_a_cluster_gives_what_threads_give(tiles: Converted, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.csv", "OGC:CRS84")
    for name, dask in (("a", None), ("b", "local")):
        run(tiles.catalog, labels, tmp_path / f"{name}.arrow", workers=2, dask=dask, years=(2022, 2024))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_an_api_is_asked_for_ids(server: Server, tiles: Converted, tmp_path: Path) -> None:
    """However many points there are: the table is that of the folder."""
    labels = write_labels(tmp_path / "labels.csv", "OGC:CRS84")
    for name, catalog in (("a", str(tiles.catalog)), ("b", server.url)):
        run(catalog, labels, tmp_path / f"{name}.arrow", years=(2021, RAW_YEAR, 2024))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    rng = np.random.default_rng(4)
    lon, lat = rng.uniform(15.6, 15.8, 100_000), rng.uniform(78.2, 78.3, 100_000)
    server.clear()
    (found,) = sample(server.url, lon, lat, years=(RAW_YEAR,), bands=(0,))
    assert (found.outcome == Outcome.VALID).sum() > 30_000
    searches = [r for r in server.log if r.path.endswith("/search")]
    assert len(searches) < 6


@pytest.mark.slow
@pytest.mark.parametrize("container", ["zarr", "icechunk"])
def test_a_store_gives_what_geotessera_samples(
    container: str, sample_stores: SampleStores, geotessera11: Path, tmp_path: Path
) -> None:
    """Points anywhere in tiles of two zones and hemispheres, in one run of each."""
    stored = getattr(sample_stores, container)
    catalog = tmp_path / "catalog"
    build_from(catalog, stored.store, stored.land, dataset="synthetic", url="http://cat")
    tiles = [written.tile for written in sample_stores.npy.written]
    rng = np.random.default_rng(12)
    of = rng.integers(0, len(tiles), 400)
    lon = np.array([tile.lon for tile in tiles])[of] + rng.uniform(-0.05, 0.05, 400)
    lat = np.array([tile.lat for tile in tiles])[of] + rng.uniform(-0.05, 0.05, 400)
    (found,) = sample(catalog, lon, lat, years=(2024,), max_scale=None)
    out, script = tmp_path / "theirs.npy", SUPPORT / "geotessera11.py"
    points = json.dumps(list(zip(lon.tolist(), lat.tolist(), strict=True)))
    done = subprocess.run(
        [geotessera11, script, "sample", stored.store, "2024", out, points],
        env=plain_environment(MPLBACKEND="agg", MPLCONFIGDIR="/tmp"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = np.load(out), found.vectors.dequantized()
    assert same(ours, theirs)
    assert 200 < np.isfinite(ours[:, 0]).sum() < 400
