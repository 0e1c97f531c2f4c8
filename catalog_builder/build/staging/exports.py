"""Where exported GeoTIFFs lie: anywhere in a folder, but in items below the one root of their dataset."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from catalog_builder import storage
from catalog_builder.errors import DatasetError


def placed_exports(tiles: pa.Table, root: str) -> pa.Table:
    """Return tile-years whose GeoTIFFs have addresses, not paths below the folder that was listed.

    Only when everything is read is it known what the dataset's root is: that of its arrays, if it has some.
    """
    paths = tiles["geotiff"]
    return _with(tiles, pc.binary_join_element_wise(f"{storage.absolute(root).rstrip('/')}/", paths, ""))


def exports_below(tiles: pa.Table, root: str) -> pa.Table:
    """Return tile-years whose GeoTIFFs have paths below the dataset's root.

    Raises
    ------
    DatasetError
        If one lies elsewhere: an item has one root for all files of its source.
    """
    paths = tiles["geotiff"]
    placed = pc.fill_null(pc.or_(pc.starts_with(paths, "/"), pc.match_substring(paths, "://")), False)
    if not pc.any(placed).as_py():
        return tiles
    start = f"{storage.absolute(root).rstrip('/')}/"
    outside = pc.and_(placed, pc.invert(pc.fill_null(pc.starts_with(paths, start), False)))
    if pc.any(outside).as_py():
        first = paths.filter(outside)[0].as_py()
        raise DatasetError(
            f"{first}: lies outside of {root}, where the arrays of the dataset are: move such GeoTIFFs below"
            " it, or build a catalogue of their own"
        )
    return _with(tiles, pc.if_else(placed, pc.utf8_slice_codeunits(paths, len(start)), paths))


def _with(tiles: pa.Table, paths: pa.ChunkedArray) -> pa.Table:
    column = tiles.schema.get_field_index("geotiff")
    field = tiles.schema.field(column)
    return tiles.set_column(column, field, paths.cast(field.type))
