"""An Icechunk repository with its registry, as dClimate's TESSERA v1.1 is (``docs/global-store.md`` there).

A group per UTM zone and hemisphere, ``01N`` … ``60S``, each on its own CRS and over the whole of its zone.
``embeddings`` are int8 (time, northing, easting, band), ``scales`` float32 (time, northing, easting), NaN
where a pixel was not embedded; beside them how often and in which months each sensor saw a pixel. Every
year has its place on the time axis; those that were filled are in ``years_complete``.
"""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder.stores.extent import centres
from catalog_builder.stores.zones import ZoneGroup
from catalog_builder.synthetic.sample import Written
from catalog_builder.synthetic.stores.mosaic import BLOCK, Mosaic, by
from catalog_builder.synthetic.stores.registry import (
    MIN_OBSERVATIONS,
    block_bounds,
    block_name,
    write_part,
)
from catalog_builder.synthetic.stores.shard import Blocks, ShardWriter
from catalog_builder.tile.datasets import SYNTHETIC, dataset
from catalog_builder.tile.files import N_BANDS
from catalog_builder.zone_arrays import attributes

if TYPE_CHECKING:
    import zarr

SHARD = 2048
CHUNK = 256
MONTHS = 12
SENSORS = ("s2", "s1_asc", "s1_desc")
ARRAYS = (
    "embeddings",
    "scales",
    *(f"{sensor}_{what}" for sensor in SENSORS for what in ("obs_count", "month_covered")),
)

# The area of use of a UTM zone, snapped outwards to whole shards: the same in every zone.
_WEST, _EAST = 163_840, 839_680
_NORTH = (9_338_880, 0)
_SOUTH = (10_014_720, 1_105_920)

_SOURCES = ["s3://sentinel-cogs", "https://datapool.asf.alaska.edu/RTC/OPERA-S1"]
_GEOEMB = "0655212938f36351245dbd3e5e8868f811d43663"
_NANOSECONDS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}


class ZoneYear(NamedTuple):
    """One fill of a group: ``33N``, 2024."""

    zone: str
    year: int


@dataclass(frozen=True)
class Irregularities:
    """What a real store has and a sample has not, for tests of readers."""

    incomplete: frozenset[ZoneYear] = frozenset()
    """Fills that broke off: pixels are there, but not in ``years_complete`` and not in the registry."""
    refilled: frozenset[ZoneYear] = frozenset()
    """Fills with an older part in the registry, by which nothing was embedded."""
    refused: Mapping[tuple[ZoneYear, str], float] = field(default_factory=dict)
    """By zone-year and block, ``chunk_12_7``: the share of its pixels, 0 to 1, that were refused as seen too
    rarely: the left part of every chunk."""


def write_icechunk(
    repository: Path,
    registry: Path,
    tiles: Sequence[Written],
    years: Sequence[int],
    report: Callable[[int, int], None],
    irregularities: Irregularities | None = None,
) -> None:
    """Write a repository and its registry with some tiles.

    Parameters
    ----------
    repository
        A folder that does not exist yet; readers expect a name that ends in ``.icechunk``.
    registry
        Folder for the Parquet parts.
    tiles
        The tiles; where they overlap the later one counts.
    years
        The time axis.
    report
        Called with (shards written, of how many).
    irregularities
        By default there are none.
    """
    import icechunk
    import zarr

    odd = irregularities or Irregularities()
    icechunk.set_logs_filter("error")  # it warns of every repository on a disk
    place = icechunk.local_filesystem_storage(str(repository))
    session = icechunk.Repository.create(place).writable_session("main")
    with _pcodec_allowed():
        root = zarr.open_group(session.store, mode="w-", zarr_format=3)
        about = attributes.root(dataset(SYNTHETIC), _GEOEMB, _SOURCES, "NaN")
        root.attrs.update({**about, "checkpoint_id": "synthetic", "optical_min_obs": MIN_OBSERVATIONS})
        fills = [fill for epsg, some in by(tiles, _epsg) for fill in _fills(root, epsg, some, years, odd)]
        done, total = 0, sum(len(fill.mosaic.squares(SHARD)) for fill in fills)
        for fill in fills:
            rows = []
            for row, col in fill.mosaic.squares(SHARD):
                refused = odd.refused.get((fill.of, block_name(row, col)), 0)
                shard = _Shard(fill.mosaic, row, col, refused)
                shard.write(fill.group, fill.place.years.index(fill.of.year), session.store)
                rows.append(shard.record(fill.place))
                done += 1
                report(done, total)
            if fill.of not in odd.incomplete:
                _register(registry, fill.of, rows, refilled=fill.of in odd.refilled)
        session.commit("synthetic tiles, not TESSERA data")


class _Fill(NamedTuple):
    """The tiles of a year in a group."""

    group: zarr.Group
    place: ZoneGroup
    of: ZoneYear
    mosaic: Mosaic


def _epsg(written: Written) -> int:
    return written.tile.epsg


