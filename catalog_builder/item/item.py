"""The STAC Item, defined once.

:func:`item_template` is the definition: the contents of an item of a dataset, with slots where tile-years
differ. :func:`item_columns` computes the slots from a TileTable's columns. The API renders the
template to JSON, the parquet writer to Arrow, and pystac reads either: they cannot disagree.

An asset is listed only if it exists: :class:`Has` states per row what exists.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from catalog_builder.item.addresses import Addresses, alternate
from catalog_builder.item.stored import VIEW_SLOTS, Store, store_asset
from catalog_builder.item.template import Choice, Flag, Instant, Number, Numbers, Statistics, Text, When
from catalog_builder.storage.headers import (
    MEDIA_COG,
    MEDIA_GEOJSON,
    MEDIA_GEOTIFF,
    MEDIA_JSON,
    MEDIA_NPY,
    MEDIA_PNG,
    MEDIA_VRT,
)
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.years import COVERAGE_NAMES, FIRST_YEAR, coverage_codes, years_of

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

QUANTIZATION = {
    "method": "per-pixel linear: embedding = code * scale, scale = max|embedding| / 127",
    "original_dtype": "float32",
    "quantized_dtype": "int8",
    "link": {
        "rel": "about",
        "href": "https://github.com/ucam-eo/tessera",
        "type": "text/html",
        "title": "The TESSERA model",
    },
}
"""Quantization Object of the STAC embeddings proposal, of 20 March 2026; its ``scale`` is one number, so the
scales are an asset of their own."""

BAND_NAMES = tuple(f"b{i:03d}" for i in range(N_BANDS))
"""The embedding's dimensions; they have no individual meaning."""
BANDS: list[dict[str, str]] = [{"name": name} for name in BAND_NAMES]

STATISTICS = ("minimum", "maximum", "mean", "stddev")
"""Statistics of a band, in the order in which they are stored."""
RANGE = STATISTICS[:2]
"""Statistics of a band of the asset ``embeddings``."""
_GRID_NAMES = np.array(["utm", "source"], dtype=object)


_WINDOW_TITLE = (
    "Embeddings as float32, for windows and points: all bands at once, GDAL 3.9 or newer;"
    " for single bands or older GDAL: the asset 'embeddings_f32'"
)
_NPY = "{year}/grid_{lon}_{lat}/grid_{lon}_{lat}.npy"
_GEOTIFF = "{geotiff}"


class Has(enum.IntFlag):
    """What exists for a tile-year; determines which assets and fields its item lists."""

    NPY = 1
    """The .npy pair."""
    RAW_LANE = 2
    """Open to direct access: the pair, if its sizes match the formula or are unknown, or the window."""
    SIZES = 4
    """The manifest gives the pair's sizes."""
    HASHES = 8
    """The manifest gives the pair's SHA-256."""
    MTIME = 16
    """The manifest gives the embedding file's time."""
    LANDMASK = 32
    LANDMASK_SIZE = 64
    LANDMASK_HASH = 128
    GEOTIFF = 256
    """A GeoTIFF exported by geotessera."""
    GEOTIFF_SIZE = 512
    COG = 1024
    """Converted: listed in the ledger."""
    COG_NATIVE = 2048
    """As codes and scales, with a float32 view beside them."""
    COG_FLOAT = 4096
    """As float32 values."""
    COG_VISUAL = 8192
    """With false colour and thumbnail."""
    COG_STATISTICS = 16384
    """With statistics of the values, per band."""
    COG_SOURCE_GRID = 32768
    """On upstream's published corner, not on the 10 m grid."""
    COG_CODE_RANGE = 65536
    """With minimum and maximum of the codes, per band."""
    COG_WINDOW = 131072
    """With a float32 view for windows."""
    STORE = 262144
    """A window of the collection's store of arrays."""
    REFUSED = 524288
    """It was measured how many of its pixels the makers of the store refused."""


