"""The item for clients that read one band per asset: 128 float32 assets ``b000`` … ``b127``.

stackstac reads exactly one band of each asset, and of the projection fields only ``proj:epsg``. This
is a second template over the same columns as :func:`catalog_builder.item.item.item_template`; the API
serves it as ``?view=bands``. Each asset is a VRT that the server generates; it multiplies code and
scale as they are read, so no pixel is stored twice.

**Why the projection extension is not declared.** Its fields are all there, and valid. But pystac,
since 1.13, removes ``proj:epsg`` from every item that declares any version of the extension, also
of v1.2.0, which allows it beside ``proj:code``; stackstac then finds no CRS. Undeclared fields are
valid STAC and pass through untouched. Clients that want the declaration read the ordinary items.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.errors import QueryError
from catalog_builder.item.addresses import Addresses
from catalog_builder.item.item import FILE, PROJECTION, Has, item_template
from catalog_builder.item.template import Number, Text, When
from catalog_builder.storage.headers import MEDIA_BAND, MEDIA_GEOJSON, MEDIA_JSON
from catalog_builder.tile import grid
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import N_BANDS

RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
"""The last version that has ``raster:bands``, which stackstac reads."""
READABLE = 1 << 24
"""Flag of rows that have bands to read, in addition to :class:`~catalog_builder.item.item.Has`."""

_RANGE = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?", re.ASCII)


def band_key(band: int) -> str:
    """Return the asset key of a band, counted from 0.

    >>> band_key(5)
    'b005'
    """
    return f"b{band:03d}"


def parse_bands(text: str) -> tuple[int, ...]:
    """Parse a selection of bands, counted from 0; returned in ascending order, without duplicates.

    >>> parse_bands("0,1,5-7")
    (0, 1, 5, 6, 7)

    Raises
    ------
    QueryError
        If it is not numbers and ranges within 0 … 127.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= first <= last < N_BANDS:
            raise QueryError(
                f"bands: expected numbers and ranges within 0..{N_BANDS - 1} such as 0,1,5-7,"
                f" found '{text[:60]}'"
            )
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def bands_text(bands: Sequence[int]) -> str:
    """Return ascending bands as :func:`parse_bands` reads them.

    >>> bands_text((0, 1, 5, 6, 7))
    '0-1,5-7'
    """
    runs: list[list[int]] = []
    for band in bands:
        if runs and band == runs[-1][1] + 1:
            runs[-1][1] = band
        else:
            runs.append([band, band])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def band_assets(lane: str, bands: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return the assets of some bands; ``lane`` is the URL above ``<year>/<grid>/``."""
    stem = f"{lane}/{{year}}/grid_{{lon}}_{{lat}}/grid_{{lon}}_{{lat}}"
    return {
        band_key(band): {
            "href": Text(f"{stem}_{band_key(band)}.vrt"),
            "type": MEDIA_BAND,
            "title": f"Dimension {band}",
            "roles": ["data"],
            "raster:bands": [{"data_type": "float32", "spatial_resolution": 10}],
        }
        for band in bands
    }


def bands_template(
    dataset: Dataset,
    addresses: Addresses,
    root: str,
    grid_kind: grid.Grid = "utm",
    bands: Sequence[int] = range(N_BANDS),
) -> dict[str, Any]:
    """Return the item template of a dataset in the bands view.

    Parameters
    ----------
    dataset, addresses, root, grid_kind
        As for :func:`catalog_builder.item.item.item_template`, whose columns fill the slots.
    bands
        Bands that become assets, counted from 0.
    """
    item = item_template(dataset, addresses, root, grid_kind)
    lane = addresses.lane.replace("{root}", root)
    query = view_query(bands)
    collection = f"{root}/collections/{dataset.collection_id}"
    extensions = [e for e in item["stac_extensions"] if e not in (PROJECTION, FILE, *addresses.extensions)]
    properties = {k: v for k, v in item["properties"].items() if k != "storage:schemes"}
    return {
        **item,
        "stac_extensions": [*extensions, RASTER],
        "properties": {**properties, "proj:epsg": Number("epsg")},
        "assets": {key: When(READABLE, asset) for key, asset in band_assets(lane, bands).items()},
        # links preserve the view
        "links": [
            {
                "rel": "self",
                "type": MEDIA_GEOJSON,
                "href": Text(f"{collection}/items/grid_{{lon}}_{{lat}}_{{year}}?{query}"),
            },
            {"rel": "root", "type": MEDIA_JSON, "href": f"{root}/?{query}"},
            {"rel": "parent", "type": MEDIA_JSON, "href": f"{collection}?{query}"},
            {"rel": "collection", "type": MEDIA_JSON, "href": f"{collection}?{query}"},
        ],
    }


def view_query(bands: Sequence[int]) -> str:
    """Return the query string of the view; it is shorter if all bands are selected."""
    return "view=bands" + ("" if len(bands) == N_BANDS else f"&bands={bands_text(bands)}")


def readable_flags(has: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return rows' flags with :data:`READABLE` where bands can be read, by direct access or from a COG."""
    readable = (has & (Has.RAW_LANE | Has.COG)) != 0
    return has | np.where(readable, READABLE, 0).astype(np.int32)
