"""Every export says of every item what the API says, and chooses the same items."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
import stac_geoparquet.arrow
import zstandard
from typer.testing import CliRunner

from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.cli.main import app
from catalog_builder.errors import DatasetError, QueryError, StorageError
from catalog_builder.publish.geoparquet_export import write_geoparquet
from catalog_builder.publish.ndjson import write_ndjson
from catalog_builder.publish.static import MAX_LINKS, write_static
from catalog_builder.tile.regions.region import region_of
from tests.support.catalogs import api_items, build_from, patch, write_manifest

URL = "https://stac.example.org"
YEARS = (2022, 2024)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two collections, with tiles on both sides of the equator, of zones 30 and 31, and of 180."""
    home = tmp_path_factory.mktemp("publish")
    tiles = [*patch(-1, -1, 20, 20), *patch(179, 51, 10, 2), *patch(-180, 51, 3, 2)]
    for year in YEARS:
        write_manifest(home / "m", year, tiles if year == 2024 else tiles[::3])
    build_from(home / "c", home / "m", url=URL)
    write_manifest(home / "other", 2025, patch(5, 5, 3, 3))
    build_from(home / "c", home / "other", url=URL, dataset="v2-2B-L~beta1")
    return home / "c"


@pytest.fixture(scope="module")
def index(catalog: Path) -> Index:
    return CatalogFolder(catalog).open_index()


@pytest.fixture(scope="module")
def items(index: Index) -> dict[str, dict[str, Any]]:
    return api_items(index, URL)


