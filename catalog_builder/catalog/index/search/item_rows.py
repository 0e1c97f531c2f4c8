"""Rows of the index as items: the columns that they are rendered from, and their JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog_builder.catalog.index.keys import ordinals_years, rows_cols
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.search.pages import Row
from catalog_builder.item.converted import COG_COLUMNS, cog_slots
from catalog_builder.item.item import Has, TileRows, item_columns, url_path
from catalog_builder.item.template import JsonRenderer
from catalog_builder.tile import grid
from catalog_builder.tile.files import npy_size, scales_size

Flags = npt.NDArray[np.int32]
_NONE: Mapping[str, str] = MappingProxyType({})


def tile_rows(page: Sequence[Row]) -> TileRows:
    """Return a page's rows (of one collection or several) as columns for :func:`item_columns`."""
    columns_of_page = zip(*page, strict=True) if page else ((),) * (14 + len(COG_COLUMNS))
    keys, mask, has, mtime, n_size, n_sha, s_size, s_sha, geotiff, g_size, *others = columns_of_page
    l_size, l_sha, valid, refused, *cog = others
    flags = np.array(has, dtype=np.int32)
    converted: dict[str, Any] = {}
    if (flags & int(Has.COG)).any():
        columns = dict(zip(COG_COLUMNS, cog, strict=True)) | {"valid_fraction": valid}
        converted = cog_slots(columns, flags)
    key = np.array(keys, dtype=np.int64)
    row, col = (part.astype(np.int32) for part in rows_cols(key))
    raster = grid.rasters(row, col)
    by_formula = npy_size(raster.height, raster.width).tolist()
    scales_by_formula = scales_size(raster.height, raster.width).tolist()
    return TileRows(
        row=row,
        col=col,
        year=ordinals_years(key)[1].astype(np.int32),
        mask=np.array(mask, dtype=np.uint32),
        has=flags,
        facts={
            **converted,
            "npy_size": [f if v is None else v for v, f in zip(n_size, by_formula, strict=True)],
            "scales_size": [f if v is None else v for v, f in zip(s_size, scales_by_formula, strict=True)],
            "npy_sha256": [v.hex() if v else "" for v in n_sha],
            "scales_sha256": [v.hex() if v else "" for v in s_sha],
            "mtime": rfc3339(mtime),
            "geotiff": [url_path(v) if v else "" for v in geotiff],
            "geotiff_size": [v or 0 for v in g_size],
            "landmask_size": [v or 0 for v in l_size],
            "landmask_sha256": [v.hex() if v else "" for v in l_sha],
            "refused_fraction": [v or 0.0 for v in refused],
        },
    )


def item_texts(
    page: Sequence[Row],
    record: CollectionRecord,
    renderer: JsonRenderer,
    *,
    flags: Callable[[Flags], Flags] | None = None,
    constants: Mapping[str, str] = _NONE,
) -> list[str]:
    """Return rows of one collection as the JSON texts of their items, in order.

    Parameters
    ----------
    page
        Rows as ``Index.page`` returns them.
    record
        Of their collection.
    renderer
        Of the collection's :func:`~catalog_builder.item.item.item_template`, or of one over the same slots.
    flags
        From the rows' :class:`~catalog_builder.item.item.Has` flags, (n,), to those that the template knows.
    constants
        Further slots that are the same in every item.
    """
    if not page:
        return []
    tiles = tile_rows(page)
    columns = item_columns(tiles, record.years, record.grid, record.addresses.store, record.view)
    lists = {slot: _texts(column) for slot, column in columns.items()}
    lists |= {slot: [text] * len(tiles.has) for slot, text in constants.items()}
    has = tiles.has if flags is None else flags(tiles.has)
    return renderer.render(lists, has.tolist())


def _texts(column: Any) -> Any:
    """Return a column as a list; floats as text, because most stand in several places of an item."""
    if not isinstance(column, np.ndarray):
        return column
    return list(map(repr, column.tolist())) if column.dtype.kind == "f" else column.tolist()


def rfc3339(seconds: Sequence[int | None]) -> list[str]:
    """Return times (seconds since 1970, UTC) as RFC 3339 text; empty where there is none."""
    known = np.array([s or 0 for s in seconds], dtype="datetime64[s]")
    texts = np.datetime_as_string(known, timezone="UTC").tolist() if len(known) else []
    return [t if s is not None else "" for t, s in zip(texts, seconds, strict=True)]
