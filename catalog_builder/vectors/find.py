"""The tile-years of a region, from a catalogue folder or a STAC API, and where their pixels are."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.errors import CatalogError, DatasetError, GridError
from catalog_builder.pixels.place import Place, place_of
from catalog_builder.tile import grid
from catalog_builder.tile.cell_sets import from_cells
from catalog_builder.tile.cover import Runs
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.datasets import dataset as dataset_named
from catalog_builder.tile.grid import Cells, TileId
from catalog_builder.tile.years import FIRST_YEAR

if TYPE_CHECKING:
    from pystac_client import Client

    from catalog_builder.catalog.index.search.pages import Row

_HERE = "catalog:"
"""Placeholder for the catalogue's URL in hrefs of a folder's items."""
_PAGE = 5000
"""Items that are rendered together."""
_IDS = 500
"""Ids of one search."""


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


@dataclass(frozen=True, slots=True)
class Found:
    """What a catalogue has of a region."""

    dataset: Dataset
    years: tuple[int, ...]
    """Those that were asked for, or all of the collection."""
    tile_years: Mapping[tuple[int, int], TileYear | str]
    """By cell and year, in the order of the catalogue: where the pixels are, or why they cannot be read."""
    listed: frozenset[tuple[int, int]]
    """Cells and years that are listed, whichever were asked for."""

    @property
    def readable(self) -> list[TileYear]:
        """Those whose pixels can be read."""
        return [one for one in self.tile_years.values() if isinstance(one, TileYear)]


def find(catalog: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None) -> Found:
    """Return what a catalogue has of a region.

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
    of = _from_api if storage.scheme(catalog) in ("http", "https") else _from_catalog
    return of(catalog, region, None if years is None else tuple(sorted(years)), name)


def choose(names: Iterable[str], name: str | None) -> Dataset:
    """Return the requested dataset, among those with collections.

    Raises
    ------
    DatasetError
        If it has no collection, or none of them is one of TESSERA.
    """
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


def collections_of(catalog: str) -> list[tuple[Dataset, tuple[int, ...]]]:
    """Return the datasets of a catalogue and their years, or those that a collection's extent spans.

    Raises
    ------
    CatalogError
        As :func:`find`.
    """
    if storage.scheme(catalog) in ("http", "https"):
        with _collections(catalog) as (_, collections):
            found = [(_of_collection(each), _years_of(c)) for each, c in collections.items()]
    else:
        from catalog_builder.catalog.open import open_index

        index = open_index(catalog)
        found = [(_of_collection(each), tuple(r.years)) for each, r in index.collections.items()]
    return [(dataset, years) for dataset, years in found if dataset is not None]


@dataclass(frozen=True, slots=True)
class Listed:
    """What a catalogue has of some cells in some years."""

    dataset: Dataset
    years: tuple[int, ...]
    """Those that were asked for, or all of the collection."""
    tile_years: Mapping[tuple[int, int], TileYear | str]
    """By cell and year: where the pixels are, or why they cannot be read."""
    cells: frozenset[int]
    """Cells that are listed in any year, whichever were asked for."""


def find_cells(
    catalog: str, cells: Cells, years: Collection[int] | None = None, name: str | None = None
) -> Listed:
    """Return what a catalogue has of some cells, in few requests however many they are.

    Parameters
    ----------
    catalog
        A catalogue folder, its s3 URL, or the http(s) URL of a tessera-stac API.
    cells
        Cell numbers, see :func:`catalog_builder.tile.grid.cells`.
    years
        Years to include; None: all of the collection.
    name
        A dataset's directory name or collection id; None: the only one, or the first real one.

    Raises
    ------
    CatalogError
        If there is no catalogue, or the URL does not respond as an API.
    DatasetError
        If the catalogue does not have the dataset.
    """
    of = _cells_from_api if storage.scheme(catalog) in ("http", "https") else _cells_from_catalog
    return of(catalog, np.unique(cells), None if years is None else tuple(sorted(set(years))), name)


# ---------------------------------------------------------------------------------------- catalogue


