"""Requests and bytes of one tile as our COG pair, and in the two layouts of upstream's Zarr stores.

The same codes and scales behind the same local server, which counts; each read is a fresh process. GDAL
reads the COGs, xarray with zarr-python and obstore the stores. A: chunks of 32 x 32 pixels and all bands,
planar, in shards of 4096; B: chunks of 256 x 256, the bands of a pixel together, in shards of 2048. B is
published as an Icechunk store, whose snapshots and manifests are read on top.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from zarr.codecs import BloscCodec
from zarr.codecs.numcodecs import PCodec

from catalog_builder.tile.grid import TileId
from tests.bench.tables import show
from tests.conftest import SUPPORT, plain_environment
from tests.convert.making import convert_one, sample, write_pair
from tests.convert.test_requests import RECOMMENDED
from tests.support.environments import environment
from tests.support.http_server import Server, serve

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

TILE = TileId.from_name("grid_0.15_52.15")
ORIGIN = (700, 1100)
"""Row and column of the tile in the stores: on no edge of a chunk."""
READER = Path(__file__).with_name("zarr_reader.py")
COG_READER = """
import sys, numpy, rasterio
from rasterio.windows import Window
codes, scales, row, col, rows, cols, wanted = sys.argv[1:]
window = Window(int(col), int(row), int(cols), int(rows))
bands = None if wanted == "all" else [int(n) + 1 for n in wanted.split(",")]
with rasterio.open("/vsicurl/" + codes) as a, rasterio.open("/vsicurl/" + scales) as b:
    found, factor = a.read(bands, window=window), b.read(1, window=window)
print(found.shape, int(found.sum(dtype="i8")), float(numpy.nansum(factor, dtype='f8')))
"""


@dataclass(frozen=True)
class Layout:
    """A form of the tile, and how it is read."""

    name: str
    block: int
    """Rows and columns of a block or chunk, on whose corner the field lies."""
    command: list[str]
    """Of the reader, to which a window and bands are added."""
    origin: tuple[int, int]
    """Row and column of the tile's first pixel."""

    def field(self) -> tuple[int, int]:
        """Return row and column, in the tile, of 25 x 30 pixels over the corner of four blocks."""
        row, col = (-start % self.block + 2 * self.block for start in self.origin)
        return row - 12, col - 15