def _lines(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_ndjson_is_what_the_api_says(
    index: Index, items: dict[str, dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"items.ndjson{suffix}"
    assert write_ndjson(str(out), extracts(index)) == len(items)
    data = out.read_bytes()
    if suffix == ".gz":
        data = gzip.decompress(data)
    elif suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    found = _lines(data)
    assert found == list(items.values()), "the same items, in the same order"
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("bbox", ["-0.55,-0.3,0.2,0.4", "179.5,51,-179.8,51.1", "0,0,0,0"])
@pytest.mark.parametrize("years", [None, [2024], [2022, 2024, 2030]])
def test_years_and_region(
    index: Index, items: dict[str, dict[str, Any]], tmp_path: Path, bbox: str, years: list[int] | None
) -> None:
    shape = region_of(bbox)
    chosen = [
        i
        for i in items.values()
        if shapely.intersects(shapely.geometry.shape(i["geometry"]), shape)
        and (years is None or i["properties"]["tessera:year"] in years)
    ]
    assert chosen
    parts = extracts(index, years=years, region=shape)
    assert sum(p.count() for p in parts) == len(chosen)
    write_ndjson(str(tmp_path / "x"), parts)
    assert _lines((tmp_path / "x").read_bytes()) == chosen


def test_collections(index: Index) -> None:
    for name in ("v2-2B-L~beta1", "tessera-v2-2B-L~beta1"):
        (part,) = extracts(index, collections=[name])
        assert part.id == "tessera-v2-2B-L~beta1"
        assert part.count() == 9
    with pytest.raises(DatasetError, match=r"no collection tessera-v1\.1-cam"):
        extracts(index, collections=["v1.1-cam"])


def test_nothing_chosen(index: Index) -> None:
    with pytest.raises(QueryError, match="tessera-v1 has 2022, 2024"):
        extracts(index, years=[1999])
    with pytest.raises(QueryError, match="no item matches these years"):
        extracts(index, region=region_of("100,0,101,1"))


def test_an_address_is_needed(tmp_path: Path) -> None:
    build_from(tmp_path / "c", write_manifest(tmp_path, 2024, patch(0, 0, 1, 1)))
    index = CatalogFolder(tmp_path / "c").open_index()
    with pytest.raises(QueryError, match="--url"):
        extracts(index)
    (part,) = extracts(index, url="http://host/")
    assert orjson.loads(part.texts(next(part.pages()))[0])["links"][1]["href"] == "http://host/"


def test_failed_ndjson_leaves_what_was_there(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "items.ndjson"
    out.write_text("before")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_ndjson(str(out), extracts(index), stop)
    assert out.read_text() == "before"
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(StorageError, match="cannot be written"):
        write_ndjson(str(out / "below"), extracts(index))


def test_geoparquet(index: Index, items: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert write_geoparquet(tmp_path, extracts(index)) == len(items)
    found = {}
    for path in tmp_path.rglob("*.parquet"):
        for item in stac_geoparquet.arrow.stac_table_to_items(pq.read_table(path)):
            assert path.parent.name == f"year={item['properties']['tessera:year']}"
            found[item["id"], item["collection"]] = item
    assert found.keys() == {(i["id"], i["collection"]) for i in items.values()}
    for item in items.values():
        same = found[item["id"], item["collection"]]
        assert same["bbox"] == pytest.approx(item["bbox"])
        for name in ("links", "collection", "stac_version"):
            assert same[name] == item[name]
        for key, asset in item["assets"].items():
            assert {k: v for k, v in same["assets"][key].items() if v is not None} == asset


def _tree(out: Path) -> dict[str, dict[str, Any]]:
    """Walk a static tree by its links; return its items by path, after checking every link."""
    items = {}
    waiting = [(out / "catalog.json", None)]
    while waiting:
        path, parent = waiting.pop()
        document = orjson.loads(path.read_bytes())
        links = document["links"]
        assert len(links) <= MAX_LINKS
        by = {x["rel"]: x["href"] for x in links if x["rel"] in ("root", "parent", "collection")}
        assert (path.parent / by["root"]).resolve() == (out / "catalog.json").resolve()
        if parent is not None:
            assert (path.parent / by["parent"]).resolve() == parent.resolve()
        waiting += [(path.parent / x["href"], path) for x in links if x["rel"] in ("child", "item")]
        if document["type"] == "Feature":
            collection = orjson.loads((path.parent / by["collection"]).read_bytes())
            assert collection["id"] == document["collection"]
            items[str(path)] = document
    return items


def test_static_tree_holds_the_same_items(
    index: Index, items: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "tree"
    assert write_static(out, extracts(index)) == len(items)
    found = {(i["id"], i["collection"]): i for i in _tree(out).values()}
    assert found.keys() == {(i["id"], i["collection"]) for i in items.values()}
    for item in items.values():
        same = found[item["id"], item["collection"]]
        assert {k: v for k, v in same.items() if k != "links"} == {
            k: v for k, v in item.items() if k != "links"
        }


def test_pystac_reads_the_static_tree(index: Index, items: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "tree"
    write_static(out, extracts(index))
    catalog = pystac.Catalog.from_file(str(out / "catalog.json"))
    assert {c.id for c in catalog.get_collections()} == set(index.collections)
    found = list(catalog.get_items(recursive=True))
    assert sorted(i.id for i in found) == sorted(i["id"] for i in items.values())
    for item in found[:20]:
        collection = item.get_collection()
        assert collection is not None
        assert collection.id == item.collection_id
        assert item.get_root() is catalog
    assert [f.name for f in out.rglob("*.partial*")] == []


def test_static_tree_is_brought_up_to_date(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "tree"
    write_static(out, extracts(index))
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.json")}
    write_static(out, extracts(index))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.json")} == times, "nothing is written twice"
    write_static(out, extracts(index, years=[2024], region=region_of("0,0,1,1")))
    left = _tree(out)
    assert {i["properties"]["tessera:year"] for i in left.values()} == {2024}
    assert {str(p) for p in out.rglob("grid_*.json")} == set(left), "what is no longer linked is gone"


def test_static_tree_refuses(index: Index, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"as many small files.*--region"):
        write_static(tmp_path / "tree", extracts(index), max_items=10)
    assert not (tmp_path / "tree").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(StorageError, match="not a static tree"):
        write_static(tmp_path / "mine", extracts(index))


def test_command_line(catalog: Path, items: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = CliRunner()
    base = ["export", str(catalog), "--quiet", "--json"]
    for to, out in (("ndjson", "a.ndjson"), ("static", "b"), ("geoparquet", "c")):
        done = run.invoke(app, [*base, "--to", to, "--out", str(tmp_path / out)])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["items"] == len(items)
    done = run.invoke(app, [*base, "--to", "ndjson", "--out", "-", "--bbox", "0.01,0.01,0.02,0.02"])
    assert [i["id"] for i in _lines(done.stdout_bytes)] == ["grid_0.05_0.05_2022", "grid_0.05_0.05_2024"]
    for arguments, reason in (
        (["--to", "shapefile", "--out", "x"], "expected one of ndjson"),
        (["--to", "static"], "give the output for static"),
        (["--to", "pgstac", "--out", "x"], "--dsn"),
        (["--to", "pgstac", "--method", "x"], "expected one of upsert"),
    ):
        failed = run.invoke(app, [*base, *arguments])
        assert isinstance(failed.exception, QueryError)
        assert reason in str(failed.exception)
