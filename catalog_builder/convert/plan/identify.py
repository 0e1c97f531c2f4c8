"""What a GeoTIFF is: a whole tile of TESSERA, or an ordinary raster although its name or tags say so.

geotessera exports some bands, clipped regions and EPSG:4326 under the names and tags of whole tiles. Such
a raster is nobody's tile-year: it is converted as what it is, and its note says why it is no tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from catalog_builder.convert.plan.job import Job
from catalog_builder.errors import ConvertError, DatasetError, GridError
from catalog_builder.tile.datasets import Dataset, dataset, dataset_of
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import PIXEL, TileId

if TYPE_CHECKING:
    import rasterio

DEFAULT_DATASET = "v1"
"""Of files that state no dataset: geotessera had no other before 0.9."""
_EXACT = 0.01
"""Metres within which two corners are one: exports keep them to a nanometre."""

type TileYear = tuple[Dataset, TileId, int]


def tags_of(ds: rasterio.DatasetReader) -> dict[str, str]:
    """Return the tags of a raster that are its own, without GDAL's."""
    return {name: value for name, value in ds.tags().items() if name != "AREA_OR_POINT"}


def identify(job: Job, ds: rasterio.DatasetReader) -> tuple[TileYear | None, str]:
    """Say which tile-year a GeoTIFF is: its tags, else the name and folder that the plan saw.

    Parameters
    ----------
    job
        What the plan knows of it.
    ds
        The raster.

    Returns
    -------
    known, note
        None for a raster that is no whole tile, then with the reason if its name or tags say that it is
        one; otherwise what is unusual about the tile. The note may be empty.

    Raises
    ------
    ConvertError
        If it is a whole tile, and its tags and name contradict each other, or name what there is not.
    """
    where, tags = job.main.address, tags_of(ds)
    tagged, problem = _tagged_tile(tags)
    claimed = tagged or job.tile
    if claimed is None:
        return None, problem and f"an ordinary raster, no tile: {problem}"
    if why := misfit(ds, claimed):
        return None, f"an ordinary raster, not the tile {claimed.name} of its {_source(tagged)}: {why}"
    if problem:
        raise ConvertError(f"{where}: {problem}")
    if job.tile is not None and claimed != job.tile:
        raise ConvertError(f"{where}: its tags say {claimed.name}, but its name {job.tile.name}")
    year = _year(tags.get("TESSERA_YEAR"), job.year, where)
    if year is None:
        return None, f"an ordinary raster: neither its tags nor its name say the year of {claimed.name}"
    return (_dataset(job, tags), claimed, year), _shift(ds, claimed)


def _source(tagged: TileId | None) -> str:
    return "name" if tagged is None else "tags"


def _tagged_tile(tags: Mapping[str, str]) -> tuple[TileId | None, str]:
    """Return the tile that tags name, or what is wrong with them."""
    lat, lon = tags.get("TESSERA_TILE_LAT"), tags.get("TESSERA_TILE_LON")
    if lat is None or lon is None:
        return None, ""
    try:
        return TileId(lat_i=round(float(lat) * 100), lon_i=round(float(lon) * 100)), ""
    except GridError as error:
        return None, f"its tags say latitude {lat}, longitude {lon}: {error}"
    except (ValueError, OverflowError):  # no number, NaN, infinity
        return None, f"its tags say latitude '{lat}', longitude '{lon}', which are no coordinates"


def _year(tagged: str | None, named: int | None, where: str) -> int | None:
    if tagged is None:
        return named
    if not tagged.strip().isdecimal():
        raise ConvertError(f"{where}: its tags say year '{tagged}', which is no year")
    if named is not None and int(tagged) != named:
        raise ConvertError(f"{where}: its tags say year {tagged}, but its name {named}")
    return int(tagged)


def _dataset(job: Job, tags: Mapping[str, str]) -> Dataset:
    """Return the dataset of a tile, by its tags, else by what the plan saw."""
    where = job.main.address
    try:
        tagged = _tagged_dataset(tags)
        given = dataset(job.dataset) if job.dataset is not None else None
    except DatasetError as error:
        raise ConvertError(f"{where}: {error}") from None
    if tagged is not None and given is not None and tagged != given:
        raise ConvertError(
            f"{where}: its tags say dataset {tagged.directory}, not {given.directory}:"
            " datasets are never mixed"
        )
    if tagged is None and given is None and job.doubt:
        raise ConvertError(f"{where}: {job.doubt}")
    return tagged or given or dataset(DEFAULT_DATASET)


def _tagged_dataset(tags: Mapping[str, str]) -> Dataset | None:
    """Return the dataset of the tags: up to 0.7.5 a directory's name, later version and variant."""
    version, variant = tags.get("TESSERA_DATASET_VERSION"), tags.get("TESSERA_DATASET_VARIANT")
    if version is None:
        return None
    if variant is None:
        try:
            return dataset(version)
        except DatasetError:
            pass
    return dataset_of(version, variant)


def misfit(ds: rasterio.DatasetReader, tile: TileId) -> str:
    """Return why a raster is not a whole tile as geotessera exports it; empty if it is."""
    if ds.count != N_BANDS:
        return f"it has {ds.count} band{'s' if ds.count > 1 else ''}, but a TESSERA tile has {N_BANDS}"
    if ds.dtypes[0] != "float32":
        return f"its samples are {ds.dtypes[0]}, but an exported tile's are float32"
    return misplaced(ds, tile)


def misplaced(ds: rasterio.DatasetReader, tile: TileId) -> str:
    """Return why the pixels of a raster are not a tile's; empty if they are.

    The published corner is off the pixels by less than a pixel (geotessera issue 429), so anything
    nearer than that is the tile's.
    """
    expected = tile.raster("source")
    epsg = ds.crs.to_epsg() if ds.crs else None
    if epsg != expected.epsg:
        its = f"EPSG:{epsg}" if epsg else "another one" if ds.crs else "missing"
        return f"its CRS is {its}, but the tile's is EPSG:{expected.epsg}"
    if (ds.height, ds.width) != expected.shape:
        height, width = expected.shape
        return f"its {ds.height} x {ds.width} pixels do not fit {tile.name}, which has {height} x {width}"
    t, e = ds.transform, expected.transform
    if (t.a, t.b, t.d, t.e) != (PIXEL, 0, 0, -PIXEL):
        return f"its pixels are {t.a:g} x {-t.e:g} m, but the tile's are {PIXEL:g} m, north up"
    if abs(t.c - e.c) >= PIXEL or abs(t.f - e.f) >= PIXEL:
        return f"its corner is ({t.c:.1f}, {t.f:.1f}), but the tile's is ({e.c:.1f}, {e.f:.1f})"
    return ""


def _shift(ds: rasterio.DatasetReader, tile: TileId) -> str:
    """Return a note if a tile is neither on the published grid nor on UTM's."""
    at = ds.transform.c, ds.transform.f
    corners = [tile.raster(grid).transform for grid in ("source", "utm")]
    if any(abs(at[0] - c.c) < _EXACT and abs(at[1] - c.f) < _EXACT for c in corners):
        return ""
    east, north = at[0] - corners[0].c, at[1] - corners[0].f
    return (
        f"its corner ({at[0]:.2f}, {at[1]:.2f}) is {abs(east):.2f} m {'east' if east >= 0 else 'west'} and"
        f" {abs(north):.2f} m {'north' if north >= 0 else 'south'} of the published one, and on neither of"
        " the tile's grids: its pixels are written to the tile's own place, as they are"
    )
