"""``docs/datasets.md``: its blocks run as they stand, on the sample; its table is that of the datasets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_builder.tile.datasets import DATASETS
from tests.conftest import SUPPORT, plain_environment
from tests.support.environments import environment
from tests.support.ports import free_port
from tests.support.snippets import run_python, snippets
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
BLOCKS = snippets(PAGE)
PROGRAM = f"{sys.executable} -m catalog_builder.cli"


def test_its_table_is_that_of_the_datasets() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `v")]
    assert rows == [
        f"| `{d.directory}` | {d.version}, {d.variant} |{' yes' * bool(d.npy)} |{' yes' * bool(d.zarr)} |"
        f"{' yes' * bool(d.icechunk)} | `{d.collection_id}` |"
        for d in DATASETS
        if not d.is_synthetic
    ]


@pytest.mark.service
@pytest.mark.slow
def test_its_blocks_run(tmp_path: Path) -> None:
    assert set(BLOCKS) == {"build", "read", "xpystac", "convert"}
    port = free_port()
    here = f"http://localhost:{port}"
    *build, serve = BLOCKS["build"][1].replace("http://localhost:8000", here).strip().rsplit("\n", 1)
    shell(build[0], tmp_path)
    log = (tmp_path / "serve.log").open("w")
    command = [*PROGRAM.split(), *serve.split()[1:], "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, env=plain_environment(), stdout=log, stderr=log) as server:
        try:
            until(lambda: "serving" in (tmp_path / "serve.log").read_text())
            printed = run_python(BLOCKS["read"][1].replace("http://localhost:8000", here), tmp_path)
            item, shape, difference = re.fullmatch(r"(\S+) (\(.*\)) (\S+)\n", printed).groups()  # type: ignore[union-attr]
            assert (item, shape, float(difference)) == ("grid_17.95_83.95_2024", "(128, 100, 60)", 0.0)
            script = tmp_path / "opened.py"
            script.write_text(BLOCKS["xpystac"][1].replace("http://localhost:8000", here))
            done = subprocess.run(
                [environment(SUPPORT / "xpystac.lock"), script],
                env=plain_environment(), capture_output=True, text=True,
            )  # fmt: skip
            assert done.stdout == "True ['embeddings', 'scales']\n", done.stderr
            shell(BLOCKS["convert"][1], tmp_path)
            assert list((tmp_path / "catalog" / "cogs").rglob("grid_17.95_83.95_2024_*_embeddings.tif"))
        finally:
            server.terminate()
            server.wait(20)


def shell(text: str, folder: Path) -> None:
    text = re.sub(r"^tessera-stac", PROGRAM, text, flags=re.MULTILINE)
    done = subprocess.run(
        ["sh", "-ec", text], cwd=folder, env=plain_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
