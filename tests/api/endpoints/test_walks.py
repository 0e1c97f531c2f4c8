"""Who walks through the catalogue with a real client meets every item once, and is not sent around.

pystac-client lists a collection by its ``items`` link and everything by search, and follows ``child`` links
after that: nothing that it has listed may be behind one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pystac
import pytest
from pystac_client import Client
from pystac_client.warnings import strict

from tests.support.backends import Serve
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import Server

TILES = patch(0, 52, 12, 3)
OTHERS = patch(20, 40, 3, 2)
IDS = {
    "tessera-v1": sorted(f"{tile.name}_{year}" for year in (2020, 2021) for tile in TILES),
    "tessera-v1.1-cam": sorted(f"{tile.name}_2021" for tile in OTHERS),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, serve_on: Serve) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("walks")
    build_from(home / "c", *(write_manifest(home / "v1", year, TILES) for year in (2020, 2021)))
    build_from(home / "c", write_manifest(home / "cam", 2021, OTHERS), dataset="v1.1-cam")
    with serve_on(home / "c") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with strict():
        yield Client.open(f"{server.url}/")


def ids(items: Iterable[pystac.Item]) -> list[str]:
    return sorted(item.id for item in items)


def test_walk_meets_every_item_once(client: Client) -> None:
    walked = [item for _, _, items in client.walk() for item in items]
    assert ids(walked) == sorted(IDS["tessera-v1"] + IDS["tessera-v1.1-cam"])
    assert ids(client.get_items(recursive=True)) == ids(walked)


def test_a_collections_items_are_met_once(client: Client) -> None:
    collections = list(client.get_collections())
    assert [c.id for c in collections] == list(IDS)
    for collection in collections:
        assert ids(collection.get_items(recursive=True)) == IDS[collection.id]
        assert ids(item for _, _, items in collection.walk() for item in items) == IDS[collection.id]
        assert list(collection.get_all_collections()) == []


def test_all_collections_are_one_request(client: Client, server: Server) -> None:
    server.clear()
    assert [c.id for c in client.get_all_collections()] == list(IDS)
    assert [r.path for r in server.log] == ["/collections"]


def test_the_tree_leads_plain_pystac_to_every_item_once(server: Server) -> None:
    """By links alone: the tree is a STAC catalogue of its own, and is found from the landing page."""
    (href,) = (
        link.href
        for link in pystac.Catalog.from_file(f"{server.url}/").links
        if link.rel == "related" and link.href.endswith("/browse")
    )
    tree = pystac.Catalog.from_file(href)
    assert tree.get_self_href() == href
    assert ids(tree.get_items(recursive=True)) == sorted(IDS["tessera-v1"] + IDS["tessera-v1.1-cam"])
    for catalog, _, _ in tree.walk():
        assert catalog.get_root() is tree
        assert catalog is tree or catalog.get_parent() is not None


def test_a_collection_says_where_its_tree_is(client: Client, server: Server, tmp_path: Path) -> None:
    for name in IDS:
        collection = client.get_collection(name)
        assert collection is not None
        (href,) = (x.href for x in collection.links if x.rel == "related" and x.href.endswith("/browse"))
        catalog = pystac.Catalog.from_file(href)
        assert ids(catalog.get_items(recursive=True)) == IDS[name]
