"""Statistics of polygons, against exactextract and rasterio on a mosaic of everything."""

from __future__ import annotations

import math
from fractions import Fraction
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
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from pyproj import Transformer
from rasterio.features import geometry_mask

from catalog_builder.errors import QueryError
from catalog_builder.tile.datasets import source_path
from catalog_builder.vectors.points.reading import Threads
from catalog_builder.vectors.points.vectors import Outcome
from catalog_builder.vectors.tables.read import read_polygons
from catalog_builder.vectors.zonal import pieces, zonal
from catalog_builder.vectors.zonal.rows import ZonalRowOptions
from catalog_builder.vectors.zonal.run import zonal_to_file
from catalog_builder.vectors.zonal.zonal import Zonal, ZonalOptions, ZonalYear
from tests.support.catalogs import build_from
from tests.support.converted import NEIGHBOUR, Converted
from tests.support.pixels import YEARS, tile_values
from tests.support.sample_stores import SampleStores
from tests.vectors.test_points import cell_of, copied

BANDS = (3, 90)
ALL = ("mean", "std", "count", "median", "min", "max", "sum")
THEIRS = {"std": "stdev"}
TO_UTM = Transformer.from_crs("OGC:CRS84", 32633, always_xy=True)


def degrees(geometry: Any, transformer: Transformer = TO_UTM) -> Any:
    """Return a geometry in metres as one in degrees."""

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1], direction="INVERSE"))

    return shapely.transform(geometry, move)


def metres(geometry: Any) -> Any:
    return shapely.transform(geometry, lambda p: np.column_stack(TO_UTM.transform(p[:, 0], p[:, 1])))


def fields() -> list[Any]:
    """Return polygons in degrees: at the edge between tiles and elsewhere, with holes, in parts, tiny."""
    rng, found = np.random.default_rng(6), []
    for i in range(60):
        lon = 15.7 + rng.normal(0, 0.001) if i % 2 else rng.uniform(15.61, 15.79)
        x, y = TO_UTM.transform(lon, rng.uniform(78.21, 78.29))
        shape = shapely.Point(x, y).buffer(float(rng.uniform(3, 150)), quad_segs=int(rng.integers(1, 6)))
        if i % 5 == 0:
            shape = shape.difference(shapely.Point(x + 20, y).buffer(35))
        if i % 7 == 0:
            shape = shapely.MultiPolygon(
                [shape, shapely.box(x + 300, y, x + 312, y + 90)][: 2 - shape.is_empty]
            )
        if not shape.is_empty and shape.geom_type in ("Polygon", "MultiPolygon"):
            found.append(degrees(shape))
    return found


def mosaic(tiles: Converted, year: int) -> tuple[npt.NDArray[np.float32], float, float]:
    """Return (bands, rows, columns), left and top: of each pixel the tile whose cell its centre is in."""
    rasters = [tile.raster() for tile in YEARS[year]]
    left, bottom = min(r.bbox[0] for r in rasters), min(r.bbox[1] for r in rasters)
    right, top = max(r.bbox[2] for r in rasters), max(r.bbox[3] for r in rasters)
    out = np.full((2, round((top - bottom) / 10), round((right - left) / 10)), np.nan, np.float32)
    for tile, raster in zip(YEARS[year], rasters, strict=True):
        rows, cols = np.mgrid[0 : raster.height, 0 : raster.width]
        x, y = raster.transform @ (cols + 0.5, rows + 0.5)
        lon, lat = TO_UTM.transform(x, y, direction="INVERSE")
        own = (np.floor(lon * 10) == math.floor(tile.lon * 10)) & (
            np.floor(lat * 10) == math.floor(tile.lat * 10)
        )
        r, c = np.round((top - y) / 10 - 0.5).astype(int), np.round((x - left) / 10 - 0.5).astype(int)
        out[:, r[own], c[own]] = tile_values(tiles, tile, year)[list(BANDS)][:, own]
    return out, left, top


