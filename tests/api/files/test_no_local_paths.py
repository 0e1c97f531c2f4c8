"""No response names a path of the machine that serves: not a file, an item, a page, nor an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route

from api.app import create_app
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.tile.datasets import dataset
from tests.support.converted import COLLECTION, CONVERTED, FIRST, RAW_YEAR, converted
from tests.support.http_server import serve

pytestmark = pytest.mark.service
HOME = "operators-home"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the catalogue and its sources into a folder whose name would be noticed."""
    home = tmp_path_factory.mktemp(HOME)
    for name in ("catalog", "source"):
        copy = os.link if name == "source" else shutil.copy2
        shutil.copytree(converted().root / name, home / name, symlinks=True, copy_function=copy)
    source = home / "source"
    options = BuildOptions(
        dataset("synthetic"),
        source_root=str(source / converted().embeddings.name),
        landmask_root=str(source / "global_0.1_degree_tiff_all"),
    )
    build([str(source)], home / "catalog", options)
    return home


@pytest.fixture(scope="module")
def http(home: Path) -> Iterator[httpx.Client]:
    app = create_app(home / "catalog")
    with serve(app) as server, httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def paths(home: Path) -> Iterator[str]:
    """Everything that is served: routes, files, views of each tile-year, and names that are none."""
    app = create_app(home / "catalog")
    inside = [getattr(r, "original_router", r) for r in app.routes]
    flat = [x for r in inside for x in (getattr(r, "routes", None) or [r])]
    for year in (2024, RAW_YEAR):
        names = {
            "collection_id": COLLECTION, "item_id": f"{FIRST.name}_{year}", "year": str(year),
            "area": "15,78,1", "path": "config.js", "z": "12", "x": "2226", "y": "348",
        }  # fmt: skip
        yield from (
            r.path.replace(":path", "").format(**names)
            for r in flat
            if isinstance(r, Route) and "GET" in (r.methods or ())
        )
    catalog = home / "catalog"
    files = [p.relative_to(catalog).as_posix() for p in catalog.rglob("*") if p.is_file()]
    yield from (f"/data/{f}" for f in files)
    yield from (f"/data/{f}/x" for f in files[:5])
    for tile, year in (*CONVERTED, (FIRST, RAW_YEAR)):
        folder = f"/source/synthetic/{year}/{tile.name}"
        yield from (folder, f"{folder}/")
        yield from (
            f"{folder}/{tile.name}{end}"
            for end in ("_f32.vrt", ".vrt", "_u8.vrt", "_scales.vrt", "_b005.vrt", ".xml", ".xml.aux.xml",
                        "_scales.xml", "_planes.xml", "_planes.bin", ".npy", "_scales.npy", ".tiff",
                        "_f32.tif")
        )  # fmt: skip
    yield from ("/search?limit=100", "/search?view=bands&limit=100", "/data/a\\b", "/data/" + "x" * 5000)


def leaks(http: httpx.Client, of: Iterable[str]) -> list[tuple[str, int, str]]:
    """Return responses that name the operator's paths, in their first 2 MB or their headers."""
    found = []
    for path in of:
        answer = http.get(path, headers={"range": "bytes=0-2000000"})
        said = f"{answer.headers}".encode() + answer.content
        if HOME.encode() in said or b"tessera-converted-" in said or b"/tmp/" in said:
            at = max(said.find(HOME.encode()), said.find(b"/tmp/"))
            found.append((path, answer.status_code, said[max(at - 100, 0) : at + 100].decode("latin-1")))
    return found


def test_of_a_sound_catalogue(http: httpx.Client, home: Path) -> None:
    assert leaks(http, paths(home)) == []


def test_what_is_only_the_operators_is_not_served(http: httpx.Client, home: Path) -> None:
    """The index and the ledger, however they are asked for."""
    (ledger,) = (home / "catalog" / "cogs" / "ledger").iterdir()
    for path in (
        "index.sqlite", "index.sqlite-wal", "index.sqlite/", "cogs/ledger", "cogs/ledger/",
        f"cogs/ledger/{ledger.name}", f"cogs//ledger/{ledger.name}", f"cogs/./ledger/{ledger.name}",
        f"./cogs/ledger/{ledger.name}", f"cogs/%6cedger/{ledger.name}", "%69ndex.sqlite", "cogs%2fledger",
        f"tessera-synthetic/../cogs/ledger/{ledger.name}", "cogs/../index.sqlite", ".current/index.sqlite",
    ):  # fmt: skip
        for method in ("GET", "HEAD"):
            assert http.request(method, f"/data/{path}").status_code == 404, path


def test_of_a_broken_one(http: httpx.Client, home: Path) -> None:
    """Sources and COGs that are damaged, gone or not readable."""
    asked = list(paths(home))
    source = home / "source" / converted().embeddings.name
    for number, file in enumerate(
        sorted([*source.rglob("*.npy"), *(home / "catalog" / "cogs").rglob("*.*")])
    ):
        if not file.is_file() or "ledger" in file.parts:
            continue
        file.unlink()  # a second name of the file that other tests read
        if number % 3 == 1:
            file.write_bytes(b"damaged" * 100)
        elif number % 3 == 2:
            file.mkdir()
    index = (home / "catalog" / "index.sqlite").resolve()
    assert leaks(http, asked) == []
    with index.open("r+b") as opened:
        opened.seek(8192)
        opened.write(b"x" * 100_000)
    os.utime(index)
    assert leaks(http, asked) == []
