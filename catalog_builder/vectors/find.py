"""The tile-years of a region, from a catalogue folder or a STAC API, and where their pixels are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.errors import CatalogError, DatasetError, GridError
from catalog_builder.item.item import MEDIA_COG
from catalog_builder.tile.datasets import DATASETS, Dataset
from catalog_builder.tile.datasets import dataset as dataset_named
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster, TileId

_HERE = "catalog:"
"""Stands for the catalogue's address in hrefs of a folder's items."""

Kind = Literal["npy", "cog", "float"]
"""A pair of arrays as published, a pair of COGs, or one raster of float32 values."""


@dataclass(frozen=True, slots=True)
class TileYear:
    """One tile and year whose pixels can be read."""

    id: str
    """Of its item."""
    dataset: Dataset
    tile: TileId
    year: int
    raster: Raster
    kind: Kind
    main: str
    """Address of the codes (``npy``, ``cog``) or of the values (``float``)."""
    scales: str | None
    """Address of the scales; None for ``float``."""
    size: int | None = None
    """Bytes of ``main``, where the item says it."""
    scales_size: int | None = None
    stamp: str = ""
    """Changes when the files do: checksums, where the item has them."""
    visual: str | None = None
    """Address of its false colour; None if it has none."""

    @property
    def whole_bytes(self) -> int:
        """Bytes of its files."""
        height, width = self.raster.shape
        main = self.size if self.size is not None else height * width * N_BANDS * (1 if self.scales else 4)
        return main + (self.scales_size or (4 * height * width if self.scales else 0))


def find(
    catalog: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None
) -> list[TileYear]:
    """Return the readable tile-years of a region, in the order of the catalogue.

    Parameters
    ----------
    catalog
        A catalogue folder, its s3 address, or the http(s) address of a STAC API of this project.
    region
        OGC:CRS84; tiles whose cell shares a point with it.
    years
        Which years; None is all.
    name
        A dataset's directory or collection id; None is the only one, or the first real one.

    Raises
    ------
    CatalogError
        If there is no catalogue, or the API does not answer as one.
    DatasetError
        If the catalogue does not have the dataset.
    """
    if storage.scheme(catalog) in ("http", "https"):
        return _from_api(catalog, region, years, name)
    return _from_catalog(catalog, region, years, name)


def _choose(names: Iterable[str], name: str | None) -> Dataset:
    """Return the dataset a user means, of those whose collections there are."""
    known = {d.collection_id: d for d in DATASETS}
    found = [known[n] for n in names if n in known]
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


# ---------------------------------------------------------------------------------------- catalogue


def _from_catalog(
    catalog: str, region: BaseGeometry, years: frozenset[int] | None, name: str | None
) -> list[TileYear]:
    from catalog_builder.catalog.index.item_rows import tile_rows
    from catalog_builder.catalog.index.selection import Selection
    from catalog_builder.catalog.open import open_index
    from catalog_builder.item.item import item_columns, item_template
    from catalog_builder.item.template import JsonRenderer
    from catalog_builder.tile.cover import cover

    index = open_index(catalog)
    record = index.collections[_choose(index.collections, name).collection_id]
    wanted = sorted(set(record.years) & years) if years is not None else None
    selection = Selection([record.ordinal], years=wanted, runs=cover(region))
    rows = tile_rows(index.page(selection, 10_000_000))
    if not len(rows.row):
        return []
    columns = item_columns(rows, record.years, record.grid)
    lists = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in columns.items()}
    renderer = JsonRenderer(item_template(record.dataset, record.addresses, _HERE, record.grid))
    lane = f"{_HERE}/source/{record.dataset.directory}/"
    root = record.source_root.rstrip("/")

    def address(href: str) -> str:
        if href.startswith(lane):
            return f"{root}/{href.removeprefix(lane)}"
        if href.startswith(f"{_HERE}/data/"):
            return storage.join(catalog, href.removeprefix(f"{_HERE}/data/"))
        return href

    items = (orjson.loads(text) for text in renderer.render(lists, rows.has.tolist()))
    return _readable(items, record.dataset, address)


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
        raise CatalogError(f"{url}: no answer as a STAC API: {' '.join(str(error).split())[:300]}") from error
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
    """Return where an item's pixels are: converted ones first; None if it has none to read."""
    assets, properties = item["assets"], item["properties"]
    name, _, year = str(item["id"]).rpartition("_")
    try:
        tile = TileId.from_name(name)
        kind, main, scales = _pair(assets)
        if kind is None:
            return None
        raster = Raster(
            int(properties["proj:code"].removeprefix("EPSG:")),
            Affine(*properties["proj:transform"][:6]),
            *properties["proj:shape"],
        )
    except (GridError, KeyError, TypeError, ValueError) as error:
        raise CatalogError(f"item {item.get('id')}: not an item of this project ({error})") from error
    own, other = assets[main], assets[scales] if scales else {}
    return TileYear(
        id=item["id"],
        dataset=dataset,
        tile=tile,
        year=int(year),
        raster=raster,
        kind=kind,
        main=address(own["href"]),
        scales=address(other["href"]) if scales else None,
        size=own.get("file:size"),
        scales_size=other.get("file:size"),
        stamp=f"{own.get('file:checksum', '')} {other.get('file:checksum', '')}",
        visual=address(assets["visual"]["href"]) if "visual" in assets else None,
    )


def _pair(assets: Mapping[str, Any]) -> tuple[Kind | None, str, str | None]:
    """Return the kind of an item's best pixels and the keys of their assets."""
    if "embeddings" in assets and "scales" in assets:
        return "cog", "embeddings", "scales"
    if assets.get("embeddings_f32", {}).get("type") == MEDIA_COG:
        return "float", "embeddings_f32", None
    # an array can be read in place only where the catalogue found its shape to be the tile's
    if "source_npy" in assets and "source_scales" in assets and "embeddings_f32" in assets:
        return "npy", "source_npy", "source_scales"
    if "source_geotiff" in assets:
        return "float", "source_geotiff", None
    return None, "", None
