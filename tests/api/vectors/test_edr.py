"""Positions and areas: the values of numpy and rasterio, CoverageJSON by its published models, and limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from covjson_pydantic.coverage import Coverage, CoverageCollection
from pyproj import Transformer
from rasterio.features import geometry_mask

from api.app import create_app
from api.settings import Settings
from catalog_builder.vectors.points.vectors import Outcome
from tests.support.catalogs import build_from
from tests.support.converted import COLLECTION, Converted, converted
from tests.support.http_server import Server, serve
from tests.support.pixels import YEARS, same, tile_values
from tests.support.sample_stores import SampleStores
from tests.vectors.test_points import LAT, LON, TO_UTM, cell_of, oracle

HERE = f"/collections/{COLLECTION}"
pytestmark = pytest.mark.service
TOKEN = "a" * 43
POINT = f"POINT({LON[1]} {LAT[1]})"
BORDER = shapely.Polygon([(15.69, 78.25), (15.71, 78.25), (15.711, 78.252), (15.692, 78.253)])
"""In both tiles, edges of any direction."""
AREA = BORDER.wkt
STATUS = {outcome.text: int(outcome) for outcome in Outcome}


@pytest.fixture(scope="module")
def tiles() -> Converted:
    return converted()


@pytest.fixture(scope="module")
def server(tiles: Converted) -> Iterator[Server]:
    with serve(create_app(tiles.catalog)) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def multipoint() -> str:
    return f"MULTIPOINT({','.join(f'({x} {y})' for x, y in zip(LON, LAT, strict=True))})"


def get(http: httpx.Client, verb: str, coords: str, **parameters: str) -> Any:
    asked = {name.replace("_", "-"): value for name, value in parameters.items()}
    response = http.get(f"{HERE}/{verb}", params={"coords": coords, **asked})
    assert response.status_code == 200, response.text[:500]
    document = response.json()
    if asked.get("f") == "GeoJSON":
        assert response.headers["content-type"] == "application/geo+json"
        return document
    assert response.headers["content-type"] == "application/prs.coverage+json"
    of = Coverage if document["type"] == "Coverage" else CoverageCollection
    of.model_validate_json(response.content)
    return document


def array(coverage: Any, name: str, dtype: Any = np.float32) -> npt.NDArray[Any]:
    """Return a range as an array, NaN where it is null."""
    found = coverage["ranges"][name]
    values = np.array([np.nan if v is None else v for v in found["values"]], dtype)
    return values.reshape(found["shape"])


def vectors(coverage: Any) -> npt.NDArray[np.float32]:
    """Return the bands, last."""
    return np.stack([array(coverage, f"b{band:03d}") for band in range(128)], axis=-1)


# ---------------------------------------------------------------------------------------------- positions


def test_a_position_is_a_series_of_its_pixel(http: httpx.Client, tiles: Converted) -> None:
    found = get(http, "position", POINT)
    domain = found["domain"]
    assert domain["domainType"] == "PointSeries"
    assert domain["axes"]["x"]["values"] == [LON[1]]
    assert domain["axes"]["y"]["values"] == [LAT[1]]
    assert domain["axes"]["t"]["values"] == [f"{year}-01-01T00:00:00Z" for year in YEARS]
    assert domain["referencing"][0]["system"]["id"] == "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
    assert same(vectors(found), np.stack([oracle(tiles, year)[1] for year in YEARS]))
    assert array(found, "status").tolist() == [STATUS["valid"]] * 3
    assert set(found["parameters"]) == set(found["ranges"])
    assert found["parameters"]["b005"]["unit"]["symbol"]["value"] == "1"


def test_several_positions_have_the_statuses_of_points(http: httpx.Client, tiles: Converted) -> None:
    found = get(http, "position", multipoint(), datetime="2023-01-01T00:00:00Z/2024-12-31T00:00:00Z")
    domain = found["domain"]
    assert domain["domainType"] == "MultiPointSeries"
    assert domain["axes"]["composite"]["values"] == [[x, y] for x, y in zip(LON, LAT, strict=True)]
    assert same(vectors(found), np.stack([oracle(tiles, year) for year in (2023, 2024)]))
    sent = "lon,lat\n" + "\n".join(f"{x!r},{y!r}" for x, y in zip(LON.tolist(), LAT.tolist(), strict=True))
    posted = http.post(
        f"{HERE}/points?datetime=2023-01-01T00:00:00Z/2024-12-31T00:00:00Z&f=geojson&bands=0",
        content=sent,
        headers={"content-type": "text/csv"},
    )
    texts = [feature["properties"]["status"] for feature in posted.json()["features"]]
    assert array(found, "status").ravel().tolist() == [STATUS[text] for text in texts]
    assert {"valid", "missing-year", "outside"} <= set(texts)
    features = get(
        http, "position", multipoint(), datetime="2023-01-01T00:00:00Z/2024-12-31T00:00:00Z", f="GeoJSON"
    )["features"]
    assert [feature["properties"]["status"] for feature in features] == texts
    assert [feature["properties"]["row"] for feature in features] == [*range(1, len(LON) + 1)] * 2
    for feature, year in zip(features[: len(LON)], [2023] * len(LON), strict=True):
        assert feature["properties"]["year"] == year
    read = [[f["properties"][f"b{band:03d}"] for band in range(128)] for f in features[len(LON) :]]
    assert same(np.array(read, np.float32), oracle(tiles, 2024))


@pytest.mark.parametrize(
    ("crs", "identifier", "order"),
    [
        ("EPSG:32633", "EPSG/0/32633", ["x", "y"]),
        ("http://www.opengis.net/def/crs/EPSG/0/3035", "EPSG/0/3035", ["y", "x"]),
        ("CRS84", "OGC/1.3/CRS84", ["x", "y"]),
        ("EPSG:4326", "EPSG/0/4326", ["y", "x"]),
    ],
)
def test_coordinates_have_x_first_in_any_crs(
    http: httpx.Client, tiles: Converted, crs: str, identifier: str, order: list[str]
) -> None:
    code = f"EPSG:{identifier.rpartition('/')[2]}" if "EPSG" in identifier else "OGC:CRS84"
    x, y = Transformer.from_crs("OGC:CRS84", code, always_xy=True).transform(LON[1], LAT[1])
    found = get(
        http, "position", f"POINT({x} {y})", crs=crs, datetime="2024-06-01T00:00:00Z", parameter_name="b007"
    )
    where = found["domain"]["referencing"][0]
    assert where["system"]["id"] == f"http://www.opengis.net/def/crs/{identifier}"
    assert where["coordinates"] == order
    assert found["domain"]["axes"]["x"]["values"] == [x]
    assert set(found["ranges"]) == set(found["parameters"]) == {"b007"}
    assert same(array(found, "b007"), oracle(tiles, 2024)[1, 7:8])


def test_the_status_alone(http: httpx.Client) -> None:
    found = get(http, "position", POINT, parameter_name="status")
    assert set(found["ranges"]) == {"status"}
    (feature, *_) = get(http, "position", POINT, parameter_name="status", f="GeoJSON")["features"]
    assert set(feature["properties"]) == {"row", "lon", "lat", "year", "status", "reason"}


# --------------------------------------------------------------------------------------------------- areas


def expected_area(tiles: Converted, year: int, area: Any) -> dict[tuple[float, float], npt.NDArray[Any]]:
    """Return vectors by the centre of their pixel: GDAL's mask of each tile, and the cell that has it."""
    metres = shapely.transform(
        shapely.segmentize(area, 0.0005), lambda p: np.column_stack(TO_UTM.transform(p[:, 0], p[:, 1]))
    )
    found = {}
    for tile in YEARS[year]:
        raster, values = tile.raster(), tile_values(tiles, tile, year)
        mask = geometry_mask([metres], raster.shape, raster.transform, invert=True)
        for row, col in zip(*np.nonzero(mask), strict=True):
            x, y = raster.transform @ (col + 0.5, row + 0.5)
            if cell_of(*TO_UTM.transform(x, y, direction="INVERSE")) == tile.name:
                found[round(x, 3), round(y, 3)] = values[:, row, col]
    return found


