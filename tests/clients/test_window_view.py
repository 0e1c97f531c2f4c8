"""Float32 assets for windows as GDAL reads them from the server: exact, and how many requests a window takes.

``embeddings_f32_window`` is a view of the COG pair, ``embeddings_f32_computed`` one of a GeoTIFF of blocks of
16 x 48 pixels that the server computes.

One tile of full size, 1139 x 728 in blocks of 64 pixels, because requests depend on the number of blocks;
each count is that of a fresh process. The table of docs/clients.md is these numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
from tests.conftest import SUPPORT, plain_environment
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
COMPUTED: dict[str, tuple[int, ...]] = {
    "settings": (3, 3, 5, 7, 8, 8),
    "none": (4, 4, 6, 8, 9, 9),
}
"""The same of the computed GeoTIFF, with either GDAL: view, header, and one for each row of blocks."""


@dataclass(frozen=True, slots=True)
class Published:
    """A tile, and where it is served."""

    href: str
    computed: str
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
        hrefs = (item.assets[f"embeddings_f32_{name}"].href for name in ("window", "computed"))
        yield server.log, Published(*hrefs, made.codes, made.scales)


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


LARGEST = (95, 479, 256, 256)
"""Seven rows of blocks of the computed GeoTIFF: no window of 256 x 256 touches more."""


@pytest.mark.parametrize("chosen", list(COMPUTED))
@pytest.mark.parametrize("window", [*WINDOWS, LARGEST])
def test_requests_of_the_computed_raster(
    served: tuple[list[Request], Published], gdal_python: Path, tmp_path: Path, window: Window, chosen: str
) -> None:
    log, tile = served
    log.clear()
    found, about = read(gdal_python, tmp_path, f"/vsicurl/{tile.computed}", window, **SETTINGS[chosen])
    counted = Counter((r.method, r.status) for r in log)
    sent = sum(r.sent for r in log)
    assert (about["count"], about["dtype"], about["nodata"]) == (128, "float32", "nan")
    assert about["descriptions"] == [f"Tessera_Band_{i}" for i in range(128)]
    assert about["overviews"] == [2, 4, 8]
    none = np.isnan(found).any(axis=0)
    assert none.mean() < 0.5
    assert np.isnan(found[:, none]).all()
    assert same(found[:, ~none], tile.product(window)[:, ~none])
    gets = counted.pop(("GET", 206)) + counted.pop(("GET", 200))
    assert gets <= 10
    if window != LARGEST:
        assert gets == COMPUTED[chosen][list(WINDOWS).index(window)]
    if chosen == "none":
        assert counted == {("HEAD", 200): 1, ("HEAD", 404): 2}
    else:
        assert counted == {("HEAD", 200): 2}, "of view and raster"
    x, y, width, height = window
    blocks = ((x + width - 1) // 16 - x // 16 + 1) * ((y + height - 1) // 48 - y // 48 + 1)
    assert sent < blocks * 393_224 + 150_000


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_odd_windows_of_each_level_of_the_computed_raster(
    served: tuple[list[Request], Published], any_gdal: Path, tmp_path: Path, level: int
) -> None:
    """Are those of the pair: codes and scales of the same level."""
    _, tile = served
    folder = tile.href.rpartition("/")[0]
    stem = tile.href.rpartition("/")[2].removesuffix("_f32_window.vrt")
    window = [13 >> level, 77 >> level, 200 >> level, 300 >> level]
    arrays = []
    for path in (
        tile.computed,
        f"{folder}/{stem}_embeddings.tif",
        f"{folder}/{stem}_scales.tif",
    ):
        reads = json.dumps([{"window": window, "overview": level - 1 if level else None}])
        out = tmp_path / "read.npz"
        python = any_gdal if path == tile.computed else sys.executable
        command = [python, SUPPORT / "gdal_reader.py", f"/vsicurl/{path}", out, reads]
        done = subprocess.run(command, env=plain_environment(**RECOMMENDED), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(out) as found:
            arrays.append(found["0"])
    values, codes, scales = arrays
    assert same(values, codes.astype(np.float32) * scales)
    assert np.isfinite(values).any()


def test_documents_say_what_the_computed_raster_takes() -> None:
    lines = DOCUMENT.read_text().replace("*", "").splitlines()
    for costs in COMPUTED.values():
        row = " | ".join(map(str, costs))
        assert any(line.endswith(f"| {row} |") for line in lines), row
