"""The wheel alone, away from the checkout: verbs and pages that need no extra work, the others say which."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio

from catalog_builder.cli.main import app
from tests.deploy.processes import serving
from tests.support.environments import uv
from tests.support.ports import free_port
from tests.support.wheel import ROOT, Installed, installed_wheel

pytestmark = pytest.mark.xdist_group("wheel")  # one environment

TILE, YEAR = "grid_0.05_84.95", 2024  # small, as tiles far north are, and still on web maps
ITEM = f"{TILE}_{YEAR}"
BBOX = "0,84.9,0.1,85"
COLLECTION = "tessera-synthetic"
VERBS = sorted(command.callback.__name__ for command in app.registered_commands if command.callback)
EXTRAS = {"dask": "dask", "pgstac": "pypgstac", "formats": "xarray", "tiles": "titiler", "zarr": "icechunk"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return installed_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def folder(wheel: Installed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with synthetic tiles in ``src``, their catalogue in ``cat``, and their COGs in it."""
    home = tmp_path_factory.mktemp("user")
    for arguments in (
        ("sample", "src", "--tile", ITEM),
        ("build", "src", "--out", "cat", "--dataset", "synthetic"),
        ("convert", "cat", "--fit-visual", "--verify"),
        ("build", "src", "--out", "cat", "--dataset", "synthetic"),
    ):
        done = wheel.run(home, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    return home


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tessera_stac_is_imported_and_reads_without_an_extra(wheel: Installed, folder: Path) -> None:
    code = f"""import tessera_stac as t
catalog = t.open_catalog("cat")
print(catalog.collections[0].id, *t.points(catalog, ([0.05], [84.95]), years=[{YEAR}])["status"].to_pylist())
t.vectors(catalog, "x")"""
    done = subprocess.run(
        [wheel.python, "-c", code], cwd=folder, env=wheel.environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == [COLLECTION, "valid"], done.stderr
    assert "xarray is not installed" in done.stderr
    assert "pip install" in done.stderr


def test_an_editable_installation_has_tessera_stac_too(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (editable,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"])
    with zipfile.ZipFile(editable) as archive:
        assert {"tessera_stac/__init__.py", "tessera_stac/py.typed"} <= set(archive.namelist())


def test_the_environment_is_empty(wheel: Installed, tmp_path: Path) -> None:
    uv("pip", "check", "--python", wheel.python)
    code = (
        "import importlib.util as u, catalog_builder, api; print(catalog_builder.__file__, api.__file__);"
        f"print([m for m in {list(EXTRAS.values())} if u.find_spec(m)])"
    )
    said = subprocess.run(
        [wheel.python, "-c", code], cwd=tmp_path, env=wheel.environment(), capture_output=True, text=True
    )
    places, extras = said.stdout.splitlines()
    assert all(place.startswith(str(wheel.home)) for place in places.split())
    assert extras == "[]", "the extras are not there"


def test_everything_but_code_is_in_the_wheel(wheel: Installed) -> None:
    """Web pages, scripts, pictures and the real manifests of the demonstration."""
    listed = subprocess.run(
        ["git", "ls-files", "catalog_builder", "api"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = set(listed.stdout.split())
    with zipfile.ZipFile(wheel.wheel) as archive:
        assert tracked - set(archive.namelist()) == set()
    assert sum(not name.endswith(".py") for name in tracked) > 8


@pytest.mark.parametrize("verb", VERBS)
def test_help(wheel: Installed, tmp_path: Path, verb: str) -> None:
    done = wheel.run(tmp_path, verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"tessera-stac {verb}" in done.stdout


def test_version_and_public_names(wheel: Installed, tmp_path: Path) -> None:
    assert wheel.run(tmp_path, "--version").stdout.startswith("tessera-stac ")
    code = (
        "from catalog_builder.get import get, Options, sample_points;"
        "from catalog_builder.get.region_file import region_of; from api.app import create_app;"
        "from catalog_builder.synthetic.demo import MANIFESTS; print(len(list(MANIFESTS.iterdir())))"
    )
    said = subprocess.run(
        [wheel.python, "-c", code], cwd=tmp_path, env=wheel.environment(), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert int(said.stdout) > 1, "the manifests of the demonstration"
    settings = subprocess.run(
        [wheel.python, "-m", "api.settings"],
        cwd=tmp_path,
        env=wheel.environment(),
        capture_output=True,
        text=True,
    )
    assert "TESSERA_STAC_CATALOG" in settings.stdout


def test_looking(wheel: Installed, folder: Path) -> None:
    (about,) = _json(wheel.run(folder, "info", "cat", "--json"))
    assert (about["collection"], about["years"]) == (COLLECTION, [YEAR])
    for file in ("map.png", "map.html"):
        assert _json(wheel.run(folder, "coverage", "cat", "--out", file, "--json"))["n_tiles"] == 1
        assert (folder / file).stat().st_size > 1000
    done = wheel.run(folder, "validate", "cat")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("to", ["ndjson", "geoparquet", "static"])
def test_export(wheel: Installed, folder: Path, to: str) -> None:
    out = folder / {"ndjson": "items.ndjson", "geoparquet": "items.parquet", "static": "tree"}[to]
    done = wheel.run(folder, "export", "cat", "--out", out, "--to", to, "--url", "https://stac.example.org")
    assert done.returncode == 0, done.stderr
    assert out.exists()


def test_get_and_preview(wheel: Installed, folder: Path) -> None:
    for kind in ("geotiff", "cog", "npy"):
        done = wheel.run(folder, "get", "cat", "--bbox", BBOX, "--out", kind, "--format", kind, "--json")
        assert _json(done)["failed"] == {}
        assert list((folder / kind).iterdir())
    (cog,) = (folder / "cog").glob("*.tif")
    (geotiff,) = (folder / "geotiff").glob("*.tif")
    with rasterio.open(cog) as a, rasterio.open(geotiff) as b:
        np.testing.assert_array_equal(a.read(), b.read())
    for file in ("preview.png", "preview.tif", "preview.html"):
        done = wheel.run(folder, "preview", "cat", "--region", BBOX, "--out", file)
        assert done.returncode == 0, done.stderr
        assert (folder / file).stat().st_size > 500


def _install(wheel: Installed, done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the command that an error names would install, without versions."""
    (line,) = [line for line in (done.stderr + done.stdout).splitlines() if " -m pip install " in line]
    python, *command = shlex.split(line[line.index(str(wheel.python)) :])
    assert [python, *command[:3]] == [str(wheel.python), "-m", "pip", "install"]
    return [re.split("[<>=~!]", requirement)[0] for requirement in command[3:]]


def test_what_needs_an_extra_says_so(wheel: Installed, folder: Path) -> None:
    database = "postgresql://nobody@127.0.0.1:1/none"
    for arguments, package in (
        (("get", "cat", "--bbox", BBOX, "--out", "nc", "--format", "netcdf"), "h5netcdf"),
        (("get", "cat", "--bbox", BBOX, "--out", "zr", "--format", "zarr"), "xarray"),
        (("convert", "cat", "--dask", "local"), "dask[distributed]"),
        (
            ("export", "cat", "--pgstac", "--dsn", database, "--url", "https://stac.example.org"),
            "pypgstac[psycopg]",
        ),
        (("sample", "store", "--container", "icechunk"), "icechunk"),
    ):
        done = wheel.run(folder, *arguments)
        assert done.returncode in (1, 2), (arguments, done.stdout)
        assert package in _install(wheel, done), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    code = (
        "from catalog_builder.stores import open\n"
        "try: open.open_store('x.icechunk')\n"
        "except open.StoreError as error: print(error)"
    )
    (folder / "x.icechunk").mkdir()
    reading = subprocess.run([wheel.python, "-c", code], capture_output=True, text=True, cwd=folder)
    assert "icechunk" in _install(wheel, reading)
    done = wheel.run(folder, "serve", "cat", TESSERA_STAC_BACKEND="pgstac")
    assert done.returncode == 1
    assert "stac-fastapi-pgstac" in _install(wheel, done)
    assert "Traceback" not in done.stderr


def test_serve(wheel: Installed, folder: Path) -> None:
    port = free_port()
    command = [wheel.program, "serve", folder / "cat", "--port", port]
    with serving(command, port, PYTHONPATH="") as running, httpx.Client(base_url=running.url) as http:
        item = f"/collections/{COLLECTION}/items/{ITEM}"
        lane = f"/source/synthetic/{YEAR}/{TILE}"
        for path, expected in {
            "/": "application/json",
            "/conformance": "application/json",
            "/api": "application/vnd.oai.openapi+json;version=3.0",
            "/api.html": "text/html",
            "/collections": "application/json",
            f"/collections/{COLLECTION}": "application/json",
            f"/collections/{COLLECTION}/queryables": "application/schema+json",
            item: "application/geo+json",
            f"/search?bbox={BBOX}": "application/geo+json",
            "/search?filter=tessera:year=2024": "application/geo+json",
            "/aggregate": "application/json",
            "/coverage": "text/html",
            f"/coverage/tiles/{COLLECTION}/0/0/0.png": "image/png",
            "/coverage/at?lon=0.05&lat=84.95": "application/json",
            "/browser/": "text/html",
            "/data/catalog.json": "application/json",
            f"{lane}/{TILE}.vrt": "image/x.vrt",
            f"{lane}/{TILE}.npy": "application/x-npy",
            "/_mgmt/ping": "application/json",
            "/_mgmt/health": "application/json",
            "/_mgmt/metrics": "text/plain",
        }.items():
            answer = http.get(path, headers={"range": "bytes=0-99"} if path.endswith(".npy") else {})
            assert answer.status_code in (200, 206), (path, answer.text[:300])
            assert answer.headers["content-type"].startswith(expected), path
        found = http.get(item).json()
        href = found["assets"]["embeddings"]["href"]
        with rasterio.open(f"/vsicurl/{href}") as cog:
            assert cog.count == 128
        refused = http.get(f"{item}/preview.png")
        assert refused.status_code == 404
        assert "without the extra 'tiles'" in refused.json()["description"]
        done = wheel.run(folder, "get", f"{running.url}/", "--bbox", BBOX, "--out", "api", "--json")
        assert _json(done)["failed"] == {}
