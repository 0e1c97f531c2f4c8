"""Points, polygons and a region as tables and files: time, bytes and memory, beside geotessera 0.11.

The same twenty tiles for both, on this disk and behind our own server, each run in a process of its own. From
a server geotessera downloads the tiles that it samples; over a store both read chunks. geotessera has no
statistics of polygons. And what only we have figures for: a million points in 4,000 tiles, and 10,000 fields.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely

from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import N_COLS, TileId
from tests.bench.measure import REPORT, Cost, cpu_of_tree, run
from tests.bench.serve import Server, tessera
from tests.bench.tables import show
from tests.support.catalogs import build_from
from tests.support.needs import program
from tests.support.ports import free_port
from tests.support.sample_stores import SampleStores
from tests.support.waiting import until

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

YEAR = 2024
FIRST = TileId.from_name("grid_15.05_78.25")
MANY = [TileId.from_row_col(FIRST.row, FIRST.col + i + 60 * zone) for zone in range(5) for i in range(20)]
TILES = MANY[:20]
BBOX = (15.42, 78.21, 15.68, 78.29)
"""A region over four tiles."""
OURS = REPORT + "\nfrom catalog_builder.cli.main import app\napp(sys.argv[1:], standalone_mode=False)\n"
THEIRS = (
    REPORT
    + """
import logging
from pathlib import Path
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from geotessera import GeoTessera, registry
from geotessera.store import GeoTesseraZarr

what, where, url, labels = sys.argv[1:5]
labels = pq.read_table(labels)
points = list(zip(labels["lon"].to_pylist(), labels["lat"].to_pylist()))
if what == "store":
    if where.startswith("http:"):  # as geotessera makes it of an https URL
        from obstore.store import HTTPStore
        from zarr.storage import ObjectStore
        plain = HTTPStore.from_url(where, client_options={"allow_http": True})
        where = ObjectStore(plain, read_only=True)
    found = GeoTesseraZarr(where).sample_points(points, 2024, cross_zone=False, search_px=0)
else:
    registry.embedding_url = lambda dataset, path: f"{url}/{path}"
    registry.landmask_url = lambda version, name: f"{url.rpartition('/')[0]}/landmasks/{name}"
    manifests = Path(where).parent / "registry"
    tessera = GeoTessera(embeddings_dir=where, registry_dir=manifests, dataset_version="v1")
    if what == "region":
        found = tessera.fetch_mosaic_for_region(tuple(map(float, sys.argv[5].split(","))), year=2024)[0]
    else:
        found = tessera.sample_embeddings_at_points(points, year=2024, auto_download=bool(url))
