"""The tiles of :mod:`tests.support.converted` in every container, each a catalogue behind its own server.

A test that takes :func:`contained` runs over all of them; what is right is numpy's product of the arrays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.tile.datasets import source_path
from catalog_builder.tile.grid import TileId
from tests.support.catalogs import build_from
from tests.support.converted import FIRST, NEIGHBOUR, Converted, converted
from tests.support.http_server import Server, serve
from tests.support.pixels import YEARS, Floats, tile_values
from tests.support.registry import write_land
from tests.support.stores import make_stores

UNCONVERTED = tuple(
    pytest.param(name, marks=pytest.mark.xdist_group("containers")) for name in ("npy", "zarr", "icechunk")
)
"""One process makes them all."""
CONTAINERS = ("cog", *UNCONVERTED)
"""The first is the catalogue of :func:`~tests.support.converted.converted`, with one year not converted."""
YEAR = 2024
"""Of the others: both tiles."""

Arrays = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Contained:
    """Tile-years in one container."""

    container: str
    catalog: Path
    server: Server
    years: Mapping[int, tuple[TileId, ...]]
    arrays: Mapping[TileId, Arrays]
    """Codes and scales of :data:`YEAR`, of tiles that are not converted: as a window of a store has them."""

    def values(self, tile: TileId, year: int = YEAR) -> Floats:
        """Return float32 (128, height, width)."""
        if self.container == "cog":
            return tile_values(converted(), tile, year)
        codes, scales = self.arrays[tile]
        return np.moveaxis(codes.astype(np.float32) * scales[..., None], -1, 0)


ContainedIn = Callable[[str], Contained]


@pytest.fixture(scope="session")
def contained_in() -> Iterator[ContainedIn]:
    """Lend what makes the tiles in a container, once."""
    with ExitStack() as stack:
        made: dict[str, Contained] = {}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-containers-")))
        sources: dict[str, Any] = {}

        def make(container: str) -> Contained:
            tiles = converted()
            if container == "cog":
                server = stack.enter_context(serve(create_app(tiles.catalog)))
                return Contained(container, tiles.catalog, server, YEARS, {})
            if not sources:
                stores = make_stores(folder, {tile: _published(tiles, tile) for tile in (FIRST, NEIGHBOUR)})
                sources.update(
                    npy=tiles.root / "source", zarr=stores.a, icechunk=stores.b, arrays=stores.tiles
                )
            arrays = sources["arrays"]
            land = [write_land(folder / "land", arrays)] if container != "npy" else []
            catalog = folder / f"{container}-catalog"
            where = {"source_root": str(tiles.embeddings)} if container == "npy" else {}
            build_from(
                catalog, sources[container], *land,
                dataset="synthetic", url="http://cat", years=frozenset({YEAR}),
                landmask_root=str(tiles.root / "source" / "global_0.1_degree_tiff_all"), **where,
            )  # fmt: skip
            if container == "npy":  # where tiles overlap, each has its own
                arrays = {tile: _published(tiles, tile) for tile in arrays}
            # An image drawn beside other tests takes seconds.
            server = stack.enter_context(serve(create_app(catalog, Settings(drawing_seconds=120))))
            return Contained(container, catalog, server, {YEAR: (FIRST, NEIGHBOUR)}, arrays)

        def found(container: str) -> Contained:
            if container not in made:
                made[container] = make(container)
            return made[container]

        yield found


@pytest.fixture(scope="session", params=CONTAINERS)
def contained(request: pytest.FixtureRequest, contained_in: ContainedIn) -> Contained:
    """Return the tiles in each container."""
    return contained_in(request.param)


@pytest.fixture(scope="session", params=UNCONVERTED)
def unconverted(request: pytest.FixtureRequest, contained_in: ContainedIn) -> Contained:
    """Return the tiles in each container of which GDAL reads views that the server makes."""
    return contained_in(request.param)


def _published(tiles: Converted, tile: TileId) -> Arrays:
    codes, scales = (
        np.load(tiles.embeddings / source_path(YEAR, tile.name, end)) for end in (".npy", "_scales.npy")
    )
    return codes, scales