def pixels(coverage: Any, year: int) -> dict[tuple[float, float], npt.NDArray[Any]]:
    """Return vectors of what is in the area, by the centre of their pixel."""
    axes = coverage["domain"]["axes"]
    t = axes["t"]["values"].index(f"{year}-01-01T00:00:00Z")
    x, y = (np.linspace(axis["start"], axis["stop"], axis["num"]) for axis in (axes["x"], axes["y"]))
    status, values = array(coverage, "status", np.float64)[t], vectors(coverage)[t]
    rows, cols = np.nonzero(~np.isnan(status))
    return {
        (round(x[c], 3), round(y[r], 3)): values[r, c]
        for r, c in zip(rows.tolist(), cols.tolist(), strict=True)
    }


def test_an_area_is_a_grid_of_its_pixels(http: httpx.Client, tiles: Converted) -> None:
    found = get(http, "area", AREA)
    domain = found["domain"]
    assert domain["domainType"] == "Grid"
    assert domain["referencing"][0]["system"] == {
        "type": "ProjectedCRS",
        "id": "http://www.opengis.net/def/crs/EPSG/0/32633",
    }
    assert found["ranges"]["b000"]["axisNames"] == ["t", "y", "x"]
    in_2024 = expected_area(tiles, 2024, BORDER)
    assert len(in_2024) > 500
    for year in YEARS:
        expected, got = expected_area(tiles, year, BORDER), pixels(found, year)
        assert set(got) == set(in_2024)
        for place, vector in got.items():
            assert same(vector, expected.get(place, np.full(128, np.nan, np.float32))), (year, place)
    status = array(found, "status", np.float64)
    assert set(np.unique(status[:2][~np.isnan(status[:2])])) >= {STATUS["valid"], STATUS["missing-year"]}


