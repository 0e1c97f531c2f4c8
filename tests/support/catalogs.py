"""Catalogues for tests, built by the real builder from small manifests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from catalog_builder.build.options import BuildOptions
from catalog_builder.build.report import BuildReport
from catalog_builder.build.run import build
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.search.item_rows import tile_rows
from catalog_builder.catalog.index.search.selection import Selection
from catalog_builder.item.item import item_columns, item_template
from catalog_builder.item.template import JsonRenderer
from catalog_builder.tile.datasets import dataset
from catalog_builder.tile.grid import TileId
from tests.support.tables import text_manifest


def patch(west: int, south: int, columns: int, rows: int) -> list[TileId]:
    """Return a block of tiles whose lower left cell starts at whole degrees."""
    return [
        TileId(lat_i=south * 100 + 5 + 10 * r, lon_i=west * 100 + 5 + 10 * c)
        for r in range(rows)
        for c in range(columns)
    ]


def write_manifest(folder: Path, year: int, tiles: Iterable[TileId], salt: str = "") -> Path:
    """Write ``registry_<year>.txt`` in the format of geotessera 0.1.0."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"registry_{year}.txt"
    path.write_text(text_manifest(((t, year) for t in tiles), salt))
    return path


def truncate(path: Path) -> None:
    """Cut a file in the middle, as a download that broke off leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 10])


def build_from(out: Path, *sources: Path | str, **options: Any) -> BuildReport:
    """Build dataset v1, or another with ``dataset=``; removes what it is not given, if not told otherwise."""
    options.setdefault("allow_removals", True)
    name = options.pop("dataset", "v1")
    return build([str(s) for s in sources], out, BuildOptions(dataset=dataset(name), **options))


def api_items(index: Index, root: str, selection: Selection | None = None) -> dict[str, dict[str, Any]]:
    """Return items as the API renders them, by id, in the order of the index."""
    found: dict[str, dict[str, Any]] = {}
    for record in index.collections.values():
        chosen = selection or Selection([record.ordinal])
        if record.ordinal not in chosen.ordinals:
            continue
        rows = tile_rows(index.page(chosen, 1_000_000))
        columns = item_columns(rows, record.years, record.grid, record.addresses.store)
        lists = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in columns.items()}
        template = item_template(record.dataset, record.addresses, root, record.grid)
        for text in JsonRenderer(template).render(lists, rows.has.tolist()):
            item = orjson.loads(text)
            found[item["id"]] = item
    return found
