"""rio-tiler reads the items of converted tiles, and takes nothing in them for damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from tests.conftest import plain_environment
from tests.support.converted import COLLECTION, FIRST, Converted
from tests.support.http_server import Server

_READ = """
import json, sys, warnings
from rio_tiler.io import STACReader
warnings.simplefilter("error", UserWarning)
with STACReader(sys.argv[1]) as item:
    info = item.info(assets=[sys.argv[2]])[sys.argv[2]]
    pixel = item.preview(assets=[sys.argv[2]], max_size=40)
    print(json.dumps([item.assets, info.count, info.dtype, int(pixel.mask.any())]))
"""


def read(server: Server, asset: str, folder: Path) -> subprocess.CompletedProcess[str]:
    item = f"{server.url}/collections/{COLLECTION}/items/{FIRST.name}_2024"
    return subprocess.run(
        [sys.executable, "-c", _READ, item, asset],
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("asset", "kind"), [("scales", (1, "float32")), ("visual", (3, "uint8"))])
def test_without_a_warning(
    server: Server, tiles: Converted, tmp_path: Path, asset: str, kind: tuple[int, str]
) -> None:
    done = read(server, asset, tmp_path)
    assert done.returncode == 0, done.stderr
    assets, count, dtype, some = json.loads(done.stdout)
    assert assets == ["embeddings", "scales", "visual", "landmask"]
    (path,) = (tiles.catalog / "cogs").rglob(f"{FIRST.name}_2024_*_{asset}.tif")
    with rasterio.open(path) as src:
        assert (count, dtype) == (src.count, src.dtypes[0]) == kind
    assert some == 1


def test_codes_have_no_statistics_and_it_says_so(server: Server, tmp_path: Path) -> None:
    """odc-stac needs the bands' names; statistics of codes are not kept, and would mean nothing."""
    done = read(server, "embeddings", tmp_path)
    assert "Some statistics data in STAC are invalid" in done.stderr
