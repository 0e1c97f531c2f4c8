"""One tile-year in every container, on a disk, behind a web server, and in S3."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from catalog_builder.pixels.place import Place, StoreWindow, published_arrays
from catalog_builder.stores.open import open_store
from catalog_builder.tile.grid import TileId
from tests.convert.making import YEAR, convert_one, sample, write_pair
from tests.support.http_server import Server, serve
from tests.support.s3_store import Store, s3_store
from tests.support.stores import make_stores

TILE = TileId.from_name("grid_0.05_83.65")
"""1121 x 180 pixels: nine rows of blocks, two columns, and rows too long to be read for a gap."""
CONTAINERS = ("npy", "cog", "float", "geotiff", "zarr", "icechunk")
QUANTIZED = ("npy", "cog", "zarr", "icechunk")
ARRAYS = ("npy", "zarr", "icechunk")
"""Those without overviews, of which every n-th pixel is given."""
WHERE = ("local", *(pytest.param(where, marks=pytest.mark.service) for where in ("http", "s3")))


@dataclass(frozen=True)
class Files:
    """The tile-year's files, and what numpy says is in them."""

    root: Path
    places: dict[str, Place]
    """By container; addresses are relative to ``root``."""
    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(self.scales) & (self.scales > 0)

    def values(self, container: str) -> npt.NDArray[np.float32]:
        """Return float32 (rows, columns, 128) as a container has them: converted ones are blanked.

        In stores, infinite scales are land that is not filled yet.
        """
        values = self.codes.astype(np.float32) * self.scales[..., None]
        if container not in ARRAYS:
            values[~self.valid] = np.nan
        elif container != "npy":
            values[~np.isfinite(self.scales)] = np.nan
        return values


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    root = tmp_path_factory.mktemp("containers")
    made = sample(TILE)
    source = write_pair(root / "npy", made, landmask=False)
    folder = source.relative_to(root).parents[2]
    arrays = published_arrays(str(folder), TILE, YEAR)
    rows = {p: convert_one(source, root / p, profile=p).row for p in ("native", "float32")}
    assert all(row.ok for row in rows.values()), rows
    pair, single = rows["native"].files, rows["float32"].files
    raster = TILE.raster()
    with rasterio.open(
        root / "plain.tif",
        "w",
        driver="GTiff",
        dtype="float32",
        count=128,
        height=raster.height,
        width=raster.width,
        crs=f"EPSG:{raster.epsg}",
        transform=raster.transform,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        interleave="pixel",
        compress="deflate",
        zlevel=1,
    ) as ds:
        values = made.codes.astype(np.float32) * made.scales[..., None]
        values[~(np.isfinite(made.scales) & (made.scales > 0))] = np.nan
        ds.write(np.moveaxis(values, -1, 0))
    places = {
        "npy": arrays,
        "cog": Place(
            "cog",
            f"native/{pair['embeddings'].path}",
            f"native/{pair['scales'].path}",
            raster,
            pair["embeddings"].size,
            pair["scales"].size,
            is_converted=True,
        ),
        "float": Place(
            "float",
            f"float32/{single['embeddings'].path}",
            None,
            raster,
            single["embeddings"].size,
            is_converted=True,
        ),
        "geotiff": Place("float", "plain.tif", None, raster),
    }
    made_stores = make_stores(root, {TILE: (made.codes, made.scales)})
    for name, path in (("zarr", made_stores.a), ("icechunk", made_stores.b)):
        group = open_store(str(path)).group_of(TILE)
        assert group is not None
        row, col = group.position(raster)
        inside = StoreWindow(group.name, group.years.index(2024), row, col)
        places[name] = Place("store", str(path.relative_to(root)), None, raster, inside=inside)
    return Files(root, places, made.codes, made.scales)


@pytest.fixture(scope="session")
def web(files: Files) -> Iterator[Server]:
    """Serve the files below any one folder's name: GDAL keeps what it read by URL."""
    app = Starlette(routes=[Mount("/{fresh}", StaticFiles(directory=files.root))])
    with serve(app) as server:
        yield server


@pytest.fixture(scope="module")
def store(files: Files) -> Iterator[Store]:
    """Run a store for a module: while it runs, the process's environment is that of the store."""
    with s3_store() as store:
        for place in files.places.values():
            for path in filter(None, (place.main, place.scales)):
                below = [p for p in (files.root / path).rglob("*") if p.is_file()] or [files.root / path]
                for file in below:
                    key = file.relative_to(files.root).as_posix()
                    store.client.upload_file(str(file), store.bucket, key)
        yield store


Placed = Callable[[str, str], Place]
"""``placed(container, where)``: the tile-year in a container, at addresses that nobody has read yet."""
_fresh = itertools.count()


@pytest.fixture
def placed(files: Files, request: pytest.FixtureRequest) -> Placed:
    def found(container: str, where: str) -> Place:
        place = files.places[container]
        if where == "local":
            base = str(files.root)
        elif where == "http":
            base = f"{request.getfixturevalue('web').url}/{next(_fresh)}"
        else:
            base = request.getfixturevalue("store").root
        scales = None if place.scales is None else f"{base}/{place.scales}"
        return replace(place, main=f"{base}/{place.main}", scales=scales)

    return found
