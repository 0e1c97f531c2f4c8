"""Requests and bytes of the four access patterns over HTTP, counted at the server.

One tile of full size, because requests depend on the number of blocks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.tile.grid import TileId
from tests.conftest import plain_environment
from tests.convert.making import convert_one, sample, write_pair
from tests.support.http_server import Server, serve

TILE = TileId.from_name("grid_0.15_52.05")
READER = Path(__file__).with_name("http_reader.py")
RECOMMENDED = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no search for side-car files
    "GDAL_INGESTED_BYTES_AT_OPEN": "65536",  # what fewest bytes take, over tiles of all latitudes
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": "268435456",  # ranges are merged as long as they fit in it
}
"""What the README tells readers to set."""


@dataclass(frozen=True)
class Served:
    """A converted tile behind a server."""

    server: Server
    row: LedgerRow
    out: Path

    def cost(
        self, pattern: str, settings: dict[str, str], role: str = "embeddings"
    ) -> tuple[int, int, float]:
        """Return (HEADs, GETs, share of the file's bytes) of a pattern in a fresh process."""
        file = self.row.files[role]
        self.server.clear()
        command = [sys.executable, str(READER), pattern, f"{self.server.url}/{file.path}"]
        subprocess.run(command, check=True, capture_output=True, env=plain_environment(**settings))
        return self.server.count("HEAD"), self.server.count("GET"), self.server.sent / file.size


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("requests")
    row = convert_one(write_pair(root / "src", sample(TILE)), root / "out").row
    assert row.ok, row.reason
    with serve(Starlette(routes=[Mount("/", StaticFiles(directory=root / "out"))])) as server:
        yield Served(server, row, root / "out")


def test_opening_takes_one_request(served: Served) -> None:
    heads, gets, share = served.cost("open", RECOMMENDED)
    assert (heads, gets) == (1, 1)
    assert share < 0.002
    assert served.row.files["embeddings"].header_size < 131072


@pytest.mark.parametrize(
    ("pattern", "gets", "share"),
    [
        ("pixel", 1, 0.02),  # one pixel, all bands: one block of all bands
        ("aligned", 2, 0.07),  # two rows of blocks
        ("window", 3, 0.15),  # 256 x 256 anywhere touches three rows of blocks
        ("overview", 8, 0.003),
        ("bands", 165, 0.03),  # three bands of 54 blocks
    ],
)
def test_with_the_recommended_settings(served: Served, pattern: str, gets: int, share: float) -> None:
    _, found, bytes_share = served.cost(pattern, RECOMMENDED)
    assert found - 1 <= gets, "after the header"
    assert bytes_share < share


@pytest.mark.parametrize(
    ("pattern", "gets", "share"), [("pixel", 3, 0.02), ("aligned", 4, 0.07), ("bands", 165, 0.03)]
)
def test_with_no_settings(served: Served, pattern: str, gets: int, share: float) -> None:
    _, found, bytes_share = served.cost(pattern, {})
    assert found - 1 <= gets, "after the header"
    assert bytes_share < share


def test_a_pixel_of_the_float32_view(served: Served) -> None:
    """The view, two headers, a block of scales; and the codes, which it reads band by band."""
    heads, gets, _ = served.cost("pixel", RECOMMENDED, "vrt")
    assert (heads, gets) == (3, 10)
    assert served.server.sent < 0.03 * served.row.files["embeddings"].size


def test_odc_stac_loads_no_more_than_the_file(served: Served) -> None:
    """All 128 bands, band by band as odc-stac reads them."""
    code = f"""
import json, sys
import odc.stac, pystac
size, url = {served.row.files["embeddings"].size}, "{served.server.url}/{served.row.files["embeddings"].path}"
item = pystac.Item.from_dict(json.loads(sys.stdin.read()))
bands = [f"embeddings.{{i}}" for i in range(1, 129)]
loaded = odc.stac.load([item], bands=bands).compute()
print(loaded["embeddings.1"].shape, int(loaded["embeddings.7"][0, 600, 300]))
"""
    item = _item(served)
    served.server.clear()
    found = subprocess.run(
        [sys.executable, "-c", code],
        input=item,
        check=True,
        capture_output=True,
        text=True,
        env=plain_environment(**RECOMMENDED, PYTHONWARNINGS="ignore"),
    )
    assert found.stdout.startswith("(1, 1139, 729)")
    assert served.server.sent <= 1.05 * served.row.files["embeddings"].size


def _item(served: Served) -> str:
    import orjson

    from catalog_builder.build.options import BuildOptions
    from catalog_builder.build.run import build
    from catalog_builder.catalog.folder import CatalogFolder
    from catalog_builder.convert.ledger.writer import LedgerWriter
    from catalog_builder.tile.datasets import dataset
    from tests.support.catalogs import api_items

    with LedgerWriter(served.out / "ledger") as ledger:
        ledger.append(served.row)
    options = BuildOptions(
        dataset=dataset("synthetic"),
        source_root=str(served.out),
        ledgers=(str(served.out / "ledger"),),
        data_root=f"{served.server.url}/synthetic",
    )
    build([], served.out / "catalog", options)
    (item,) = api_items(CatalogFolder(served.out / "catalog").open_index(), served.server.url).values()
    assert item["assets"]["embeddings"]["href"].rpartition("/")[2] in served.row.files["embeddings"].path
    return orjson.dumps(item).decode()
