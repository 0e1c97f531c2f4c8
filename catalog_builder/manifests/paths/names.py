"""Parsing of paths: which file of which tile and year, in every layout.

=====================================================  ========================================
path, below any prefix                                 what it is
=====================================================  ========================================
``2024/grid_X_Y/grid_X_Y.npy``                         embedding
``2024/grid_X_Y/grid_X_Y_scales.npy``                  scales
``grid_X_Y.tiff``                                      landmask
``2024/grid_X_Y/grid_X_Y_2024.tiff``                   exported GeoTIFF (geotessera 0.6 and later)
``grid_X_Y_2024.tiff``                                 the same, moved elsewhere
``tessera_2024_lat52.05_lon0.15.tif``                  exported GeoTIFF (geotessera 0.5)
=====================================================  ========================================

Upstream's own pattern is a prefix match with any number of decimals; here a coordinate must be
spelt exactly like a tile centre.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catalog_builder.errors import GridError
from catalog_builder.manifests.problems import ProblemKind
from catalog_builder.tile import grid
from catalog_builder.tile.grid import TileId


class FileKind(IntEnum):
    """The kind of a file."""

    OTHER = 0
    NPY = 1
    SCALES = 2
    LANDMASK = 3
    GEOTIFF = 4


_LATS, _LONS = ({text: i for i, text in enumerate(texts)} for texts in grid.centre_texts())
_YEARS = {f"{year:04d}": year for year in range(10_000)}

_FLAT_GRID = r"^grid_(?P<lon>-?[\d.]+)_(?P<lat>-?\d+\.\d\d)(?:_(?P<year>\d{4}))?\.tiff?$"
_FLAT_TESSERA = r"^tessera_(?P<year>\d{4})_lat(?P<lat>-?[\d.]+)_lon(?P<lon>-?\d+\.\d\d)\.tiff?$"

_TAILS = {".npy": FileKind.NPY, "_scales.npy": FileKind.SCALES}


@dataclass(frozen=True, slots=True)
class Names:
    """Parsed paths, one array element per path."""

    kind: npt.NDArray[np.uint8]
    """:class:`FileKind`; OTHER where the path is not a tile's, or invalid (see :func:`flaw`)."""
    year: npt.NDArray[np.int16]
    """-1 for landmasks."""
    cell: npt.NDArray[np.int32]
    """See :func:`catalog_builder.tile.grid.cells`."""
    prefix: pa.DictionaryArray
    """The path before the year folder, or before the file name if there is no such folder;
    without a final slash, empty at the root."""


def parse_paths(paths: pa.Array) -> Names:
    """Parse many paths, vectorised: 0.4 microseconds per path.

    Parameters
    ----------
    paths
        String array without nulls, with forward slashes.
    """
    n = len(paths)
    kind = np.zeros(n, dtype=np.uint8)
    year = np.full(n, -1, dtype=np.int16)
    cell = np.zeros(n, dtype=np.int32)
    split = pc.split_pattern(paths, "/", max_splits=3, reverse=True)
    ends = split.offsets.to_numpy()[1:]
    starts = split.offsets.to_numpy()[:-1]
    pieces = split.values
    file = pieces.take(pa.array(ends - 1))
    deep = np.flatnonzero(ends - starts >= 3)
    prefix = _prefixes(paths, pieces, starts, ends)

    # <year>/<grid>/<file>: the file must repeat its folder's name
    whole = len(deep) == n
    folder = pieces.take(pa.array(ends[deep] - 2))
    deep_file = file if whole else file.take(pa.array(deep))
    deep_year = _index(pieces.take(pa.array(ends[deep] - 3)), _YEARS)
    deep_cell = _cells_of_folders(folder)
    valid = (deep_year >= 0) & (deep_cell >= 0)
    deep_kind = np.zeros(len(deep), dtype=np.uint8)
    for tail, what in _TAILS.items():
        named = pc.equal(deep_file, pc.binary_join_element_wise(folder, tail, "")).to_numpy(
            zero_copy_only=False
        )
        deep_kind[named & valid] = what
    kind[deep], year[deep], cell[deep] = deep_kind, deep_year, deep_cell

    # everything else is determined by the file's name alone, a GeoTIFF also by its folders
    open_ = np.flatnonzero(kind == FileKind.OTHER)
    if len(open_):
        rest = file.take(pa.array(open_))
        for pattern in (_FLAT_GRID, _FLAT_TESSERA):
            found = pc.extract_regex(rest, pattern=pattern)
            hit = pc.is_valid(found).to_numpy(zero_copy_only=False)
            if not hit.any():
                continue
            at = open_[hit]
            col = _index(pc.struct_field(found, "lon").filter(pa.array(hit)), _LONS)
            row = _index(pc.struct_field(found, "lat").filter(pa.array(hit)), _LATS)
            named_year = _index(pc.struct_field(found, "year").filter(pa.array(hit)), _YEARS)
            above = _year_above(pieces, starts[at], ends[at])
            its_year = np.where(named_year >= 0, named_year, above)
            good = (col >= 0) & (row >= 0) & ((named_year < 0) | (above < 0) | (named_year == above))
            at, its_year = at[good], its_year[good]
            kind[at] = np.where(its_year >= 0, FileKind.GEOTIFF, FileKind.LANDMASK)
            year[at] = its_year
            cell[at] = grid.cells(row, col)[good]
        year[kind == FileKind.OTHER] = -1
    return Names(kind, year, cell, prefix)


