"""Every block of docs/clients.md runs as it stands, but for the URL, on the demonstration.

Elsewhere the same blocks run on small tiles, and what they read is compared with the files
(``tests/clients``, ``tests/vectors``); here the reader's own box, years and collection are meant.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from catalog_builder.synthetic.demo import prepare
from catalog_builder.synthetic.sample import DEFAULT_SET
from tests.conftest import plain_environment
from tests.support.http_server import serve
from tests.support.snippets import run_python, snippets

BLOCKS = snippets()

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the demonstration's tile that has several years, of which the newest is converted."""
    several = DEFAULT_SET[-1][0].name
    tile_years = [(tile, year) for tile, year in DEFAULT_SET if tile.name == several]
    assert len(tile_years) > 1, "some are to be unconverted"
    folder = tmp_path_factory.mktemp("demo")
    catalog = prepare(folder, "http://localhost:8000", quiet=True, tile_years=tile_years)
    with serve(create_app(catalog)) as server:
        yield server.url


def test_all_blocks_are_found() -> None:
    assert {"pystac-client", "stackstac", "odc-stac-int8", "odc-stac-float32", "rasterio", "stacit", "get",
            "sample-points"} <= set(BLOCKS)  # fmt: skip


@pytest.mark.service
@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str, url: str, tmp_path: Path) -> None:
    language, text = BLOCKS[name]
    assert "http://localhost:8000" in text
    text = text.replace("http://localhost:8000", url)
    if language == "python":
        if name.startswith("odc-stac"):  # lazy until it is asked for
            text += "\nassert embeddings.sizes['band'] == 3 and embeddings.notnull().any().compute().item()\n"
        if name == "sample-points":
            text += "\nassert samples.values.shape == (2, 2, 128) and samples.values.any()\n"
        run_python(text, tmp_path)
        return
    for line in text.strip().splitlines():
        program, *arguments = shlex.split(line)
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            cwd=tmp_path,
            env=plain_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
