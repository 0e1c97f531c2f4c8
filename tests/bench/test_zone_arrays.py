"""A zone's arrays as this server computes them, beside a sharded store of the same tiles behind nginx.

``pytest -m bench -s -p no:xdist tests/bench/test_zone_arrays.py``: 28 tiles, 10 GB on the disk, 5 minutes.
Each store is read in a process of its own by zarr-python (``zones_reader.py``), which must find the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import sample_set
from catalog_builder.synthetic.stores.sample import sample_store
from catalog_builder.tile.grid import TileId
from tests.bench.serve import tessera
from tests.bench.tables import show
from tests.support.catalogs import build_from
from tests.support.needs import program
from tests.support.ports import free_port
from tests.support.waiting import until

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

YEAR, TIME = 2024, 7
FIRST = TileId.from_name("grid_0.15_52.05")
TILES = [(TileId.from_row_col(FIRST.row + r, FIRST.col + c), YEAR) for r in range(4) for c in range(7)]
READER = Path(__file__).with_name("zones_reader.py")


@dataclass(frozen=True)
class World:
    """The same tiles three times."""

    npy: Path
    """A catalogue of .npy files."""
    cog: Path
    """A catalogue of COGs."""
    store: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("zones")
    tiles = sample_set(folder / "tiles", tile_years=TILES)
    made = sample_store(folder, "zarr", tile_years=TILES, tiles=tiles)
    where = {"dataset": "synthetic", "landmask_root": str(tiles.landmasks)}
    for name in ("npy", "cog"):
        build_from(folder / name, tiles.root, **where)
    command = [
        sys.executable,
        "-m",
        "catalog_builder.cli",
        "convert",
        folder / "cog",
        "--quiet",
        "--no-visual",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    build_from(folder / "cog", tiles.root, **where)
    yield World(folder / "npy", folder / "cog", made.store)
    shutil.rmtree(folder)


@contextmanager
def nginx(folder: Path, work: Path) -> Iterator[str]:
    """Serve a folder by nginx with one worker."""
    port, config = free_port(), work / "nginx.conf"
    config.write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; worker_processes 1;\n"
        f"pid {work}/nginx.pid; error_log {work}/error.log;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000;\n"
        f"  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy; fastcgi_temp_path {work}/f;\n"
        f"  uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;\n"
        f"  server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    process = subprocess.Popen([program("nginx", "nginx"), "-c", config, "-p", work])
    try:
        until(lambda: subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port}/zarr.json"],
                                     capture_output=True).returncode == 0)  # fmt: skip
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def read(python: Path, url: str, group: ZoneGroup) -> dict[str, Any]:
    """Return what the reader says."""
    command = [python, READER, url, group.name, TIME, 0, 0]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def used(pid: int) -> float:
    """Return the seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_beside_a_sharded_store(world: World, geotessera11: Path, tmp_path: Path) -> None:
    about = json.loads((world.store / "utm31" / "zarr.json").read_text())["attributes"]
    group = ZoneGroup.of("utm31", about, range(2017, 2026))
    found: dict[str, dict[str, Any]] = {}
    cpu = {"nginx, sharded store": 0.0}
    with nginx(world.store, tmp_path) as url:
        found["nginx, sharded store"] = read(geotessera11, url, group)
    for name, catalog in ((".npy", world.npy), ("COG", world.cog)):
        for root in ("synthetic", "synthetic/bulk"):
            key = f"this server, {name}{', bulk' if root.endswith('bulk') else ''}"
            with tessera(catalog) as server:
                before = used(server.process.pid)
                found[key] = read(geotessera11, f"http://127.0.0.1:{server.port}/zarr/{root}", group)
                cpu[key] = used(server.process.pid) - before
    sums = {key: said["sum"] for key, said in found.items()}
    assert len(set(sums.values())) == 1, sums
    reference = found["nginx, sharded store"]
    rows = []
    for key, said in found.items():
        row = [key, f"{said['open'][0]:.2f} s, {said['open'][1] / 1e6:.2f} MB"]
        median, late, most = said["pixel"]
        row.append(f"{1000 * median:.1f} ms, {1000 * late:.1f} ms, {most / 1000:.0f} kB")
        for side in ("1000", "4096"):
            seconds, received, own = said[side]
            ratio = reference[side][0] / seconds
            row.append(f"{seconds:.1f} s ({ratio:.2f}), {received / 1e6:.0f} MB, client {own:.1f} s")
        rows.append([*row, f"{cpu[key]:.1f} s"])
    show(
        "A zone by zarr-python: opened; one of 200 pixels, median, 95 %, bytes; windows (speed by nginx's)",
        ["store", "open", "pixel", "1000 x 1000 x 128", "4096 x 4096 x 128", "server's processor"],
        rows,
    )
