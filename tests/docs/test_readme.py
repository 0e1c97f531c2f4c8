"""The README's Python runs as it stands, against a server on a catalogue like the demo's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from catalog_builder.synthetic.demo import prepare
from catalog_builder.tile.grid import TileId
from tests.convert.test_requests import RECOMMENDED
from tests.support.http_server import serve
from tests.support.snippets import STRICT

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(
    r"^\*\*([^*\n]+)\*\*\n\n```python\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve the demonstration's real collection and two of its synthetic tiles."""
    folder = tmp_path_factory.mktemp("demo")
    tiles = [(TileId.from_name(f"grid_{lon}_52.15"), 2024) for lon in ("0.05", "0.15")]
    catalog = prepare(folder, "http://127.0.0.1:8000", quiet=True, tile_years=tiles)
    with serve(create_app(catalog)) as server:
        yield server.url, catalog


def test_the_readme_has_snippets() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[t for t, _ in BLOCKS])
def test_snippet(title: str, code: str, demo: tuple[str, Path]) -> None:
    url, catalog = demo
    code = code.replace("http://127.0.0.1:8000", url).replace(".run/catalog", str(catalog))
    done = subprocess.run([sys.executable, *STRICT, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{title}\n{done.stderr}"
    assert done.stdout.strip(), "a snippet shows something"


def test_settings_are_the_same_everywhere() -> None:
    """The README's list is what is measured; other places repeat values of it."""
    lines = [line for line in README.read_text().splitlines() if line.startswith("export GDAL_")]
    said = dict(pair.split("=") for line in lines for pair in line.split()[1:])
    assert said == RECOMMENDED
    root = README.parent
    others = [*root.glob("docs/*.md"), *root.glob("examples/*.py"), root / "deploy" / "compose.yaml"]
    repeated = [
        (path.name, name, value)
        for path in others
        for name in ("GDAL_INGESTED_BYTES_AT_OPEN", "GDAL_HTTP_MAX_TOTAL_CONNECTIONS")
        for value in re.findall(name + r"\W+(\d+)", path.read_text())
    ]
    assert len(repeated) >= 6
    assert [found for found in repeated if found[2] != RECOMMENDED[found[1]]] == []
