"""A static STAC tree: JSON files that link to each other, for viewers and crawlers without an API.

::

    OUT/catalog.json
      tessera-v1/collection.json
        2024/catalog.json
          31/catalog.json                        UTM zone
            51N/catalog.json                     three degrees of latitude, from 51 N
              grid_0.15_52.05_2024.json

Nothing has more than 1,800 links (a zone and three degrees of latitude are 60 x 30 tiles), which is
what viewers can display and what pystac reads in a second or two. A tree of the whole planet would be
millions of small files that nobody can list, so there is an upper limit: search is what the API and
stac-geoparquet are for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from catalog_builder.catalog.collection import CATALOG_DESCRIPTION, CATALOG_ID, CATALOG_TITLE
from catalog_builder.catalog.extract import Extract
from catalog_builder.catalog.index.keys import split_key
from catalog_builder.console import Progress, no_progress
from catalog_builder.errors import QueryError, StorageError
from catalog_builder.item.item import STAC_VERSION
from catalog_builder.publish.static_place import MARK, ROOT, TreePlace, tree_place
from catalog_builder.storage.headers import MEDIA_GEOJSON, MEDIA_JSON
from catalog_builder.tile.grid import COLS_PER_ZONE

MAX_ITEMS = 200_000
"""Maximum number of items in a tree: a gigabyte of small files."""
MAX_LINKS = 2_000
"""Maximum number of links in any file of the tree."""
BAND_ROWS = 30
"""Rows of tiles in a band of latitude."""


def write_static(
    out: Path | str, parts: Sequence[Extract], *, max_items: int = MAX_ITEMS, report: Progress = no_progress
) -> int:
    """Write or update the tree; return its number of items.

    Files are written from the leaves to the root, each in one step, and files of an earlier tree that
    are no longer linked are removed last: whenever the export is killed, every link that a reader
    finds leads to a complete file. Unchanged files are not touched.

    Parameters
    ----------
    out
        Folder or s3 URL; new, empty, or an earlier tree.
    parts
        The items.
    max_items
        Maximum number of items.
    report
        Receives the progress.

    Raises
    ------
    QueryError
        If there are too many items.
    StorageError
        If the output contains something else, or cannot be written.
    """
    n = sum(p.count() for p in parts)
    if n > max_items:
        raise QueryError(
            f"{n:,} items would be as many small files, and the limit for a static tree is {max_items:,}:"
            " narrow it with --region or --years, raise it with --max-items,"
            " or export geoparquet, which has none"
        )
    try:
        _Tree(tree_place(out), n, report).write(parts)
    except OSError as exc:
        raise StorageError(f"{exc.filename or out}: cannot be written ({exc.strerror})") from exc
    return n


@dataclass
class _Tree:
    place: TreePlace
    n: int
    report: Progress
    written: set[str] = field(default_factory=lambda: {MARK})
    done: int = 0

    def write(self, parts: Sequence[Extract]) -> None:
        children = []
        for part in parts:
            years = [(str(y), str(y)) for y in part.years if self._year(part, y)]
            self._collection(part, years)
            children.append((f"{part.id}/collection.json", part.record.dataset.title))
        document = _catalog(CATALOG_ID, CATALOG_TITLE, CATALOG_DESCRIPTION) | {"tessera:tree": True}
        document["links"] = [_link("root", "./catalog.json", MEDIA_JSON, CATALOG_TITLE)]
        document["links"] += [_link("child", f"./{href}", MEDIA_JSON, title) for href, title in children]
        self.place.settle()
        self._put(ROOT, document)
        self.place.settle()
        self.place.remove_others(self.written)

    def _collection(self, part: Extract, years: list[tuple[str, str]]) -> None:
        document = part.document()
        document["links"] = [
            *_up("../catalog.json", "../catalog.json"),
            *(_link("child", f"./{name}/catalog.json", MEDIA_JSON, title) for name, title in years),
            *document["links"],
        ]
        self.place.settle()
        self._put(f"{part.id}/collection.json", document)

    def _year(self, part: Extract, year: int) -> bool:
        """Write a year's items and their catalogues; return whether there are any."""
        folder = f"{part.id}/{year}"
        bands: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for rows in part.pages(year):
            for row, text in zip(rows, part.texts(rows), strict=True):
                _, _, tile_row, col = split_key(row[0])
                zone, band = col // COLS_PER_ZONE + 1, tile_row // BAND_ROWS
                item = orjson.loads(text)
                item["links"] = [
                    *_up("../../../../catalog.json", "./catalog.json"),
                    _link("collection", "../../../collection.json", MEDIA_JSON),
                ]
                self._put(f"{folder}/{zone:02}/{_band_name(band)}/{item['id']}.json", item)
                bands[zone][band].append(item["id"])
            self.done += len(rows)
            self.report("writing items", self.done, self.n)
        for zone, of_zone in bands.items():
            for band, ids in of_zone.items():
                self._catalog(
                    f"{folder}/{zone:02}/{_band_name(band)}",
                    f"{part.id}-{year}-{zone:02}-{_band_name(band)}",
                    f"Zone {zone}, {_band_title(band)}, {year}",
                    [_link("item", f"./{i}.json", MEDIA_GEOJSON) for i in ids],
                    4,
                )
            self._catalog(
                f"{folder}/{zone:02}",
                f"{part.id}-{year}-{zone:02}",
                f"UTM zone {zone}, {year}",
                [
                    _link("child", f"./{_band_name(b)}/catalog.json", MEDIA_JSON, _band_title(b))
                    for b in sorted(of_zone)
                ],
                3,
            )
        if bands:
            links = [
                _link("child", f"./{z:02}/catalog.json", MEDIA_JSON, f"UTM zone {z}") for z in sorted(bands)
            ]
            self._catalog(folder, f"{part.id}-{year}", f"{part.record.dataset.title}, {year}", links, 2)
        return bool(bands)

    def _catalog(self, folder: str, name: str, title: str, links: list[dict[str, Any]], depth: int) -> None:
        """Write a catalogue ``depth`` folders below the root."""
        parent = "../collection.json" if depth == 2 else "../catalog.json"
        document = _catalog(name, title, f"TESSERA embeddings: {title}.")
        document["links"] = _up("../" * depth + "catalog.json", parent) + links
        self.place.settle()
        self._put(f"{folder}/catalog.json", document)

    def _put(self, path: str, document: dict[str, Any]) -> None:
        assert len(document["links"]) <= MAX_LINKS  # noqa: S101 - by the layout
        self.written.add(path)
        kind = MEDIA_GEOJSON if document["type"] == "Feature" else MEDIA_JSON
        self.place.put(path, orjson.dumps(document), kind)


def _catalog(name: str, title: str, description: str) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": name,
        "title": title,
        "description": description,
    }


def _link(rel: str, href: str, kind: str, title: str | None = None) -> dict[str, Any]:
    return {"rel": rel, "href": href, "type": kind, **({"title": title} if title else {})}


def _up(root: str, parent: str) -> list[dict[str, Any]]:
    return [_link("root", root, MEDIA_JSON, CATALOG_TITLE), _link("parent", parent, MEDIA_JSON)]


def _band_name(band: int) -> str:
    """Return a band's southern edge, such as ``51N`` or ``03S``."""
    south = band * BAND_ROWS // 10 - 90
    return f"{abs(south):02}{'N' if south >= 0 else 'S'}"


def _band_title(band: int) -> str:
    south = band * BAND_ROWS // 10 - 90
    return f"latitude {south} to {south + BAND_ROWS // 10}"
