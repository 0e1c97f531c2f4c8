"""Requests and bytes of one tile: our COG pair, upstream's two stores, and direct access to these.

The same made-up codes and scales behind one local server, which counts; each read is a fresh process, with
nothing in any cache. A: geotessera's Zarr store, chunks of 32 x 32 pixels and all bands, planar, in shards of
4096. B: dClimate's Icechunk repository, chunks of 256 x 256, a pixel's bands together, in shards of 2048.

GDAL reads the COGs, and float32 by direct access, which takes requests of GDAL and those of the server at the
store. xarray with zarr-python and obstore or icechunk reads the stores; so does geotessera 0.11, but no
Icechunk over HTTP.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from api.app import create_app
from catalog_builder.stores import chunks
from catalog_builder.stores.open import _opened
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.synthetic.stores.sample import SampleStore, StoreContainer, sample_store
from catalog_builder.tile.grid import TileId
from tests.bench.tables import show
from tests.conftest import SUPPORT, plain_environment
from tests.convert.making import convert_one
from tests.convert.test_requests import RECOMMENDED
from tests.support.catalogs import build_from
from tests.support.environments import environment
from tests.support.http_server import Server, serve

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

TILE = TileId.from_name("grid_0.15_52.15")
YEAR = 2024
READER = Path(__file__).with_name("zarr_reader.py")
_GDAL = """
import sys, numpy, rasterio
from rasterio.windows import Window
*paths, row, col, rows, cols, wanted = sys.argv[1:]
window = Window(int(col), int(row), int(cols), int(rows))
bands = None if wanted == "all" else [int(n) + 1 for n in wanted.split(",")]
with rasterio.open("/vsicurl/" + paths[0]) as ds:
    values = ds.read(bands, window=window)
factor = 1
if len(paths) == 2:
    with rasterio.open("/vsicurl/" + paths[1]) as ds:
        factor = ds.read(1, window=window)
n, total = 0, 0.0
for band in values:
    product = band * factor
    n += int(numpy.isfinite(product).sum())
    total += float(numpy.nansum(product, dtype="f8"))
print(n, total)
"""

Window = tuple[int, int, int, int]
"""Row, column, rows, columns, in the tile."""


@dataclass(frozen=True)
class Way:
    """A form of the tile, and how it is read."""

    name: str
    block: int
    """Rows and columns of a block or chunk, on whose corner the field lies."""
    command: Callable[[str], list[str]]
    """Of the reader, by the bands: a window is added."""
    counted: tuple[Server, ...]
    """Who counts: the server that the reader asks, and the one that this asks."""
    origin: tuple[int, int] = (0, 0)
    """Row and column of the tile's first pixel where blocks begin."""
    offset: tuple[int, int] = (0, 0)
    """The same where the reader counts from."""

    def field(self) -> tuple[int, int]:
        """Return row and column, in the tile, of 25 x 30 pixels over the corner of four blocks."""
        row, col = (-start % self.block + 2 * self.block for start in self.origin)
        return row - 12, col - 15

    def cost(self, window: Window, bands: str) -> tuple[list[tuple[int, float]], tuple[int, float]]:
        """Read a window; return GETs and MB at each server, and how many values there are, and their sum."""
        _opened.cache_clear()  # with the stores' metadata and indexes of shards
        chunks.CHUNKS = chunks.Chunks()
        for server in self.counted:
            server.clear()
        row, col, rows, cols = window
        place = (row + self.offset[0], col + self.offset[1], rows, cols)
        done = subprocess.run(
            [*self.command(bands), *map(str, place), bands],
            capture_output=True,
            text=True,
            env=plain_environment(**RECOMMENDED, MPLBACKEND="agg"),
        )
        assert done.returncode == 0, done.stderr
        n, total = done.stdout.split()
        return [(server.count("GET"), server.sent / 1e6) for server in self.counted], (int(n), float(total))


