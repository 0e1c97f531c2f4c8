"""Points and polygons sent to the server: the values of numpy, the statuses of the library, and limits."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import shapely

from api.app import create_app
from api.settings import Settings
from catalog_builder.vectors.points.options import PointOptions
from catalog_builder.vectors.points.reading import Threads
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.points.vectors import Outcome
from catalog_builder.vectors.tables.read import read_polygons
from catalog_builder.vectors.zonal.zonal import Zonal, ZonalOptions
from tests.support.converted import COLLECTION, FIRST, Converted, converted
from tests.support.http_server import Server, serve
from tests.support.pixels import same
from tests.vectors.test_points import LABELS, LAT, LON, oracle

HERE = f"/collections/{COLLECTION}"
KINDS = {
    "geojson": "application/geo+json",
    "csv": "text/csv",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
pytestmark = pytest.mark.service
TOKEN = "a" * 43
FIELD = shapely.Polygon([(15.62, 78.22), (15.68, 78.22), (15.68, 78.24), (15.64, 78.245)])
BORDER = shapely.box(15.69, 78.25, 15.71, 78.252)


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


def features(geometries: Any, columns: dict[str, list[Any]] | None = None) -> bytes:
    names = columns or {}
    found = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(geometry),
            "properties": {name: values[i] for name, values in names.items()},
        }
        for i, geometry in enumerate(geometries)
    ]
    return json.dumps({"type": "FeatureCollection", "features": found}).encode()


def points_body(kind: str) -> bytes:
    table = pa.table({"crop": LABELS, "lon": LON, "lat": LAT})
    out = io.BytesIO()
    if kind == "geojson":
        return features(shapely.points(LON, LAT), {"crop": LABELS})
    if kind == "csv":
        pa.csv.write_csv(table, out)
    elif kind == "parquet":
        pa.parquet.write_table(table, out)
    else:
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


def table_of(answer: httpx.Response, kind: str) -> pa.Table:
    assert answer.status_code == 200, answer.text[:500]
    assert answer.headers["content-type"].partition(";")[0] == KINDS[kind]
    source = pa.BufferReader(answer.content)
    if kind == "parquet":
        return pa.parquet.read_table(source)
    if kind == "arrow":
        return pa.ipc.open_stream(source).read_all()
    if kind == "csv":
        return pa.csv.read_csv(source)
    return pa.Table.from_pylist([f["properties"] for f in answer.json()["features"]])


def vectors_of(table: pa.Table, name: str = "embedding") -> Any:
    """Return float32 (n, 128), NaN where there is none."""
    if name in table.column_names:
        rows = [[np.nan] * 128 if v is None else v for v in table[name].to_pylist()]
        return np.array(rows, np.float32)
    columns = [table[f"b{i:03d}"].to_numpy() for i in range(128)]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("sent", "wanted"), [*((kind, "arrow") for kind in KINDS), *(("csv", kind) for kind in KINDS)]
)
def test_values_are_those_of_numpy_in_every_format(
    http: httpx.Client, tiles: Converted, sent: str, wanted: str
) -> None:
    answer = http.post(
        f"{HERE}/points",
        params={"datetime": "2022-06-01T00:00:00Z/2024-06-01T00:00:00Z"},
        content=points_body(sent),
        headers={"content-type": KINDS[sent], "accept": KINDS[wanted]},
    )
    table = table_of(answer, wanted)
    assert table["crop"].to_pylist() == LABELS * 3
    assert table["year"].to_pylist() == [y for y in (2022, 2023, 2024) for _ in LABELS]
    expected = np.concatenate([oracle(tiles, year) for year in (2022, 2023, 2024)])
    found = vectors_of(table)
    if wanted == "csv":  # numbers of text are the nearest ones
        assert np.allclose(found, expected, rtol=1e-6, atol=0, equal_nan=True)
    else:
        assert same(found, expected)
    sampling = Sampling.of(str(tiles.catalog), LON, LAT, PointOptions((2022, 2023, 2024)), Threads(1))
    outcomes = [Outcome(o).text for year in sampling.read() for o in year.outcome]
    assert table["status"].to_pylist() == outcomes
    assert {"valid", "missing-year", "outside"} <= set(outcomes)


def test_statistics_are_those_of_the_library(http: httpx.Client, tiles: Converted, tmp_path: Path) -> None:
    body = features([FIELD, BORDER], {"field": ["a", "b"]})
    answer = http.post(
        f"{HERE}/zonal",
        params={"stat": "mean,std,count", "f": "parquet"},
        content=body,
        headers={"content-type": KINDS["geojson"]},
    )
    table = table_of(answer, "parquet")
    file = tmp_path / "fields.geojson"
    file.write_bytes(body)
    options = ZonalOptions(statistics=("mean", "std", "count"))
    threads = Threads(1)
    zonal = Zonal.of(str(tiles.catalog), read_polygons(str(file)).geometry, options, threads)
    expected = list(zonal.read())
    threads.close()
    assert table["count"].to_pylist() == [c for year in expected for c in year.count.tolist()]
    for name in ("mean", "std"):
        assert same(vectors_of(table, name), np.concatenate([year.statistics[name] for year in expected]))
    assert "valid" in table["status"].to_pylist()


def test_an_unreadable_tile_costs_its_points_and_tells_no_path(tmp_path: Path, tiles: Converted) -> None:
    copy = tmp_path / "catalog"
    shutil.copytree(tiles.catalog, copy, symlinks=True)
    for file in copy.rglob(f"{FIRST.name}*embeddings.tif"):
        file.write_bytes(b"no tiff")
    with serve(create_app(copy)) as running:
        answer = httpx.post(
            f"{running.url}{HERE}/points?f=arrow&datetime=2024-01-01T00:00:00Z",
            content=points_body("csv"),
            headers={"content-type": "text/csv"},
            timeout=60,
        )
    table = table_of(answer, "arrow")
    status = table["status"].to_pylist()
    assert {"unreadable", "valid"} <= set(status)
    reasons = [r for r in table["reason"].to_pylist() if r]
    assert reasons
    assert not any(str(tmp_path) in r or "/" in r for r in reasons), reasons


HOSTILE = {
    "empty": b"",
    "garbage": b"\x00\xff" * 50,
    "null": b"null",
    "deep": b"[" * 100_000,
    "no features": b'{"type":"FeatureCollection"}',
    "no geometry": b'{"type":"Feature","geometry":null,"properties":{}}',
    "a number for a geometry": b'{"type":"Feature","geometry":7}',
    "NaN": b'{"type":"Feature","geometry":{"type":"Point","coordinates":[NaN,1]}}',
    "empty point": b'{"type":"Feature","geometry":{"type":"Point","coordinates":[]}}',
    "nested coordinates": b'{"type":"Feature","geometry":{"type":"Point","coordinates":[[1,2],3]}}',
    "far away": b'{"type":"Feature","geometry":{"type":"Point","coordinates":[1e300,1]}}',
    "magic": b"ARROW1\x00\x00" + b"\xff" * 64,
    "parquet": b"PAR1" + b"\xff" * 64 + b"PAR1",
    "columns": b"a,b\n1,2\n",
    "texts": b"lon,lat\n15.6,78.2\nx,y\n",
    "quotes": b'lon,lat\n"15.6,78.2\n',
    "crs": b'{"type":"FeatureCollection","crs":{"properties":{"name":"+proj=x +nadgrids=/etc/passwd"}},'
    b'"features":[{"type":"Feature","geometry":{"type":"Point","coordinates":[1,1]}}]}',
}


@pytest.mark.parametrize("verb", ["points", "zonal"])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_bodies_are_400(http: httpx.Client, name: str, kind: str, verb: str) -> None:
    answer = http.post(f"{HERE}/{verb}", content=HOSTILE[name], headers={"content-type": KINDS[kind]})
    assert answer.status_code == 400, (answer.status_code, answer.text[:300])
    assert set(answer.json()) == {"code", "description"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nearest=x", "nearest"), ("window=2", "window"), ("bands=128", "bands"), ("dtype=int4", "dtype"),
        ("datetime=1999-01-01T00:00:00Z", "datetime"), ("f=xml", "f:"), ("year=2024", "year"),
        ("crs=%2Bproj%3Dlonglat", "crs"), ("columns=7", "columns"), ("max-scale=-1", "scale"),
        ("lon=nowhere", "nowhere"),
    ],
)  # fmt: skip
def test_a_bad_parameter_is_named(http: httpx.Client, query: str, said: str) -> None:
    answer = http.post(
        f"{HERE}/points?{query}", content=points_body("csv"), headers={"content-type": "text/csv"}
    )
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["description"]
    assert "--" not in answer.text


def test_the_row_is_named(http: httpx.Client) -> None:
    answer = http.post(f"{HERE}/points", content=HOSTILE["texts"], headers={"content-type": "text/csv"})
    assert "line 3" in answer.json()["description"]
    two = features([shapely.Point(1, 1), shapely.Point(1, 95)])
    answer = http.post(f"{HERE}/points", content=two, headers={"content-type": KINDS["geojson"]})
    assert "row 2" in answer.json()["description"]


def test_compressed_bodies_that_may_grow_are_refused(http: httpx.Client) -> None:
    table = pa.table({"lon": np.full(50_000, 15.6), "lat": np.full(50_000, 78.2)})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pa.parquet.write_table(table, parquet, compression="zstd")
    pa.feather.write_feather(table, arrow, compression="zstd")
    for body, kind in ((parquet, "parquet"), (arrow, "arrow")):
        answer = http.post(f"{HERE}/points", content=body.getvalue(), headers={"content-type": KINDS[kind]})
        assert answer.status_code == 400, answer.text
        assert "compress" in answer.json()["description"]


@pytest.mark.parametrize(
    ("limits", "query", "verb"),
    [
        ({"vector_rows": 5}, "", "points"),
        ({"vector_pixels": 100}, "?window=5", "points"),
        ({"vector_tiles": 1}, "", "points"),
        ({"max_body_bytes": 1000}, "", "points"),
        ({"vector_seconds": 0.001}, "", "points"),
        ({"vector_pixels": 1000}, "", "zonal"),
        ({"max_vertices": 10}, "", "zonal"),
    ],
    ids=str,
)
def test_beyond_a_limit_is_413_and_names_the_verb(
    tiles: Converted, limits: dict[str, Any], query: str, verb: str
) -> None:
    body = features([FIELD]) if verb == "zonal" else points_body("geojson") + b" " * 1000
    with serve(create_app(tiles.catalog, Settings(**limits))) as running:
        answer = httpx.post(
            f"{running.url}{HERE}/{verb}{query}",
            content=body,
            headers={"content-type": KINDS["geojson"]},
            timeout=60,
        )
    # with a millisecond the wait for a thread may be over before it begins
    assert answer.status_code in ((413, 503) if "vector_seconds" in limits else (413,)), answer.text
    if answer.status_code == 413:
        assert f"tessera-stac {verb}" in answer.json()["description"]


def test_a_polygon_of_the_globe_takes_no_memory(http: httpx.Client) -> None:
    globe = features([shapely.box(-180, -90, 180, 90)])
    metres = features([shapely.box(-1e300, -1e300, 1e300, 1e300)])
    for body, query in ((globe, ""), (metres, "?crs=EPSG:27700")):
        answer = http.post(f"{HERE}/zonal{query}", content=body, headers={"content-type": KINDS["geojson"]})
        assert answer.status_code in (400, 413), answer.text


def test_private_collections_are_not_there(tiles: Converted) -> None:
    hashed = hashlib.sha256(TOKEN.encode()).hexdigest()
    settings = Settings(private=COLLECTION, readers=f"anna:sha256${hashed}:{COLLECTION}")
    with serve(create_app(tiles.catalog, settings)) as running:

        def send(verb: str, **headers: str) -> httpx.Response:
            body = features([BORDER]) if verb == "zonal" else points_body("geojson")
            sent = {"content-type": KINDS["geojson"], **headers}
            return httpx.post(f"{running.url}{HERE}/{verb}?f=arrow", content=body, headers=sent, timeout=60)

        for verb in ("points", "zonal"):
            assert send(verb).status_code == 404
            assert send(verb, authorization=f"Bearer {TOKEN}").status_code == 200


def test_collections_and_openapi_tell_of_them(http: httpx.Client) -> None:
    links = {each["rel"]: each for each in http.get(HERE).json()["links"]}
    paths = http.get("/api").json()["paths"]
    for verb in ("points", "zonal"):
        assert links[verb]["href"].endswith(f"{HERE}/{verb}")
        assert links[verb]["method"] == "POST"
        post = paths[f"/collections/{{collection_id}}/{verb}"]["post"]
        assert set(KINDS.values()) <= set(post["requestBody"]["content"])
        assert set(post["responses"]) >= {"200", "400", "404", "413", "503"}