class _Folder:
    """A collection of a catalogue folder, whose items are rendered from its index."""

    def __init__(self, catalog: str, name: str | None) -> None:
        from catalog_builder.catalog.open import open_index
        from catalog_builder.item.item import item_template
        from catalog_builder.item.template import JsonRenderer

        self.index = open_index(catalog)
        self.record = self.index.collections[choose(self.index.collections, name).collection_id]
        record = self.record
        self._catalog, self._root = catalog, record.source_root.rstrip("/")
        self._lane = f"{_HERE}/source/{record.dataset.directory}/"
        template = item_template(record.dataset, record.addresses, _HERE, record.grid)
        self._renderer = JsonRenderer(template)

    def address(self, href: str) -> str:
        """Return the path or URL of an href of its items."""
        if href.startswith(self._lane):
            return f"{self._root}/{href.removeprefix(self._lane)}"
        if href.startswith(f"{_HERE}/data/"):
            return storage.join(self._catalog, href.removeprefix(f"{_HERE}/data/"))
        return href

    def items(self, runs: Runs, years: Collection[int] | None) -> Iterator[Mapping[str, Any]]:
        """Yield the items of cells, in the order of the catalogue."""
        from catalog_builder.catalog.index.search.item_rows import item_texts

        for page in self._pages(runs, years):
            yield from map(orjson.loads, item_texts(page, self.record, self._renderer))

    def listed(self, runs: Runs) -> frozenset[tuple[int, int]]:
        """Return which of some cells are listed in which years."""
        from catalog_builder.catalog.index.keys import ordinals_years, rows_cols

        found: set[tuple[int, int]] = set()
        for page in self._pages(runs, None):
            keys = np.array([row[0] for row in page], np.int64)
            cells, years = grid.cells(*rows_cols(keys)), ordinals_years(keys)[1]
            found.update(zip(cells.tolist(), years.tolist(), strict=True))
        return frozenset(found)

    def _pages(self, runs: Runs, years: Collection[int] | None) -> Iterator[list[Row]]:
        from catalog_builder.catalog.index.search.selection import Selection

        wanted = None if years is None else sorted(set(self.record.years) & set(years))
        selection = Selection([self.record.ordinal], years=wanted, runs=runs)
        after = None
        while page := self.index.page(selection, _PAGE, after):
            yield page
            after = page[-1][0]


def _cells_from_catalog(
    catalog: str, cells: Cells, years: tuple[int, ...] | None, name: str | None
) -> Listed:
    folder = _Folder(catalog, name)
    found = _by_cell(folder.items(from_cells(cells), years), folder.record.dataset, folder.address)
    seen = {cell for cell, _ in found}
    others = np.array([c for c in cells.tolist() if c not in seen], np.int32)
    listed = {cell for cell, _ in folder.listed(from_cells(others))} if len(others) else set()
    return Listed(folder.record.dataset, years or tuple(folder.record.years), found, frozenset(listed | seen))


def _from_catalog(
    catalog: str, region: BaseGeometry, years: tuple[int, ...] | None, name: str | None
) -> Found:
    from catalog_builder.tile.cover import cover

    folder, runs = _Folder(catalog, name), cover(region)
    ds = folder.record.dataset
    found = _by_cell(folder.items(runs, years), ds, folder.address)
    listed = frozenset(found) if years is None else folder.listed(runs)
    return Found(ds, years or tuple(folder.record.years), found, listed)


# ---------------------------------------------------------------------------------------------- API


def _from_api(url: str, region: BaseGeometry, years: tuple[int, ...] | None, name: str | None) -> Found:
    with _client(url, name) as (client, chosen, has):
        search: dict[str, Any] = {
            "collections": [chosen.collection_id],
            "intersects": shapely.geometry.mapping(region),
            "limit": 500,
        }
        when = f"{years[0]}-01-01T00:00:00Z/{years[-1]}-12-31T23:59:59Z" if years else None
        items = client.search(datetime=when, **search).items_as_dicts()
        wanted = (item for item in items if years is None or _tile_of(item)[1] in years)
        found = _by_cell(wanted, chosen, lambda href: href)
        listed = set(found)
        if years is not None:
            fields = ["id"] if client.conforms_to("FIELDS") else None
            for item in client.search(fields=fields, **search).items_as_dicts():
                tile, year = _tile_of(item)
                listed.add((tile.cell, year))
    return Found(chosen, years or has, found, frozenset(listed))


