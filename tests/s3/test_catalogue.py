"""A catalogue in S3: its names, what a rebuild uploads, who wins, and what a killed build leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as pads
import pyarrow.fs
import pyarrow.parquet as pq
import pystac
import pytest

from catalog_builder import storage
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.build.validate import validate_catalog
from catalog_builder.catalog.bucket import POINTER, BucketCatalog
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.catalog.open import is_catalog, open_index
from catalog_builder.errors import CatalogError, ConflictError, StorageError
from catalog_builder.tile.datasets import dataset
from tests.support.catalogs import api_items, build_from, patch, truncate, write_manifest
from tests.support.s3_store import Asked, Store, times

TILES = patch(0, 52, 3, 2)


def _build(out: str, *sources: Path | str, **options: object) -> Any:
    options.setdefault("allow_removals", True)
    return build([str(s) for s in sources], out, BuildOptions(dataset("v1"), **options))  # type: ignore[arg-type]


def _items(index: Index) -> int:
    return sum(index.count(Selection([r.ordinal])).n for r in index.collections.values())


def test_the_same_catalogue_as_in_a_folder(store: Store, tmp_path: Path) -> None:
    for year in (2023, 2024):
        write_manifest(tmp_path / "m", year, TILES)
    build_from(tmp_path / "local", tmp_path / "m", url="http://x")
    out = f"{store.root}/cat"
    assert not is_catalog(out)
    _build(out, tmp_path / "m", url="http://x")
    assert is_catalog(out)
    here, there = CatalogFolder(tmp_path / "local").open_index(), open_index(out)
    assert api_items(there, "http://x") == api_items(here, "http://x")
    names = {k.removeprefix("cat/") for k in store.stored("cat/") if "/." not in k}
    assert names == {
        "catalog.json",
        "tessera-v1/collection.json",
        "tessera-v1/coverage.png",
        "tessera-v1/items/year=2023/items.parquet",
        "tessera-v1/items/year=2024/items.parquet",
    }
    # readers of static files, from the names that stay
    catalog = pystac.Catalog.from_dict(json.loads(storage.read_bytes(f"{out}/catalog.json")))
    assert [link.href for link in catalog.get_child_links()] == ["./tessera-v1/collection.json"]
    report = validate_catalog(out)
    assert report.sound, report.findings
    files = pyarrow.fs.S3FileSystem(
        endpoint_override=store.url.removeprefix("http://"), scheme="http", region="eu-west-2"
    )
    rows = pads.dataset(f"{store.bucket}/cat/tessera-v1/items", filesystem=files, partitioning="hive")
    assert rows.count_rows() == _items(there) == 2 * len(TILES)
    with duckdb.connect() as db:
        db.register("items", rows)
        assert db.execute("SELECT count(*) FROM items WHERE year = 2024").fetchone() == (len(TILES),)


def test_a_rebuild_uploads_what_changed(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    for year in (2023, 2024):
        write_manifest(tmp_path / "m", year, TILES)
    _build(out, tmp_path / "m")
    before = store.stored()
    store.log.clear()
    assert not _build(out, tmp_path / "m").published
    assert store.count("PUT", "/cat/.files") == store.count("PUT", "/cat/tessera-v1") == 0
    assert store.stored() == before
    store.log.clear()
    write_manifest(tmp_path / "m", 2024, TILES, salt="other")
    report = _build(out, tmp_path / "m")
    assert report.changed == len(TILES)
    sent = [a.path for a in store.log if a.method == "PUT"]
    assert sum("items.parquet" in path and "/.files/" in path for path in sent) == 1
    assert [p for p in sent if p.startswith(f"/{store.bucket}/cat/tessera-v1/items")] == [
        f"/{store.bucket}/cat/tessera-v1/items/year%3D2024/items.parquet"
    ]
    # nothing names a file that is not there: the pointer after all files, then the names that stay
    pointed = next(i for i, p in enumerate(sent) if p.endswith(POINTER))
    assert all("/.files/" in path for path in sent[:pointed] if "probe" not in path)
    assert not any("/.files/" in path for path in sent[pointed:])
    # what no build of the last two names is removed
    write_manifest(tmp_path / "m", 2024, TILES, salt="third")
    _build(out, tmp_path / "m")
    write_manifest(tmp_path / "m", 2024, TILES, salt="fourth")
    _build(out, tmp_path / "m")
    assert sum(k.endswith("items.parquet") for k in store.stored("cat/.files")) == 3  # 2023, and two of 2024


def test_a_year_and_a_collection_that_go(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    for year in (2023, 2024):
        write_manifest(tmp_path / "m", year, TILES)
    _build(out, tmp_path / "m")
    _build(out, write_manifest(tmp_path / "other", 2024, TILES))
    assert not store.stored("cat/tessera-v1/items/year=2023")
    # another collection is kept, without its parquet files being fetched
    store.log.clear()
    cam = BuildOptions(dataset("v1.1-cam"), source_root="https://example.org/cam")
    build([str(tmp_path / "other")], out, cam)
    assert set(open_index(out).collections) == {"tessera-v1", "tessera-v1.1-cam"}
    assert store.count("GET", "items.parquet") == 0
    assert validate_catalog(out).sound


def test_a_truncated_manifest_changes_nothing(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    manifest = write_manifest(tmp_path / "m", 2024, TILES)
    _build(out, manifest)
    before = store.stored()
    truncate(manifest)
    with pytest.raises(CatalogError, match="unchanged"):
        _build(out, manifest)
    write_manifest(tmp_path / "m", 2024, TILES[:-1])
    with pytest.raises(CatalogError, match="--allow-removals"):
        _build(out, manifest, allow_removals=False)
    assert store.stored() == before


def test_two_builds_at_once_one_wins(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    for first in (True, False):  # of a new catalogue, and of one that is there
        winner = write_manifest(tmp_path / f"w{first}", 2024, TILES[: 2 if first else 4])
        loser = write_manifest(tmp_path / f"l{first}", 2024, TILES[:1])
        stolen = []

        def steal(asked: Asked, winner: Path = winner, stolen: list[int] = stolen) -> None:
            if not stolen and asked.method == "PUT" and asked.path.endswith(POINTER):
                stolen.append(1)
                _build(out, winner)

        store.fault = steal
        with pytest.raises(ConflictError, match=f"{out}: another build was published meanwhile"):
            _build(out, loser)
        store.fault = lambda _: None
        assert _items(open_index(out)) == (2 if first else 4)
        assert validate_catalog(out).sound


def test_a_store_that_ignores_conditions(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source = f"{store.root}/cat", write_manifest(tmp_path / "m", 2024, TILES)
    store.ignores_conditions = True
    with pytest.raises(StorageError, match="TESSERA_S3_CONDITIONAL=NO"):
        _build(out, source)
    assert store.stored() == {"cat/.tessera-probe"}
    monkeypatch.setenv("TESSERA_S3_CONDITIONAL", "NO")
    _build(out, source)
    assert validate_catalog(out).sound
    # looked at instead: other bytes in the place of an immutable file are left alone
    local = tmp_path / "a"
    local.write_bytes(b"one")
    storage.put_file(local, f"{out}/a", immutable=True)
    storage.put_file(local, f"{out}/a", immutable=True)
    local.write_bytes(b"two")
    with pytest.raises(ConflictError, match=f"{out}/a: already exists"):
        storage.put_file(local, f"{out}/a", immutable=True)
    assert storage.read_bytes(f"{out}/a") == b"one"


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from catalog_builder.storage.s3 import objects, put as s3_put
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.tile.datasets import dataset
left = [int(sys.argv[1])]
def dying(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if str(args[1:2]).endswith(".current.json',)"):
            print(int(sys.argv[1]) - left[0])
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
s3_put.put, s3_put.copy, objects.remove = dying(s3_put.put), dying(s3_put.copy), dying(objects.remove)
build([sys.argv[2]], sys.argv[3], BuildOptions(dataset("v1")))
"""