def test_an_area_as_features(http: httpx.Client, tiles: Converted) -> None:
    features = get(http, "area", AREA, datetime="2024-01-01T00:00:00Z", f="GeoJSON")["features"]
    expected = expected_area(tiles, 2024, BORDER)
    assert len(features) == len(expected)
    for feature in features[::97]:
        lon, lat = feature["geometry"]["coordinates"]
        place = tuple(round(v) for v in TO_UTM.transform(lon, lat))
        vector = next(v for (x, y), v in expected.items() if (round(x), round(y)) == place)
        read = [feature["properties"][f"b{band:03d}"] for band in range(128)]
        assert same(np.array(read, np.float32), vector)


def test_an_area_between_centres_has_the_pixels_that_it_touches(http: httpx.Client) -> None:
    tiny = shapely.box(15.65, 78.25, 15.65001, 78.25001)
    found = get(http, "area", tiny.wkt, parameter_name="status,b000")
    assert 1 <= found["domain"]["axes"]["x"]["num"] * found["domain"]["axes"]["y"]["num"] <= 4


def test_an_area_in_another_crs_is_the_same(http: httpx.Client) -> None:
    to = Transformer.from_crs("OGC:CRS84", 3035, always_xy=True)
    moved = shapely.transform(
        shapely.segmentize(BORDER, 0.0001), lambda p: np.column_stack(to.transform(p[:, 0], p[:, 1]))
    )
    about = {"parameter_name": "b000,status", "datetime": "2024-01-01T00:00:00Z"}
    assert get(http, "area", moved.wkt, crs="EPSG:3035", **about) == get(http, "area", AREA, **about)


