"""``docs/zarr.md`` and the README's block of a zone: they run as they stand, with xarray and xpystac."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from catalog_builder.synthetic.demo import prepare
from catalog_builder.tile.grid import TileId
from tests.conftest import SUPPORT, plain_environment
from tests.support.catalogs import build_from
from tests.support.environments import environment
from tests.support.http_server import serve
from tests.support.sample_stores import SampleStores
from tests.support.snippets import snippets

ROOT = Path(__file__).parents[2]
BLOCKS = snippets(ROOT / "docs" / "zarr.md")
pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def url(sample_stores: SampleStores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    catalog = tmp_path_factory.mktemp("page") / "catalog"
    build_from(catalog, sample_stores.npy.root, dataset="synthetic")
    with serve(create_app(catalog)) as server:
        yield server.url


def run(text: str, old: str, url: str, folder: Path) -> str:
    assert old in text
    script = folder / "snippet.py"
    script.write_text(text.replace(old, url))
    done = subprocess.run(
        [environment(SUPPORT / "xpystac.lock"), script],
        env=plain_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page(url: str, tmp_path: Path) -> None:
    assert set(BLOCKS) == {"xarray", "xpystac"}
    printed = {name: run(text, "http://localhost:8000", url, tmp_path) for name, (_, text) in BLOCKS.items()}
    assert printed["xarray"] == "(128, 100, 100) float32\n"
    raster = TileId.from_name("grid_17.95_83.95").raster()
    sizes = {"y": raster.height, "x": raster.width, "band": 128}
    names, _, found = printed["xpystac"].partition("] ")
    assert names == "['embeddings', 'scales'"
    assert {key: value for key, value in eval(found).items() if key in sizes} == sizes  # noqa: S307


def test_the_readme(tmp_path: Path) -> None:
    catalog = prepare(
        tmp_path,
        "http://127.0.0.1:8000",
        quiet=True,
        tile_years=[(TileId.from_name("grid_0.15_52.15"), 2024)],
    )
    text = snippets(ROOT / "README.md")["zone"][1]
    with serve(create_app(catalog)) as server:
        assert run(text, "http://127.0.0.1:8000", server.url, tmp_path) == "(128, 50, 50)\n"
        assert len(server.log) < 30
        assert {r.status for r in server.log} <= {200, 404}
