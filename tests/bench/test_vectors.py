"""Points, polygons and a region as tables and files: time, bytes and memory, beside geotessera 0.11.

The same twenty tiles for both, on this disk and behind our own server, each run in a process of its own. From
a server geotessera downloads the tiles that it samples; over a store both read chunks. geotessera has no
statistics of polygons. And what only we have figures for: a million points in 4,000 tiles, and 10,000 fields.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from catalog_builder.synthetic.sample import sample_set
from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import N_COLS, TileId
from tests.bench.measure import REPORT, Cost, run
from tests.bench.serve import Server
from tests.bench.tables import show
from tests.support.catalogs import build_from
from tests.support.ports import free_port
from tests.support.sample_stores import SampleStores

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

YEAR = 2024
FIRST = TileId.from_name("grid_15.05_78.25")
TILES = [TileId.from_row_col(FIRST.row, FIRST.col + i) for i in range(20)]
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("vectors")
    sample = sample_set(folder / "tiles", tile_years=[(tile, YEAR) for tile in TILES], workers=2)
    build_from(
        folder / "catalog",
        sample.root,
        dataset="synthetic",
        url="http://localhost",
        source_root=str(sample.embeddings),
    )
    (folder / "registry").mkdir()
    about = pa.table(
        {
            "year": pa.array([YEAR] * len(TILES)),
            "lon": [t.lon for t in TILES],
            "lat": [t.lat for t in TILES],
            "grid_size": [w.npy.stat().st_size for w in sample.written],
            "scales_size": [w.scales.stat().st_size for w in sample.written],
        }
    )
    pq.write_table(about, folder / "registry" / "manifest.parquet")
    sizes = pa.array([1] * len(TILES))
    pq.write_table(
        about.select(["lon", "lat"]).append_column("file_size", sizes),
        folder / "registry" / "landmasks.parquet",
    )
    made = World(folder, folder / "catalog", folder / "tiles")
    (made.tiles / "tessera_metadata.json").unlink(
        missing_ok=True
    )  # geotessera refuses a dataset it knows not
    for n in (1_000, 100_000):
        write_points(made.labels(n), TILES, n)
    write_fields(folder / "fields.gpkg", made.labels(1_000), 1_000)
    return made


def ours(*arguments: object) -> tuple[Cost, int | None]:
    """Run a verb; return its cost and the bytes that it read."""
    cost = run([sys.executable, "-c", OURS, *map(str, arguments), "-q", "--json"])
    return cost, json.loads(cost.output).get("read_bytes")


def theirs(python: Path, *arguments: object) -> Cost:
    return run([str(python), "-c", THEIRS, *map(str, arguments)], MPLBACKEND="agg", MPLCONFIGDIR="/tmp")


def row(what: str, where: str, who: str, cost: Cost, read: int | None) -> list[object]:
    mb = "" if read is None else f"{read / 1e6:,.1f}"
    return [what, where, who, f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", mb, f"{cost.peak_mb:.0f}"]


HEAD = ("what", "from", "with", "seconds", "CPU s", "MB read", "peak MB")


def test_beside_geotessera(
    world: World, geotessera11: Path, sample_stores: SampleStores, tmp_path: Path
) -> None:
    whole = sum(f.stat().st_size for f in (world.tiles / "global_0.1_degree_representation").rglob("*.npy"))
    port, rows = free_port(), []
    command = [sys.executable, "-m", "catalog_builder.cli", "serve", world.catalog, "--port", port]
    server = Server(command, port)
    url = f"http://127.0.0.1:{port}"
    try:
        for n in (1_000, 100_000):
            for where, catalog in (("disk", world.catalog), ("server", url)):
                out = tmp_path / f"{where}-{n}.parquet"
                arguments = ("--catalog", catalog, "--years", YEAR, "--out", out)
                rows.append(
                    row(f"{n:,} points", where, "points", *ours("points", world.labels(n), *arguments))
                )
                away = tmp_path / f"geotessera-{n}" / "tiles"
                away.mkdir(parents=True, exist_ok=True)
                if where == "server":
                    shutil.copytree(world.folder / "registry", away.parent / "registry")
                    shutil.copytree(
                        world.tiles / "global_0.1_degree_tiff_all", away / "global_0.1_degree_tiff_all"
                    )
                other = theirs(
                    geotessera11,
                    "points",
                    world.tiles if where == "disk" else away,
                    "" if where == "disk" else f"{url}/source/synthetic",
                    world.labels(n),
                )
                rows.append(row("", where, "geotessera 0.11", other, whole if where == "server" else None))
                shutil.rmtree(away.parent)
        for where, catalog in (("disk", world.catalog), ("server", url)):
            arguments = ("--catalog", catalog, "--stat", "mean,std,count,median", "--out")
            out = tmp_path / f"fields-{where}.parquet"
            cost = ours("zonal", world.folder / "fields.gpkg", *arguments, out)
            rows.append(row("1,000 polygons", where, "zonal", *cost))
            bbox = ",".join(map(str, BBOX))
            cost = ours("get", catalog, "--bbox", bbox, "--year", YEAR, "--out", tmp_path / f"region-{where}")
            rows.append(row("a region", where, "get", *cost))
        other = theirs(geotessera11, "region", world.tiles, "", world.labels(1_000), bbox)
        rows.append(row("", "disk", "geotessera 0.11", other, None))
    finally:
        server.process.terminate()
        server.process.wait()
    store = sample_stores.zarr
    build_from(tmp_path / "stored", store.store, store.land, dataset="synthetic", url="http://localhost")
    tiles = [w.tile for w in sample_stores.npy.written]
    labels = tmp_path / "labels.parquet"
    write_points(labels, tiles, 100_000)
    out = tmp_path / "stored.parquet"
    cost = ours("points", labels, "--catalog", tmp_path / "stored", "--years", YEAR, "--out", out)
    rows.append(row("100,000 points", "Zarr store", "points", *cost))
    rows.append(
        row("", "Zarr store", "geotessera 0.11", theirs(geotessera11, "store", store.store, "", labels), None)
    )
    show("Vectors, beside geotessera 0.11", HEAD, rows)


def test_a_million_points_and_ten_thousand_fields(tmp_path: Path) -> None:
    """4,000 tiles, one year: of each shape one file, which the others are links to."""
    row_of = TileId.from_name("grid_0.05_78.25").row
    tiles = [TileId.from_row_col(row_of + i // N_COLS, i % N_COLS) for i in range(4_000)]
    folder = tmp_path / "tiles" / "global_0.1_degree_representation"
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
    catalog, labels = tmp_path / "catalog", tmp_path / "labels.parquet"
    about = {"dataset": "synthetic", "url": "http://localhost", "source_root": str(folder)}
    build_from(catalog, tmp_path / "tiles", **about)
    write_points(labels, tiles, 1_000_000)
    write_fields(tmp_path / "fields.gpkg", labels, 10_000)
    arguments = ("--catalog", catalog, "--years", YEAR, "--workers", 2, "--out")
    points = ours("points", labels, *arguments, tmp_path / "points.parquet")
    stat = ("--stat", "mean,std,count,median")
    fields = ours("zonal", tmp_path / "fields.gpkg", *arguments, tmp_path / "fields.parquet", *stat)
    rows = [
        row("1,000,000 points", "disk", "points", *points),
        row("10,000 fields of 2 ha", "disk", "zonal", *fields),
    ]
    show("Vectors, 4,000 tiles", HEAD, rows)
    assert points[0].cpu_seconds < 60
    assert points[0].peak_mb < 600
    assert fields[0].cpu_seconds < 60