@pytest.mark.slow
def test_an_area_over_two_zones_is_a_grid_in_each(sample_stores: SampleStores, tmp_path: Path) -> None:
    npy = sample_stores.npy
    catalog = tmp_path / "catalog"
    build_from(catalog, npy.root, dataset="synthetic", url="http://cat", source_root=str(npy.embeddings))
    area = shapely.box(17.98, 83.949, 18.02, 83.951)
    with serve(create_app(catalog)) as running, httpx.Client(base_url=running.url, timeout=60) as http:
        found = get(http, "area", area.wkt, datetime="2024-01-01T00:00:00Z")
    assert found["type"] == "CoverageCollection"
    zones = [c["domain"]["referencing"][0]["system"]["id"].rpartition("/")[2] for c in found["coverages"]]
    assert zones == ["32633", "32634"]
    for coverage, zone in zip(found["coverages"], zones, strict=True):
        to = Transformer.from_crs("OGC:CRS84", int(zone), always_xy=True)
        got = pixels(coverage, 2024)
        assert len(got) > 20
        seen = 0
        for (x, y), vector in got.items():
            lon, lat = to.transform(x, y, direction="INVERSE")
            assert shapely.contains_xy(area.buffer(1e-9), lon, lat)
            assert (lon < 18) == (zone == "32633")
            for written in npy.written:
                if written.tile.name == cell_of(lon, lat):
                    transform = written.tile.raster().transform
                    row, col = int((transform.f - y) // 10), int((x - transform.c) // 10)
                    scale = np.load(written.scales, mmap_mode="r")[row, col]
                    code = np.load(written.npy, mmap_mode="r")[row, col].astype(np.float32)
                    expected = code * scale if scale > 0 else np.full(128, np.nan, np.float32)
                    assert same(vector, np.asarray(expected, np.float32))
                    seen += 1
        assert seen == len(got)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("verb", "query", "said"),
    [
        ("position", "", "coords"),
        ("position", "coords=POLYGON((0 0,1 0,1 1,0 0))", "POINT or MULTIPOINT"),
        ("position", "coords=POINT(15.6)", "coords"),
        ("position", "coords=POINT EMPTY", "coords"),
        ("position", "coords=MULTIPOINT EMPTY", "coords"),
        ("position", "coords=MULTIPOINT((15.6 78.2),(15.6 95))", "row 2"),
        ("position", "coords=POINT(nan 78)", "coords"),
        ("position", "coords=POINT(1e300 78)", "coords"),
        ("position", "coords=" + "GEOMETRYCOLLECTION(" * 300, "POINT"),
        ("position", "coords=POINT(15.6 78.2)&crs=EPSG:1", "EPSG:1"),
        ("position", "coords=POINT(15.6 78.2)&crs=%2Bproj%3Dlonglat", "crs"),
        ("position", "coords=POINT(15.6 78.2)&parameter-name=b128", "b128"),
        ("position", "coords=POINT(15.6 78.2)&parameter-name=", "parameter-name"),
        ("position", "coords=POINT(15.6 78.2)&datetime=1999-01-01T00:00:00Z", "datetime"),
        ("position", "coords=POINT(15.6 78.2)&f=netCDF4", "f:"),
        ("position", "coords=POINT(15.6 78.2)&z=850", "'z'"),
        ("area", "coords=POINT(15.6 78.2)", "POLYGON or MULTIPOLYGON"),
        ("area", "coords=POLYGON EMPTY", "coords"),
        ("area", "coords=POLYGON((15.6 78.2,15.7 78.2))", "coords"),
        ("area", "coords=POLYGON((170 78,190 78,190 79,170 78))", "globe"),
    ],
    ids=str,
)
def test_bad_queries_say_what_was_expected(http: httpx.Client, verb: str, query: str, said: str) -> None:
    response = http.get(f"{HERE}/{verb}?{query}")
    assert response.status_code == 400, response.text[:300]
    assert said in response.json()["description"]
    assert "--" not in response.text


