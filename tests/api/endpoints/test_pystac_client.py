"""pystac-client's whole tour, with every warning an error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac_client
import pytest
import shapely
from pystac import Item
from pystac_client import Client
from pystac_client.warnings import strict

from tests.support.http_server import Server
from tests.support.oracle import Oracle


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
    again.stac_extensions = []
    again.validate()
    # Its walk would list the items of a child once more, see test_walks.
    assert list(client.get_children()) == []
    first = next(iter(again.get_items()))
    validate(first)
    assert client.get_collection("tessera-v1").get_item(first.id).id == first.id  # type: ignore[union-attr]


def test_pages_to_the_end(client: Client, oracle: Oracle, method: str) -> None:
    box = [-0.5, 51.4, 0.3, 51.7]
    search = client.search(method=method, bbox=box, limit=7)
    wanted = oracle.ids(oracle.in_box(*box))
    assert [i.id for i in search.items()] == wanted
    assert search.matched() == len(wanted) > 20


def test_by_ids_collections_time_and_area(client: Client, oracle: Oracle, method: str) -> None:
    ids = oracle.ids(np.array([5, 900, 30]))
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


def test_filter_text_and_json(client: Client, oracle: Oracle) -> None:
    text = "tessera:year = 2021 AND s_intersects(geometry, POLYGON((0 52, 1 52, 1 53, 0 52)))"
    area = {"type": "Polygon", "coordinates": [[[0, 52], [1, 52], [1, 53], [0, 52]]]}
    condition = {
        "op": "and",
        "args": [
            {"op": "=", "args": [{"property": "tessera:year"}, 2021]},
            {"op": "s_intersects", "args": [{"property": "geometry"}, area]},
        ],
    }
    rows = oracle.touching(shapely.geometry.shape(area))
    wanted = oracle.ids(rows[oracle.year[rows] == 2021])
    for method in ("GET", "POST"):
        for form in (text, condition):
            search = client.search(method=method, filter=form, limit=20)
            assert [i.id for i in search.items()] == wanted
            assert search.matched() == len(wanted) > 20


def test_sort_fields_query_and_free_text(client: Client, method: str) -> None:
    box = [0.01, 52.01, 0.49, 52.49]
    found = list(
        client.search(method=method, bbox=box, sortby=["-properties.datetime", "+id"], limit=7).items()
    )
    order = [(-i.properties["tessera:year"], i.id) for i in found]
    assert order == sorted(order)
    assert len(found) > 25
    pages = client.search(method=method, bbox=box, fields=["id", "properties.tessera:year"], limit=5)
    first = next(pages.pages_as_dicts())["features"][0]
    assert set(first) == {"id", "properties"}
    asked = {"tessera:year": {"gte": 2023}}
    years = {
        i.properties["tessera:year"] for i in client.search(method=method, bbox=box, query=asked).items()
    }
    assert years == {2023, 2024}


@pytest.mark.parametrize(
    ("texts", "where"),
    [
        (["tessera:year>=2023"], lambda o: o.year >= 2023),
        (["tessera:year=2023"], lambda o: o.year == 2023),
        (["tessera:year<>2023", "tessera:year>2021"], lambda o: (o.year != 2023) & (o.year > 2021)),
        (["tessera:cog=false", "tessera:year<2019"], lambda o: o.year < 2019),
        (["tessera:cog=True"], lambda o: o.year < 0),
        (["gsd=10", "tessera:year=2022.0"], lambda o: o.year == 2022),
        (["proj:code=EPSG:32631", "tessera:utm_zone=31", "tessera:year=2024"], lambda o: o.year == 2024),
        ({"tessera:year": {"in": ["2020", 2022]}}, lambda o: (o.year == 2020) | (o.year == 2022)),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_query_strings(client: Client, oracle: Oracle, method: str, texts: Any, where: Any) -> None:
    """pystac-client sends the values of a query that is written as text as texts."""
    box = [0.01, 52.01, 0.49, 52.49]
    rows = oracle.in_box(*box)
    wanted = oracle.ids(rows[where(oracle)[rows]])
    search = client.search(method=method, bbox=box, query=texts, limit=100)
    assert [i.id for i in search.items()] == wanted
    assert wanted or "tessera:cog=True" in texts


def test_query_on_the_command_line(server: Server, oracle: Oracle) -> None:
    box = [0.01, 52.01, 0.49, 52.49]
    rows = oracle.in_box(*box)
    done = subprocess.run(
        [Path(sys.executable).with_name("stac-client"), "search", f"{server.url}/", "--matched",
         "--bbox", *map(str, box), "--query", "tessera:year>=2023", "tessera:cog=false"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str((oracle.year[rows] >= 2023).sum()), "items", "matched"]


def test_a_text_that_is_no_number_is_said_to_be_none(client: Client) -> None:
    with pytest.raises(pystac_client.exceptions.APIError, match="tessera:year"):
        list(client.search(query=["tessera:year>=soon"]).items())


def test_queryables_and_collection_search(client: Client) -> None:
    assert "tessera:year" in client.get_queryables()["properties"]
    collection = client.get_collection("tessera-v1")
    assert collection is not None
    assert "tessera:coverage" in collection.get_queryables()["properties"]  # type: ignore[attr-defined]
    found = client.collection_search(bbox=[-5, 50, 5, 55], datetime="2020", q="embeddings", limit=5)
    assert [c.id for c in found.collections()] == ["tessera-v1"]
    assert found.matched() == 1
    assert list(client.collection_search(q="nothing of the kind").collections()) == []
