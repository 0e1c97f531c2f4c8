"""A damaged index: never served when that can be seen, never a 500, found by validate, mended by a build."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.build.validate import validate_catalog
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.catalog.index.schema import SCHEMA_VERSION
from catalog_builder.errors import CatalogError
from tests.faults.forks import ROUNDS
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.forked import tessera_stac
from tests.support.http_server import serve
from tests.support.paging import ok

PAGE = 8192
SEARCHES = (
    "/search?limit=500",
    "/search?limit=5&sortby=-id",
    "/collections/tessera-v1/items/grid_3.15_52.35_2024",
    "/search?filter=id%20LIKE%20'%25_52%25'",
    "/aggregate",
    "/collections/tessera-v1",
    "/source/v1/2024/grid_0.15_52.05/",
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    build_from(folder / "catalog", write_manifest(folder / "manifests", 2024, patch(0, 52, 40, 20)))
    return folder


@pytest.fixture
def catalog(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good / "catalog", tmp_path / "catalog", symlinks=True)
    return tmp_path / "catalog"


def _command(*args: object) -> subprocess.CompletedProcess[str]:
    return tessera_stac(*args, seconds=60)


def _write(index: Path, at: int, data: bytes) -> None:
    with index.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _flip(index: Path, rng: random.Random) -> None:
    at = rng.randrange(index.stat().st_size)
    byte = index.read_bytes()[at]
    _write(index, at, bytes([byte ^ 1 << rng.randrange(8)]))


def _replaced(index: Path, make: Callable[[Path], object]) -> None:
    index.unlink()
    make(index)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-PAGE]),
    "cut within a page": lambda p: p.write_bytes(p.read_bytes()[: PAGE * 2 + 100]),
    "a page of zeros": lambda p: _write(p, PAGE * (p.stat().st_size // PAGE // 2), bytes(PAGE)),
    "wrong magic": lambda p: _write(p, 0, b"not SQLite"),
    "one bit": lambda p: _flip(p, random.Random(1)),
    "empty": lambda p: p.write_bytes(b""),
    "another database": lambda p: _replaced(p, lambda q: sqlite3.connect(q).execute("CREATE TABLE x(y)")),
    "a folder": lambda p: _replaced(p, Path.mkdir),
    "a loop": lambda p: _replaced(p, lambda q: q.symlink_to(q.name)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_serve_says_so_at_the_start_and_a_build_mends_it(good: Path, catalog: Path, damage: str) -> None:
    index = (catalog / "index.sqlite").resolve()
    DAMAGE[damage](index)
    with pytest.raises(CatalogError, match=r"index\.sqlite"):
        create_app(catalog)
    if damage in ("one bit", "a folder"):  # the others say it in the same way, and processes are slow
        done = _command("serve", catalog, "--port", "1")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert re.match(r"error: .*index\.sqlite.*(damaged|not a file|not a tessera-stac index)", done.stderr)
        done = _command("validate", catalog)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
    report = build_from(catalog, good / "manifests")
    assert report.published
    assert any("rewritten" in note for note in report.problems.notes) or damage in ("a loop", "a folder")
    assert validate_catalog(catalog).sound
    assert not build_from(catalog, good / "manifests").published


@pytest.mark.parametrize("how", ["--update", "another collection"])
def test_a_build_that_must_keep_damaged_rows_refuses(good: Path, catalog: Path, how: str) -> None:
    index = (catalog / "index.sqlite").resolve()
    before = [p.name for p in (catalog / ".versions").iterdir()]
    _flip(index, random.Random(2))
    options = {"update": True} if how == "--update" else {"dataset": "v1.1-cam"}
    with pytest.raises(CatalogError, match=r"damaged.*cannot be kept"):
        build_from(catalog, good / "manifests", **options)
    assert [p.name for p in (catalog / ".versions").iterdir()] == before


def test_validate_finds_every_flipped_bit(catalog: Path) -> None:
    index = (catalog / "index.sqlite").resolve()
    whole, rng = index.read_bytes(), random.Random(3)
    for _ in range(ROUNDS):
        _flip(index, rng)
        with contextlib.suppress(CatalogError):  # it may not even open
            assert not validate_catalog(catalog).sound
        index.write_bytes(whole)
    assert validate_catalog(catalog).sound


def test_a_damaged_build_is_not_put_in_force(good: Path, catalog: Path) -> None:
    """It was good when it was built, and damaged before the server looked: the old one stays."""
    with serve(create_app(catalog, Settings(refresh_seconds=0))) as server:
        http = httpx.Client(base_url=server.url)
        expected = ok(http.get("/search?limit=3"))
        broken = catalog.with_name("broken")
        shutil.copytree(catalog, broken, symlinks=True)
        build_from(broken, write_manifest(good / "more", 2024, patch(0, 52, 41, 20)))
        index = (broken / "index.sqlite").resolve()
        _write(index, PAGE * 5, bytes(100))
        # as a copy from another machine arrives
        shutil.copytree(broken / ".versions" / "2", catalog / ".versions" / "2")
        (catalog / ".new").symlink_to(".versions/2")
        (catalog / ".new").replace(catalog / ".current")
        for _ in range(20):
            assert ok(http.get("/search?limit=3")) == expected
        health = ok(http.get("/_mgmt/health"))
        assert (health["status"], health["items"]) == ("UP", 800)
        assert "damaged" in health["refused"]
        assert "tessera_build_refused 1" in http.get("/_mgmt/metrics").text
        assert http.get("/_mgmt/ready").status_code == 200
        # a good build after it is taken
        (catalog / ".versions" / "2" / "index.sqlite").unlink()
        build_from(catalog, good / "more")
        assert ok(http.get("/search?limit=3"))["numberMatched"] == 820
        assert "refused" not in ok(http.get("/_mgmt/health"))


def test_damage_under_a_running_server_is_503_and_told(good: Path, tmp_path: Path) -> None:
    """Bits flip, or a page is lost, in a file that is open: an answer is 200, or 503 with the reason."""
    rng, told = random.Random(4), 0
    for n in range(ROUNDS + 2):
        catalog = tmp_path / str(n)
        shutil.copytree(good / "catalog", catalog, symlinks=True)
        app = create_app(catalog, Settings(refresh_seconds=1000))
        index = (catalog / "index.sqlite").resolve()
        if n % 2:
            _write(index, PAGE * rng.randrange(2, index.stat().st_size // PAGE), rng.randbytes(PAGE))
        else:
            for _ in range(200):
                _flip(index, rng)
        with serve(app) as server, httpx.Client(base_url=server.url) as http:
            answers = [http.get(path) for path in SEARCHES]
            assert {a.status_code for a in answers} <= {200, 404, 503}, [a.text[:200] for a in answers]
            bad = [a.json()["description"] for a in answers if a.status_code == 503]
            assert all("index.sqlite" in reason and str(catalog) not in reason for reason in bad)
            if bad:
                told += 1
                assert http.get("/_mgmt/ready").status_code == 503
                health = ok(http.get("/_mgmt/health"))
                assert health["status"] == "DOWN"
                assert "damaged" in health["damage"]
                assert "tessera_index_damaged 1" in http.get("/_mgmt/metrics").text
    assert told >= 2


def _set_schema(catalog: Path, version: int) -> Path:
    index = (catalog / "index.sqlite").resolve()
    with sqlite3.connect(index) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(version),))
    db.close()
    return index


@pytest.mark.parametrize("verb", ["serve", "info", "export", "validate", "build", "coverage"])
def test_a_catalogue_of_a_newer_version_is_refused_and_kept(good: Path, catalog: Path, verb: str) -> None:
    index = _set_schema(catalog, SCHEMA_VERSION + 1)
    before = index.read_bytes()
    arguments: dict[str, list[object]] = {
        "serve": [catalog, "--port", "1"],
        "export": [catalog, "--to", "ndjson", "--out", "-"],
        "build": [good / "manifests", "--out", catalog],
    }
    done = _command(verb, *arguments.get(verb, [catalog]))
    assert done.returncode == 1
    said = f"index schema {SCHEMA_VERSION + 1}, this program reads {SCHEMA_VERSION}; it was made by a newer"
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert "upgrade this one" in done.stderr
    assert index.read_bytes() == before
    assert CatalogFolder(catalog).index_path.resolve() == index


def test_a_catalogue_of_an_older_version_says_what_to_do(good: Path, catalog: Path) -> None:
    _set_schema(catalog, SCHEMA_VERSION - 1)
    with pytest.raises(CatalogError, match=r"older tessera-stac: run 'tessera-stac build' again"):
        create_app(catalog)
    report = build_from(catalog, good / "manifests")
    assert report.published
    assert validate_catalog(catalog).sound
