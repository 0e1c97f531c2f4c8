"""``embeddings_f32_window`` as GDAL reads it from the server: exact, and how many requests a window takes.

One tile of full size, 1139 x 728 in blocks of 64 pixels, because requests depend on the number of blocks;
each count is that of a fresh process. The table of docs/clients.md is these numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pystac_client import Client

from api.app import create_app
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.clients.test_gdal import read
from tests.convert.making import convert_one, sample, write_pair
from tests.convert.test_requests import RECOMMENDED
from tests.support.http_server import Request, serve
from tests.support.pixels import same

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
TILE = TileId.from_name("grid_0.15_52.15")
Window = tuple[int, int, int, int]
"""Column, row, width, height."""
WINDOWS: dict[Window, int] = {
    (100, 500, 1, 1): 1,
    (180, 440, 30, 25): 4,
    (180, 440, 130, 130): 9,
    (192, 448, 192, 192): 9,
    (192, 448, 256, 256): 16,
    (100, 500, 256, 256): 25,
}
"""The blocks of codes that each touches; those at multiples of 64 are aligned."""
SETTINGS = {
    "settings": RECOMMENDED,
    "threads": {**RECOMMENDED, "GDAL_NUM_THREADS": "2"},
    "none": {},
}
COSTS: dict[tuple[str, str], tuple[int, ...]] = {
    ("3.12", "settings"): (7, 8, 9, 9, 10, 11),
    ("3.12", "none"): (11, 12, 13, 13, 14, 157),
    ("3.10", "settings"): (28, 36, 44, 47, 56, 68),
    ("3.10", "threads"): (12, 16, 22, 22, 30, 40),
    ("3.10", "none"): (38, 48, 56, 57, 66, 78),
}
"""GETs of each window. GDAL 3.10 reads block by block: at least one for each."""


@dataclass(frozen=True, slots=True)
class Published:
    """A tile, and where it is served."""

    href: str
    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def product(self, window: Window) -> npt.NDArray[np.float32]:
        """Return numpy's product of the published arrays, (bands, rows, columns)."""
        x, y, width, height = window
        part = slice(y, y + height), slice(x, x + width)
        return np.moveaxis(self.codes[part].astype(np.float32) * self.scales[part][..., None], -1, 0)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Request], Published]]:
    """Serve one converted tile; the first is the server's log."""
    root = tmp_path_factory.mktemp("window")
    made = sample(TILE)
    npy = write_pair(root / "src", made)
    home = root / "catalog"
    with LedgerWriter(home / "cogs" / "ledger") as ledger:
        ledger.append(convert_one(npy, home / "cogs").row)
    build([], home, BuildOptions(dataset=dataset("synthetic"), source_root=str(root / "src")))
    with serve(create_app(home)) as server:
        (item,) = Client.open(f"{server.url}/").search().items()
        href = item.assets["embeddings_f32_window"].href
        yield server.log, Published(href, made.codes, made.scales)


@pytest.mark.parametrize("chosen", list(SETTINGS))
@pytest.mark.parametrize("window", list(WINDOWS))
def test_requests(
    served: tuple[list[Request], Published],
    gdal_python: Path,
    tmp_path: Path,
    window: Window,
    chosen: str,
) -> None:
    log, tile = served
    log.clear()
    found, about = read(gdal_python, tmp_path, f"/vsicurl/{tile.href}", window, **SETTINGS[chosen])
    version = about["gdal"][:4]
    counted = Counter((r.method, r.status) for r in log)
    none = np.isnan(found).any(axis=0)
    assert none.mean() < 0.5
    assert np.isnan(found[:, none]).all()
    assert same(found[:, ~none], tile.product(window)[:, ~none])
    if (version, chosen) not in COSTS:
        return
    gets = COSTS[version, chosen][list(WINDOWS).index(window)]
    found_gets = counted.pop(("GET", 206)) + counted.pop(("GET", 200), 0)
    # where blocks are read in pieces of 16 kB, their number follows from the size of the compressed blocks
    assert abs(found_gets - gets) <= (2 if gets > 20 else 0), found_gets
    if chosen == "none":  # the folder's listing, which is a GET, says what there is
        assert counted == {("HEAD", 200): 2, ("HEAD", 404): 2}
    else:
        assert counted == {("HEAD", 200): 4}, "of view, codes, gain and scales"


def test_a_window_of_nine_blocks_takes_ten_requests_at_most() -> None:
    """With GDAL 3.12 and our settings. Others take more, and the documents say how many."""
    for gets, (window, touched) in zip(COSTS["3.12", "settings"], WINDOWS.items(), strict=True):
        x, y, width, height = window
        spans = [(at + n - 1) // 64 - at // 64 + 1 for at, n in ((x, width), (y, height))]
        assert spans[0] * spans[1] == touched
        assert gets <= 10 or touched > 16
    lines = DOCUMENT.read_text().replace("*", "").splitlines()
    for costs in COSTS.values():
        row = " | ".join(map(str, costs))
        assert any(line.endswith(f"| {row} |") for line in lines), row