def of(catalog: Any, polygons: list[Any], **options: Any) -> list[ZonalYear]:
    threads = Threads(2)
    try:
        asked = ZonalOptions(**{"bands": BANDS, **options})
        return list(Zonal.of(str(catalog), np.array(polygons, object), asked, threads).read())
    finally:
        threads.close()


def brute_force(tiles: Converted, year: int, polygon: Any, touched: bool | None) -> list[dict[str, Any]]:
    """Return statistics of each band by exactextract; by a rule of GDAL's those of the pixels of its mask."""
    values, left, top = mosaic(tiles, year)
    _, height, width = values.shape
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(metres(polygon))}
    extent = {"xmin": left, "ymin": top - 10 * height, "xmax": left + 10 * width, "ymax": top}
    names = [*(THEIRS.get(name, name) for name in ALL if name != "median"), "values", "coverage"]
    if touched is not None:
        from affine import Affine

        mask = geometry_mask(
            [metres(polygon)], (height, width), Affine(10, 0, left, 0, -10, top), touched, invert=True
        )
        values = np.where(mask, values, np.nan)
        box = shapely.box(left, top - 10 * height, left + 10 * width, top)
        feature["geometry"] = shapely.geometry.mapping(box)
    found = []
    for band in values:
        source = NumPyRasterSource(band, **extent, nodata=np.nan)
        about = exact_extract(source, [feature], names)[0]["properties"]
        found.append({**about, "median": rational_median(about["values"], about["coverage"])})
        if touched is not None and about["count"]:
            assert found[-1]["median"] == pytest.approx(float(np.nanmedian(about["values"])), abs=1e-6)
    return found


def rational_median(values: Any, weights: Any) -> float:
    """Return exactextract's weighted median in exact arithmetic: its own is off by one among equal values."""
    pairs = sorted(
        (float(v), Fraction(float(w))) for v, w in zip(values, weights, strict=True) if v == v and w
    )
    if len(pairs) < 2:
        return pairs[0][0] if pairs else math.nan
    n, below, place = len(pairs), Fraction(0), []
    for i, (_, weight) in enumerate(pairs):
        place.append(i * weight + (n - 1) * below)
        below += weight
    target = Fraction(1, 2) * (n - 1) * below
    right = max(1, next(i for i in range(n) if place[i] >= target))
    low, high = pairs[right - 1][0], pairs[right][0]
    return low + float((target - place[right - 1]) / (place[right] - place[right - 1])) * (high - low)


@pytest.mark.parametrize("coverage", ["exact", "all-touched", "centre"])
def test_statistics_equal_those_of_a_mosaic(tiles: Converted, coverage: str) -> None:
    polygons = fields() if coverage == "exact" else fields()[:12]
    (found,) = of(tiles.catalog, polygons, years=(2024,), statistics=ALL, coverage=coverage)
    touched = {"exact": None, "all-touched": True, "centre": False}[coverage]
    assert (found.outcome == Outcome.VALID).sum() > len(polygons) // 2
    for i, polygon in enumerate(polygons):
        for band, theirs in enumerate(brute_force(tiles, 2024, polygon, touched)):
            assert found.count[i] == pytest.approx(theirs["count"], rel=1e-4, abs=1e-6)
            if found.outcome[i] != Outcome.VALID:
                assert theirs["count"] == pytest.approx(0, abs=1e-6)
                continue
            for name in found.statistics:
                expected = theirs[THEIRS.get(name, name)]
                # of equal values the one with the larger weight may come first or last
                near = 2e-3 if name == "median" and touched is None else 2e-4
                assert found.statistics[name][i, band] == pytest.approx(expected, rel=near, abs=near), name