def _fills(
    root: zarr.Group, epsg: int, tiles: Sequence[Written], years: Iterable[int], odd: Irregularities
) -> list[_Fill]:
    """Create the group of a zone, and return what there is to fill in it."""
    by_year = list(by(tiles, lambda w: w.year))
    place = zone_group(epsg, years)
    complete = tuple(year for year, _ in by_year if ZoneYear(place.name, year) not in odd.incomplete)
    place = replace(place, complete=complete)
    group = _create_group(root, place)
    return [_Fill(group, place, ZoneYear(place.name, y), Mosaic(place, some)) for y, some in by_year]


def zone_group(epsg: int, years: Iterable[int]) -> ZoneGroup:
    """Return the group of a UTM zone: its pixels are the whole zone's, in whole shards."""
    top, bottom = _NORTH if epsg < 32700 else _SOUTH
    name, axis = f"{epsg % 100:02d}{'N' if epsg < 32700 else 'S'}", tuple(sorted(years))
    return ZoneGroup(name, epsg, _WEST, top, (top - bottom) // 10, (_EAST - _WEST) // 10, axis, axis)


@contextmanager
def _pcodec_allowed() -> Iterator[None]:
    """Silence the warning that PCodec is not in the Zarr v3 standard, which the published store uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        yield


def _create_group(root: zarr.Group, place: ZoneGroup) -> zarr.Group:
    """Create a group with its coordinates and arrays without data."""
    from pyproj import CRS
    from zarr.codecs.numcodecs import PCodec

    years = place.years
    group = root.create_group(place.name)
    easting, northing = centres(place)
    pixels = {"time": len(years), "northing": place.rows, "easting": place.cols}
    chunk, shard = (1, CHUNK, CHUNK), (1, SHARD, SHARD)

    def create(
        array: str, dtype: str, fill: float, last: Mapping[str, int] | None = None, **codec: Any
    ) -> None:
        last = last or {}
        more = tuple(last.values())
        group.create_array(
            array,
            shape=(*pixels.values(), *more),
            chunks=(*chunk, *more),
            shards=(*shard, *more),
            dtype=dtype,
            fill_value=fill,
            dimension_names=[*pixels, *last],
            **codec,
        )

    create("embeddings", "int8", 0, {"band": N_BANDS})
    create("scales", "float32", np.nan, serializer=PCodec(), compressors=None)
    for sensor in SENSORS:
        create(f"{sensor}_obs_count", "uint16", 0)
        create(f"{sensor}_month_covered", "int8", 0, {"month": MONTHS})
    begin = [np.datetime64(f"{year}-01-01", "ns").astype(np.int64) for year in years]
    end = [np.datetime64(f"{year + 1}-01-01", "ns").astype(np.int64) for year in years]
    coordinates: dict[str, npt.NDArray[Any]] = {
        "time": np.array(begin),
        "northing": northing,
        "easting": easting,
        "band": np.arange(N_BANDS),
        "month": np.arange(1, MONTHS + 1, dtype=np.int16),
        "time_bnds": np.stack([begin, end], axis=1),
    }
    for coordinate, values in coordinates.items():
        names = ["time", "bnds"] if coordinate == "time_bnds" else [coordinate]
        array = group.create_array(coordinate, data=values, chunks=values.shape, dimension_names=names)
        if coordinate in ("time", "time_bnds"):
            array.attrs.update(_NANOSECONDS)
    group["time"].attrs["bounds"] = "time_bnds"
    for coordinate, axis in (("northing", "Y"), ("easting", "X")):
        standard = f"projection_{axis.lower()}_coordinate"
        group[coordinate].attrs.update({"standard_name": standard, "units": "m", "axis": axis})
    crs = CRS.from_epsg(place.epsg)
    group.attrs.update(
        {
            "crs": f"EPSG:{place.epsg}",
            "years_complete": list(place.complete),
            "zone_scheme": "utm_6deg_nominal",
            "time_convention": "calendar_year",
            "layout": "global",
            **attributes.grid(place, ("northing", "easting")),
            "proj:wkt2": crs.to_wkt("WKT2_2019"),
            "proj:projjson": crs.to_json_dict(),
        }
    )
    return group


class _Block(NamedTuple):
    """The arrays of a block but its codes, (256, 256); dtypes as stored."""

    scales: npt.NDArray[np.float32]
    counts: dict[str, npt.NDArray[np.uint16]]
    """By sensor."""
    covered: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return the values of an array of the store."""
        if name == "scales":
            return self.scales
        if name.endswith("_obs_count"):
            return self.counts[name.removesuffix("_obs_count")]
        return months_covered(self.counts[name.removesuffix("_month_covered")])


class _Shard:
    """A block of 2048 pixels in a year, in all arrays."""

    def __init__(self, mosaic: Mosaic, row: int, col: int, refused: float) -> None:
        self.row, self.col = row, col
        self._mosaic, self._refused = mosaic, refused
        self._blocks: dict[tuple[int, int], _Block] = {}

    def write(self, group: zarr.Group, time: int, store: Any) -> None:
        """Write the shard of every array, if there is anything in it."""
        self._write(group, "embeddings", time, store, self._codes)
        for name in ARRAYS[1:]:
            self._write(group, name, time, store, partial(self._kept, name))

    def _write(self, group: zarr.Group, name: str, time: int, store: Any, blocks: Blocks) -> None:
        import zarr
        from zarr.core.buffer import default_buffer_prototype

        array = group[name]
        assert isinstance(array, zarr.Array)  # noqa: S101 - created above
        place = [time, self.row, self.col, *[0] * (array.ndim - 3)]
        with tempfile.TemporaryFile() as file:
            if not ShardWriter(array, 1, 2).write(file, blocks):
                return
            file.flush()
            mapped: Any = np.memmap(file, np.uint8, "r")  # not read: a full shard has 510 MB
            data = default_buffer_prototype().buffer.from_array_like(mapped)
            asyncio.run(store.set(f"{array.path}/c/{'/'.join(map(str, place))}", data))

    def _codes(self, r: int, c: int) -> npt.NDArray[np.int8] | None:
        """Return the codes of a block, and keep the rest of it."""
        pixels = self._mosaic.block(self.row * SHARD + r * BLOCK, self.col * SHARD + c * BLOCK)
        if pixels is None:
            return None
        refused = np.zeros(pixels.covered.shape, np.bool_)
        refused[:, : round(self._refused * BLOCK)] = True
        seen = pixels.covered & pixels.valid
        counts = _observations(seen, refused & seen)
        embedded = seen & ~refused
        scales = np.where(embedded, pixels.scales, np.float32(np.nan))
        self._blocks[r, c] = _Block(scales, counts, pixels.covered, pixels.covered & ~embedded)
        return np.where(embedded[..., None], pixels.codes, np.int8(0))[None]

    def _kept(self, name: str, r: int, c: int) -> npt.NDArray[Any] | None:
        block = self._blocks.get((r, c))
        return None if block is None else block.array(name)[None]

    def record(self, place: ZoneGroup) -> dict[str, Any]:
        """Return the row of the registry."""
        blocks = self._blocks.values()
        optical = np.concatenate([b.counts["s2"][b.covered] for b in blocks])
        radar = np.concatenate([b.counts["s1_asc"][b.covered] for b in blocks])
        refused = np.concatenate([b.refused[b.covered] for b in blocks])
        unseen = optical == 0
        bounds = block_bounds(place, self.row, self.col, SHARD)
        return {
            "tile": block_name(self.row, self.col),
            "embedded": bool((~refused).any()),
            "eligible_px": len(optical),
            "chunk_px": SHARD * SHARD,
            "refused_px": int(refused.sum()),
            "refused_no_optical_px": int((refused & unseen).sum()),
            "refused_thin_px": int((refused & ~unseen).sum()),
            "refused_no_radar_px": 0,
            "px_with_any_optical": int((~unseen).sum()),
            "obs_max": int(optical.max()),
            "median_obs_where_any": float(np.median(optical[~unseen])) if (~unseen).any() else None,
            "px_with_any_radar": int((radar > 0).sum()),
            "radar_rule_enforced": False,
            **{f"bbox_{side}": value for side, value in bounds._asdict().items()},
        }


def _observations(
    seen: npt.NDArray[np.bool_], thin: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.uint16]]:
    """Return how often each sensor saw the pixels of a block: the optical one too rarely where thin."""
    row, col = np.ogrid[: seen.shape[0], : seen.shape[1]]
    often = MIN_OBSERVATIONS + (row // 8 + col // 8) % 40
    optical = np.where(thin, 1 + (row + col) % (MIN_OBSERVATIONS - 1), often)
    found = {"s2": optical, "s1_asc": 24 + row // 32 % 7, "s1_desc": np.zeros_like(optical)}
    return {name: np.where(seen, counts, 0).astype(np.uint16) for name, counts in found.items()}


def months_covered(counts: npt.NDArray[np.uint16]) -> npt.NDArray[np.int8]:
    """Return in which months pixels (H, W) were seen: (H, W, 12), as many as there were observations."""
    return (counts[..., None] > np.arange(MONTHS)).astype(np.int8)


def _register(registry: Path, fill: ZoneYear, rows: list[dict[str, Any]], *, refilled: bool) -> None:
    now = datetime.now(UTC)
    run = f"synthetic-{fill.zone}-{fill.year}"
    if refilled:
        nothing = [
            {key: value for key, value in row.items() if key == "tile" or key.startswith("bbox_")}
            for row in rows
        ]
        before = (now - timedelta(days=30)).isoformat(timespec="seconds")
        write_part(registry, *fill, f"{run}-z", before, [{**row, "embedded": False} for row in nothing])
    write_part(registry, *fill, run, now.isoformat(timespec="seconds"), rows)