def _write_a(path: Path, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> None:
    blosc = BloscCodec(cname="zstd", clevel=3)
    group = zarr.create_group(path, zarr_format=3)
    _put(
        group, "embeddings", codes.transpose(2, 0, 1)[None], (1, 128, 32, 32), (1, 128, 4096, 4096), blosc, 0
    )
    _put(group, "scales", scales[None], (1, 32, 32), (1, 4096, 4096), blosc, np.inf)
    zarr.consolidate_metadata(path)


def _write_b(path: Path, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> None:
    blosc = BloscCodec(cname="zstd", clevel=3)
    group = zarr.create_group(path, zarr_format=3)
    _put(group, "embeddings", codes[None], (1, 256, 256, 128), (1, 2048, 2048, 128), blosc, 0)
    _put(group, "scales", scales[None], (1, 256, 256), (1, 2048, 2048), None, np.nan)
    zarr.consolidate_metadata(path)


def _put(
    group: zarr.Group,
    name: str,
    values: npt.NDArray[Any],
    chunks: tuple[int, ...],
    shards: tuple[int, ...],
    codec: BloscCodec | None,
    fill: float,
) -> None:
    """Write an array of one shard, with the tile at its place."""
    names = ["time", *("band" if n == 128 else "yx"[i] for i, n in _axes(values.shape))]
    kind: dict[str, Any] = {"compressors": codec} if codec else {"serializer": PCodec(), "compressors": None}
    array = group.create_array(
        name, shape=shards, chunks=chunks, shards=shards, dtype=values.dtype, fill_value=fill,
        dimension_names=names, **kind,
    )  # fmt: skip
    place: list[slice] = [slice(0, 1)]
    for i, n in _axes(values.shape):
        place.append(slice(None) if n == 128 else slice(ORIGIN[i], ORIGIN[i] + n))
    array[tuple(place)] = values


def _axes(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return for each axis behind time which of (y, x) it is, and its length."""
    found, seen = [], 0
    for n in shape[1:]:
        found.append((seen, n))
        seen += n != 128
    return found


def _cost(server: Server, layout: Layout, window: tuple[int, int, int, int], bands: str) -> tuple[str, str]:
    """Read a window; return requests and MB, and what was read."""
    row, col, rows, cols = window
    place = [str(n) for n in (row + layout.origin[0], col + layout.origin[1], rows, cols)]
    server.clear()
    command = [*layout.command, *place, bands]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=plain_environment(**RECOMMENDED)
    )
    _, _, sums = done.stdout.partition(") ")
    return f"{server.count('GET')} / {server.sent / 1e6:.2f}", sums


def test_our_layout_beside_upstreams(tmp_path: Path) -> None:
    made = sample(TILE)
    root = tmp_path / "root"
    row = convert_one(write_pair(tmp_path / "src", made), root / "cogs").row
    assert row.ok, row.reason
    # the codes as they are in our files, without data under water
    import rasterio

    with (
        rasterio.open(root / "cogs" / row.files["embeddings"].path) as a,
        rasterio.open(root / "cogs" / row.files["scales"].path) as b,
    ):
        codes, scales = np.ascontiguousarray(a.read().transpose(1, 2, 0)), b.read(1)
    _write_a(root / "a.zarr", codes, scales)
    _write_b(root / "b.zarr", codes, scales)
    sizes = {
        "ours": sum(f.size for r, f in row.files.items() if r in ("embeddings", "scales")),
        **{
            n: sum(p.stat().st_size for p in (root / n).rglob("*") if p.is_file())
            for n in ("a.zarr", "b.zarr")
        },
    }
    python = str(environment(SUPPORT / "geotessera11.lock"))
    height, width = scales.shape
    rows: list[list[str]] = []
    with serve(Starlette(routes=[Mount("/", StaticFiles(directory=root))])) as server:
        pair = [f"{server.url}/cogs/{row.files[role].path}" for role in ("embeddings", "scales")]
        layouts = [
            Layout("COG pair", 64, [sys.executable, "-c", COG_READER, *pair], (0, 0)),
            Layout("Zarr A", 32, [python, str(READER), f"{server.url}/a.zarr"], ORIGIN),
            Layout("Zarr B", 256, [python, str(READER), f"{server.url}/b.zarr"], ORIGIN),
        ]
        patterns: dict[str, tuple[tuple[int, int, int, int] | None, str]] = {
            "one pixel, 128 bands": ((702, 431, 1, 1), "all"),
            "field of 30 x 25 over four blocks, 128 bands": (None, "all"),
            "256 x 256 window, 128 bands": ((500, 300, 256, 256), "all"),
            "3 bands, whole tile": ((0, 0, height, width), "3,40,90"),
            "128 bands, whole tile": ((0, 0, height, width), "all"),
        }
        for name, (window, bands) in patterns.items():
            costs, sums = [], set()
            for layout in layouts:
                at = window or (*layout.field(), 25, 30)
                cost, found = _cost(server, layout, at, bands)
                costs.append(cost)
                if window is not None:
                    codes_sum, scales_sum = found.split()
                    sums.add((codes_sum, f"{float(scales_sum):.2f}"))
            assert len(sums) == (window is not None), "all read the same values"
            rows.append([name, *costs])
    mb = {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}
    show(
        f"HTTP, one tile: GETs / MB, codes and scales; stored: ours {mb['ours']} with overviews,"
        f" A {mb['a.zarr']}, B {mb['b.zarr']}",
        ["what is read", *(layout.name for layout in layouts)],
        rows,
    )
    cost = {(r[0], i): tuple(map(float, r[i].split(" / "))) for r in rows for i in (1, 2, 3)}
    for name in ("one pixel, 128 bands", "3 bands, whole tile"):
        assert cost[name, 1][1] < cost[name, 3][1] / 2, (
            "less than half of what large chunks of all bands take"
        )
    assert cost["3 bands, whole tile", 1][1] < cost["3 bands, whole tile", 2][1] / 10
    assert cost["256 x 256 window, 128 bands", 1][1] < 14