def item_template(
    dataset: Dataset, addresses: Addresses, root: str, grid_kind: grid.Grid = "utm"
) -> dict[str, Any]:
    """Return the item template of a dataset.

    Parameters
    ----------
    dataset
        The dataset of the items.
    addresses
        Locations of the files.
    root
        Root URL of the service or of the catalogue folder, without a trailing slash; replaces
        ``{root}`` in every URL.
    grid_kind
        Which raster grid the items describe.
    """
    cid = dataset.collection_id
    collection = f"{root}/collections/{cid}"
    source, landmasks, lane = (
        a.replace("{root}", root) for a in (addresses.source, addresses.landmasks, addresses.lane)
    )
    raw_view = {
        "href": Text(f"{lane}/{{year}}/grid_{{lon}}_{{lat}}/grid_{{lon}}_{{lat}}_f32.vrt"),
        "type": MEDIA_VRT,
        "title": "Embeddings as float32, computed from the codes and scales as they are read",
        "roles": ["data"],
        "data_type": "float32",
        "bands": BANDS,
    }
    # Without the names of its bands, which are those of the other: they are half of an item's bytes.
    raw_window = {k: v for k, v in raw_view.items() if k != "bands"} | {"title": _WINDOW_TITLE}

    def source_file(path: str) -> dict[str, Any]:
        return {
            "href": Text(f"{source}/{path}"),
            **addresses.stored(source),
            **alternate(addresses.source_mirrors, lambda place: Text(f"{place}/{path}")),
        }

    store = addresses.store
    zarr = None if store is None else store_asset(store, addresses.stored(store.address))
    published: Any = _published_embeddings(source_file, zarr)
    if addresses.is_direct_from_store:
        published = published.otherwise.node  # there are no other files
    cogs = _cog_assets(addresses, root, raw_view, raw_window, published) if addresses.cogs else {}

    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, FILE, *addresses.extensions],
        "id": Text("grid_{lon}_{lat}_{year}"),
        "collection": cid,
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [
                    [Number("west"), Number("south")],
                    [Number("east"), Number("south")],
                    [Number("east"), Number("north")],
                    [Number("west"), Number("north")],
                    [Number("west"), Number("south")],
                ]
            ],
        },
        "bbox": [Number("west"), Number("south"), Number("east"), Number("north")],
        "properties": {
            "title": Text(f"{dataset.title}, {{lon}} {{lat}}, {{year}}"),
            # An instant that sorts and labels the year, and the interval it represents. A null
            # datetime is valid STAC, but pgSTAC and others lose it.
            "datetime": Instant("{year}-01-01T00:00:00Z"),
            "start_datetime": Instant("{year}-01-01T00:00:00Z"),
            "end_datetime": Instant("{year}-12-31T23:59:59Z"),
            "gsd": 10,
            "proj:code": Text("EPSG:{epsg}"),
            "proj:shape": [Number("height"), Number("width")],
            "proj:transform": [
                10.0, 0.0, Number("origin_x"), 0.0, -10.0, Number("origin_y"), 0.0, 0.0, 1.0,
            ],
            "proj:bbox": [Number("origin_x"), Number("bottom"), Number("right"), Number("origin_y")],
            # What an embedding was before it was an int8 code; where there are no codes it is not said.
            "emb:quantization": When(Has.NPY, QUANTIZATION, (Has.COG_NATIVE, Has.STORE)),
            "tessera:dataset_version": dataset.version,
            "tessera:variant": dataset.variant,
            "tessera:tile": Text("grid_{lon}_{lat}"),
            "tessera:year": Number("year_number"),
            "tessera:utm_zone": Number("utm_zone"),
            "tessera:grid": Text("{grid}") if addresses.cogs else grid_kind,
            "tessera:cog": Flag(Has.COG),
            **({"tessera:valid_fraction": When(Has.COG, Number("valid_fraction"))} if addresses.cogs else {}),
            # At most this share: which pixels of a block were refused is not known, only how many.
            **({"tessera:refused_fraction": When(Has.REFUSED, Number("refused_fraction"))} if zarr else {}),
            "tessera:years": Numbers("years"),
            "tessera:coverage": Text("{coverage}"),
            **({"tessera:synthetic": True} if dataset.is_synthetic else {}),
            **({"storage:schemes": schemes} if (schemes := addresses.schemes) else {}),
        },
        "assets": {
            **(
                cogs
                or {
                    "embeddings": published,
                    "embeddings_f32": When(Has.RAW_LANE, raw_view),
                    "embeddings_f32_window": When(Has.RAW_LANE, raw_window),
                }
            ),
            **({} if addresses.is_direct_from_store else _source_assets(source_file)),
            **({"source_zarr": When(Has.STORE, zarr)} if zarr else {}),
            "landmask": When(
                Has.LANDMASK,
                {
                    "href": Text(f"{landmasks}/grid_{{lon}}_{{lat}}.tiff"),
                    **addresses.stored(landmasks),
                    "type": MEDIA_GEOTIFF,
                    "title": "Land (1) and water (0)",
                    "roles": ["land-water"],
                    # The landmask file carries upstream's unsnapped corner.
                    "proj:transform": [
                        10.0, 0.0, Number("source_x"), 0.0, -10.0, Number("source_y"), 0.0, 0.0, 1.0,
                    ],
                    "file:size": When(Has.LANDMASK_SIZE, Number("landmask_size")),
                    "file:checksum": When(Has.LANDMASK_HASH, Text("1220{landmask_sha256}")),
                },
            ),
        },
        "links": [
            {
                "rel": "self",
                "type": MEDIA_GEOJSON,
                "href": Text(f"{collection}/items/grid_{{lon}}_{{lat}}_{{year}}"),
            },
            {"rel": "root", "type": MEDIA_JSON, "href": f"{root}/"},
            {"rel": "parent", "type": MEDIA_JSON, "href": collection},
            {"rel": "collection", "type": MEDIA_JSON, "href": collection},
        ],
    }  # fmt: skip


