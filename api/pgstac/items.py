"""Stored items, presented like those of the index: links, images, views, fields, hrefs.

An item of ours was made from the template of :mod:`catalog_builder.item.item`, without links and for the
root URL it was loaded for. What a request adds is rendered from the same templates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from api.http.links import GEOJSON, link
from api.pgstac.snapshot import PgstacSnapshot
from api.request.fields import Fields
from api.request.view import View
from api.search.computed import COMPUTED, ZONE, inserted, with_computed
from api.search.map_links import MAP_SLOTS, with_map_links
from catalog_builder.item.bands_view import READABLE, bands_template
from catalog_builder.item.item import Has, item_template
from catalog_builder.item.stored import VIEW_SLOTS, Store
from catalog_builder.item.template import JsonRenderer
from catalog_builder.tile.grid import TileId

Item = dict[str, Any]


def show(
    snapshot: PgstacSnapshot,
    items: Sequence[Item],
    root: str,
    view: View = None,
    fields: Fields | None = None,
) -> list[str]:
    """Return stored items as the JSON texts of what a request asked to see, in order."""
    places = defaultdict(list)
    for place, item in enumerate(items):
        places[item["collection"]].append(place)
    shown: list[Item] = [{}] * len(items)
    for cid, of in places.items():
        some = [items[place] for place in of]
        done = _tiles(snapshot, cid, some, root, view) if cid in snapshot.collections else _plain(some, root)
        for place, item in zip(of, done, strict=True):
            shown[place] = item
    return [orjson.dumps(item if fields is None else fields.prune(item)).decode() for item in shown]


def _plain(items: Sequence[Item], root: str) -> list[Item]:
    """Return items that are not tiles: unchanged, with the service's links."""
    found = []
    for item in items:
        collection = f"{root}/collections/{item['collection']}"
        links = [
            link("self", f"{collection}/items/{item['id']}", GEOJSON),
            link("root", f"{root}/"),
            link("parent", collection),
            link("collection", collection),
        ]
        rels = {one["rel"] for one in links}
        others = [one for one in item.get("links", []) if one.get("rel") not in rels]
        found.append({**item, "links": links + others})
    return found


def _tiles(snapshot: PgstacSnapshot, cid: str, items: Sequence[Item], root: str, view: View) -> list[Item]:
    """Show tile-years: the parts that a request decides are rendered from the item's own templates."""
    texts = _renderer(snapshot, cid, root, view).render(
        _slots(items, snapshot.collections[cid].view), [_flags(i) for i in items]
    )
    found = []
    for item, text in zip(items, texts, strict=True):
        parts = orjson.loads(text)
        if view is not None and view.bands is not None:
            properties = {**item["properties"], **parts.pop("properties")}
            found.append({**_ordered(item), "properties": properties, **parts})
            continue
        whole = _ordered(snapshot.at(item, root))
        assets = parts.pop("assets")
        if COMPUTED in assets:
            whole["assets"] = inserted(whole["assets"], assets[COMPUTED])
        if ZONE in assets:
            whole["assets"] |= {ZONE: assets[ZONE]}
        found.append({**whole, **parts})
    return found


def _ordered(item: Item) -> Item:
    """Return an item with its members in the order in which the index has them."""
    return {name: item[name] for name in _MEMBERS if name in item} | item


_MEMBERS = ("type", "stac_version", "stac_extensions", "id", "collection", "geometry", "bbox", "properties",
            "assets", "links")  # fmt: skip


def _renderer(snapshot: PgstacSnapshot, cid: str, root: str, view: View) -> JsonRenderer:
    def make() -> JsonRenderer:
        record = snapshot.collections[cid]
        of = (record.dataset, record.addresses, root, record.grid)
        if view is None or view.bands is None:
            template = with_map_links(with_computed(item_template(*of), record, root), record, root)
            parts = {name: template[name] for name in ("stac_extensions", "links")}
            own = {key: template["assets"][key] for key in (COMPUTED, ZONE) if key in template["assets"]}
            return JsonRenderer({**parts, "assets": own})
        template = bands_template(*of, view.bands)
        parts = {name: template[name] for name in ("stac_extensions", "assets", "links")}
        return JsonRenderer({**parts, "properties": {"proj:epsg": template["properties"]["proj:epsg"]}})

    return snapshot.remember(("stored", cid, root, view), make)


def _slots(items: Sequence[Item], zones: Store | None) -> Mapping[str, Any]:
    """Return what the parts' templates need, from the items' names and properties."""
    lon, lat, year = zip(*(item["id"].split("_")[1:4] for item in items), strict=True) if items else ((),) * 3
    return {
        "lon": list(lon),
        "lat": list(lat),
        "year": list(year),
        "epsg": [item["properties"]["proj:code"].removeprefix("EPSG:") for item in items],
        **{slot: [text] * len(items) for slot, text in MAP_SLOTS.items()},
        **_zone_slots(items, zones),
    }


def _zone_slots(items: Sequence[Item], zones: Store | None) -> Mapping[str, Any]:
    if zones is None or not items:
        return {}
    tiles = [TileId.from_name(item["id"].rpartition("_")[0]) for item in items]
    row, col = np.array([tile.row for tile in tiles]), np.array([tile.col for tile in tiles])
    years = np.array([int(item["id"].rpartition("_")[2]) for item in items])
    shape = [item["properties"]["proj:shape"] for item in items]
    found = {slot: column.tolist() for slot, column in zones.columns(row, col, years, VIEW_SLOTS).items()}
    return found | {"height": [rows for rows, _ in shape], "width": [cols for _, cols in shape]}


def _flags(item: Item) -> int:
    """Return what an item's assets and properties say of it, as :class:`Has` flags."""
    assets = item["assets"]
    flags = int(Has.NPY) if "source_npy" in assets else 0
    if "embeddings_f32" in assets:
        flags |= READABLE
        if flags & Has.NPY or "source_zarr" in assets:
            flags |= int(Has.RAW_LANE)
    if "source_geotiff" in assets:
        flags |= int(Has.GEOTIFF)
    if item["properties"].get("tessera:cog"):
        flags |= int(Has.COG) | READABLE
        if "visual" in assets:
            flags |= int(Has.COG_VISUAL)
    return flags