def test_killed_anywhere_it_is_whole_and_a_rerun_completes_it(store: Store, tmp_path: Path) -> None:
    write_manifest(tmp_path / "old", 2023, TILES[:3])
    for year in (2023, 2024):
        write_manifest(tmp_path / "new", year, TILES)

    def run(n: int, out: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(n), str(tmp_path / "new"), out]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    _build(f"{store.root}/probe", tmp_path / "old")
    probe = run(10_000, f"{store.root}/probe")
    swap = int(probe.stdout)
    assert swap > 5, probe.stderr
    seen = set()
    # just before the swap, and while files are copied to the names that stay
    for n in (swap, swap + 3):
        out = f"{store.root}/cat{n}"
        _build(out, tmp_path / "old")
        assert run(n, out).returncode == -9
        seen.add(_items(open_index(out)))
        document = json.loads(storage.read_bytes(f"{out}/catalog.json"))
        for link in document["links"]:
            assert storage.exists(storage.join(out, link["href"].removeprefix("./")))
        _build(out, tmp_path / "new")
        report = validate_catalog(out)
        assert report.sound, (n, report.findings)
        assert _items(open_index(out)) == 2 * len(TILES)
    assert seen == {3, 2 * len(TILES)}, "killed before and after the swap, and never in between"


def test_no_catalogue(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=f"{store.root}/cat: no catalogue .* make one with"):
        open_index(f"{store.root}/cat")
    with pytest.raises(CatalogError, match="expected a catalogue folder"):
        open_index("https://example.org/cat")
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/x/.current.json: HTTP 404 NoSuchBucket"):
        open_index("s3://no-such-bucket/x")
    store.client.put_object(Bucket=store.bucket, Key=f"bad/{POINTER}", Body=b'{"schema": 99}')
    with pytest.raises(CatalogError, match="schema 99, this version reads 1"):
        open_index(f"{store.root}/bad")
    store.client.put_object(Bucket=store.bucket, Key=f"bad/{POINTER}", Body=b"[]")
    with pytest.raises(CatalogError, match="not the pointer file of a catalogue"):
        open_index(f"{store.root}/bad")