def _published_embeddings(
    source_file: Callable[[str], dict[str, Any]], zarr: Mapping[str, Any] | None
) -> Choice:
    """Return the asset ``embeddings`` of a tile-year that is not converted.

    The embeddings proposal wants an asset of this key in every item, whatever its format, so it is the file
    that holds them: which one, ``type`` and ``data_type`` say. Sizes and hashes are in ``source_npy``.
    """
    npy = {
        **source_file(_NPY),
        "type": MEDIA_NPY,
        "title": "Embeddings as published: int8 codes (rows, columns, 128), not a COG yet;"
        " value = code x the pixel's scale in the asset 'source_scales'",
        "roles": ["data"],
        "data_type": "int8",
        "tessera:scales": "source_scales",
    }
    geotiff = {
        **source_file(_GEOTIFF),
        "type": MEDIA_GEOTIFF,
        "title": "Embeddings as float32, exported by geotessera, not a COG yet",
        "roles": ["data"],
        "data_type": "float32",
    }
    if zarr is None:
        return Choice(Has.NPY, npy, geotiff)
    window = {
        **{key: zarr[key] for key in ("href", "type", "storage:refs") if key in zarr},
        "title": "Embeddings as published: int8 codes in a store of arrays; the asset 'source_zarr' says"
        " which window of it, and has the scales",
        "roles": ["data"],
        "data_type": "int8",
        "tessera:scales": "source_zarr",
    }
    return Choice(Has.NPY, npy, Choice(Has.STORE, window, geotiff))


