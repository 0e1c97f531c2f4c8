"""Every example runs, on synthetic tiles, and says that they are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import rasterio

from api.app import create_app
from tests.conftest import plain_environment
from tests.support.converted import COLLECTION, converted
from tests.support.http_server import Server, serve
from tests.support.snippets import STRICT

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKFLOWS = ("point_time_series", "classify", "similarity", "change")
SCRIPTS = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem != "make_notebooks")
BBOX = "15.6,78.2,15.8,78.3"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(create_app(converted().catalog)) as running:
        yield running


@pytest.mark.parametrize("name", SCRIPTS)
def test_runs(server: Server, tmp_path: Path, name: str) -> None:
    more = {"TESSERA_API": f"{server.url}/", "TESSERA_BBOX": BBOX, "TESSERA_COLLECTION": COLLECTION}
    done = subprocess.run(
        [sys.executable, *STRICT, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env=plain_environment(**more, TESSERA_OUT=str(tmp_path / "out")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout or "Synthetic" in done.stdout
    for path in (tmp_path / "out").glob("*.tif"):
        with rasterio.open(path) as src:
            tags = src.tags()
        assert "SYNTHETIC" in tags.get("TITLE", "") or tags.get("TESSERA_SYNTHETIC") == "YES", path
    if name in ("classify", "similarity", "change"):
        assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_notebooks_are_made_from_the_scripts(name: str) -> None:
    """If this fails: ``python examples/make_notebooks.py``."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        from make_notebooks import WORKFLOWS as MADE  # type: ignore[import-not-found]
        from make_notebooks import notebook
    finally:
        sys.path.pop(0)
    assert MADE == WORKFLOWS
    wanted = notebook((EXAMPLES / f"{name}.py").read_text())
    found = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(found)
    assert found == wanted
    cells = [c.source for c in found.cells if c.cell_type == "code"]
    for source in cells:
        compile(source, name, "exec")


def test_a_notebooks_cells_run_in_their_order(server: Server, tmp_path: Path) -> None:
    """Their text is that of the scripts, which all run above; one is run cell by cell."""
    found = nbformat.read(EXAMPLES / "similarity.ipynb", as_version=4)
    cells = [c.source for c in found.cells if c.cell_type == "code"]
    runner = (
        "import json, sys\nscope = {'__name__': '__main__'}\nfor c in json.load(sys.stdin): exec(c, scope)"
    )
    more = {"TESSERA_API": f"{server.url}/", "TESSERA_BBOX": BBOX, "TESSERA_COLLECTION": COLLECTION}
    done = subprocess.run(
        [sys.executable, *STRICT, "-c", runner],
        input=json.dumps(cells),
        cwd=tmp_path,
        env=plain_environment(**more, TESSERA_OUT=str(tmp_path / "out")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*.png"))
