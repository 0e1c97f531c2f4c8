"""What readers fetch over HTTP, from nginx: ours, the GeoTIFF that geotessera exports, and whole downloads.

Requests and bytes come from nginx's own access log. Each read is a fresh process with GDAL's ``/vsicurl/``.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog_builder.synthetic.sample import write_geotiff_tile
from catalog_builder.tile.grid import TileId
from tests.bench.tables import show
from tests.conftest import plain_environment
from tests.convert.making import convert_one, sample, write_pair
from tests.convert.test_requests import READER, RECOMMENDED
from tests.support.needs import program
from tests.support.ports import free_port

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

TILE = TileId.from_name("grid_0.15_52.15")
CONFIG = """
{user} daemon off; pid {root}/nginx.pid; error_log {root}/error.log; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  log_format own '$request_method $status $body_bytes_sent';
  access_log {root}/access.log own;
  client_body_temp_path {root}/a; proxy_temp_path {root}/b; fastcgi_temp_path {root}/c;
  uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
  keepalive_requests 100000;
  server {{ listen 127.0.0.1:{port}; location / {{ root {data}; max_ranges 64; }} }}
}}
"""
ODC = """
import json, sys, warnings
warnings.simplefilter("ignore")
import odc.stac, pystac
item = pystac.Item.from_dict(json.loads(sys.stdin.read()))
odc.stac.load([item], bands=sys.argv[1].split(",")).compute()
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx and its log."""

    url: str
    log: Path

    def cost(
        self, command: list[str], settings: dict[str, str], text: str = ""
    ) -> tuple[int, int, float, float]:
        """Run a reader; return HEADs, GETs, MB and seconds."""
        before = len(self.log.read_text().splitlines())
        start = time.perf_counter()
        subprocess.run(
            command, check=True, capture_output=True, text=True, input=text, env=plain_environment(**settings)
        )
        seconds = time.perf_counter() - start
        time.sleep(0.2)  # nginx logs when a response has ended
        lines = [line.split() for line in self.log.read_text().splitlines()[before:]]
        heads = sum(line[0] == "HEAD" for line in lines)
        return heads, len(lines) - heads, sum(int(line[2]) for line in lines) / 1e6, seconds


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, Path]]:
    command = program("nginx", "nginx-light")
    root = tmp_path_factory.mktemp("nginx")
    data = root / "data"
    data.mkdir()
    port = free_port()
    # As root it would hand its requests to a user who may not read our temporary folder.
    user = "user root;" if os.getuid() == 0 else ""
    (root / "nginx.conf").write_text(CONFIG.format(root=root, port=port, data=data, user=user))
    process = subprocess.Popen([command, "-c", str(root / "nginx.conf")])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield Nginx(f"http://127.0.0.1:{port}", root / "access.log"), data
    finally:
        process.terminate()
        process.wait()


def _item(href: str, dtype: str) -> str:
    raster = TILE.raster()
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": "a",
        "geometry": {"type": "Point", "coordinates": [TILE.lon, TILE.lat]},
        "bbox": list(TILE.bounds),
        "links": [],
        "properties": {
            "datetime": "2024-01-01T00:00:00Z",
            "proj:code": f"EPSG:{raster.epsg}",
            "proj:shape": list(raster.shape),
            "proj:transform": list(raster.transform)[:6],
        },
        "assets": {
            "embeddings": {
                "href": href,
                "type": "image/tiff; application=geotiff",
                "data_type": dtype,
                "bands": [{"name": f"b{i:03d}"} for i in range(128)],
            }
        },
    }
    return json.dumps(item)


def test_access_patterns(nginx: tuple[Nginx, Path], tmp_path: Path) -> None:
    server, data = nginx
    npy = write_pair(tmp_path / "src", sample(TILE))
    row = convert_one(npy, data / "cogs").row
    ours = row.files["embeddings"]
    exported = write_geotiff_tile(data / "tiff", sample(TILE))
    pair = sum(s.size for s in row.sources if s.role != "landmask") / 1e6
    files = {
        "ours": (f"{server.url}/cogs/{ours.path}", ours.size / 1e6),
        "exported GeoTIFF": (f"{server.url}/{exported.relative_to(data)}", exported.stat().st_size / 1e6),
    }
    names = {
        "pixel": "one pixel, 128 bands",
        "aligned": "256 x 256 on the blocks' edges, 128 bands",
        "window": "256 x 256 anywhere, 128 bands",
        "bands": "3 bands, whole tile",
        "overview": "3 bands at 1/8",
    }
    rows: list[list[object]] = []
    for pattern, name in names.items():
        for what, (url, size) in files.items():
            if pattern == "overview" and what != "ours":
                continue  # it has none
            for label, settings in (("recommended", RECOMMENDED), ("none", {})):
                heads, gets, mb, seconds = server.cost([sys.executable, str(READER), pattern, url], settings)
                share = f"{100 * mb / size:.1f} %"
                rows.append([name, what, label, heads, gets, f"{mb:.2f}", share, f"{seconds:.1f}"])
        rows.append([name, "whole .npy pair", "", "", 2, f"{pair:.1f}", "100 %", ""])
    everything = ",".join(f"embeddings.{i}" for i in range(1, 129))
    for bands, name in (
        (everything, "odc-stac, 128 bands"),
        ("embeddings.4,embeddings.41,embeddings.91", "odc-stac, 3 bands"),
    ):
        for what, (url, size) in files.items():
            if what != "ours" and bands == everything:
                continue  # every band reads the whole file again: 128 times 338 MB
            item = _item(url, "int8" if what == "ours" else "float32")
            command = [sys.executable, "-c", ODC, bands]
            heads, gets, mb, seconds = server.cost(command, RECOMMENDED, item)
            rows.append(
                [
                    name,
                    what,
                    "recommended",
                    heads,
                    gets,
                    f"{mb:.2f}",
                    f"{100 * mb / size:.1f} %",
                    f"{seconds:.1f}",
                ]
            )
    head = ["what is read", "from", "settings", "HEAD", "GET", "MB", "of the file", "seconds"]
    show(
        f"HTTP, one tile: ours {files['ours'][1]:.1f} MB, exported {files['exported GeoTIFF'][1]:.1f} MB",
        head,
        rows,
    )
    found = {(r[0], r[1], r[2]): (int(str(r[4])), float(str(r[5]))) for r in rows if r[2]}
    ours_pixel = found[names["pixel"], "ours", "recommended"]
    assert ours_pixel[0] - 1 <= 3
    assert ours_pixel[1] < 0.02 * files["ours"][1]
    assert found[names["window"], "ours", "recommended"][0] - 1 <= 6
    assert found[names["bands"], "ours", "recommended"][1] < 0.03 * files["ours"][1]
    assert found["odc-stac, 128 bands", "ours", "recommended"][1] <= 1.05 * files["ours"][1]
