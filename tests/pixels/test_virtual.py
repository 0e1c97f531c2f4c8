"""Published arrays that are computed from another container: the files that numpy would have written."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from api.files.direct.app import DirectAccess
from api.files.direct.paths import SourceRoot
from catalog_builder.pixels.container.table import CONTAINERS, place_below
from catalog_builder.pixels.virtual import Role, VirtualArray
from catalog_builder.tile.datasets import dataset
from tests.conftest import plain_environment
from tests.pixels.conftest import TILE, WHERE, YEAR, Files, Placed
from tests.support.http_server import Server, serve
from tests.support.pixels import same

COMPUTED = ("cog", "zarr", "icechunk")
"""Containers whose published arrays are computed."""


def written(files: Files, role: Role, container: str = "cog") -> bytes:
    """Return the file as numpy writes it, of pixels as the converter blanks them, or as a store has them."""
    array: np.ndarray = files.codes.copy() if role == "codes" else files.scales.copy()
    if container == "cog":
        array[~files.valid] = -128 if role == "codes" else np.nan
    elif role == "scales":
        array[~np.isfinite(files.scales)] = np.nan
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("role", ["codes", "scales"])
@pytest.mark.parametrize("container", COMPUTED)
def test_any_range_is_numpys(files: Files, placed: Placed, container: str, role: Role, where: str) -> None:
    array, whole = VirtualArray(placed(container, where), role), written(files, role, container)
    assert array.size == len(whole)
    row = 180 * array.item_size
    rng = np.random.default_rng(5)
    ranges = [
        (0, 10),
        (0, 128),
        (100, 130),
        (128, 129),
        (128 + row - 1, 128 + row + 1),
        (128 + 7, 128 + 3 * row + 5),
        (array.size - 1, array.size),
        *((a, a + n) for a, n in rng.integers(1, 50_000, (9, 2)).tolist()),
    ]
    for start, stop in ranges:
        assert array.read(start, stop) == whole[start:stop], (start, stop)
    if where == "local":
        assert array.read(0, array.size) == whole


def test_the_stamp_is_that_of_the_files(placed: Placed) -> None:
    place = placed("cog", "local")
    stamps = {
        VirtualArray(p, role).stamp
        for p in (place, replace(place, stamp="other"), replace(place, main="other"))
        for role in ("codes", "scales")
    }
    assert len(stamps) == 6


@pytest.fixture(params=COMPUTED)
def container(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def computed(files: Files, container: str, monkeypatch: pytest.MonkeyPatch) -> SourceRoot:
    """Return a dataset whose tile-years lie in a store, or in COGs at places that follow from its root."""
    place = files.places[container]
    if container != "cog":
        return SourceRoot(dataset("v1"), str(files.root / place.main), container="store")
    monkeypatch.setitem(
        CONTAINERS,
        "cog",
        replace(
            CONTAINERS["cog"],
            below=lambda root, _tile, _year: replace(
                place, main=f"{root}/{place.main}", scales=f"{root}/{place.scales}"
            ),
        ),
    )
    return SourceRoot(dataset("v1"), str(files.root), container="cog")


@pytest.fixture
def server(computed: SourceRoot) -> Iterator[Server]:
    app = DirectAccess([computed], lambda *_: True)
    with serve(Starlette(routes=[Mount("/source", app)])) as running:
        yield running


FOLDER = f"/source/v1/{YEAR}/{TILE.name}/{TILE.name}"
_READ = """
import json, sys, numpy, rasterio
from rasterio.windows import Window
with rasterio.open(sys.argv[1]) as ds:
    numpy.save(sys.argv[3], ds.read(window=Window(*json.loads(sys.argv[2]))))
"""


def test_gdal_reads_a_container_that_it_does_not_know(
    files: Files, container: str, server: Server, tmp_path: Path, gdal_python: Path
) -> None:
    """A container needs no more than its row in the table: the views of today read it."""
    for suffix, bands in (("_f32", slice(None)), ("_b005", slice(5, 6))):
        command = [gdal_python, "-c", _READ, f"/vsicurl/{server.url}{FOLDER}{suffix}.vrt"]
        command += [json.dumps((90, 600, 60, 40)), tmp_path / "o.npy"]
        env = plain_environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        expected = files.values(container)[600:640, 90:150, bands]
        assert same(np.moveaxis(np.load(tmp_path / "o.npy"), 0, -1), expected)


def test_its_files_over_http(files: Files, container: str, server: Server) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for suffix, role in ((".npy", "codes"), ("_scales.npy", "scales")):
            whole = written(files, role, container)  # type: ignore[arg-type]
            head = client.head(f"{FOLDER}{suffix}")
            assert head.headers["content-length"] == str(len(whole))
            part = client.get(f"{FOLDER}{suffix}", headers={"Range": "bytes=5000-299999"})
            assert (part.status_code, part.content) == (206, whole[5000:300_000])
            assert part.headers["etag"] == head.headers["etag"]
        # what is nowhere on a disk has no bands cut out of it, and no index
        assert client.get(f"{FOLDER}_planes.bin").status_code == 404
        assert client.get(FOLDER.rpartition("/")[0] + "/").status_code == 404


def test_places_that_only_items_know() -> None:
    with pytest.raises(ValueError, match="container 'float' can only be found through their items"):
        place_below("/x", TILE, YEAR, "float")
