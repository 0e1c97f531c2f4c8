"""The STAC Catalog and Collections, built with pystac.

A collection document is created once per build: the folder gets it with relative links, the index
stores it without structural links (the API adds its own), and the parquet files contain it in their
metadata.
"""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import shapely

from catalog_builder.catalog.coverage.picture import coverage_png
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.item.item import PROJECTION, item_template
from catalog_builder.item.stored import geoembeddings, group_assets
from catalog_builder.item.template import constant_part
from catalog_builder.storage.headers import MEDIA_JSON, MEDIA_PARQUET, MEDIA_PNG
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.years import COVERAGE_NAMES, coverage_codes

CATALOG_ID = "tessera-stac"
CATALOG_TITLE = "TESSERA embeddings"
CATALOG_DESCRIPTION = (
    "TESSERA pixel embeddings of the Earth's land surface, one 128-dimensional vector for every 10 m pixel"
    " and year, as a STAC catalogue of files that can be read by range requests."
)

COVERAGE_PICTURE = "coverage.png"
"""Name of the thumbnail in a collection's folder."""
_PICTURE_WIDTH = 512

_MODEL = "https://github.com/ucam-eo/tessera"
_PAPER = "https://arxiv.org/abs/2506.20380"
_GEOTESSERA = "https://github.com/ucam-eo/geotessera"

_PROVIDERS = [
    pystac.Provider(
        "University of Cambridge, Energy and Environment Group",
        "Producers of the TESSERA model and its embeddings",
        [pystac.ProviderRole.PRODUCER, pystac.ProviderRole.LICENSOR],
        "https://geotessera.org",
    ),
]
_KEYWORDS = ["TESSERA", "embeddings", "Sentinel-1", "Sentinel-2", "foundation model", "land cover", "10 m"]


def make_collection(
    record: CollectionRecord, cells: npt.NDArray[np.int32], masks: npt.NDArray[np.uint32]
) -> pystac.Collection:
    """Build the pystac Collection.

    Parameters
    ----------
    record
        The collection's record in the index.
    cells, masks
        Its distinct tiles (row * 3600 + column) and their years (bit i = year 2000 + i).
    """
    ds = record.dataset
    years = record.years
    collection = pystac.Collection(
        id=record.id,
        title=ds.title,
        description=_description(ds),
        license=ds.license,
        keywords=[*_KEYWORDS, *(["synthetic"] if ds.is_synthetic else [])],
        providers=None if ds.is_synthetic else _PROVIDERS,
        extent=pystac.Extent(
            pystac.SpatialExtent([_bbox(cells)]),
            pystac.TemporalExtent([[_utc(years[0], first=True), _utc(years[-1], first=False)]]),
        ),
        summaries=pystac.Summaries(_summaries(record, cells)),
        # item_assets is core since STAC 1.1; the assets of a store's groups have fields of extensions.
        stac_extensions=[*record.addresses.extensions, PROJECTION] if record.addresses.store else [],
        extra_fields={
            "item_assets": _item_assets(record),
            # Fields of the STAC embeddings proposal 0.0.1; its schema has no URL yet, so it is
            # not declared as an extension. Its emb:quantization is a field of items.
            "emb:type": "pixel",
            "emb:dimensions": N_BANDS,
            "emb:temporal_resolution": "P1Y",
            "data_type": "int8",
            "gsd": 10,
            "tessera:dataset_version": ds.version,
            "tessera:variant": ds.variant,
            "tessera:coverage": coverage_summary(record, masks),
            **({"tessera:layout": "naming rule"} if ds.by_rule else {}),
            **_stored(record),
            **({"tessera:synthetic": True} if ds.is_synthetic else {}),
        },
    )
    for link in _links(ds):
        collection.add_link(link)
    collection.add_asset(
        "thumbnail",
        pystac.Asset(
            f"./{COVERAGE_PICTURE}",
            title="Coverage: the tiles and their years",
            media_type=MEDIA_PNG,
            roles=["thumbnail"],
        ),
    )
    for year in years:
        collection.add_asset(
            f"items-{year}",
            pystac.Asset(
                f"./items/year={year}/items.parquet",
                title=f"Items of {year} as stac-geoparquet",
                description="One file a year: items/year=YYYY/items.parquet, rows in Z-order.",
                media_type=MEDIA_PARQUET,
                roles=["collection-mirror"],
            ),
        )
    if (store := record.addresses.store) is not None:
        stored = record.addresses.stored(store.address)
        for key, asset in group_assets(store, stored).items():
            collection.add_asset(key, pystac.Asset.from_dict(asset))
    return collection


def _stored(record: CollectionRecord) -> dict[str, Any]:
    """Return what the collection says of its store: attributes of the embeddings convention, its bucket."""
    store = record.addresses.store
    if store is None:
        return {}
    schemes = record.addresses.schemes
    return {**geoembeddings(store), **({"storage:schemes": schemes} if schemes else {})}


def static_document(collection: pystac.Collection) -> dict[str, Any]:
    """Return the collection for the folder, with relative links and assets."""
    document = collection.to_dict(include_self_link=False, transform_hrefs=False)
    document["links"] = [
        {"rel": "root", "href": "../catalog.json", "type": MEDIA_JSON, "title": CATALOG_TITLE},
        {"rel": "parent", "href": "../catalog.json", "type": MEDIA_JSON, "title": CATALOG_TITLE},
        *(link for link in document["links"] if link["rel"] not in ("root", "parent", "self")),
    ]
    return document