def test_an_index_is_fetched_once_and_checked(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    _build(out, write_manifest(tmp_path / "m", 2024, TILES))
    store.log.clear()
    for _ in range(3):
        open_index(out)
    assert store.count("GET", "index.sqlite") == 1
    (index,) = (tmp_path / "cache").rglob("*.sqlite")
    index.unlink()
    key = BucketCatalog(out).pointer().files["index.sqlite"].key  # type: ignore[union-attr]
    store.client.put_object(Bucket=store.bucket, Key=f"cat/{key}", Body=b"not it")
    with pytest.raises(StorageError, match=r"SHA-256 is .*, expected"):
        open_index(out)
    assert not list((tmp_path / "cache").rglob("*.sqlite"))


@pytest.mark.parametrize("what", ["500", "503", "reset", "cut", "lost"])
def test_a_build_goes_on_after_passing_failures(store: Store, tmp_path: Path, what: str) -> None:
    out = f"{store.root}/cat"
    _build(out, write_manifest(tmp_path / "old", 2023, TILES))
    faults = {m: times(2, what, lambda a, m=m: a.method == m) for m in ("GET", "PUT", "HEAD")}
    store.fault = lambda asked: faults.get(asked.method, lambda _: None)(asked)
    _build(out, write_manifest(tmp_path / "new", 2024, TILES))
    store.fault = lambda _: None
    assert validate_catalog(out).sound
    assert open_index(out).collections["tessera-v1"].years == (2024,)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("503", r"HTTP 503 SlowDown: the store asks for fewer requests \(after 4 attempts\)"),
        ("500", r"HTTP 500 InternalError: .* \(after 4 attempts\)"),
        ("403", "HTTP 403 AccessDenied: access denied"),
        ("reset", "Connection"),
    ],
)
def test_a_build_says_why_it_cannot_publish(store: Store, tmp_path: Path, what: str, said: str) -> None:
    out = f"{store.root}/cat"
    _build(out, write_manifest(tmp_path / "old", 2023, TILES))
    store.fault = lambda a: what if a.method == "PUT" and "index.sqlite" in a.path else None
    with pytest.raises(StorageError, match=f"{out}/.files/.*/index.sqlite: .*{said}") as error:
        _build(out, write_manifest(tmp_path / "new", 2024, TILES))
    assert "\n" not in str(error.value)
    store.fault = lambda _: None
    assert open_index(out).collections["tessera-v1"].years == (2023,)
    assert validate_catalog(out).sound
    _build(out, tmp_path / "new")
    assert open_index(out).collections["tessera-v1"].years == (2024,)


def test_manifests_in_a_bucket(store: Store, tmp_path: Path) -> None:
    for year in (2023, 2024):
        path = write_manifest(tmp_path / "m", year, TILES)
        store.client.upload_file(str(path), store.bucket, f"manifests/{path.name}")
    _build(str(tmp_path / "folder"), f"{store.root}/manifests/")
    _build(f"{store.root}/cat", f"{store.root}/manifests/registry_2024.txt")
    assert _items(open_index(tmp_path / "folder")) == 2 * len(TILES)
    assert _items(open_index(f"{store.root}/cat")) == len(TILES)
    store.fault = lambda a: "403" if "registry" in a.path else None
    with pytest.raises(StorageError, match=r"registry_2024.txt: HTTP 403( AccessDenied)?: access denied"):
        _build(f"{store.root}/cat", f"{store.root}/manifests/registry_2024.txt")


def test_a_parquet_file_is_whole(store: Store, tmp_path: Path) -> None:
    out = f"{store.root}/cat"
    _build(out, write_manifest(tmp_path / "m", 2024, TILES))
    with storage.local_copy(f"{out}/tessera-v1/items/year=2024/items.parquet") as path:
        assert pq.ParquetFile(path).metadata.num_rows == len(TILES)