@pytest.mark.parametrize(
    ("limits", "verb", "coords", "instead"),
    [
        ({"vector_rows": 2}, "position", POINT, "tessera-stac points"),
        ({"vector_tiles": 1}, "position", POINT, "tessera-stac points"),
        ({"vector_rows": 100}, "area", AREA, "tessera-stac get"),
        ({"vector_pixels": 100}, "area", AREA, "tessera-stac get"),
        ({"max_vertices": 5}, "area", AREA, "tessera-stac get"),
        (
            {"vector_rows": 5000},
            "area",
            shapely.MultiPolygon([BORDER, shapely.box(15.61, 78.21, 15.6101, 78.2101)]).wkt,
            "grids around the area",
        ),
    ],
    ids=str,
)
def test_beyond_a_limit_is_413_and_names_the_verb(
    tiles: Converted, limits: dict[str, Any], verb: str, coords: str, instead: str
) -> None:
    with serve(create_app(tiles.catalog, Settings(**limits))) as running:
        response = httpx.get(f"{running.url}{HERE}/{verb}", params={"coords": coords}, timeout=60)
    assert response.status_code == 413, response.text[:300]
    assert instead in response.json()["description"]


def test_a_url_that_is_too_long_says_what_takes_a_body(tiles: Converted) -> None:
    with serve(create_app(tiles.catalog, Settings(max_url_bytes=1000))) as running:
        response = httpx.get(f"{running.url}{HERE}/position", params={"coords": "POINT(1 2)" + " " * 2000})
    assert response.status_code == 414
    assert "POST /points" in response.json()["description"]


def test_a_polygon_of_the_globe_takes_no_memory(http: httpx.Client) -> None:
    for shape in (shapely.box(-180, -90, 180, 90), shapely.box(-1e300, -1e300, 1e300, 1e300)):
        assert http.get(f"{HERE}/area", params={"coords": shape.wkt}).status_code in (400, 413)


def test_private_collections_are_not_there(tiles: Converted) -> None:
    hashed = hashlib.sha256(TOKEN.encode()).hexdigest()
    settings = Settings(private=COLLECTION, readers=f"anna:sha256${hashed}:{COLLECTION}")
    with serve(create_app(tiles.catalog, settings)) as running:
        for verb, coords in (("position", POINT), ("area", AREA)):
            asked = {"coords": coords, "parameter-name": "b000"}
            url = f"{running.url}{HERE}/{verb}"
            assert httpx.get(url, params=asked, timeout=60).status_code == 404
            mine = {"authorization": f"Bearer {TOKEN}"}
            assert httpx.get(url, params=asked, headers=mine, timeout=60).status_code == 200


def test_collections_and_openapi_tell_of_them(http: httpx.Client) -> None:
    links = [link for link in http.get(HERE).json()["links"] if link["rel"] == "data"]
    assert [link["href"].rpartition("/")[2] for link in links] == ["position", "area"]
    paths = http.get("/api").json()["paths"]
    for link in links:
        operation = paths[f"/collections/{{collection_id}}/{link['href'].rpartition('/')[2]}"]["get"]
        needed = [p["name"] for p in operation["parameters"] if p["required"]]
        assert needed == ["collection_id", "coords"]
        assert link["type"] in operation["responses"]["200"]["content"]
        assert set(operation["responses"]) >= {"200", "400", "404", "413", "503"}


def test_accept_chooses_the_format(http: httpx.Client) -> None:
    for accept, kind in (
        ("*/*", "application/prs.coverage+json"),
        ("application/json", "application/prs.coverage+json"),
        ("application/vnd.cov+json", "application/prs.coverage+json"),
        ("application/geo+json", "application/geo+json"),
    ):
        asked = {"coords": POINT, "parameter-name": "b000"}
        response = http.get(f"{HERE}/position", params=asked, headers={"accept": accept})
        assert response.headers["content-type"] == kind
        assert response.json()
    asked = {"coords": POINT, "parameter-name": "b000"}
    refused = http.get(f"{HERE}/position", params=asked, headers={"accept": "text/csv"})
    assert refused.status_code == 400
