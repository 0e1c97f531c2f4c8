"""What is the database's own: starting without it, loads beside a running server, items of other kinds."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pypgstac.db import PgstacDB
from pypgstac.load import Loader, Methods

from api.app import create_app
from api.settings import Settings
from catalog_builder.item.addresses import parse_mirrors
from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import psql, running
from tests.support.backends import (
    EXPORTED_AT,
    PGSTAC_GROUP,
    dsn_of,
    load,
    new_database,
    pgstac_client,
    serve_pgstac_backend,
)
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.converted import COLLECTION, converted
from tests.support.http_server import Server, serve
from tests.support.paging import ids_of, link_of, ok, walk
from tests.support.waiting import until

pytestmark = PGSTAC_GROUP


@pytest.fixture
def database(postgres: Mapping[str, str]) -> str:
    return new_database(postgres)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    for year in (2022, 2023):
        write_manifest(tmp_path / "m", year, patch(0, 52, 4, 3))
    build_from(tmp_path / "catalog", tmp_path / "m")
    return tmp_path / "catalog"


def eventually(http: httpx.Client, path: str, good: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask until an answer is good; every one on the way must be an answer with a reason."""

    def asked() -> httpx.Response | None:
        answer = http.get(path)
        assert answer.status_code in (200, 404, 503), answer.text
        return answer if good(answer) else None

    return until(asked)


def test_a_database_that_is_not_prepared_says_what_to_do(postgres: Mapping[str, str], catalog: Path) -> None:
    name = new_database(postgres, template=None)
    dsn = dsn_of(postgres, name)
    with pgstac_client(dsn, None, refresh_seconds=0.1) as http:
        for path in ("/", "/search", "/collections", "/_mgmt/ready", "/source/v1/2022/x/y.vrt"):
            refused = http.get(path)
            assert refused.status_code == 503, path
            assert "export --pgstac --migrate" in refused.json()["description"]
            assert refused.headers["retry-after"]
        assert ok(http.get("/_mgmt/ping"))
        load(catalog, dsn, migrate=True)
        eventually(http, "/_mgmt/ready", lambda a: a.status_code == 200)
        # a server that looks in the middle of a load sees its first year, and follows
        eventually(http, "/search", lambda a: a.json().get("numberMatched") == 24)
        psql(postgres, "UPDATE tessera_stac.meta SET value = '99' WHERE name = 'schema_version'", name)
        late = eventually(http, "/_mgmt/ready", lambda a: a.status_code == 503)
        assert "version 99" in late.json()["description"]
        assert ok(http.get("/search"))["numberMatched"] == 24, "what is open stays good"