print(found.shape, int(np.isfinite(found).sum()))
"""
)


@dataclass(frozen=True)
class World:
    """Tiles, the catalogue of them, and what is asked."""

    folder: Path
    catalog: Path
    tiles: Path
    """As geotessera lays them out."""
    whole: int
    """Bytes of the first twenty."""

    @property
    def scattered(self) -> Path:
        """50,000 points in a hundred tiles."""
        return self.folder / "scattered.parquet"

    def labels(self, n: int) -> Path:
        return self.folder / f"labels-{n}.parquet"


def write_points(path: Path, tiles: list[TileId], n: int) -> None:
    rng = np.random.default_rng(n)
    of = rng.integers(0, len(tiles), n)
    lon = np.array([tile.lon for tile in tiles])[of] + rng.uniform(-0.05, 0.05, n)
    lat = np.array([tile.lat for tile in tiles])[of] + rng.uniform(-0.05, 0.05, n)
    pq.write_table(pa.table({"id": np.arange(n), "lon": lon, "lat": lat}), path)


def write_fields(path: Path, labels: Path, n: int) -> None:
    """Write octagons of 2 ha around points."""
    table = pq.read_table(labels).slice(0, n)
    lon, lat = table["lon"].to_numpy()[:, None], table["lat"].to_numpy()[:, None]
    angle, radius = np.linspace(0, 2 * np.pi, 9)[:-1], 80 / 111_000
    x, y = lon + radius / np.cos(np.radians(lat)) * np.cos(angle), lat + radius * np.sin(angle)
    polygons = shapely.to_wkb(shapely.polygons(np.stack([x, y], axis=-1)))
    about = {"geometry_type": "Polygon", "crs": "OGC:CRS84", "driver": "GPKG"}
    pyogrio.raw.write(path, polygons, [np.arange(len(polygons))], ["field"], **about)


def write_tiles(root: Path, tiles: list[TileId]) -> None:
    """Write random tiles as geotessera lays them out."""
    write_arrays(root, tiles)
    masks = root / "global_0.1_degree_tiff_all"
    masks.mkdir()
    for tile in tiles:
        raster = tile.raster()
        about = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": f"EPSG:{raster.epsg}"}
        size = {"height": raster.height, "width": raster.width, "transform": raster.transform}
        with rasterio.open(masks / f"{tile.name}.tiff", "w", **about, **size, compress="deflate") as mask:
            mask.write(np.ones((1, *raster.shape), np.uint8))


def write_arrays(root: Path, tiles: list[TileId]) -> None:
    """Write random arrays and scales; those of one shape are links to one file."""
    folder = root / "global_0.1_degree_representation"
    first: dict[tuple[int, int], list[Path]] = {}
    rng = np.random.default_rng(0)
    for tile in tiles:
        shape = tile.raster().shape
        paths = [folder / source_path(YEAR, tile.name, end) for end in (".npy", "_scales.npy")]
        paths[0].parent.mkdir(parents=True)
        if shape in first:
            for path, of in zip(paths, first[shape], strict=True):
                os.link(of, path)
            continue
        first[shape] = paths
        np.save(paths[0], rng.integers(-100, 100, (*shape, 128), np.int8))
        scales: npt.NDArray[np.float32] = rng.uniform(0.03, 0.09, shape).astype(np.float32)
        scales[rng.random(shape) < 0.05] = np.nan
        np.save(paths[1], scales)


def write_registry(folder: Path, tiles: list[TileId], sizes: list[list[int]]) -> None:
    """Write geotessera's manifests of tiles, with the sizes of their arrays and scales."""
    folder.mkdir()
    about = pa.table(
        {
            "year": pa.array([YEAR] * len(tiles)),
            "lon": [t.lon for t in tiles],
            "lat": [t.lat for t in tiles],
            "grid_size": [pair[0] for pair in sizes],
            "scales_size": [pair[1] for pair in sizes],
        }
    )
    pq.write_table(about, folder / "manifest.parquet")
    ones = pa.array([1] * len(tiles))
    pq.write_table(
        about.select(["lon", "lat"]).append_column("file_size", ones), folder / "landmasks.parquet"
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("vectors")
    arrays = folder / "tiles" / "global_0.1_degree_representation"
    write_tiles(folder / "tiles", MANY)
    about = {"dataset": "synthetic", "url": "http://localhost", "source_root": str(arrays)}
    build_from(folder / "catalog", folder / "tiles", **about)
    sizes = [
        [(arrays / source_path(YEAR, t.name, end)).stat().st_size for end in (".npy", "_scales.npy")]
        for t in MANY
    ]
    write_registry(folder / "registry", MANY, sizes)
    made = World(folder, folder / "catalog", folder / "tiles", sum(map(sum, sizes[: len(TILES)])))
    for n in (1_000, 100_000):
        write_points(made.labels(n), TILES, n)
    write_points(made.scattered, MANY, 50_000)
    write_fields(folder / "fields.gpkg", made.labels(1_000), 1_000)
    return made


AT_SERVER = (
    REPORT
    + """
import json
import tessera_stac

url, labels = sys.argv[1:3]
table = tessera_stac.points(url, labels, years=[2024], reader="server")
print(json.dumps({"read_bytes": table.nbytes}))
"""
)
"""The vectors come as float32, and what was read is their size."""


@dataclass
class Bench:
    """The rows of a table, and the server that some of them ask."""

    world: World
    python: Path
    """With geotessera 0.11."""
    folder: Path
    rows: list[list[object]]
    server: Server | None = None

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.port}"

    def ours(self, what: str, where: str, who: str, *arguments: object, code: str = OURS) -> Cost:
        """Run a verb, or other code of ours."""
        flags = ["-q", "--json"] if code is OURS else []
        return self._run(what, where, who, [sys.executable, "-c", code, *map(str, arguments), *flags], None)

    def theirs(self, what: str, where: str, *arguments: object, read: int | None = None) -> Cost:
        """Run geotessera."""
        command = [str(self.python), "-c", THEIRS, *map(str, arguments)]
        return self._run(what, where, "geotessera 0.11", command, read)

    def _run(self, what: str, where: str, who: str, command: list[str], read: int | None) -> Cost:
        before = self._served()
        cost = run(command, MPLBACKEND="agg", MPLCONFIGDIR="/tmp")
        served = "" if self.server is None or where == "disk" else f"{self._served() - before:.1f}"
        if read is None and cost.output.startswith("{"):
            read = json.loads(cost.output).get("read_bytes")
        mb = "" if read is None else f"{read / 1e6:,.1f}"
        figures = [f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", served, mb, f"{cost.peak_mb:.0f}"]
        self.rows.append([what, where, who, *figures])
        return cost

    def _served(self) -> float:
        return 0.0 if self.server is None else cpu_of_tree(self.server.process.pid)

    def points(self, what: str, labels: Path, where: str, whole: int | None) -> None:
        """Compare points, from the disk or from the server."""
        catalog = self.world.catalog if where == "disk" else self.url
        out = self.folder / f"{labels.stem}-{where}.parquet"
        self.ours(
            what, where, "points", "points", labels, "--catalog", catalog, "--years", YEAR, "--out", out
        )
        if where == "disk":
            self.theirs("", where, "points", self.world.tiles, "", labels)
            return
        self.ours("", where, "POST points", self.url, labels, code=AT_SERVER)
        away = self.folder / "geotessera" / "tiles"
        away.mkdir(parents=True)
        shutil.copytree(self.world.folder / "registry", away.parent / "registry")
        masks = "global_0.1_degree_tiff_all"
        shutil.copytree(self.world.tiles / masks, away / masks)
        source = f"{self.url}/source/synthetic"
        self.theirs("", where, "points", away, source, labels, read=whole)
        shutil.rmtree(away.parent)


HEAD = ("what", "from", "with", "seconds", "CPU s", "CPU s of the server", "MB read", "peak MB")


@pytest.fixture
def bench(world: World, geotessera11: Path, tmp_path: Path) -> Bench:
    return Bench(world, geotessera11, tmp_path, [])


def test_beside_geotessera(bench: Bench) -> None:
    world, folder, port = bench.world, bench.folder, free_port()
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", world.catalog, "--port", port]
    bench.server = Server(command, port)
    try:
        for n in (1_000, 100_000):
            for where in ("disk", "server"):
                bench.points(f"{n:,} points", world.labels(n), where, world.whole)
        bench.points("50,000 points in 100 tiles", world.scattered, "server", 5 * world.whole)
        bbox = ",".join(map(str, BBOX))
        catalogs = (("disk", world.catalog), ("server", bench.url))
        for where, catalog in catalogs:
            about = ("--catalog", catalog, "--stat", "mean,std,count,median", "--out")
            fields, out = world.folder / "fields.gpkg", folder / f"fields-{where}.parquet"
            bench.ours("1,000 polygons", where, "zonal", "zonal", fields, *about, out)
        for where, catalog in catalogs:
            region = ("get", catalog, "--bbox", bbox, "--year", YEAR, "--out", folder / f"region-{where}")
            bench.ours("a region over four tiles", where, "get", *region)
        bench.theirs("", "disk", "region", world.tiles, "", world.labels(1_000), bbox)
    finally:
        bench.server.stop()
    show("Vectors, beside geotessera 0.11", HEAD, bench.rows)


def test_beside_geotessera_over_one_store(bench: Bench, sample_stores: SampleStores) -> None:
    """The same Zarr store for both, on this disk and from nginx, and read by our server from nginx."""
    store, folder = sample_stores.zarr, bench.folder
    tiles = [w.tile for w in sample_stores.npy.written]
    labels, out, web = folder / "labels.parquet", folder / "out.parquet", folder / "web"
    write_points(labels, tiles, 100_000)
    name = store.store.name
    (web / f"{name}.build").mkdir(parents=True)
    (web / name).symlink_to(store.store)
    filled = {
        "year": [YEAR] * len(tiles),
        "zone": [t.utm_zone for t in tiles],
        "tile_lon": [t.lon for t in tiles],
        "tile_lat": [t.lat for t in tiles],
    }
    pq.write_table(pa.table(filled), web / f"{name}.build" / "_registry.parquet")  # the web lists nothing
    with static_files(folder / "nginx", web) as address:
        for where, place in (("a disk", str(store.store)), ("nginx", f"{address}/{name}")):
            catalog = folder / f"catalog of {where}"
            about = {"dataset": "synthetic", "url": "http://localhost"}
            build_from(catalog, place, store.land, **about)
            asked = ("points", labels, "--catalog", catalog, "--years", YEAR, "--force", "--out", out)
            what = "100,000 points" if where == "a disk" else ""
            bench.ours(what, f"Zarr, {where}", "points", *asked)
            bench.theirs("", f"Zarr, {where}", "store", place, "", labels)
        with tessera(catalog) as server:
            bench.server = server
            bench.ours("", "Zarr, nginx", "POST points", bench.url, labels, code=AT_SERVER)
    show("Vectors of one Zarr store, beside geotessera 0.11", HEAD, bench.rows)


@contextmanager
def static_files(home: Path, root: Path) -> Iterator[str]:
    """Run nginx over a folder."""
    home.mkdir()
    port = free_port()
    (home / "nginx.conf").write_text(
        f"daemon off; pid {home}/pid; error_log {home}/error.log; worker_processes 1;"
        f" user root; events {{}} http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port};"
        f" root {root}; }} }}"
    )
    process = subprocess.Popen(
        [program("nginx", "nginx-light"), "-p", str(home), "-c", str(home / "nginx.conf")]
    )
    try:
        until(lambda: _listens(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_million_points_and_ten_thousand_fields(tmp_path: Path) -> None:
    """4,000 tiles, one year: of each shape one file, which the others are links to."""
    row_of = TileId.from_name("grid_0.05_78.25").row
    tiles = [TileId.from_row_col(row_of + i // N_COLS, i % N_COLS) for i in range(4_000)]
    write_arrays(tmp_path / "tiles", tiles)
    catalog, labels = tmp_path / "catalog", tmp_path / "labels.parquet"
    arrays = tmp_path / "tiles" / "global_0.1_degree_representation"
    about = {"dataset": "synthetic", "url": "http://localhost", "source_root": str(arrays)}
    build_from(catalog, tmp_path / "tiles", **about)
    write_points(labels, tiles, 1_000_000)
    write_fields(tmp_path / "fields.gpkg", labels, 10_000)
    bench = Bench(World(tmp_path, catalog, arrays, 0), Path(), tmp_path, [])
    arguments = ("--catalog", catalog, "--years", YEAR, "--workers", 2, "--out")
    stat = ("--stat", "mean,std,count,median")
    points = bench.ours(
        "1,000,000 points in 4,000 tiles", "disk", "points",
        "points", labels, *arguments, tmp_path / "points.parquet",
    )  # fmt: skip
    fields = bench.ours(
        "10,000 fields of 2 ha, with the median", "disk", "zonal",
        "zonal", tmp_path / "fields.gpkg", *arguments, tmp_path / "fields.parquet", *stat,
    )  # fmt: skip
    show("Vectors, 4,000 tiles", HEAD, bench.rows)
    assert points.cpu_seconds < 60
    assert points.peak_mb < 600
    assert fields.cpu_seconds < 60