def api_document(collection: pystac.Collection) -> dict[str, Any]:
    """Return the collection for the API: no structural links, assets below ``{root}``."""
    document = collection.to_dict(include_self_link=False, transform_hrefs=False)
    document["links"] = [x for x in document["links"] if x["rel"] not in ("root", "parent", "self")]
    for asset in document["assets"].values():
        if asset["href"].startswith("./"):
            asset["href"] = f"{{root}}/data/{collection.id}/{asset['href'][2:]}"
    return document


def write_coverage_picture(
    folder: Path, record: CollectionRecord, cells: npt.NDArray[np.int32], masks: npt.NDArray[np.uint32]
) -> None:
    """Write the collection's thumbnail: its coverage map, cropped to its extent if that is small."""
    west, south, east, north = _bbox(cells)
    region = shapely.box(west, south, east, north) if east - west < 90 and north - south < 60 else None
    coverage_png(
        folder / COVERAGE_PICTURE, cells, masks, record.years, region=region, title=record.dataset.title,
        width=_PICTURE_WIDTH,
    )  # fmt: skip


def write_catalog(folder: Path, collections: list[dict[str, Any]]) -> None:
    """Write ``catalog.json``, the entry point of the static catalogue, with a child link per collection."""
    catalog = pystac.Catalog(CATALOG_ID, CATALOG_DESCRIPTION, title=CATALOG_TITLE)
    document = catalog.to_dict(include_self_link=False)
    document["links"] = [
        {"rel": "root", "href": "./catalog.json", "type": MEDIA_JSON, "title": CATALOG_TITLE},
        *(
            {
                "rel": "child",
                "href": f"./{c['id']}/collection.json",
                "type": MEDIA_JSON,
                "title": c["title"],
            }
            for c in collections
        ),
    ]
    (folder / "catalog.json").write_text(json.dumps(document, indent=2))


def coverage_summary(record: CollectionRecord, masks: npt.NDArray[np.uint32]) -> dict[str, Any]:
    """Return how many tiles have all years, only the newest, or some; and tile-years per year."""
    codes = np.bincount(coverage_codes(masks, list(record.years)), minlength=len(COVERAGE_NAMES))
    return {
        "tiles": len(masks),
        "items": record.n_items,
        **dict(zip(COVERAGE_NAMES, codes.tolist(), strict=True)),
        "items_per_year": dict(zip(map(str, record.years), record.counts, strict=True)),
    }


_BY_RULE = (
    " This software does not know this dataset: the locations of its files follow upstream's naming rule"
    " (directory `{}`), and were not checked."
)


def _description(ds: Dataset) -> str:
    if ds.is_synthetic:
        return (
            "**Synthetic tiles, not TESSERA data**: generated by `tessera-stac sample` in TESSERA's formats,"
            " for trying out and testing the software. They contain no information about the Earth."
        )
    return (
        f"TESSERA {ds.version} ({ds.variant}) embeddings: for every 10 m pixel of land and every year, a"
        " vector of 128 numbers that summarises one year of Sentinel-1 and Sentinel-2 observations. Each"
        " item is one 0.1 degree tile for one year. The vectors are stored as int8 codes with one float32"
        " scale per pixel: `embedding = code * scale`. Vectors of different dataset versions or variants"
        " are not comparable." + (_BY_RULE.format(ds.directory) if ds.by_rule else "")
    )


def _links(ds: Dataset) -> list[pystac.Link]:
    if ds.is_synthetic:
        return []
    links = [
        pystac.Link("about", "https://geotessera.org", "text/html", "TESSERA and geotessera"),
        pystac.Link("emb:model", _MODEL, "text/html", "The TESSERA model"),
        pystac.Link(
            "emb:source-data",
            "https://dataspace.copernicus.eu",
            "text/html",
            "Copernicus Sentinel-1 and Sentinel-2",
        ),
        pystac.Link("cite-as", _PAPER, "text/html", "TESSERA: Temporal Embeddings of Surface Spectra"),
        pystac.Link("related", _GEOTESSERA, "text/html", "geotessera, the upstream client"),
        pystac.Link("license", "https://creativecommons.org/publicdomain/zero/1.0/", "text/html", "CC0 1.0"),
    ]
    if ds.published_root:
        links.append(pystac.Link("via", f"{ds.published_root}/", "text/html", "The data as published"))
    return links


def _bbox(cells: npt.NDArray[np.int32]) -> list[float]:
    row, col = grid.rows_cols(cells)
    return [
        grid.LON_EDGES[int(col.min())],
        grid.LAT_EDGES[int(row.min())],
        grid.LON_EDGES[int(col.max()) + 1],
        grid.LAT_EDGES[int(row.max()) + 1],
    ]


def _utc(year: int, *, first: bool) -> dt.datetime:
    if first:
        return dt.datetime(year, 1, 1, tzinfo=dt.UTC)
    return dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def _summaries(record: CollectionRecord, cells: npt.NDArray[np.int32]) -> dict[str, Any]:
    row, col = grid.rows_cols(cells)
    zone = col // grid.COLS_PER_ZONE + 1
    epsg = np.unique(grid.epsg_codes(row, col))
    return {
        "gsd": [10],
        "proj:code": [f"EPSG:{code}" for code in epsg.tolist()],
        "tessera:year": list(record.years),
        "tessera:utm_zone": np.unique(zone).tolist(),
        "tessera:coverage": list(COVERAGE_NAMES),
        "tessera:grid": [record.grid],
    }


def _item_assets(record: CollectionRecord) -> dict[str, Any]:
    """Return the item_assets of the collection, from the item definition."""
    template = item_template(record.dataset, record.addresses, "", record.grid)
    found = {}
    for key, when in template["assets"].items():
        asset = constant_part(when)
        found[key] = {
            k: asset[k] for k in ("title", "type", "roles", "data_type", "nodata", "bands") if k in asset
        }
    return found