@pytest.mark.service
def test_the_server_may_start_before_the_database(
    catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:

    need_postgres()
    folder = Path(tempfile.mkdtemp(prefix="tessera-late-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            dsn = dsn_of(env, new_database(env, template=None))
            load(catalog, dsn, migrate=True)
            port = env["PGPORT"]
        with pgstac_client(dsn, None, refresh_seconds=0.1) as http:
            refused = http.get("/search")
            assert refused.status_code == 503
            assert "database cannot be reached" in refused.json()["description"]
            assert ok(http.get("/_mgmt/health"))["status"] == "DOWN"
            with running(folder / "pg", port=int(port)):
                eventually(http, "/_mgmt/ready", lambda a: a.status_code == 200)
                assert len(ids_of(ok(http.get("/search?limit=100")))) == 24
                assert ok(http.get("/_mgmt/health"))["status"] == "UP"
            health = ok(http.get("/_mgmt/health"))
            assert health["status"] == "DOWN"
            assert "database cannot be reached" in health["reason"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_load_beside_a_running_server(
    postgres: Mapping[str, str], database: str, catalog: Path, tmp_path: Path
) -> None:
    """New tiles are found, removed ones are gone, and everything made from the tiles follows."""
    dsn = dsn_of(postgres, database)
    load(catalog, dsn)
    with pgstac_client(dsn, catalog, refresh_seconds=0.1) as http:
        first = ok(http.get("/collections/tessera-v1"))
        walks = {
            by: link_of(ok(http.get(f"/search?limit=1&sortby={by}")), "next")
            for by in ("id", "-tessera:coverage")
        }
        assert http.get("/source/v1/2024/grid_0.05_52.05/grid_0.05_52.05_f32.vrt").status_code == 404
        write_manifest(tmp_path / "m", 2024, patch(0, 52, 2, 2))
        write_manifest(tmp_path / "m", 2022, patch(0, 52, 1, 1))
        build_from(catalog, tmp_path / "m")
        done = load(catalog, dsn)
        # all that were there have another list of years
        assert (done.loaded, done.removed) == (17, 11)
        eventually(http, "/search?limit=1", lambda a: a.json()["numberMatched"] == 17)
        # A position in an order that the load may have changed is none in the new one.
        refused, going_on = (http.get((walks[by] or {})["href"]) for by in ("-tessera:coverage", "id"))
        assert (refused.status_code, going_on.status_code) == (400, 200)
        assert "has been rebuilt" in refused.json()["description"]
        years = eventually(http, "/aggregate?aggregations=year_frequency", lambda a: a.status_code == 200)
        buckets = years.json()["aggregations"][0]["buckets"]
        assert {b["key"]: b["frequency"] for b in buckets} == {2022: 1, 2023: 12, 2024: 4}
        assert http.get("/source/v1/2024/grid_0.05_52.05/grid_0.05_52.05_f32.vrt").status_code == 200
        at = ok(http.get("/coverage/at?collection=tessera-v1&lon=0.31&lat=52.21"))
        assert [i["year"] for i in at["items"]] == [2023]
        assert ok(http.get("/collections/tessera-v1"))["extent"] != first["extent"]


def test_the_place_of_a_token_is_gone(postgres: Mapping[str, str], database: str, catalog: Path) -> None:
    dsn = dsn_of(postgres, database)
    load(catalog, dsn)
    with pgstac_client(dsn, None) as http:
        page = ok(http.get("/search?limit=3"))
        following = link_of(page, "next")
        assert following is not None
        psql(postgres, f"DELETE FROM pgstac.items WHERE id = '{page['features'][-1]['id']}'", database)
        refused = http.get(following["href"])
        assert refused.status_code == 400
        assert "start again without a token" in refused.json()["description"]
        forged = http.get("/search?limit=3&token=next:zzzz")
        assert forged.status_code == 400


@pytest.fixture
def with_others(postgres: Mapping[str, str], database: str, catalog: Path) -> Iterator[httpx.Client]:
    """Serve our tiles beside a collection that others keep in the same database."""
    dsn = dsn_of(postgres, database)
    load(catalog, dsn)
    db = PgstacDB(dsn=dsn)
    loader = Loader(db)
    other = {
        "type": "Collection", "stac_version": "1.1.0", "id": "photos", "description": "Air photos",
        "title": "Air photos", "license": "CC0-1.0", "links": [],
        "extent": {"spatial": {"bbox": [[0, 52, 1, 53]]}, "temporal": {"interval": [[None, None]]}},
    }  # fmt: skip
    loader.load_collections(iter([other]), Methods.upsert)
    loader.load_items(iter([_photo(i) for i in range(5)]), Methods.upsert)
    db.disconnect()
    db.close()
    with pgstac_client(dsn, None, refresh_seconds=0.1) as http:
        yield http


def _photo(i: int) -> dict[str, Any]:
    ring = [[0.1, 52.1], [0.2, 52.1], [0.2, 52.2], [0.1, 52.2], [0.1, 52.1]]
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": f"photo-{i}", "collection": "photos",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [0.1, 52.1, 0.2, 52.2],
        "properties": {"datetime": None, "start_datetime": f"202{i}-03-01T00:00:00Z",
                       "end_datetime": f"202{i}-04-01T00:00:00Z"},
        "assets": {"image": {"href": f"https://photos.example.org/{i}.tif", "type": "image/tiff"}},
        "links": [{"rel": "license", "href": "https://photos.example.org/licence"}],
    }  # fmt: skip


def test_items_of_other_kinds(with_others: httpx.Client) -> None:
    http = with_others
    assert [c["id"] for c in ok(http.get("/collections"))["collections"]] == ["photos", "tessera-v1"]
    photos = ok(http.get("/collections/photos/items?limit=10"))
    assert ids_of(photos) == [f"photo-{i}" for i in range(5)]
    assert photos["numberMatched"] == 5
    item = ok(http.get("/collections/photos/items/photo-3"))
    assert item == photos["features"][3]
    assert item["properties"]["datetime"] is None, "a null is not lost"
    links = {one["rel"]: one["href"] for one in item["links"]}
    assert links["collection"] == f"{str(http.base_url).rstrip('/')}/collections/photos"
    assert links["license"] == "https://photos.example.org/licence"
    both = ok(http.get("/search?bbox=0.11,52.11,0.12,52.12&limit=50"))
    assert {f["collection"] for f in both["features"]} == {"photos", "tessera-v1"}
    pages = walk(http, ok(http.get("/search?limit=4&sortby=-collection")))
    assert len({i for page in pages for i in page}) == sum(map(len, pages)) == 29
    # A filter on the tiles' years says nothing of items that have none.
    assert (
        ok(http.get("/search", params={"filter": "id LIKE 'photo%' AND NOT (tessera:year = 1)"}))["features"]
        == []
    )
    assert len(ids_of(ok(http.get("/search", params={"filter": "id LIKE 'photo%' AND gsd IS NULL"})))) == 5
    assert http.get("/collections/photos/browse/2022").status_code == 404
    assert http.get("/collections/photos/items/photo-9").status_code == 404
    assert ok(http.get("/search?collections=photos&fields=id"))["features"][0] == {"id": "photo-0"}
    counted = ok(http.get("/aggregate?aggregations=collection_frequency"))["aggregations"][0]["buckets"]
    assert {b["key"]: b["frequency"] for b in counted} == {"photos": 5, "tessera-v1": 24}


def test_searches_do_not_write(postgres: Mapping[str, str], database: str, catalog: Path) -> None:
    """They would fail on a replica, and wait for each other."""
    dsn = dsn_of(postgres, database)
    load(catalog, dsn)
    with pgstac_client(dsn, None) as http:
        for i in range(3):
            ok(http.get(f"/search?bbox=0,52,0.{i + 1},53"))
        sql = "SELECT (SELECT count(*) FROM pgstac.searches), (SELECT count(*) FROM pgstac.search_wheres)"
        assert psql(postgres, sql, database) == "0|0"


def test_addresses_are_the_services_own(postgres: Mapping[str, str], database: str, catalog: Path) -> None:
    dsn = dsn_of(postgres, database)
    load(catalog, dsn)
    stored = psql(postgres, "SELECT string_agg(content::text, '') FROM pgstac.items", database)
    assert EXPORTED_AT in stored
    with pgstac_client(dsn, catalog) as http:
        for path in ("/search?limit=50", "/collections", "/collections/tessera-v1/items", "/"):
            answer = http.get(path, headers={"x-forwarded-host": "a.example", "x-forwarded-proto": "https"})
            assert EXPORTED_AT not in answer.text
            assert "https://a.example/" in answer.text
        view = ok(http.get("/search?limit=2&view=bands&bands=3"))["features"][0]
        assert view["assets"]["b003"]["href"].startswith(f"{str(http.base_url).rstrip('/')}/source/v1/2022/")
        assert json.dumps(view).count("EPSG") == 1


def test_mirrors_are_those_of_the_index(postgres: Mapping[str, str], database: str, tmp_path: Path) -> None:
    made = converted()
    build_from(
        tmp_path / "catalog",
        made.root / "source",
        dataset="synthetic",
        source_root="https://a.example/src",
        ledgers=(str(made.catalog / "cogs" / "ledger"),),
        mirrors=parse_mirrors(["lab=https://lab.example/cogs/", "s3=s3://other/cogs"], "--mirror"),
        source_mirrors=parse_mirrors(["home=https://home.example/npy"], "--source-mirror"),
    )
    dsn = dsn_of(postgres, database)
    load(tmp_path / "catalog", dsn)

    def answers(server: Server) -> list[Any]:
        texts = [
            httpx.get(f"{server.url}{path}", timeout=30).raise_for_status().text.replace(server.url, "")
            for path in (
                f"/collections/{COLLECTION}",
                f"/collections/{COLLECTION}/items?limit=100",
                f"/search?limit=100&view=bands&bands=0,1&collections={COLLECTION}",
            )
        ]
        return [json.loads(text) for text in texts]

    with serve(create_app(tmp_path / "catalog", Settings())) as server:
        over_index = answers(server)
    with serve_pgstac_backend(dsn, tmp_path / "catalog") as server:
        over_database = answers(server)
    assert "https://lab.example/cogs" in json.dumps(over_index[1])
    for ours, theirs in zip(over_index, over_database, strict=True):
        assert theirs == ours
