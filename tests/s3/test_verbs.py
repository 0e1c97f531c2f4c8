"""The verbs on a catalogue in S3: convert into it, export, get, preview, and one clear line if S3 fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import rasterio
from typer.testing import CliRunner

from catalog_builder import storage
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.open import open_index
from catalog_builder.cli.main import app
from catalog_builder.convert.encode import cog
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import RunReport, run
from catalog_builder.convert.tile import profiles
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.item.addresses import parse_mirrors
from catalog_builder.publish.export import export
from catalog_builder.publish.static_place import MARK
from catalog_builder.tile.datasets import dataset
from tests.convert.test_redo import earlier_default, forget_encoding
from tests.convert.test_redo_statistics import forget_statistics
from tests.convert.test_redo_views import earlier_view, forget_view
from tests.s3.converted import built
from tests.support.catalogs import api_items, build_from, patch, write_manifest
from tests.support.converted import FIRST, NEIGHBOUR, converted
from tests.support.pixels import tile_values
from tests.support.s3_store import Store, s3_store, times

BOX = "15.61,78.21,15.79,78.29"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    with s3_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESSERA_STAC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield store, built(store)


def _verb(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json", "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_verb_takes_the_address(home: tuple[Store, str], tmp_path: Path) -> None:
    _, address = home
    (found,) = json.loads(CliRunner().invoke(app, ["info", address, "--json"]).stdout)
    assert found["data"] == f"{address}/cogs/synthetic"
    assert _verb("coverage", address)["n_tiles"] == 2
    assert _verb("validate", address, "--workers", "1")["sound"]
    picture = tmp_path / "p.png"
    assert _verb("preview", address, "--region", BOX, "--out", str(picture))["tiles"] == 2
    assert picture.stat().st_size > 1000
    _verb("get", address, "--bbox", BOX, "--year", "2024", "--tiles", "--out", str(tmp_path / "got"))
    for tile in (FIRST, NEIGHBOUR):
        (path,) = (tmp_path / "got").rglob(f"*{tile.name}*2024*.tif")
        with rasterio.open(path) as ds:
            got = ds.read()
            expected = tile_values(converted(), tile, 2024)
            west, north = ds.transform.c, ds.transform.f
        raster = tile.raster().transform
        row, col = round((raster.f - north) / 10), round((west - raster.c) / 10)
        part = expected[:, row : row + got.shape[1], col : col + got.shape[2]]
        inside = ~np.isnan(got[0])
        assert inside.any()
        np.testing.assert_array_equal(got[:, inside], part[:, inside])


def test_arrays_of_a_private_bucket_are_read_by_range(home: tuple[Store, str], tmp_path: Path) -> None:
    store, address = home
    store.log.clear()
    _verb("get", address, "--bbox", "15.62,78.22,15.63,78.23", "--year", "2022", "--out", str(tmp_path))
    ranged = [a for a in store.log if ".npy" in a.path and a.method == "GET"]
    assert ranged
    assert all("range" in a.headers and "authorization" in a.headers for a in ranged)


# ------------------------------------------------------------------------------------------ export


def test_exports_to_a_bucket(store: Store, tmp_path: Path) -> None:
    tiles = patch(0, 52, 3, 2)
    build_from(tmp_path / "cat", write_manifest(tmp_path / "m", 2024, tiles), url="http://x")
    index = open_index(tmp_path / "cat")
    parts = extracts(index)
    items = api_items(index, "http://x")
    export("ndjson", parts, f"{store.root}/items.ndjson.gz", max_items=100)
    with storage.local_copy(f"{store.root}/items.ndjson.gz") as path:
        import gzip

        lines = gzip.decompress(path.read_bytes()).splitlines()
    assert {orjson.loads(line)["id"]: orjson.loads(line) for line in lines} == items
    export("geoparquet", parts, f"{store.root}/geo", max_items=100)
    with storage.local_copy(f"{store.root}/geo/tessera-v1/year=2024/items.parquet") as path:
        assert set(pq.ParquetFile(path).read(["id"])["id"].to_pylist()) == set(items)


def test_a_static_tree_in_a_bucket_is_that_of_a_folder(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/tree"
    build_from(tmp_path / "cat", write_manifest(tmp_path / "m", 2024, patch(0, 52, 3, 2)), url="http://x")
    parts = extracts(open_index(tmp_path / "cat"))
    export("static", parts, str(tmp_path / "tree"), max_items=100)
    export("static", parts, out, max_items=100)
    local = {
        p.relative_to(tmp_path / "tree").as_posix(): p.read_bytes()
        for p in (tmp_path / "tree").rglob("*")
        if p.is_file()
    }
    there = {
        k.removeprefix("tree/"): store.client.get_object(Bucket=store.bucket, Key=k)["Body"].read()
        for k in store.stored("tree/")
    }
    assert there == local
    order = [a.path for a in store.log if a.method == "PUT"]
    assert order[0].endswith(MARK)
    assert order[-1].endswith("/tree/catalog.json")
    store.log.clear()
    export("static", parts, out, max_items=100)
    assert store.count("PUT") == 0, "what says the same already is not put again"
    build_from(tmp_path / "cat", write_manifest(tmp_path / "n", 2024, patch(0, 52, 1, 1)), url="http://x")
    fewer = extracts(open_index(tmp_path / "cat"))
    # stopped before its documents: every link leads to a file, and the next one completes it
    store.fault = lambda a: "503" if a.method == "PUT" and a.path.endswith("N/catalog.json") else None
    with pytest.raises(StorageError, match=r"N/catalog.json: HTTP 503 SlowDown"):
        export("static", fewer, out, max_items=100)
    assert store.stored("tree/") == {f"tree/{name}" for name in local}
    store.fault = lambda _: None
    export("static", fewer, out, max_items=100)
    assert sum("grid_" in key for key in store.stored("tree/")) == 1
    store.client.put_object(Bucket=store.bucket, Key="other/a.txt", Body=b"not ours")
    with pytest.raises(StorageError, match="other: exists, and is not a static tree"):
        export("static", parts, f"{store.root}/other", max_items=100)


# ----------------------------------------------------------------------------------------- convert


def _convert(out: str, redo: Any = None, **options: Any) -> RunReport:
    found = plan([str(converted().embeddings)], Wanted(dataset=dataset("synthetic"), years=frozenset({2023})))
    return run(found, ConvertOptions(out, **options), ExecutorWorkers(Inline(), 1), redo=redo)


@pytest.mark.parametrize("what", ["503", "500", "reset", "cut", "lost"])
def test_a_conversion_goes_on_after_passing_failures(store: Store, what: str) -> None:
    faults = {m: times(2, what, lambda a, m=m: a.method == m) for m in ("GET", "PUT", "HEAD")}
    store.fault = lambda asked: faults.get(asked.method, lambda _: None)(asked)
    report = _convert(f"{store.root}/cogs")
    assert (report.converted, report.failed) == (1, ())
    store.fault = lambda _: None
    (row,) = latest(read_rows(f"{store.root}/cogs/ledger")).values()
    for file in row.files.values():
        assert storage.size(f"{store.root}/cogs/{file.path}") == file.size


def test_a_conversion_that_cannot_write_says_so_and_is_completed(store: Store) -> None:
    out = f"{store.root}/cogs"
    store.fault = lambda a: "503" if a.method == "PUT" and "scales.tif" in a.path else None
    report = _convert(out)
    (failed,) = report.failed
    assert "_scales.tif: HTTP 503 SlowDown" in failed.reason
    assert "(after 4 attempts)" in failed.reason
    assert "\n" not in failed.reason
    assert not [k for k in store.stored() if "scales.tif" in k or ".vrt" in k], "no file names a missing one"
    store.fault = lambda _: None
    store.log.clear()
    again = _convert(out)
    assert (again.converted, again.failed) == (1, ())
    assert _convert(out).skipped == 1


def test_what_is_done_is_not_forgotten_because_a_ledger_cannot_be_read(store: Store) -> None:
    out = f"{store.root}/cogs"
    assert _convert(out).converted == 1
    store.fault = lambda a: "503" if a.method == "GET" and "ledger" in a.path else None
    with pytest.raises(StorageError, match=r"ledger: HTTP 503 SlowDown"):
        _convert(out)


def test_a_ledger_that_cannot_be_put_is_kept_here(store: Store) -> None:
    out = f"{store.root}/cogs"
    store.fault = lambda a: "503" if a.method == "PUT" and ".jsonl" in a.path else None
    with pytest.raises(StorageError, match=r"HTTP 503 SlowDown: .* its rows are kept in ") as error:
        _convert(out)
    kept = Path(str(error.value).rpartition(" kept in ")[2].partition(":")[0])
    (row,) = latest(read_rows(kept)).values()
    shutil.rmtree(kept.parent)
    assert row.ok
    store.fault = lambda _: None
    assert _convert(out).converted == 1, "the same files are put again, which is no conflict"


def test_other_bytes_in_an_immutable_place_are_left_alone(store: Store) -> None:
    out = f"{store.root}/cogs"
    assert _convert(out).converted == 1
    (key,) = (k for k in store.stored() if k.endswith("_embeddings.tif"))
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"somebody else's")
    for ledger in list(store.stored("cogs/ledger")):
        store.client.delete_object(Bucket=store.bucket, Key=ledger)
    (failed,) = _convert(out).failed
    assert "already exists, with different bytes; nothing was overwritten" in failed.reason
    assert storage.read_bytes(f"{store.root}/{key}") == b"somebody else's"


def test_a_store_without_conditions_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ignores_conditions = True
    with pytest.raises(StorageError, match="TESSERA_S3_CONDITIONAL=NO"):
        _convert(f"{store.root}/cogs")
    monkeypatch.setenv("TESSERA_S3_CONDITIONAL", "NO")
    assert _convert(f"{store.root}/cogs").converted == 1


@pytest.mark.parametrize("is_misread", [True, False])
def test_predictors_that_no_ledger_says_are_read_by_range(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_misread: bool
) -> None:
    """An earlier version's results, with options that were not its defaults: the headers say it."""
    out = f"{store.root}/cogs"
    with monkeypatch.context() as patched:
        if is_misread:
            patched.setattr(cog, "default_predictor", earlier_default)
        assert _convert(out, block_size=256).converted == 1
    (ledger,) = store.stored("cogs/ledger/")
    text = store.client.get_object(Bucket=store.bucket, Key=ledger)["Body"].read()
    store.client.put_object(Bucket=store.bucket, Key=ledger, Body=forget_encoding(text))
    store.log.clear()
    report = _convert(out, redo="predictor", block_size=256)
    assert (report.converted, report.skipped) == (int(is_misread), int(not is_misread)), report.failed
    read = [a.headers["range"] for a in store.log if a.method == "GET" and "_embeddings.tif" in a.path]
    assert read == ["bytes=0-65535"]