def _index(values: pa.Array, of: dict[str, int]) -> npt.NDArray[np.int64]:
    """Return the value of each spelling, -1 where it is not valid.

    Only the distinct spellings are looked up: a block of a registry has at most 50 of each.
    """
    encoded = values.dictionary_encode()
    known = np.array([of.get(text, -1) for text in encoded.dictionary.to_pylist()] or [-1], dtype=np.int64)
    codes = encoded.indices if not encoded.null_count else pc.fill_null(encoded.indices, len(known))
    found: npt.NDArray[np.int64] = np.append(known, -1)[codes.to_numpy()]
    return found


def _cells_of_folders(folders: pa.Array) -> npt.NDArray[np.int64]:
    """Return the cells of folders named ``grid_<lon>_<lat>``, -1 for other names."""
    words = pc.split_pattern(folders, "_")
    offsets = words.offsets.to_numpy()
    three = np.flatnonzero(np.diff(offsets) == 3)
    at = offsets[three]
    head, lon, lat = (words.values.take(pa.array(at + k)) for k in range(3))
    col, row = _index(lon, _LONS), _index(lat, _LATS)
    is_grid = pc.equal(head, "grid").to_numpy(zero_copy_only=False)
    cell = np.full(len(folders), -1, dtype=np.int64)
    cell[three] = np.where(is_grid & (col >= 0) & (row >= 0), grid.cells(row, col), -1)
    return cell


def _year_above(
    pieces: pa.Array, starts: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Return the year of the folder above a file or above its grid folder, -1 if there is none."""
    year = np.full(len(starts), -1, dtype=np.int64)
    for up in (3, 2):
        has = np.flatnonzero(ends - starts >= up)
        found = _index(pieces.take(pa.array(ends[has] - up)), _YEARS)
        year[has] = np.where(found >= 0, found, year[has])
    return year


def _prefixes(
    paths: pa.Array, pieces: pa.Array, starts: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]
) -> pa.DictionaryArray:
    """Return the path before ``<year>/<grid>/<file>``, or before the file in other layouts."""
    depth = ends - starts
    if len(depth) and depth.min() == depth.max() == 3:
        first = pieces.take(pa.array(starts))
        if not (_index(first, _YEARS) < 0).any():  # the registries' own layout: nothing before
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(paths), dtype=np.int32)), [""])
    up = np.where(depth >= 3, 3, 1)
    in_year = _index(pieces.take(pa.array(ends - up)), _YEARS) >= 0
    head = pieces.take(pa.array(starts))
    regular = in_year & (depth >= 3)
    before = pc.if_else(pa.array(depth == 4), head, "")
    if regular.all():
        return before.dictionary_encode()
    folder = pc.replace_substring_regex(paths, pattern=r"/?[^/]*$", replacement="")
    return pc.if_else(pa.array(regular), before, folder).dictionary_encode()


_LOOSE = re.compile(r"(?P<grid>grid_[^/_]*_[^/_]*?)(?P<tail>_scales\.npy|\.npy|(?:_\d{4})?\.tiff?)")


def flaw(path: str) -> tuple[ProblemKind, str] | None:
    """Return why :func:`parse_paths` could not parse a path; None if it does not look like a tile's."""
    *folders, name = path.split("/")
    match = _LOOSE.fullmatch(name)
    if match is None:
        return None
    folder = folders[-1] if folders and folders[-1].startswith("grid_") else None
    for name_of_tile in (match["grid"], folder or match["grid"]):
        try:
            TileId.from_name(name_of_tile)
        except GridError as error:
            return ProblemKind.OFF_GRID, str(error)
    if folder is not None and folder != match["grid"]:
        return ProblemKind.NAME_MISMATCH, f"the folder is '{folder}', but the file is '{name}'"
    year = folders[-2] if folder is not None and len(folders) > 1 else ""
    if not re.fullmatch(r"\d{4}", year):
        return ProblemKind.MALFORMED, f"expected '<year>/<grid>/<file>', found '{path}'"
    return ProblemKind.WRONG_YEAR, f"the folder is of {year}, but the file is '{name}'"
