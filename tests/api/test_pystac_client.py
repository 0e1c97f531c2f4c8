"""pystac-client's whole tour, with every warning an error."""

from __future__ import annotations

from collections.abc import Iterator

import pystac_client
import pytest
from pystac import Item
from pystac_client import Client
from pystac_client.warnings import strict

from tests.api.oracle import Oracle
from tests.http_server import Server


@pytest.fixture(params=["GET", "POST"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with strict():
        yield Client.open(f"{server.url}/")


def validate(item: Item) -> None:
    """Against the core schema, which pystac ships; those of extensions need the network."""
    core = item.clone()
    core.stac_extensions = []
    core.validate()


def test_collections(client: Client) -> None:
    assert client.id == "tessera-stac"
    (collection,) = client.get_collections()
    assert collection.id == "tessera-v1"
    again = client.get_collection("tessera-v1")
    assert again is not None
    again.validate()
    assert [c.id for c in client.get_children()] == ["tessera-v1"]
    first = next(iter(again.get_items()))
    validate(first)
    assert client.get_collection("tessera-v1").get_item(first.id).id == first.id  # type: ignore[union-attr]


def test_pages_to_the_end(client: Client, oracle: Oracle, method: str) -> None:
    box = [-0.5, 51.4, 0.3, 51.7]
    search = client.search(method=method, bbox=box, limit=7)
    wanted = oracle.ids[oracle.in_bbox(*box)].tolist()
    assert [i.id for i in search.items()] == wanted
    assert search.matched() == len(wanted) > 20


def test_by_ids_collections_time_and_area(client: Client, oracle: Oracle, method: str) -> None:
    ids = oracle.ids[[5, 900, 30]].tolist()
    assert sorted(i.id for i in client.search(method=method, ids=ids).items()) == sorted(ids)
    area = {"type": "Polygon", "coordinates": [[[-3, 51], [-2, 51], [-2, 52], [-3, 51]]]}
    found = client.search(
        method=method, collections=["tessera-v1"], intersects=area, datetime="2023/2024", limit=100
    ).item_collection()
    assert {i.datetime.year for i in found if i.datetime} <= {2023, 2024}
    assert len(found) > 10
    for when in ("2024-06", "2024-01-01/..", "../2018-12-31", "2024-02-01T00:00:00Z"):
        item = next(client.search(method=method, datetime=when, max_items=1).items())
        validate(item)


def test_errors_reach_the_caller(client: Client) -> None:
    with pytest.raises(pystac_client.exceptions.APIError, match="bbox"):
        list(client.search(bbox=[0, 53, 1, 52]).items())