def test_views_are_renewed_inside_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes and scales get their second names by copies there; no pixel travels."""
    out = f"{store.root}/cogs"
    with monkeypatch.context() as patched:
        patched.setattr(profiles, "cog_f32_vrt", earlier_view)
        assert _convert(out).converted == 1
    (ledger,) = store.stored("cogs/ledger/")
    text = store.client.get_object(Bucket=store.bucket, Key=ledger)["Body"].read()
    store.client.put_object(Bucket=store.bucket, Key=ledger, Body=forget_view(text))
    before = set(store.stored("cogs/synthetic"))
    store.log.clear()
    report = _convert(out, redo="view")
    assert (report.renewed, report.converted, report.failed) == (1, 0, ())
    assert not [a for a in store.log if a.method == "GET" and ".tif" in a.path]
    (row,) = latest(read_rows(f"{out}/ledger")).values()
    assert before < set(store.stored("cogs/synthetic"))
    assert len(store.stored("cogs/synthetic")) == len(before) + 5  # codes, scales and the three documents
    for file in row.files.values():
        head = storage.s3.objects.head(f"{out}/{file.path}")
        assert head is not None
        assert (head.size, head.sha256) == (file.size, file.sha256)
    key = f"cogs/{row.files['embeddings'].path}"
    said = store.client.head_object(Bucket=store.bucket, Key=key)
    assert said["ContentType"] == "image/tiff; application=geotiff; profile=cloud-optimized"
    assert "immutable" in said["CacheControl"]
    assert _convert(out, redo="view").skipped == 1


def test_statistics_are_read_from_the_store_and_nothing_is_written_there(store: Store) -> None:
    out = f"{store.root}/cogs"
    assert _convert(out).converted == 1
    (wanted,) = latest(read_rows(f"{out}/ledger")).values()
    (ledger,) = store.stored("cogs/ledger/")
    text = store.client.get_object(Bucket=store.bucket, Key=ledger)["Body"].read()
    store.client.put_object(Bucket=store.bucket, Key=ledger, Body=forget_statistics(text))
    assert _convert(out).without_statistics == 1
    store.log.clear()
    report = _convert(out, redo="statistics")
    assert (report.described, report.converted, report.failed) == (1, 0, ())
    assert not [a for a in store.log if a.method in ("PUT", "POST") and "/synthetic/" in a.path]
    (row,) = latest(read_rows(f"{out}/ledger")).values()
    assert (row.code_range, row.files) == (wanted.code_range, wanted.files)
    assert _convert(out, redo="statistics").skipped == 1


def test_a_catalogue_is_converted_into_its_own_cogs(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    made = converted()
    options = BuildOptions(dataset("synthetic"), source_root=str(made.embeddings))
    build([str(made.root / "source")], out, options)
    done = _verb("convert", out, "--years", "2023", "--workers", "1", "--no-visual")
    assert done["converted"] == 1
    build([str(made.root / "source")], out, options)
    items = api_items(open_index(out), "http://x")
    item = items[f"{FIRST.name}_2023"]
    assert item["properties"]["tessera:cog"]
    href = item["assets"]["embeddings"]["href"]
    assert href.startswith(f"{out}/cogs/synthetic/2023/")
    assert storage.size(href) == item["assets"]["embeddings"]["file:size"]
    assert not items[f"{FIRST.name}_2024"]["properties"]["tessera:cog"]


# ----------------------------------------------------------------------------------------- mirrors


def test_mirrors_are_in_every_output(store: Store, tmp_path: Path) -> None:
    made = converted()
    options = BuildOptions(
        dataset("synthetic"),
        url="http://x",
        source_root="https://a.example/src",
        ledgers=(str(made.catalog / "cogs" / "ledger"),),
        mirrors=parse_mirrors(["lab=https://lab.example/cogs/", "s3=s3://other/cogs"], "--mirror"),
        source_mirrors=parse_mirrors(["home=https://home.example/npy"], "--source-mirror"),
    )
    build([str(made.root / "source")], tmp_path / "cat", options)
    index = open_index(tmp_path / "cat")
    items = api_items(index, "http://x")
    item = items[f"{FIRST.name}_2024"]
    for key, asset in item["assets"].items():
        name = asset["href"].rpartition("/")[2]
        places = {k: v["href"] for k, v in asset.get("alternate", {}).items()}
        at = f"2024/{FIRST.name}/{name}"
        if key.startswith("source"):
            assert places == {"home": f"https://home.example/npy/{at}"}
        elif key in ("landmask",):
            assert not places
        else:
            assert places == {"lab": f"https://lab.example/cogs/{at}", "s3": f"s3://other/cogs/{at}"}
    raw = items[f"{FIRST.name}_2022"]
    assert "alternate" not in raw["assets"]["embeddings_f32"], "it is a view that this server makes"
    parts = extracts(index)
    export("static", parts, str(tmp_path / "tree"), max_items=100)
    (path,) = (tmp_path / "tree").rglob(f"{FIRST.name}_2024.json")
    assert json.loads(path.read_bytes())["assets"] == item["assets"]
    table = pq.ParquetFile(tmp_path / "cat/tessera-synthetic/items/year=2024/items.parquet").read()
    (row,) = (r for r in table.to_pylist() if r["id"] == item["id"])
    for key, asset in item["assets"].items():
        # a column of Parquet holds what any row has: null stands for a place that this asset does not have
        places = {k: v for k, v in (row["assets"][key].get("alternate") or {}).items() if v is not None}
        assert places == asset.get("alternate", {})


@pytest.mark.parametrize("text", ["https://x", "lab", "lab=", "=https://x", "lab=/srv/x", "a=ftp://x"])
def test_mirrors_of_another_form(text: str) -> None:
    with pytest.raises(QueryError, match="--mirror: expected NAME=URL"):
        parse_mirrors([text], "--mirror")


def test_two_mirrors_of_one_name() -> None:
    with pytest.raises(QueryError, match="two mirrors have the name 'a'"):
        parse_mirrors(["a=https://x", "a=https://y"], "--mirror")
