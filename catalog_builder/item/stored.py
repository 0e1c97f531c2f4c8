"""A collection's store of arrays, of which every tile-year is a window: what items and collection say of it.

The window of a tile-year follows from its tile and from where its UTM zone's group begins, so that the index
stores nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from catalog_builder.item.template import Number, Text
from catalog_builder.storage.headers import MEDIA_ICECHUNK, MEDIA_ZARR, MEDIA_ZARR_3
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.tile import grid
from catalog_builder.tile.blocks import FALSE_NORTHING
from catalog_builder.tile.years import FIRST_YEAR

XARRAY = "https://stac-extensions.github.io/xarray-assets/v1.0.0/schema.json"
_N_YEARS = 32
IntArray = npt.NDArray[np.int64]


class Windows(NamedTuple):
    """Where tile-years begin in the arrays of a store, one array element each."""

    group: IntArray
    """Position of the group in :attr:`Store.groups`; -1 if there is none."""
    time: IntArray
    """Index of the year; -1 if the group does not have it complete."""
    row: IntArray
    col: IntArray


@dataclass(frozen=True, slots=True)
class Store:
    """A Zarr store or an Icechunk repository."""

    address: str
    """Absolute path, s3 or http(s) URL."""
    kind: Literal["zarr", "icechunk"]
    groups: tuple[ZoneGroup, ...]
    attributes: str = "{}"
    """Attributes of the root group about embeddings (``geoemb:``), as JSON."""
    storage_options: str = "{}"
    """How fsspec reaches it, as JSON."""
    consolidated: bool = False
    """Whether the root has the metadata of all groups: if not, clients must list it, which the web cannot."""

    def __hash__(self) -> int:
        """Return a hash that does not walk through 120 groups at every page of items."""
        return hash((self.address, self.kind))

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Restore from :func:`dataclasses.asdict` output that went through JSON."""
        return cls(**{**said, "groups": tuple(ZoneGroup.from_json(g) for g in said["groups"])})

    @property
    def media_type(self) -> str:
        """Of the store itself."""
        return MEDIA_ICECHUNK if self.kind == "icechunk" else MEDIA_ZARR_3

    def windows(self, row: npt.NDArray[Any], col: npt.NDArray[Any], year: npt.NDArray[Any]) -> Windows:
        """Return where tile-years begin in their groups.

        Parameters
        ----------
        row, col, year
            Of the tiles on the 0.1 degree grid, each (n,).
        """
        places = _places(self)
        slot = (col // grid.COLS_PER_ZONE) * 2 + (row < grid.N_ROWS // 2)
        raster = grid.rasters(row, col)
        group = places.group[slot]
        time = places.time[group, np.clip(year - FIRST_YEAR, 0, _N_YEARS - 1)]
        return Windows(
            group,
            np.where(group < 0, -1, time),
            np.rint((places.top[slot] - raster.origin_y) / grid.PIXEL).astype(np.int64),
            np.rint((raster.origin_x - places.west[slot]) / grid.PIXEL).astype(np.int64),
        )

    def columns(
        self, row: npt.NDArray[Any], col: npt.NDArray[Any], year: npt.NDArray[Any], slots: str = "store"
    ) -> dict[str, Any]:
        """Return the slots of :func:`store_asset`; without meaning for tile-years not in the store."""
        found = self.windows(row, col, year)
        return {
            f"{slots}_group": _places(self).names[found.group],
            f"{slots}_time": found.time,
            f"{slots}_row": found.row,
            f"{slots}_col": found.col,
        }


class _Places(NamedTuple):
    """By zone and hemisphere, zone 1 north first: group, and its corner in metres of the hemisphere's CRS."""

    group: IntArray
    west: npt.NDArray[np.float64]
    top: npt.NDArray[np.float64]
    time: IntArray
    """By group (the last stands for none) and year from :data:`FIRST_YEAR`: its index, -1 if incomplete."""
    names: npt.NDArray[np.object_]
    """Of the groups; the last stands for none."""


@lru_cache(maxsize=16)
def _places(store: Store) -> _Places:
    group = np.full(120, -1, np.int64)
    west, top = np.zeros(120), np.zeros(120)
    time = np.full((len(store.groups) + 1, _N_YEARS), -1, np.int64)
    for i, one in enumerate(store.groups):
        for south in (False, True):
            tile = grid.TileId(-5 if south else 5, (one.zone - 1) * 600 - 17995)
            if one.has(tile):
                slot = (one.zone - 1) * 2 + south
                both = one.epsg // 100 == 326 and south
                group[slot], west[slot], top[slot] = i, one.west, one.top + (FALSE_NORTHING if both else 0)
        for year in one.complete:
            at = one.time(year)
            if at is not None and 0 <= year - FIRST_YEAR < _N_YEARS:
                time[i, year - FIRST_YEAR] = at
    names = np.array([*(one.name for one in store.groups), ""], dtype=object)
    return _Places(group, west, top, time, names)


def view_of(directory: str, zones: tuple[ZoneGroup, ...]) -> Store | None:
    """Return the store that the API computes of all tile-years of a dataset; None without zones.

    Parameters
    ----------
    directory
        Of the dataset.
    zones
        Those that have tiles.
    """
    if not zones:
        return None
    # The root of the service is known where the URL is shown.
    return Store(f"{{root}}/zarr/{quote(directory, safe='~')}", "zarr", zones, consolidated=True)


VIEW_SLOTS = "zone"
"""What the slots of its asset begin with."""


def view_asset(view: Store) -> dict[str, Any]:
    """Return the asset ``zarr`` of an item: the arrays of its zone, and the window that it is in them."""
    about = {
        "title": "The arrays of its UTM zone, computed by this server, that the tile-year is a window of",
        "roles": ["data"],
    }
    return store_asset(view, {}, VIEW_SLOTS) | about


def store_asset(store: Store, stored: Mapping[str, Any], slots: str = "store") -> dict[str, Any]:
    """Return the asset ``source_zarr`` of an item: the store, and the window that the tile-year is in it.

    Parameters
    ----------
    store
        The collection's.
    stored
        Fields that refer to its bucket.
    slots
        What the names of its slots begin with.
    """
    return {
        "href": store.address,
        "type": store.media_type,
        "title": "The store that the tile-year is a window of: arrays 'embeddings' (int8) and 'scales'",
        "roles": ["data", "source"],
        **stored,
        **_xarray(store, Text(f"{{{slots}_group}}")),
        "tessera:group": Text(f"{{{slots}_group}}"),
        "tessera:arrays": ["embeddings", "scales"],
        "tessera:time_index": Number(f"{slots}_time"),
        "tessera:window": [
            Number(f"{slots}_row"), Number(f"{slots}_col"), Number("height"), Number("width")
        ],
    }  # fmt: skip


def group_assets(store: Store, stored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the assets of a collection, one per group of its store, by the name of the group."""
    # xpystac 0.5 knows the media type without a parameter only, QGIS 4.2 as well; the field says the version.
    media = MEDIA_ICECHUNK if store.kind == "icechunk" else MEDIA_ZARR
    return {
        one.name: {
            "href": store.address,
            "type": media,
            "title": f"UTM zone {one.name}: arrays 'embeddings' (int8) and 'scales' (float32), by year",
            "roles": ["data"],
            **stored,
            **_xarray(store, one.name),
            "zarr:zarr_format": 3,
            "tessera:group": one.name,
            "tessera:years": list(one.complete),
            "proj:code": f"EPSG:{one.epsg}",
            "proj:shape": list(one.shape),
            "proj:transform": [10.0, 0.0, float(one.west), 0.0, -10.0, float(one.top), 0.0, 0.0, 1.0],
        }
        for one in store.groups
    }


def _xarray(store: Store, group: Any) -> dict[str, Any]:
    """Return the fields of the xarray-assets extension."""
    options = json.loads(store.storage_options)
    kwargs: dict[str, Any] = {"group": group, "zarr_format": 3, "chunks": None}
    kwargs["consolidated"] = store.consolidated
    if store.kind == "icechunk":  # of the store of a session: a repository has no mapping of keys to bytes
        return {"xarray:open_kwargs": kwargs}
    # In both: what is opened by the keywords alone must reach the store too.
    known = {"storage_options": options} if options else {}
    return {
        "xarray:open_kwargs": kwargs | known,
        **({"xarray:storage_options": options} if options else {}),
    }


def geoembeddings(store: Store) -> dict[str, Any]:
    """Return the attributes of the embeddings convention that the store's root group has."""
    said: dict[str, Any] = json.loads(store.attributes)
    return {key: value for key, value in said.items() if key.startswith("geoemb:")}
