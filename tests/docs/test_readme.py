"""The README's Python runs as it stands, against a server on a catalogue like the demo's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from api.app import create_app
from catalog_builder.cli.main import app
from catalog_builder.errors import CatalogError
from catalog_builder.synthetic.demo import greeting, prepare
from catalog_builder.tile.grid import TileId
from tests.convert.test_requests import RECOMMENDED
from tests.support.http_server import serve
from tests.support.ports import free_port
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


def test_what_the_demo_prints_is_there_and_its_commands_run(demo: tuple[str, Path], tmp_path: Path) -> None:
    """From any folder, with the programs of the environment that it runs in, and no path but that."""
    url, _ = demo
    said = greeting(url)
    addresses = re.findall(rf"^  [A-Z][\w ]+ ({re.escape(url)}\S*)$", said, re.MULTILINE)
    assert f"{url}/coverage" in addresses
    for address in addresses:
        assert httpx.get(address, follow_redirects=True).status_code == 200, address
    commands = re.findall(r"^  \d\. .*\n     (.*)$", said, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip(), f"{command}: {done.stderr}"
        assert "grid_0.05_52.15" in done.stdout or "[" in done.stdout


@pytest.mark.parametrize(
    "page", ["search", "collections/tessera-v1", "collections", "api.html", "coverage?x=1"]
)
def test_a_page_of_the_api_is_told_from_the_api(demo: tuple[str, Path], tmp_path: Path, page: str) -> None:
    done = CliRunner().invoke(
        app, ["get", f"{demo[0]}/{page}", "--bbox", "0,52.1,0.2,52.3", "--out", str(tmp_path / "o")]
    )
    assert isinstance(done.exception, CatalogError)
    assert str(done.exception) == f"{demo[0]}/{page}: is a page of an API; give the API itself, {demo[0]}/"


def test_what_is_no_api_or_not_there_is_said_in_plain_words(demo: tuple[str, Path], tmp_path: Path) -> None:
    region = ["--bbox", "0,52.1,0.2,52.3", "--out", str(tmp_path / "o")]
    for url, why in (
        (f"http://127.0.0.1:{free_port()}/", "cannot be reached: Connection refused"),
        (f"{demo[0]}/data/tessera-v1/coverage.png", "does not respond as a STAC API"),
        (f"{demo[0]}/browser-of-nothing", "does not respond as a STAC API"),
    ):
        done = CliRunner().invoke(app, ["get", url, *region])
        assert isinstance(done.exception, CatalogError), done.exception
        assert str(done.exception).startswith(f"{url}: {why}")
        assert "urllib3" not in str(done.exception)
        assert "HTTPConnection" not in str(done.exception)


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
