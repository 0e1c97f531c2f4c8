"""Where a tile-year lies in a store: pure arithmetic on what the store says of its UTM zones.

Two layouts are published. In one, a group ``utm31`` holds both hemispheres of a zone on the northern CRS,
southern northings being negative (geotessera 0.11, ``zarr.py``). In the other, ``31N`` and ``31S`` are each
on their own CRS (geotessera 0.11, ``icechunk.py``). All pixels lie on the 10 m lattice of the tiles, so that
a tile-year is a window of an array, and nothing is resampled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from catalog_builder.errors import StoreError
from catalog_builder.tile.blocks import FALSE_NORTHING
from catalog_builder.tile.grid import PIXEL, Raster, TileId

_BOTH = re.compile(r"utm(0[1-9]|[1-5]\d|60)", re.ASCII)
_ONE = re.compile(r"(0[1-9]|[1-5]\d|60)([NS])", re.ASCII)


@dataclass(frozen=True, slots=True)
class ZoneGroup:
    """A group of a store: the arrays of one UTM zone, or of one hemisphere of it."""

    name: str
    """``utm31``, ``31N`` or ``31S``."""
    epsg: int
    """CRS of its grid."""
    west: int
    """Left edge of the first column in metres."""
    top: int
    """Upper edge of the first row in metres."""
    rows: int
    cols: int
    years: tuple[int, ...]
    """The year of each time index."""
    complete: tuple[int, ...]
    """Years that are filled; others read as no data, whatever is in them."""

    @classmethod
    def of(cls, name: str, attributes: Mapping[str, Any], years: Iterable[int]) -> Self:
        """Return what the attributes of a group say (conventions ``proj:`` and ``spatial:``).

        Raises
        ------
        StoreError
            If the group is not a 10 m grid of the zone that its name says, on the lattice of the tiles.
        """
        try:
            epsg = int(str(attributes["proj:code"]).removeprefix("EPSG:"))
            transform = [float(v) for v in attributes["spatial:transform"]][:6]
            rows, cols = (int(v) for v in attributes["spatial:shape"])
            found = tuple(int(y) for y in years)
            complete = tuple(int(y) for y in attributes.get("years_complete", found))
        except (KeyError, TypeError, ValueError) as error:
            what = f"it has no '{error.args[0]}'" if isinstance(error, KeyError) else str(error)
            raise StoreError(f"group {name}: not the grid of a UTM zone: {what}") from error
        if epsg != _epsg_of(name):
            raise StoreError(f"group {name}: the CRS is EPSG:{epsg}, expected EPSG:{_epsg_of(name)}")
        if len(transform) != 6 or [*transform[:2], *transform[3:5]] != [PIXEL, 0, 0, -PIXEL]:
            raise StoreError(f"group {name}: the transform is {transform}, expected a north-up grid of 10 m")
        if transform[2] % PIXEL or transform[5] % PIXEL:
            raise StoreError(
                f"group {name}: the origin is {transform[2]}, {transform[5]}; TESSERA's pixels lie on"
                " multiples of 10 m"
            )
        return cls(name, epsg, int(transform[2]), int(transform[5]), rows, cols, found, complete)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Return the group of a record made by :meth:`as_json`."""
        lists = {key: tuple(record[key]) for key in ("years", "complete")}
        return cls(**{**record, **lists})

    def as_json(self) -> dict[str, Any]:
        """Return it as numbers, texts and lists."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @property
    def zone(self) -> int:
        """Number of the UTM zone."""
        return self.epsg % 100

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.rows, self.cols

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east and north of its pixels in metres."""
        south, east = self.top - PIXEL * self.rows, self.west + PIXEL * self.cols
        return float(self.west), south, east, float(self.top)

    def has(self, tile: TileId) -> bool:
        """Whether tiles of that zone and hemisphere are in this group."""
        if _BOTH.fullmatch(self.name):
            return self.zone == tile.utm_zone
        return self.epsg == tile.epsg

    def time(self, year: int) -> int | None:
        """Return the time index of a year; None if it is not there, or not complete."""
        return self.years.index(year) if year in self.years and year in self.complete else None

    def position(self, raster: Raster) -> tuple[int, int]:
        """Return the row and column at which a tile's raster begins; parts of it may be outside the group.

        Raises
        ------
        StoreError
            If the raster is of another zone or hemisphere, or its pixels are not the group's.

        Examples
        --------
        >>> group = ZoneGroup("utm31", 32631, 300000, 5800000, 4096, 4096, (2024,), (2024,))
        >>> raster = TileId.from_name("grid_0.15_52.05").raster()
        >>> raster.transform.c, raster.transform.f
        (300930.0, 5776130.0)
        >>> group.position(raster)
        (2387, 93)
        """
        x, y = raster.transform.c, raster.transform.f
        both = bool(_BOTH.fullmatch(self.name))
        if both and raster.epsg == self.epsg + 100:
            y -= FALSE_NORTHING
        elif raster.epsg != self.epsg:
            raise StoreError(f"group {self.name}: has no pixels on EPSG:{raster.epsg}")
        col, row = (x - self.west) / PIXEL, (self.top - y) / PIXEL
        if col != round(col) or row != round(row):
            raise StoreError(f"group {self.name}: the pixels of a raster at {x}, {y} are not its own")
        return round(row), round(col)


def is_zone(name: str) -> bool:
    """Return whether a group's name is that of a zone, in either layout."""
    return bool(_BOTH.fullmatch(name) or _ONE.fullmatch(name))


def zone_names() -> list[str]:
    """Return every name that :func:`is_zone` accepts: to look for groups where they cannot be listed."""
    zones = range(1, 61)
    return [f"utm{z:02d}" for z in zones] + [f"{z:02d}{h}" for z in zones for h in "NS"]


def _epsg_of(name: str) -> int:
    both = _BOTH.fullmatch(name)
    if both:
        return 32600 + int(both[1])
    one = _ONE.fullmatch(name)
    if one is None:
        raise StoreError(f"group {name}: not a UTM zone, expected a name like utm31, 31N or 31S")
    return (32600 if one[2] == "N" else 32700) + int(one[1])
