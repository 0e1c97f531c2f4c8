"""Parsing of the paths of direct access."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from catalog_builder.pixels.container.table import place_below
from catalog_builder.pixels.place import ContainerKind, Place
from catalog_builder.storage import https_address, scheme
from catalog_builder.tile.datasets import Dataset, source_path
from catalog_builder.tile.grid import TileId

ServedKind = Literal[
    "f32_vrt",
    "codes_vrt",
    "bytes_vrt",
    "scales_vrt",
    "band_vrt",
    "computed_vrt",
    "computed",
    "codes_label",
    "scales_label",
    "planes_label",
    "sidecar",
    "planes",
    "codes",
    "scales",
    "landmask",
    "index",
]

SUFFIXES: dict[str, ServedKind] = {
    "_f32.vrt": "f32_vrt",
    ".vrt": "codes_vrt",
    "_u8.vrt": "bytes_vrt",
    "_scales.vrt": "scales_vrt",
    "_computed.vrt": "computed_vrt",
    "_computed.tif": "computed",
    ".xml": "codes_label",
    ".xml.aux.xml": "sidecar",
    "_scales.xml": "scales_label",
    "_scales.xml.aux.xml": "sidecar",
    "_planes.xml": "planes_label",
    "_planes.xml.aux.xml": "sidecar",
    "_planes.bin": "planes",
    ".npy": "codes",
    "_scales.npy": "scales",
    ".tiff": "landmask",
}
"""What follows ``<grid>`` in the names of a folder's files, but for the views of single bands."""

_PATH = re.compile(r"([^/]+)/([0-9]{4})/(grid_-?[0-9.]{4,6}_-?[0-9.]{4,5})(?:/\3([a-z0-9_.]+))?")
_EXPORT = re.compile(r"(grid_-?[0-9.]{4,6}_-?[0-9.]{4,5})[^/]*\.tiff?", re.IGNORECASE)
_YEAR = re.compile(r"(?<![0-9])20[0-9]{2}(?![0-9])")
_BAND = re.compile(r"_b(0[0-9]{2}|1[01][0-9]|12[0-7])\.vrt")


@dataclass(frozen=True, slots=True)
class Asked:
    """A parsed path."""

    directory: str
    """Of the dataset."""
    year: int
    grid: str
    kind: ServedKind
    band: int = 0
    """Of ``band_vrt``."""


@dataclass(frozen=True, slots=True)
class SourceRoot:
    """The location of one dataset's source files."""

    dataset: Dataset
    root: str
    """A local folder, or an http(s) or s3 URL, above ``<year>/<grid>/<grid>.npy``."""
    landmasks: str | None = None
    """The same for ``<grid>.tiff``; None if there are none."""
    container: ContainerKind = "npy"
    """What lies below ``root``."""


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """One folder of direct access: a tile-year."""

    source: SourceRoot
    tile: TileId
    year: int

    def path(self, suffix: str) -> str:
        """Return a source file's path below the dataset's root."""
        return source_path(self.year, self.tile.name, suffix)

    @property
    def place(self) -> Place:
        """Where its pixels are."""
        return place_below(self.source.root, self.tile, self.year, self.source.container)


def asked(path: str, *, is_folder: bool) -> Asked | None:
    """Parse a path; None if it is not one of direct access.

    >>> asked("v1/2024/grid_0.15_52.05/grid_0.15_52.05_b005.vrt", is_folder=False)
    Asked(directory='v1', year=2024, grid='grid_0.15_52.05', kind='band_vrt', band=5)
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    directory, year, grid, suffix = match[1], int(match[2]), match[3], match[4]
    if suffix is None:
        return Asked(directory, year, grid, "index")
    if is_folder:
        return None
    if band := _BAND.fullmatch(suffix):
        return Asked(directory, year, grid, "band_vrt", int(band[1]))
    kind = SUFFIXES.get(suffix)
    return None if kind is None else Asked(directory, year, grid, kind)


def exports(path: str) -> list[str]:
    """Return the ids of items that a path may be an exported GeoTIFF of: folders and names differ.

    >>> exports("v1/global_0.1_degree_representation/2024/grid_0.15_52.05/grid_0.15_52.05_2024.tif")
    ['grid_0.15_52.05_2024']
    >>> exports("v1/2024/notes.tif")
    []
    """
    found = _EXPORT.search(path.rpartition("/")[2])
    return [] if found is None else [f"{found[1]}_{year}" for year in sorted(set(_YEAR.findall(path)))[:9]]


def public_address(root: str) -> str:
    """Return the http(s) URL of a root, which any client can read if its bucket is public.

    >>> public_address("https://example.org/tiles/")
    'https://example.org/tiles'

    Raises
    ------
    StorageError
        If the address has another scheme.
    """
    root = root.rstrip("/")
    return https_address(root) if scheme(root) == "s3" else root