def test_large_polygons_are_taken_tile_by_tile(tiles: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any size the result is the same."""
    large = shapely.box(15.62, 78.22, 15.78, 78.28)
    options: dict[str, Any] = {"years": (2024,), "statistics": ALL}
    (whole,) = of(tiles.catalog, [large, *fields()[:4]], **options)
    monkeypatch.setattr(pieces, "LARGE", 100)
    monkeypatch.setattr(pieces, "AT_ONCE", 1000)
    (parts,) = of(tiles.catalog, [large, *fields()[:4]], **options)
    assert whole.pixels.tolist() == parts.pixels.tolist()
    assert whole.pixels[0] > 100_000
    for name, values in whole.statistics.items():
        assert np.allclose(parts.statistics[name], values, rtol=1e-5, equal_nan=True)
    monkeypatch.setattr(zonal, "MOST_FOR_MEDIAN", 1000)
    with pytest.raises(QueryError, match=r"polygon 1 has about 2\d\d,\d\d\d pixels: a median"):
        of(tiles.catalog, [large], **options)


@pytest.mark.slow
def test_polygons_over_a_zone_border_count_once(sample_stores: SampleStores, tmp_path: Path) -> None:
    """West of 18 E pixels are those of zone 33, east of it of zone 34; together they are the polygon."""
    npy = sample_stores.npy
    catalog = tmp_path / "catalog"
    build_from(catalog, npy.root, dataset="synthetic", url="http://cat", source_root=str(npy.embeddings))
    centre = Transformer.from_crs("OGC:CRS84", 32633, always_xy=True).transform(18.0, 83.95)
    polygon = degrees(shapely.Point(*centre).buffer(400))
    (found,) = of(catalog, [polygon], years=(2024,), statistics=("mean", "count", "std"))
    assert found.outcome.tolist() == [Outcome.VALID]
    values, weights = [], []
    for written in npy.written:
        tile, raster = written.tile, written.tile.raster()
        if tile.lat < 0:
            continue
        to = Transformer.from_crs("OGC:CRS84", raster.epsg, always_xy=True)
        moved = shapely.transform(polygon, lambda p, to=to: np.column_stack(to.transform(p[:, 0], p[:, 1])))
        feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(moved)}
        west, south, east, north = raster.bbox
        source = NumPyRasterSource(np.zeros(raster.shape), west, south, east, north)
        about = exact_extract(source, [feature], ["cell_id", "coverage"])[0]["properties"]
        rows, cols = np.divmod(np.asarray(about["cell_id"], int), raster.width)
        x, y = raster.transform @ (cols + 0.5, rows + 0.5)
        lon, lat = to.transform(x, y, direction="INVERSE")
        own = np.array([cell_of(a, b) == tile.name for a, b in zip(lon, lat, strict=True)], bool)
        if not own.any():
            continue
        codes, scales = np.load(written.npy), np.load(written.scales)
        vectors = codes[rows, cols].astype(np.float32) * scales[rows, cols][:, None]
        kept = own & (scales[rows, cols] > 0) & (scales[rows, cols] < 1)
        values.append(vectors[kept][:, list(BANDS)])
        weights.append(np.asarray(about["coverage"])[kept])
    assert len(values) == 2  # both zones
    everything, weight = np.concatenate(values).astype(np.float64), np.concatenate(weights)
    assert found.count[0] == pytest.approx(weight.sum(), rel=1e-4)
    assert found.count[0] / found.valid_fraction[0] * 100 == pytest.approx(math.pi * 400**2, rel=0.02)
    mean = weight @ everything / weight.sum()
    assert np.allclose(found.statistics["mean"][0], mean, rtol=1e-4)
    spread = np.sqrt(weight @ (everything - mean) ** 2 / weight.sum())
    assert np.allclose(found.statistics["std"][0], spread, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- tables


def write_fields(path: Path, crs: str = "EPSG:27700") -> Path:
    """Write three fields: in both tiles, in one of them, and far away."""
    box = [shapely.box(15.699, 78.25, 15.702, 78.251), shapely.box(15.65, 78.22, 15.66, 78.221)]
    shapes = shapely.segmentize([*box, shapely.box(2.3, 48.8, 2.301, 48.801)], 0.0005)
    to = Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    moved = [shapely.transform(s, lambda p: np.column_stack(to.transform(p[:, 0], p[:, 1]))) for s in shapes]
    driver = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".geojson": "GeoJSON"}[path.suffix]
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(moved, object)),
        [np.array(["oats", "rye", "wheat"], object), np.array([1999, 2000, 2001])],
        ["crop", "year"],
        geometry_type="Polygon",
        crs=crs,
        driver=driver,
    )
    return path


def run(catalog: Any, path: Path, out: Path, **options: Any) -> Any:
    rows = ZonalRowOptions(**{k: options.pop(k) for k in ("dtype", "columns") if k in options})
    asked = ZonalOptions(**{"bands": BANDS, "years": (2023, 2024), **options})
    return zonal_to_file(str(catalog), read_polygons(str(path)), out, asked, rows)


@pytest.mark.parametrize("source", [".gpkg", ".shp", ".geojson"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".npy"])
def test_tables(tiles: Converted, tmp_path: Path, source: str, suffix: str) -> None:
    path, out = write_fields(tmp_path / f"fields{source}", "EPSG:3035"), tmp_path / f"out{suffix}"
    report = run(tiles.catalog, path, out, statistics=("mean", "median"))
    assert report.outcomes == {"valid": 4, "outside": 2}
    polygons = read_polygons(str(path)).geometry
    expected = of(tiles.catalog, list(polygons), years=(2023, 2024), statistics=("mean", "median"))
    rows = out.with_suffix(".rows.csv") if suffix == ".npy" else out
    table = {".parquet": pa.parquet.read_table, ".arrow": pa.feather.read_table}.get(suffix, pa.csv.read_csv)(
        rows
    )
    assert table["crop"].to_pylist() == ["oats", "rye", "wheat"] * 2
    assert table["year"].to_pylist() == [1999, 2000, 2001] * 2
    assert table["tessera_year"].to_pylist() == [2023] * 3 + [2024] * 3
    assert table["status"].to_pylist() == ["valid", "valid", "outside"] * 2
    assert table["valid_fraction"].to_pylist()[0] == pytest.approx(
        1 / 3, abs=0.08
    )  # one tile, by whole pixels
    assert table["pixels"].to_pylist() == np.concatenate([e.pixels for e in expected]).tolist()
    for i, name in enumerate(("mean", "median")):
        wanted = np.concatenate([e.statistics[name] for e in expected])  # type: ignore[index]
        if suffix == ".npy":
            found = np.load(out)[:, i]
        elif suffix == ".csv":
            found = np.column_stack([table[f"{name}_b{b:03d}"].to_numpy() for b in BANDS])
        else:
            found = np.array([v or [np.nan] * 2 for v in table[name].to_pylist()])
        assert np.allclose(found, wanted, rtol=1e-6, equal_nan=True)


def test_an_unreadable_tile_costs_its_polygons_and_is_read_again(tiles: Converted, tmp_path: Path) -> None:
    catalog = copied(tiles, tmp_path)
    broken = tmp_path / "tiles" / tiles.embeddings.name / source_path(2024, NEIGHBOUR.name)
    broken.rename(broken.with_suffix(".away"))
    path, out = write_fields(tmp_path / "fields.gpkg"), tmp_path / "out.parquet"
    report = run(catalog, path, out)
    assert report.outcomes == {"valid": 3, "unreadable": 1, "outside": 2}
    assert list(report.reasons) == [f"{broken}: no such file"]
    broken.with_suffix(".away").rename(broken)
    report = run(catalog, path, out)
    assert (report.outcomes, report.again) == ({"valid": 4, "outside": 2}, 1)
    run(catalog, path, tmp_path / "whole.parquet")
    assert pa.parquet.read_table(out).equals(pa.parquet.read_table(tmp_path / "whole.parquet"))
    with pytest.raises(QueryError, match="exists already; --force"):
        run(catalog, path, out)


def test_polygons_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry":'
        ' {"type": "Point", "coordinates": [1, 2]}}]}'
    )
    with pytest.raises(QueryError, match=r"a.geojson, row 1: is no polygon: a point"):
        read_polygons(str(path))
    with pytest.raises(QueryError, match=r"statistics: expected some of mean, std.*found mode"):
        ZonalOptions(statistics=("mode",))  # type: ignore[arg-type]
