"""Requests and bytes of the four access patterns over HTTP, counted at the server.

One tile of full size, because requests depend on the number of blocks.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.raster.gdal import READING
from catalog_builder.tile.grid import TileId
from tests.conftest import plain_environment
from tests.convert.making import convert_one, sample, write_pair
from tests.support.http_server import Server, serve

TILE = TileId.from_name("grid_0.15_52.05")
READER = Path(__file__).with_name("http_reader.py")
RECOMMENDED = {
    name: str(READING[name])
    for name in (
        "GDAL_DISABLE_READDIR_ON_OPEN",  # no search for side-car files
        "GDAL_INGESTED_BYTES_AT_OPEN",  # a third to a half of the header: fewest bytes at all latitudes
        "GDAL_MAX_RAW_BLOCK_CACHE_SIZE",  # ranges are merged as long as they fit in it
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES",
        "GDAL_HTTP_MAX_TOTAL_CONNECTIONS",  # otherwise one per range
    )
}
"""What the README tells readers to set."""
THREADS = {"GDAL_NUM_THREADS": "2"}
"""What it tells readers of whole windows to set whose GDAL does not merge the ranges of several bands."""
RAW = 256 * 256 * 128
"""Bytes of a window of 256 x 256 codes."""


@dataclass(frozen=True)
class Served:
    """A converted tile behind a server."""

    server: Server
    row: LedgerRow
    out: Path

    def cost(
        self,
        pattern: str,
        settings: dict[str, str],
        role: str = "embeddings",
        *,
        python: Path | str = sys.executable,
        files: int | None = None,
    ) -> tuple[int, int, int]:
        """Return (HEADs, GETs, bytes) of a pattern in a fresh process, which may open so many files."""
        self.server.clear()
        command = [str(python), str(READER), pattern, f"{self.server.url}/{self.row.files[role].path}"]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        subprocess.run(command, check=True, capture_output=True, env=plain_environment(**settings))
        assert {r.status for r in self.server.log if r.method == "GET"} <= {200, 206, 404}
        return self.server.count("HEAD"), self.server.count("GET"), self.server.sent

    @property
    def size(self) -> int:
        """Bytes of the embeddings."""
        return self.row.files["embeddings"].size


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("requests")
    row = convert_one(write_pair(root / "src", sample(TILE)), root / "out").row
    assert row.ok, row.reason
    with serve(Starlette(routes=[Mount("/", StaticFiles(directory=root / "out"))])) as server:
        yield Served(server, row, root / "out")


def test_opening_takes_one_request(served: Served) -> None:
    heads, gets, sent = served.cost("open", RECOMMENDED)
    assert (heads, gets) == (1, 1)
    assert sent == READING["GDAL_INGESTED_BYTES_AT_OPEN"]


PATTERNS = [
    ("pixel", 3, 750_000),  # one pixel, all bands: one block of all bands, and half of 200 kB of header
    ("field", 4, 2_200_000),  # 30 x 25 pixels over the corner of four blocks
    ("aligned", 6, RAW),  # 256 x 256 on the blocks' edges: less than its codes take uncompressed
    ("window", 7, int(1.5 * RAW)),  # 256 x 256 elsewhere touches five rows and columns of blocks
    ("window:63:63", 7, int(1.5 * RAW)),  # the worst offset is like most others
    ("overview", 5, 125_000),  # three bands at 1/8: a block each
    ("bands", 651, 2_500_000),  # three bands of 216 blocks, none beside another
]


@pytest.mark.parametrize(("pattern", "gets", "size"), PATTERNS)
def test_with_the_recommended_settings(served: Served, pattern: str, gets: int, size: int) -> None:
    heads, found, sent = served.cost(pattern, RECOMMENDED)
    assert heads == 1
    assert found <= gets
    assert sent <= size


def test_windows_at_every_offset(served: Served) -> None:
    """Of all offsets of a 256 window the mean; by the sizes in the file, which a read confirms."""
    with tifffile.TiffFile(served.out / served.row.files["embeddings"].path) as file:
        page = file.pages[0]
        down, across = -(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth)
        sizes = np.array(page.databytecounts).reshape(128, down, across).sum(axis=0)
        side = page.tilelength
    assert page.tilewidth == side

    def touched(col: int, row: int) -> int:
        rows = slice(row // side, (row + 255) // side + 1)
        return int(sizes[rows, col // side : (col + 255) // side + 1].sum())

    _, _, sent = served.cost("window:63:63", RECOMMENDED)
    assert touched(63, 63) <= sent <= touched(63, 63) + 400_000, "header, leaders and GDAL's grain"
    # away from the tile's edges, where blocks are cut
    costs = [touched(256 + x, 512 + y) / RAW for y in range(side) for x in range(side)]
    assert 1.3 < np.mean(costs) < 1.5
    assert max(costs) < 1.55
    assert min(costs) < 1, "on the edges of blocks, such as chunks of 256 or 512 from the tile's corner"


@pytest.mark.parametrize(
    ("pattern", "gets", "size"),
    [
        ("pixel", 6, 800_000),
        ("field", 7, 2_250_000),
        ("aligned", 9, RAW),
        ("window", 165, int(1.6 * RAW)),  # more than 10 MB: GDAL does not merge all ranges
        ("overview", 6, 75_000),
        ("bands", 652, 2_500_000),
    ],
)
def test_with_no_settings(served: Served, pattern: str, gets: int, size: int) -> None:
    _, found, sent = served.cost(pattern, {})
    assert found <= gets
    assert sent <= size


@pytest.mark.parametrize("pattern", ["pixel", "field", "aligned", "window", "window:63:63"])
@pytest.mark.parametrize("settings", [{}, RECOMMENDED], ids=["none", "recommended"])
def test_threads_merge_ranges(served: Served, gdal310: Path, pattern: str, settings: dict[str, str]) -> None:
    """GDAL 3.10 takes 3,207 requests for a window otherwise, and 3.12 with no settings 153."""
    for python in (sys.executable, gdal310):
        _, found, sent = served.cost(pattern, settings | THREADS, python=python)
        assert found <= (12 if settings else 17)
        assert sent <= 1.5 * RAW


def test_older_gdal_takes_a_request_per_block_and_band(served: Served, gdal310: Path) -> None:
    """What the threads are for; the bytes are the same."""
    _, found, sent = served.cost("window", RECOMMENDED, python=gdal310)
    assert 3_000 < found < 3_300
    assert sent <= 1.5 * RAW
    assert served.cost("pixel", RECOMMENDED, python=gdal310)[1] <= 25
    assert served.cost("overview", RECOMMENDED, python=gdal310)[1] <= 5


@pytest.mark.parametrize(
    ("settings", "files"), [({}, 1024), (THREADS, 1024), (RECOMMENDED, 256), (RECOMMENDED | THREADS, 256)]
)
def test_no_request_is_lost_for_want_of_descriptors(
    served: Served, settings: dict[str, str], files: int
) -> None:
    """GDAL opens a connection per range; a process may open 1,024 files on most Linux, 256 on macOS."""
    _, found, sent = served.cost("bands", settings, files=files)
    assert 649 <= found <= 657, "none is asked for again"
    assert sent < 2_500_000


def test_scales_take_one_range(served: Served) -> None:
    """They are in strips as wide as the tile: neighbours in the file, whatever the window."""
    file = served.row.files["scales"]
    sizes = {"pixel": 125_000, "field": 200_000, "window": 750_000, "overview": 70_000}
    for pattern, size in sizes.items():
        _, found, sent = served.cost(pattern, RECOMMENDED, "scales")
        assert found <= 2, pattern
        assert sent <= size, pattern
    _, found, sent = served.cost("whole", RECOMMENDED, "scales")
    assert found == 2
    assert sent <= 0.8 * file.size


def test_overviews_are_a_quarter(served: Served) -> None:
    """1/4 + 1/16 + 1/64 of the pixels is 0.247 of the file; the full resolution has more empty ones."""
    with tifffile.TiffFile(served.out / served.row.files["embeddings"].path) as file:
        sizes = [sum(page.databytecounts) for page in file.pages]
    assert len(sizes) == 4
    assert sum(sizes[1:]) <= 0.26 * served.size


def test_a_pixel_of_the_float32_view(served: Served) -> None:
    """The view, two headers, a block of scales; and the codes, which it reads band by band.

    GDAL reads ahead twice as much each time, from 16 kB on: after half of the header it begins anew.
    """
    heads, gets, _ = served.cost("pixel", RECOMMENDED, "vrt")
    assert (heads, gets) == (3, 14)
    assert served.server.sent < 0.01 * served.size


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
