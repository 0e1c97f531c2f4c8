"""The arrays of zones among assets and links: what they say leads to the pixels."""

from __future__ import annotations

import httpx
import jsonschema
import numpy as np
import pystac
import pytest

from tests.conformance.extension_schemas import SCHEMAS
from tests.support.containers import YEAR, Contained
from tests.support.zone_arrays import Served

pytestmark = pytest.mark.service


def validated(found: pystac.STACObject) -> None:
    """Check it by the core schema, and by those of extensions that we have written down."""
    document = found.to_dict(include_self_link=False, transform_hrefs=False)
    assert "xarray-assets" in " ".join(found.stac_extensions)
    for extension in found.stac_extensions:
        jsonschema.Draft202012Validator(SCHEMAS[extension]).validate(document)
    found.stac_extensions = []
    found.validate()


def test_an_items_asset_says_where_it_is_in_the_array(contained: Contained) -> None:
    """Root, group, year and window, against numpy; by the fields of the xarray-assets extension."""
    tile = contained.years[YEAR][-1]  # nothing is written over it
    url = f"{contained.server.url}/collections/tessera-synthetic/items/{tile.name}_{YEAR}"
    item = httpx.get(url).json()
    asset = item["assets"]["zarr"]
    assert asset["type"] == "application/vnd+zarr; version=3"
    assert asset["roles"] == ["data"]
    kwargs = asset["xarray:open_kwargs"]
    assert kwargs == {"group": asset["tessera:group"], "zarr_format": 3, "chunks": None, "consolidated": True}
    assert any("xarray-assets" in extension for extension in item["stac_extensions"])
    validated(pystac.Item.from_dict(item))
    served = Served(f"{asset['href']}/bulk")
    window = asset["tessera:window"]
    assert window[2:] == item["properties"]["proj:shape"]
    codes, scales = served.window(kwargs["group"], asset["tessera:time_index"], *window)
    values = contained.values(tile)
    has = np.isfinite(scales)
    np.testing.assert_array_equal((codes * scales)[:, has], values[:, has])
    assert has.mean() > 0.2
    # the coordinates of the array are those of the item's raster
    transform = item["properties"]["proj:transform"]
    about = served.document(f"{kwargs['group']}/zarr.json")["attributes"]["spatial:transform"]
    assert about[2] + 10 * window[1] == transform[2]
    assert (about[5] - 10 * window[0] - transform[5]) % 10_000_000 == 0


def test_a_collection_has_an_asset_for_each_zone(contained: Contained) -> None:
    root = contained.server.url
    document = httpx.get(f"{root}/collections/tessera-synthetic").json()
    validated(pystac.Collection.from_dict(document))
    zones = {f"utm{tile.utm_zone:02d}" for tiles in contained.years.values() for tile in tiles}
    found = {key: asset for key, asset in document["assets"].items() if key.startswith("zarr_")}
    assert set(found) == {f"zarr_{zone}" for zone in zones}
    for asset in found.values():
        about = httpx.get(f"{asset['href']}/{asset['tessera:group']}/zarr.json").json()["attributes"]
        assert asset["proj:code"] == about["proj:code"]
        assert asset["proj:shape"] == about["spatial:shape"]
        assert asset["proj:transform"][:6] == about["spatial:transform"]
        assert YEAR in asset["tessera:years"]


def test_links_lead_to_the_root(contained: Contained) -> None:
    root = contained.server.url
    for path in ("/", "/collections/tessera-synthetic"):
        links = httpx.get(root + path).json()["links"]
        (found,) = (link for link in links if link["rel"] == "store")
        assert found["href"] == f"{root}/zarr/synthetic"
        assert httpx.get(f"{found['href']}/zarr.json").json()["node_type"] == "group"
