"""``embeddings_f32_computed``: the asset of items, its two files over HTTP, and what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import odc.stac
import pystac
import pytest
import rasterio

from api.app import create_app
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.run import build
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.synthetic.geotiff import write_geotiff_tile
from catalog_builder.tile.datasets import dataset
from tests.clients.test_gdal import read
from tests.convert.making import convert_one, sample, write_pair
from tests.support.catalogs import build_from
from tests.support.http_server import serve
from tests.support.pixels import same
from tests.support.registry import write_land
from tests.support.stores import SHARD, make_stores

pytestmark = pytest.mark.service
KEY = "embeddings_f32_computed"
MADE = sample()


@dataclass
class Served:
    url: str
    http: httpx.Client
    home: Path

    @property
    def item(self) -> dict[str, Any]:
        found = self.http.get(f"{self.url}/search").json()["features"]
        (item,) = (i for i in found if i["id"] == f"{MADE.tile.name}_{MADE.year}")
        return dict(item)

    @property
    def view(self) -> str:
        return str(self.item["assets"][KEY]["href"])

    @property
    def raster(self) -> str:
        return self.view.removesuffix(".vrt") + ".tif"


def converted(root: Path) -> None:
    npy = write_pair(root / "src", MADE)
    with LedgerWriter(root / "catalog" / "cogs" / "ledger") as ledger:
        ledger.append(convert_one(npy, root / "catalog" / "cogs").row)
    build([], root / "catalog", BuildOptions(dataset=dataset("synthetic"), source_root=str(root / "src")))


def published(root: Path) -> None:
    npy = write_pair(root / "src", MADE)
    build_from(root / "catalog", npy.parents[2], dataset="synthetic", url="http://cat")


def exported(root: Path) -> None:
    path = write_geotiff_tile(root / "src", MADE)
    build_from(root / "catalog", path.parents[1], dataset="synthetic", url="http://cat")


def values(root: Path) -> Any:
    """Return float32 (128, rows, columns) of what there is: COGs, an export, or arrays."""
    for path in [*root.rglob("*_embeddings.tif"), *(root / "src").rglob("*_2024.tif*")]:
        with rasterio.open(path) as ds:
            found = ds.read().astype(np.float32)
        scales = path.with_name(path.name.replace("_embeddings", "_scales"))
        if scales != path:
            with rasterio.open(scales) as ds:
                found *= ds.read(1)
        return found
    return np.moveaxis(MADE.codes.astype(np.float32) * MADE.scales[..., None], -1, 0)


def stored(root: Path, kind: str) -> None:
    made = make_stores(root, {MADE.tile: (MADE.codes, MADE.scales)})
    land = write_land(root / "land", [MADE.tile])
    build_from(root / "catalog", getattr(made, kind), land, dataset="synthetic", url="http://cat")


KINDS: dict[str, Callable[[Path], None]] = {
    "converted": converted,
    "npy": published,
    "export": exported,
    "zarr": lambda root: stored(root, "a"),
    "icechunk": lambda root: stored(root, "b"),
}


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    KINDS[getattr(request, "param", "converted")](tmp_path)
    with serve(create_app(tmp_path / "catalog")) as server, httpx.Client(trust_env=False, timeout=60) as http:
        yield Served(server.url, http, tmp_path)


@pytest.mark.parametrize("served", list(KINDS), indirect=True)
def test_every_container_has_the_asset_and_its_values(
    served: Served, gdal_python: Path, tmp_path: Path
) -> None:
    asset = served.item["assets"][KEY]
    assert (asset["data_type"], asset["roles"]) == ("float32", ["data"])
    assert served.http.head(asset["href"]).headers["content-type"] == asset["type"]
    assert list(served.item["assets"]).index(KEY) > list(served.item["assets"]).index("embeddings")
    found, about = read(gdal_python, tmp_path, f"/vsicurl/{asset['href']}", (20, 100, 60, 70))
    wanted = values(served.home)[:, 100:170, 20:80]
    assert same(found, wanted)
    assert np.isfinite(found).any(axis=0).mean() > 0.5
    assert about["tags"]["TESSERA_TILE_LON"] == f"{MADE.tile.lon:.2f}"
    assert about["transform"] == list(MADE.tile.raster().transform)[:6]


def test_ranges_and_validators(served: Served, tmp_path: Path) -> None:
    http, url = served.http, served.raster
    head = http.head(url)
    size, etag = int(head.headers["content-length"]), head.headers["etag"]
    assert (head.status_code, head.headers["accept-ranges"]) == (200, "bytes")
    whole = http.get(url).content
    assert len(whole) == size
    for first, last in ((0, 99), (16_000, 900_000), (size - 70, size - 1)):
        part = http.get(url, headers={"range": f"bytes={first}-{last}"})
        assert (part.status_code, part.content) == (206, whole[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.headers["etag"] == etag
    suffix = http.get(url, headers={"range": "bytes=-9", "if-range": etag})
    assert (suffix.status_code, suffix.content) == (206, whole[-9:])
    assert http.get(url, headers={"range": "bytes=0-9", "if-range": '"other"'}).content == whole
    assert http.get(url, headers={"if-none-match": etag}).status_code == 304
    assert http.get(url, headers={"range": f"bytes={size}-"}).status_code == 416
    several = http.get(url, headers={"range": "bytes=0-3,500000-500003"})
    assert several.status_code == 206
    assert whole[500_000:500_004] in several.content
    path = tmp_path / "computed.tif"
    path.write_bytes(whole)
    with rasterio.open(path) as ds:
        assert ds.shape == MADE.tile.raster().shape


def test_the_view_is_given_whole_to_who_reads_from_its_start(served: Served) -> None:
    text = served.http.get(served.view).content
    assert 16_384 < len(text) < 65_536
    assert served.http.get(served.view, headers={"range": "bytes=0-16383"}).content == text
    part = served.http.get(served.view, headers={"range": "bytes=16384-"})
    assert (part.status_code, part.content) == (206, text[16_384:])
    assert f"url={served.raster.replace(':', '%3A').replace('/', '%2F')}<".encode() in text


def test_what_cannot_be_read_is_said_before_the_first_byte(served: Served) -> None:
    url = served.raster
    etag = served.http.head(url).headers["etag"]
    (path,) = (served.home / "catalog" / "cogs").rglob("*_embeddings.tif")
    path.rename(path.with_suffix(".gone"))
    refused = served.http.get(url, headers={"range": "bytes=400000-900000"})
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert path.name in refused.json()["description"]
    assert str(served.home) not in refused.text
    path.write_bytes(path.with_suffix(".gone").read_bytes())
    assert served.http.head(url).headers["etag"] != etag


@pytest.mark.parametrize("served", ["npy"], indirect=True)
def test_an_array_that_is_not_the_tiles_is_a_409(served: Served) -> None:
    (path,) = (served.home / "src").rglob("*_scales.npy")
    np.save(path, np.zeros((4, 4), np.float32))
    for url in (served.view, served.raster):
        refused = served.http.get(url)
        assert refused.status_code == 409
        assert "(4, 4)" in refused.json()["description"]
    path.unlink()
    assert served.http.get(served.view).status_code == 404


@pytest.mark.parametrize("served", ["zarr"], indirect=True)
def test_a_damaged_store_is_a_409(served: Served) -> None:
    """It stays damaged, so it is no 503 that asks to try again: read as a file, an array and an image."""
    raster, item = served.raster, served.item
    for shard in (p for p in (served.home / "zarr").rglob("embeddings/c/*/*/*/*") if p.is_file()):
        data = bytearray(shard.read_bytes())
        index = 16 * (SHARD // 32) ** 2 + 4
        data[: len(data) - index] = bytes(len(data) - index)
        shard.write_bytes(data)
    this = next(link["href"] for link in item["links"] if link["rel"] == "self")
    arrays = item["assets"]["embeddings"]["href"]
    for url in (raster, f"{this}/preview.png?bands=0,1,2", *([arrays] if arrays.endswith(".npy") else [])):
        refused = served.http.get(url, headers={"range": "bytes=400000-900000"})
        assert refused.status_code == 409, (url, refused.text)
        assert refused.json()["code"] == "SourceMismatch"
        assert "cannot be read or decoded" in refused.json()["description"]
        assert str(served.home) not in refused.text


@pytest.mark.parametrize("served", ["npy"], indirect=True)
def test_the_folders_index_names_both(served: Served) -> None:
    page = served.http.get(served.view.rpartition("/")[0] + "/").text
    for url in (served.view, served.raster):
        assert f'<a href="{url.rpartition("/")[2]}">' in page


def test_odc_stac_does_not_load_it_unasked(served: Served) -> None:
    item = pystac.Item.from_dict(served.item)
    known = odc.stac.parse_item(item).collection
    assert "embeddings_f32" in {asset for asset, _ in known.bands}
    assert KEY not in {asset for asset, _ in known.bands}


def test_arrays_on_the_web_are_not_passed_on(tmp_path: Path) -> None:
    npy = write_pair(tmp_path / "src", MADE)
    with serve(create_app_of_web(tmp_path, npy)) as server, httpx.Client(trust_env=False) as http:
        (item,) = http.get(f"{server.url}/search").json()["features"]
        assert "embeddings_f32" in item["assets"]
        assert KEY not in item["assets"]


def create_app_of_web(root: Path, npy: Path) -> Any:
    build_from(
        root / "catalog",
        npy.parents[2],
        dataset="synthetic",
        url="http://cat",
        source_root="https://tiles.example.org/v1",
    )
    return create_app(root / "catalog")