@contextmanager
def _ways(root: Path) -> Iterator[tuple[list[Way], dict[str, float], tuple[int, int]]]:
    """Make the tile in every form, and serve it; yield ways, MB that are stored, and the tile's shape."""
    npy = sample_set(root / "npy", tile_years=[(TILE, YEAR)], workers=1)
    row = convert_one(npy.written[0].npy, root / "cogs").row
    assert row.ok, row.reason
    sizes = {"COG": sum(f.size for role, f in row.files.items() if role in ("embeddings", "scales")) / 1e6}
    python = str(environment(SUPPORT / "geotessera11.lock"))
    with ExitStack() as stack:
        files = stack.enter_context(serve(Starlette(routes=[Mount("/", StaticFiles(directory=root))])))
        pair = [f"{files.url}/cogs/{row.files[role].path}" for role in ("embeddings", "scales")]
        ways = [Way("GDAL, COG", 64, lambda _: [sys.executable, "-c", _GDAL, *pair], (files,))]
        containers: tuple[tuple[str, StoreContainer, int], ...] = (("A", "zarr", 32), ("B", "icechunk", 256))
        for name, container, chunk in containers:
            made = sample_store(root, container, tile_years=[(TILE, YEAR)], tiles=npy)
            sizes[name] = made.n_bytes / 1e6
            url = f"{files.url}/{made.store.relative_to(root)}"
            catalog = root / f"{container}-catalog"
            build_from(catalog, url, *_manifest(made), dataset="synthetic", url="http://bench")
            server = stack.enter_context(serve(create_app(catalog)))
            item = httpx.get(f"{server.url}/search").json()["features"][0]
            asset = item["assets"]["source_zarr"]
            assert asset["href"] == url
            views = {k: item["assets"][f"embeddings_f32{k}"]["href"] for k in ("", "_window")}
            origin = tuple(asset["tessera:window"][:2])
            time = str(asset["tessera:time_index"])

            def direct(bands: str, views: dict[str, str] = views) -> list[str]:
                return [sys.executable, "-c", _GDAL, views["_window" if bands == "all" else ""]]

            ways.append(Way(f"direct access, {name}", chunk, direct, (server, files), origin))
            for reader in ("xarray", "geotessera") if name == "A" else ("xarray",):
                command = [python, str(READER), reader, url, asset["tessera:group"], time]
                ways.append(
                    Way(f"{reader}, {name}", chunk, lambda _, c=command: c, (files,), origin, origin)  # type: ignore[misc]
                )
        yield ways, sizes, TILE.raster().shape


def _manifest(made: SampleStore) -> list[Path]:
    """Return what says which tiles there are: a store on the web cannot be listed."""
    if made.container == "icechunk":
        return [made.registry / "parts", made.land]
    beside = Path(f"{made.store}.build")
    beside.mkdir()
    rows = {"year": [YEAR], "zone": [TILE.utm_zone], "tile_lon": [TILE.lon], "tile_lat": [TILE.lat]}
    pq.write_table(pa.table(rows), beside / "_registry.parquet")
    return []


def test_our_forms_beside_upstreams(tmp_path: Path) -> None:
    patterns: dict[str, tuple[Window | None, str]] = {
        "one pixel, 128 bands": ((702, 431, 1, 1), "all"),
        "field of 30 x 25 over four blocks, 128 bands": (None, "all"),
        "256 x 256 window, 128 bands": ((500, 300, 256, 256), "all"),
        "3 bands, whole tile": ((0, 0, 0, 0), "3,40,90"),
        "128 bands, whole tile": ((0, 0, 0, 0), "all"),
    }
    rows: list[list[str]] = []
    costs: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with _ways(tmp_path / "root") as (ways, sizes, (height, width)):
        for name, (window, bands) in patterns.items():
            read = {}
            for way in ways:
                at = window or (*way.field(), 25, 30)
                if at[2] == 0:
                    at = (0, 0, height, width)
                costs[name, way.name], read[way.name] = way.cost(at, bands)
            # what has no data is another thing in the one store and in the other
            for store in (("COG", "A"), ("B",)) if window else ():
                (n, total), *others = (
                    found for way, found in read.items() if way.rpartition(", ")[2] in store
                )
                assert all(one[0] == n for one in others), (name, read)
                assert all(one[1] == pytest.approx(total, rel=1e-5, abs=1) for one in others), (name, read)
            cells = [" → ".join(f"{n} / {mb:.2f}" for n, mb in costs[name, way.name]) for way in ways]
            rows.append([name, *cells])
            print(rows[-1], flush=True)
        names = [way.name for way in ways]
    stored = ", ".join(f"{name} {mb:.0f} MB" for name, mb in sizes.items())
    show(
        f"HTTP, one tile of made-up pixels: GETs / MB (direct access: of its client → of the server at the"
        f" store); stored: {stored}",
        ["what is read", *names],
        rows,
    )
    _judge(costs)


def _judge(costs: dict[tuple[str, str], list[tuple[int, float]]]) -> None:
    def mb(pattern: str, way: str, at: int = 0) -> Any:
        return costs[pattern, way][at][1]

    pixel, window, three, tile = (
        "one pixel, 128 bands",
        "256 x 256 window, 128 bands",
        "3 bands, whole tile",
        "128 bands, whole tile",
    )
    for name in (pixel, three):
        assert mb(name, "GDAL, COG") < mb(name, "xarray, B") / 2, "large chunks of all bands take more"
    assert mb(three, "GDAL, COG") < mb(three, "xarray, A") / 10
    assert mb(window, "GDAL, COG") < 14
    for store in "AB":
        # a client of direct access is sent pixels, not chunks; it asks for a little more than it needs, and
        # the server for the chunks of that
        assert mb(pixel, f"direct access, {store}") < 0.5
        for name in (pixel, window, tile):
            assert mb(name, f"direct access, {store}", 1) < 2.5 * mb(name, f"xarray, {store}"), name