def _source_assets(source_file: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the assets of published files."""
    return {
        "source_npy": When(
            Has.NPY,
            {
                **source_file(_NPY),
                "type": MEDIA_NPY,
                "title": "Quantised embeddings as published: int8 (rows, columns, 128)",
                "roles": ["source"],
                "file:size": When(Has.SIZES, Number("npy_size")),
                "file:checksum": When(Has.HASHES, Text("1220{npy_sha256}")),
                "updated": When(Has.MTIME, Text("{mtime}")),
            },
        ),
        "source_scales": When(
            Has.NPY,
            {
                **source_file("{year}/grid_{lon}_{lat}/grid_{lon}_{lat}_scales.npy"),
                "type": MEDIA_NPY,
                "title": "Scales as published: float32 (rows, columns); embedding = code x scale",
                "roles": ["source"],
                "file:size": When(Has.SIZES, Number("scales_size")),
                "file:checksum": When(Has.HASHES, Text("1220{scales_sha256}")),
            },
        ),
        "source_geotiff": When(
            Has.GEOTIFF,
            {
                **source_file(_GEOTIFF),
                "type": MEDIA_GEOTIFF,
                "title": "Embeddings as float32, exported by geotessera",
                "roles": ["source"],
                "file:size": When(Has.GEOTIFF_SIZE, Number("geotiff_size")),
            },
        ),
    }


def _cog_assets(
    addresses: Addresses,
    root: str,
    raw_view: dict[str, Any],
    raw_window: dict[str, Any],
    published: Any,
) -> dict[str, Any]:
    """Return the assets of converted tile-years; their paths come from the converter."""
    data, views = (a.replace("{root}", root) for a in (addresses.data, addresses.views or addresses.data))

    def at(place: str, content: str, suffix: str) -> Text:
        stem = f"{place}/{{year}}/grid_{{lon}}_{{lat}}/grid_{{lon}}_{{lat}}_{{year}}"
        return Text(f"{stem}_{{{content}}}_{suffix}")

    def view(place: str, values: str, otherwise: Any) -> Choice:
        """Return the VRT beside a native pair, or the COG itself in the float32 profile."""
        floats = Choice(Has.COG_FLOAT, at(values, "cog", "embeddings.tif"), otherwise)
        return Choice(Has.COG_NATIVE, at(place, "cog", "f32.vrt"), floats)

    def window(place: str, values: str, otherwise: Any) -> Choice:
        """Return the VRT for windows; where there is none, what is read band by band."""
        return Choice(Has.COG_WINDOW, at(place, "cog", "f32_window.vrt"), view(place, values, otherwise))

    def asset(raw: dict[str, Any], href: Callable[[str, str, Any], Choice], slot: str) -> dict[str, Any]:
        """Return a view of the converted pair, or the COG itself, or a view of the source."""
        elsewhere = {
            **addresses.stored(data),
            **alternate(
                addresses.mirrors, lambda place: href(place, place, at(place, "cog", "embeddings.tif"))
            ),
        }
        return {
            **raw,
            "href": href(views, data, raw["href"]),
            **{k: When(Has.COG, v) for k, v in elsewhere.items()},
            "type": Choice(Has.COG_FLOAT, MEDIA_COG, MEDIA_VRT),
            "file:size": When(Has.COG, Number(f"{slot}_size")),
            "file:checksum": When(Has.COG, Text(f"1220{{{slot}_sha256}}")),
            "file:header_size": When(Has.COG_FLOAT, Number("cog_f32_header")),
        }

    def file(name: str, suffix: str, media: str, *, header: bool = True) -> dict[str, Any]:
        content = "visual" if name in ("visual", "thumbnail") else "cog"
        found: dict[str, Any] = {
            "href": at(data, content, suffix),
            **addresses.stored(data),
            **alternate(addresses.mirrors, lambda place: at(place, content, suffix)),
            "type": media,
            "file:size": Number(f"cog_{name}_size"),
            "file:checksum": Text(f"1220{{cog_{name}_sha256}}"),
        }
        return found | ({"file:header_size": Number(f"cog_{name}_header")} if header else {})

    embeddings = file("embeddings", "embeddings.tif", MEDIA_COG)
    statistics = Statistics(Has.COG_STATISTICS, "band_statistics", BAND_NAMES, STATISTICS)
    return {
        "embeddings": Choice(
            Has.COG_NATIVE,
            {
                **embeddings,
                "title": "Embeddings as int8 codes; value = code x the pixel's scale in the asset 'scales'",
                "roles": ["data"],
                "data_type": "int8",
                "nodata": -128,
                # Of the stored codes: what the file holds, and rio-tiler wants of bands that have names.
                "bands": Statistics(Has.COG_CODE_RANGE, "code_range", BAND_NAMES, RANGE),
                # STAC's raster:scale is one number; here every pixel has its own.
                "tessera:scales": "scales",
            },
            Choice(
                Has.COG_FLOAT,
                {
                    **embeddings,
                    "title": "Embeddings as float32 values",
                    "roles": ["data"],
                    "data_type": "float32",
                    "bands": Statistics(Has.COG_STATISTICS, "value_range", BAND_NAMES, RANGE),
                },
                published,
            ),
        ),
        "scales": When(
            Has.COG_NATIVE,
            {
                **file("scales", "scales.tif", MEDIA_COG),
                "title": "Scale of each pixel's codes",
                "roles": ["data"],
                "data_type": "float32",
                # No nodata in any float32 asset: STAC writes NaN as the text "nan", and readers that expect
                # a number refuse the whole item (rustac). The files say it themselves. Nor bands, of what
                # has one band or colours: rio-tiler takes bands without statistics for damaged ones.
            },
        ),
        "embeddings_f32": When(
            Has.COG, {**asset(raw_view, view, "cog_f32"), "bands": statistics}, (Has.RAW_LANE,)
        ),
        "embeddings_f32_window": When(Has.COG, asset(raw_window, window, "cog_f32_window"), (Has.RAW_LANE,)),
        "visual": When(
            Has.COG_VISUAL,
            {
                **file("visual", "visual.tif", MEDIA_COG),
                "title": "False colour: three principal components of the dataset",
                "roles": ["visual", "overview"],
                "data_type": "uint8",
                "nodata": 0,
            },
        ),
        "thumbnail": When(
            Has.COG_VISUAL,
            {
                **file("thumbnail", "thumbnail.png", MEDIA_PNG, header=False),
                "title": "False colour, small",
                "roles": ["thumbnail"],
            },
        ),
    }


@dataclass(frozen=True, slots=True)
class TileRows:
    """Tile-years as columns, one element per row: both the index and the TileTable can provide them."""

    row: npt.NDArray[np.int32]
    """Latitude row, 0 in the south."""
    col: npt.NDArray[np.int32]
    year: npt.NDArray[np.int32]
    mask: npt.NDArray[np.uint32]
    """Years that the tile has in its collection, bit i = year 2000 + i."""
    has: npt.NDArray[np.int32]
    """:class:`Has` of each row."""
    facts: Mapping[str, Any]
    """npy_size, scales_size, npy_sha256, scales_sha256 (hex), mtime (RFC 3339), landmask_size,
    landmask_sha256, geotiff (quoted path), geotiff_size, refused_fraction; those of
    :func:`catalog_builder.item.converted.cog_slots` if any row is converted; numpy, Arrow or lists. Values
    are valid only where ``has`` says so."""


def item_columns(
    rows: TileRows,
    years: tuple[int, ...],
    grid_kind: grid.Grid = "utm",
    store: Store | None = None,
    view: Store | None = None,
) -> dict[str, Any]:
    """Return every slot of :func:`item_template`, vectorised.

    Parameters
    ----------
    rows
        The tile-years.
    years
        All years of the collection; a tile with all of them has full coverage.
    grid_kind
        Which raster grid to describe.
    store
        The collection's store of arrays, if it has one.
    view
        The arrays of its zones, for items of the API.
    """
    row, col, year = rows.row, rows.col, rows.year
    raster = grid.rasters(row, col, grid_kind)
    source = grid.rasters(row, col, "source")
    converted = (rows.has & int(Has.COG)) != 0
    on_source = np.where(converted, (rows.has & int(Has.COG_SOURCE_GRID)) != 0, grid_kind == "source")
    if (converted & (on_source != (grid_kind == "source"))).any():
        # The transform of the file, whichever grid it was converted to.
        lattice = grid.rasters(row, col, "utm")
        raster = replace(
            raster,
            origin_x=np.where(on_source, source.origin_x, lattice.origin_x),
            origin_y=np.where(on_source, source.origin_y, lattice.origin_y),
        )
    lon_text, lat_text, year_text = _number_texts()
    lon_edges, lat_edges = _edges()
    codes = coverage_codes(rows.mask, list(years))
    return {
        "lon": lon_text[col],
        "lat": lat_text[row],
        "year": year_text[year - FIRST_YEAR],
        "year_number": year,
        "west": lon_edges[col],
        "east": lon_edges[col + 1],
        "south": lat_edges[row],
        "north": lat_edges[row + 1],
        "epsg": raster.epsg.astype(str).astype(object),
        "height": raster.height,
        "width": raster.width,
        "origin_x": raster.origin_x,
        "origin_y": raster.origin_y,
        "right": raster.origin_x + grid.PIXEL * raster.width,
        "bottom": raster.origin_y - grid.PIXEL * raster.height,
        "source_x": source.origin_x,
        "source_y": source.origin_y,
        "utm_zone": col // grid.COLS_PER_ZONE + 1,
        "grid": _GRID_NAMES[on_source.astype(np.intp)],
        "years": [_years_list(m) for m in rows.mask.tolist()],
        "coverage": np.asarray(COVERAGE_NAMES, dtype=object)[codes],
        **(store.columns(row, col, year) if store is not None else {}),
        **(view.columns(row, col, year, VIEW_SLOTS) if view is not None else {}),
        **rows.facts,
    }


@lru_cache(maxsize=1 << 16)
def _years_list(mask: int) -> list[int]:
    """Return the years of a mask; the list is shared. Its repr is its JSON."""
    return list(years_of(mask))


def url_path(path: str) -> str:
    """Quote a file path for use in an href; the result needs no JSON escaping."""
    return quote(path, safe="/~-._")


@cache
def _number_texts() -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Longitudes by column, latitudes by row (two decimals), years from 2000, as text."""
    lat, lon = grid.centre_texts()
    return (
        np.array(lon, dtype=object),
        np.array(lat, dtype=object),
        np.array([str(FIRST_YEAR + i) for i in range(32)], dtype=object),
    )


@cache
def _edges() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.array(grid.LON_EDGES), np.array(grid.LAT_EDGES)
