"""Exported GeoTIFFs of a local folder are served where their items say, and nothing else of the folder."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from api.app import create_app
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.errors import DatasetError
from catalog_builder.synthetic.geotiff import write_geotiff_tile
from tests.convert.making import COLUMN, YEAR, sample, write_pair
from tests.support.catalogs import build_from
from tests.support.http_server import serve

pytestmark = pytest.mark.service


def test_exports_are_served(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    path = write_geotiff_tile(folder, sample())
    (path.parent / "private.tif").write_bytes(path.read_bytes())
    build_from(tmp_path / "catalog", path.parents[1], dataset="synthetic", url="http://cat")
    other = path.with_name(path.name.replace("grid_", "grid_1"))
    other.write_bytes(b"not listed")
    with serve(create_app(tmp_path / "catalog")) as server, httpx.Client(trust_env=False) as http:
        items = http.get(f"{server.url}/search?limit=9").json()["features"]
        (href,) = {i["assets"]["source_geotiff"]["href"] for i in items}
        assert href.startswith(f"{server.url}/source/synthetic/")
        assert href == items[0]["assets"]["embeddings"]["href"]
        part = http.get(href, headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, path.read_bytes()[100:200])
        # the whole file: GDAL, which waits with the interpreter's lock, cannot read from its own process
        assert http.get(href).content == path.read_bytes()
        base = href.rpartition("/")[0]
        for name in ("private.tif", other.name, path.name.replace(".tif", ".tif.ovr"), f"../{path.name}"):
            assert http.get(f"{base}/{name}").status_code == 404, name


def test_a_catalogue_of_exports_is_converted(tmp_path: Path) -> None:
    """Its files are where its items say: two tiles, in folders of their own."""
    folder = tmp_path / "tiles"
    write_geotiff_tile(folder, sample())
    write_geotiff_tile(folder, sample(COLUMN[1]))
    build_from(tmp_path / "catalog", tmp_path, dataset="synthetic", url="http://cat")
    jobs = list(plan([str(tmp_path / "catalog")], Wanted()).jobs())
    assert len(jobs) == 2
    assert all(Path(job.main.address).is_file() for job in jobs)


def test_exports_beside_arrays_are_below_the_root_of_the_arrays(tmp_path: Path) -> None:
    """As geotessera downloads them: both forms of a tile in one folder, and a tile that has one form only."""
    folder = tmp_path / "tiles"
    npy = write_pair(folder, sample())
    paths = [write_geotiff_tile(folder, sample(tile)) for tile in COLUMN[:2]]
    build_from(tmp_path / "catalog", folder, dataset="synthetic", url="http://cat")
    with serve(create_app(tmp_path / "catalog")) as server, httpx.Client(trust_env=False) as http:
        found = http.get(f"{server.url}/search?limit=9").json()["features"]
        assets = {item["id"]: item["assets"] for item in found}
        for tile, path in zip(COLUMN[:2], paths, strict=True):
            href = assets[f"{tile.name}_{YEAR}"]["source_geotiff"]["href"]
            assert http.get(href).content == path.read_bytes()
        href = assets[f"{COLUMN[0].name}_{YEAR}"]["source_npy"]["href"]
        assert http.get(href).content == npy.read_bytes()
    jobs = list(plan([str(tmp_path / "catalog")], Wanted()).jobs())
    assert {job.main.address for job in jobs} == {str(npy), str(paths[1])}


def test_exports_outside_of_the_root_of_the_arrays_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    write_pair(folder, sample())
    path = write_geotiff_tile(folder / "exports", sample(COLUMN[1]))
    with pytest.raises(DatasetError, match="lies outside of") as refused:
        build_from(tmp_path / "catalog", folder, dataset="synthetic", url="http://cat")
    assert str(refused.value).startswith(f"{path}:")
    assert not (tmp_path / "catalog" / "catalog.json").exists()