def _cells_from_api(url: str, cells: Cells, years: tuple[int, ...] | None, name: str | None) -> Listed:
    with _client(url, name) as (client, chosen, has):

        def items(of: Iterable[int], in_years: Iterable[int]) -> Iterator[Mapping[str, Any]]:
            wanted = sorted(set(in_years) & set(has))
            names = (TileId.from_cell(cell).name for cell in of)
            ids = (f"{tile}_{year}" for tile in names for year in wanted)
            for batch in batched(ids, _IDS):
                search = client.search(collections=[chosen.collection_id], ids=list(batch), limit=_IDS)
                yield from search.items_as_dicts()

        found = _by_cell(items(cells.tolist(), years or has), chosen, lambda href: href)
        seen = {cell for cell, _ in found}
        others = [c for c in cells.tolist() if c not in seen]
        elsewhen = set(has) - set(years or has)
        seen |= {_tile_of(item)[0].cell for item in items(others, elsewhen)}
    return Listed(chosen, years or has, found, frozenset(seen))


@contextmanager
def _client(url: str, name: str | None) -> Iterator[tuple[Client, Dataset, tuple[int, ...]]]:
    """Yield a client of an API, the dataset, and the years that its collection spans."""
    with _collections(url) as (client, collections):
        chosen = choose(collections, name)
        yield client, chosen, _years_of(collections[chosen.collection_id])


@contextmanager
def _collections(url: str) -> Iterator[tuple[Client, dict[str, Any]]]:
    """Yield a client of an API, and its collections by id."""
    import pystac_client
    from pystac.errors import STACError
    from pystac_client import Client

    root = _PAGE_OF_API.sub("/", url)
    if root != url:
        raise CatalogError(f"{url}: is a page of an API; give the API itself, {root}")
    try:
        client = Client.open(url)
        collections = {c.id: c for c in client.get_collections()}
    # what is no STAC fails wherever pystac comes upon it
    except (
        pystac_client.exceptions.APIError,
        STACError,
        OSError,
        LookupError,
        ValueError,
        TypeError,
    ) as error:
        raise CatalogError(f"{url}: {_why_no_api(error)}") from error
    try:
        yield client, collections
    except (pystac_client.exceptions.APIError, OSError, KeyError) as error:
        raise CatalogError(f"{url}: {_why_no_api(error)}") from error


_PAGE_OF_API = re.compile(
    r"/(?:search|collections|conformance|queryables|api|api\.html|coverage|browser)(?:[/?#].*)?$"
)
"""What people copy from a browser and is below the URL of an API."""


def _why_no_api(error: Exception) -> str:
    """Return in plain words why a URL is no API."""
    text = " ".join(str(error).split())
    if refused := re.search(r"\[Errno -?\d+\] ([A-Za-z ]+)", text):
        return f"cannot be reached: {refused[1].strip()}"
    if "timed out" in text or "Timeout" in type(error).__name__:
        return "does not respond in time"
    return f"does not respond as a STAC API: {text[:300] or type(error).__name__}"


def _years_of(collection: Any) -> tuple[int, ...]:
    """Return the years that a collection spans."""
    start, end = collection.extent.temporal.intervals[0]
    return tuple(range(start.year if start else FIRST_YEAR, (end or datetime.now(UTC)).year + 1))


# --------------------------------------------------------------------------------------------- items


def _by_cell(
    items: Iterable[Mapping[str, Any]], dataset: Dataset, address: Callable[[str], str]
) -> dict[tuple[int, int], TileYear | str]:
    """Return items by cell and year: where their pixels are, or why those cannot be read."""
    found: dict[tuple[int, int], TileYear | str] = {}
    for item in items:
        tile, year = _tile_of(item)
        found[tile.cell, year] = _tile_year(item, dataset, address) or (
            f"{item['id']} is listed, but its pixels cannot be read in place (it has"
            f" {', '.join(sorted(item['assets'])) or 'no assets'}): convert it first"
        )
    return found


def _tile_of(item: Mapping[str, Any]) -> tuple[TileId, int]:
    name, _, year = str(item["id"]).rpartition("_")
    try:
        return TileId.from_name(name), int(year)
    except (GridError, ValueError) as error:
        raise CatalogError(f"item {item['id']}: not a tessera-stac item ({error})") from error


def _tile_year(item: Mapping[str, Any], dataset: Dataset, address: Callable[[str], str]) -> TileYear | None:
    """Return where an item's pixels are; None if it has none to read."""
    place = place_of(item, address)
    return None if place is None else TileYear(item["id"], dataset, *_tile_of(item), place)
