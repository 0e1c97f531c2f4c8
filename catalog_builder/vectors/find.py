"""The tile-years of a region, from a catalogue folder or a STAC API, and where their pixels are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.errors import CatalogError, DatasetError, GridError
from catalog_builder.pixels.place import Place, place_of
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.datasets import dataset as dataset_named
from catalog_builder.tile.grid import TileId

_HERE = "catalog:"
"""Placeholder for the catalogue's URL in hrefs of a folder's items."""


@dataclass(frozen=True, slots=True)
class TileYear:
    """One tile and year whose pixels can be read."""

    id: str
    """Id of its item."""
    dataset: Dataset
    tile: TileId
    year: int
    place: Place
    """Where its pixels are."""


def find(
    catalog: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None
) -> list[TileYear]:
    """Return the readable tile-years of a region, in the order of the catalogue.

    Parameters
    ----------
    catalog
        A catalogue folder, its s3 URL, or the http(s) URL of a tessera-stac API.
    region
        OGC:CRS84; tiles whose cell shares a point with it.
    years
        Years to include; None: all.
    name
        A dataset's directory name or collection id; None: the only one, or the first real one.

    Raises
    ------
    CatalogError
        If there is no catalogue, or the URL does not respond as an API.
    DatasetError
        If the catalogue does not have the dataset.
    """
    if storage.scheme(catalog) in ("http", "https"):
        return _from_api(catalog, region, years, name)
    return _from_catalog(catalog, region, years, name)


def _choose(names: Iterable[str], name: str | None) -> Dataset:
    """Return the requested dataset, among those with collections."""
    found = [ds for ds in map(_of_collection, names) if ds is not None]
    if name is not None:
        wanted = dataset_named(name)
        if wanted not in found:
            raise DatasetError(
                f"no collection {wanted.collection_id} in this catalogue: it has"
                f" {', '.join(d.collection_id for d in found) or 'none of TESSERA'}"
            )
        return wanted
    if not found:
        raise DatasetError("this catalogue has no collection of TESSERA embeddings")
    return ([d for d in found if not d.is_synthetic] or found)[0]


def _of_collection(collection: str) -> Dataset | None:
    """Return the dataset of a collection; None if it is not one of TESSERA embeddings."""
    try:
        found = dataset_named(collection)
    except DatasetError:
        return None
    return found if found.collection_id == collection else None


# ---------------------------------------------------------------------------------------- catalogue


def _from_catalog(
    catalog: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None
) -> list[TileYear]:
    from catalog_builder.catalog.index.search.item_rows import item_texts
    from catalog_builder.catalog.index.search.selection import Selection
    from catalog_builder.catalog.open import open_index
    from catalog_builder.item.item import item_template
    from catalog_builder.item.template import JsonRenderer
    from catalog_builder.tile.cover import cover

    index = open_index(catalog)
    record = index.collections[_choose(index.collections, name).collection_id]
    wanted = sorted(set(record.years) & years) if years is not None else None
    selection = Selection([record.ordinal], years=wanted, runs=cover(region))
    renderer = JsonRenderer(item_template(record.dataset, record.addresses, _HERE, record.grid))
    lane = f"{_HERE}/source/{record.dataset.directory}/"
    root = record.source_root.rstrip("/")

    def address(href: str) -> str:
        if href.startswith(lane):
            return f"{root}/{href.removeprefix(lane)}"
        if href.startswith(f"{_HERE}/data/"):
            return storage.join(catalog, href.removeprefix(f"{_HERE}/data/"))
        return href

    texts = item_texts(index.page(selection, 10_000_000), record, renderer)
    return _readable(map(orjson.loads, texts), record.dataset, address)


# ---------------------------------------------------------------------------------------------- API


def _from_api(
    url: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None
) -> list[TileYear]:
    import pystac_client
    from pystac_client import Client

    try:
        client = Client.open(url)
        chosen = _choose([c.id for c in client.get_collections()], name)
        when = f"{min(years)}-01-01T00:00:00Z/{max(years)}-12-31T23:59:59Z" if years else None
        search = client.search(
            collections=[chosen.collection_id],
            intersects=shapely.geometry.mapping(region),
            datetime=when,
            limit=500,
        )
        items = [
            item
            for item in search.items_as_dicts()
            if years is None or item["properties"].get("tessera:year") in years
        ]
    except (pystac_client.exceptions.APIError, OSError, KeyError) as error:
        raise CatalogError(
            f"{url}: does not respond as a STAC API: {' '.join(str(error).split())[:300]}"
        ) from error
    return _readable(items, chosen, lambda href: href)


# --------------------------------------------------------------------------------------------- items


def _readable(
    items: Iterable[Mapping[str, Any]], dataset: Dataset, address: Callable[[str], str]
) -> list[TileYear]:
    found = []
    for item in items:
        one = _tile_year(item, dataset, address)
        if one is not None:
            found.append(one)
    return found


def _tile_year(item: Mapping[str, Any], dataset: Dataset, address: Callable[[str], str]) -> TileYear | None:
    """Return where an item's pixels are; None if it has none to read."""
    name, _, year = str(item["id"]).rpartition("_")
    place = place_of(item, address)
    if place is None:
        return None
    try:
        return TileYear(item["id"], dataset, TileId.from_name(name), int(year), place)
    except (GridError, ValueError) as error:
        raise CatalogError(f"item {item['id']}: not a tessera-stac item ({error})") from error
