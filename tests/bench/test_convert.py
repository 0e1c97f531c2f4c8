"""One tile of 1140 x 732 pixels through every way to make a COG of it: seconds, memory, bytes.

Everything runs on one core, in a process of its own, in one go, reading from and writing to memory (tmpfs)
where there is one. Times are CPU seconds, which on an idle machine are the seconds that pass; a busy one does
not falsify them. The floors and ours are the best of three in one process (a worker converts many tiles),
the others are run once.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog_builder.synthetic.sample import write_geotiff_tile
from catalog_builder.tile.grid import TileId
from tests.bench.measure import REPORT, run
from tests.bench.tables import show
from tests.convert.making import sample, write_pair
from tests.support.needs import lacks

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

TILE = TileId.from_name("grid_0.15_52.15")
"""1140 x 727 pixels: as large as tiles at 52 degrees are."""

# The peak of this program alone: the kernel counts the parent's memory in a child's ru_maxrss.
PEAK = """
import pathlib
status = pathlib.Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
print(next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0))
"""
FLOOR_ZSTD = """
import sys, time, zstandard
data = open(sys.argv[1], "rb").read()
def once():
    start = time.process_time()
    zstandard.ZstdCompressor(level=1).compress(data)
    return time.process_time() - start
print(min(once() for _ in range(3)))
"""
FLOOR_DECODE = """
import sys, time, rasterio
def once():
    start = time.process_time()
    with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(sys.argv[1]) as ds:
        for _, window in ds.block_windows(1):
            ds.read(window=window)
    return time.process_time() - start
print(min(once() for _ in range(3)))
"""
OURS = """
import sys, time
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.tile.convert import convert_tile
from catalog_builder.catalog.basis import load_basis
import rasterio, zstandard, pyproj
from catalog_builder.tile.grid import TileId
source, out, profile = sys.argv[1:4]
(job,) = plan([source], Wanted(landmask_root=sys.argv[4])).jobs()
job.tile.raster()  # the grid is computed once per process
bases = tuple(filter(None, [load_basis(out, "synthetic")])) if "visual" in sys.argv else ()
def once():
    global result
    start = time.process_time()
    result = convert_tile(job, ConvertOptions(out, profile=profile, bases=bases, durable=False))
    assert result.ok, result.row.reason
    return time.process_time() - start
print(min(once() for _ in range(3)), result.row.bytes_out)
"""
RIO_COGEO = """
import sys, time
from rio_cogeo.scripts.cli import cogeo
start = time.process_time()
cogeo(["create", sys.argv[1], sys.argv[2], "--quiet", *sys.argv[3:]], standalone_mode=False)
print(time.process_time() - start)
"""
# gdal_translate -of COG is this copy: the wheel of rasterio has the driver, not the program.
COG_DRIVER = """
import sys, time, rasterio.shutil
start = time.process_time()
rasterio.shutil.copy(sys.argv[1], sys.argv[2], driver="COG")
print(time.process_time() - start)
"""
GEOTESSERA = """
import sys, time
from tests.bench.geotessera_export import export
start = time.process_time()
export(sys.argv[1], sys.argv[2], sys.argv[3])
print(time.process_time() - start)
"""


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="tessera-bench-", dir=base))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _one_core(code: str, *arguments: object) -> tuple[float, float, list[str]]:
    """Run Python on one core; return the seconds it measured, its peak in MB, and its other output."""
    pin = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
    before = pin if hasattr(os, "sched_setaffinity") else ""
    cost = run([sys.executable, "-c", REPORT + before + code + PEAK, *map(str, arguments)], PYTHONPATH=".")
    *first, peak = cost.output.split()
    return float(first[0]), float(peak) or cost.peak_mb, first[1:]


def test_one_tile(memory: Path) -> None:
    npy = write_pair(memory / "src", sample(TILE))
    masks = memory / "src" / "global_0.1_degree_tiff_all"
    tiff = write_geotiff_tile(memory / "tiff", sample(TILE))
    pair = npy.stat().st_size + npy.with_name(f"{TILE.name}_scales.npy").stat().st_size
    zstd = _one_core(FLOOR_ZSTD, npy)
    decode = _one_core(FLOOR_DECODE, tiff)
    rows = []

    def add(name: str, found: tuple[float, float, list[str]], size: int | None) -> float:
        seconds, peak, _ = found
        rows.append(
            [name, f"{seconds:.2f}", f"{peak:,.0f}", "" if size is None else f"{size / 1e6:.1f}",
             f"{seconds / zstd[0]:.1f}", f"{seconds / decode[0]:.2f}"]
        )  # fmt: skip
        return seconds

    def ours(name: str, source: Path, profile: str = "native", *more: str) -> tuple[float, float, list[str]]:
        out = memory / f"out-{name.replace(' ', '-')}"
        found = _one_core(OURS, source, out, profile, masks, *more)
        add(name, found, int(found[2][0]))
        return found

    add("floor: zstd level 1 of the .npy in one call", zstd, None)
    add("floor: GDAL decoding the GeoTIFF", decode, None)
    from_npy = ours("ours from .npy", npy)
    from_tiff = ours("ours from the GeoTIFF", tiff)
    ours("ours from .npy, float32 profile", npy, "float32")
    ours("ours from the GeoTIFF, float32 profile", tiff, "float32")
    out = memory / "cog.tif"
    cogeo = _one_core(RIO_COGEO, tiff, out)
    add("rio cogeo create, its defaults", cogeo, out.stat().st_size)
    add("rio cogeo create -p zstd", _one_core(RIO_COGEO, tiff, out, "-p", "zstd"), out.stat().st_size)
    export = _one_core(GEOTESSERA, memory / "src", TILE.lon, memory / "export")
    add("geotessera 0.7.5 export (no COG)", export, tiff.stat().st_size)
    driver = None
    if not os.environ.get("BENCH_QUICK"):
        driver = _one_core(COG_DRIVER, tiff, out)
        add("gdal_translate -of COG, its defaults", driver, out.stat().st_size)
    size = sample(TILE).scales.shape
    show(
        f"Convert one tile, {size[0]} x {size[1]} x 128, with overviews, one core;"
        f" .npy pair {pair / 1e6:.1f} MB, GeoTIFF {tiff.stat().st_size / 1e6:.1f} MB",
        ["what", "CPU seconds", "peak MB", "MB written", "x zstd", "x decode"],
        rows,
    )
    written = int(from_npy[2][0])
    # Pixels that hardly compress cost zstd alone and LZW's decoder a sixth and a tenth less than those that
    # the bounds were first made for (5 and 1.6); a conversion costs what it did.
    assert from_npy[0] < 6 * zstd[0]
    assert from_npy[1] < 500
    assert from_tiff[0] < 1.7 * decode[0]
    assert from_tiff[1] < 1000
    assert cogeo[0] > 5 * from_tiff[0]
    assert driver is None or driver[0] > 40 * from_tiff[0]
    # pixels hardly compress, and overviews are a third on top of them
    assert written < 1.25 * pair
    assert written < 0.4 * tiff.stat().st_size


def test_workers(memory: Path) -> None:
    """Tiles per second of one and of two processes, from a folder to COGs with a ledger."""
    if (os.cpu_count() or 1) < 2:
        lacks("one core")
    made = sample(TileId.from_name("grid_0.15_52.15"))
    source = memory / "many"
    first = write_pair(source, made)
    for zone in range(1, 16):  # the same pixels again: links, as tiles of other UTM zones
        tile = TileId(lat_i=made.tile.lat_i, lon_i=made.tile.lon_i + 600 * zone)
        folder = first.parent.parent / tile.name
        folder.mkdir()
        for suffix in (".npy", "_scales.npy"):
            os.link(first.with_name(f"{made.tile.name}{suffix}"), folder / f"{tile.name}{suffix}")
    rows, seconds = [], {}
    for workers in (1, 2):
        out = memory / f"workers{workers}"
        code = (
            "from catalog_builder.cli.convert import convert; import typer; app = typer.Typer();"
            "app.command()(convert); app()"
        )
        arguments = [str(source), "--out", str(out), "--workers", str(workers), "--json", "-q", "--no-sync"]
        cost = run([sys.executable, "-c", REPORT + code, *arguments], PYTHONPATH=".")
        said = json.loads(cost.output)
        assert said["converted"] == 16
        seconds[workers] = said["seconds"]
        rows.append([workers, f"{said['seconds']:.1f}", f"{16 / said['seconds']:.2f}"])
        shutil.rmtree(out)
    show("Sixteen tiles by processes, start included", ["workers", "seconds", "tiles/s"], rows)
    ratio, load = seconds[1] / seconds[2], os.getloadavg()[0]
    print(f"two workers are {ratio:.2f} times one; load of the machine {load:.1f}")


def test_help() -> None:
    code = (
        "from catalog_builder.cli.convert import convert; import typer;"
        "app = typer.Typer(); app.command()(convert); app()"
    )
    best = min(run([sys.executable, "-c", REPORT + code, "--help"]).cpu_seconds for _ in range(5))
    show("tessera-stac convert --help", ["CPU seconds"], [[f"{best:.2f}"]])
    assert best < 0.5
