"""Regions from files: GeoJSON or a shapefile."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.tile.regions.region import from_geojson, not_read, region_from

if TYPE_CHECKING:
    from pyproj import CRS

MAX_EDGE = 0.01
"""Degrees (in other CRS: of their extent) between vertices before a region is projected: a straight
line on one map is a curve on another."""


_OTHERS = (".gpkg", ".fgb", ".kml", ".gml", ".gpx", ".parquet", ".tab", ".sqlite")
"""Vectors that GDAL reads and we do not."""


def region_of(argument: str | Path) -> BaseGeometry:
    """Return the region given by a bbox, a GeoJSON file, or a shapefile; either file may be zipped.

    Parameters
    ----------
    argument
        As accepted by :func:`catalog_builder.tile.regions.region.region_from`, or the path of a shapefile
        (``.shp``), or of a zip archive with one shapefile or one GeoJSON file in it. A shapefile's CRS is
        read from the ``.prj`` beside it; without one it must be in degrees.

    Returns
    -------
    BaseGeometry
        Two dimensional, OGC:CRS84.

    Raises
    ------
    QueryError
        If a bbox is malformed.
    StorageError
        If a file cannot be read, has no geometry, or has coordinates out of range. Of a format that is not
        read it says which it is, what is read, and the command that converts it.
    """
    text = str(argument).strip()
    if text.lower().endswith(".shp"):
        return _from_shapefile(text, _parts_beside(text))
    if text.lower().endswith(".zip"):
        return _from_zip(text, storage.read_bytes(text))
    return region_from(argument)


def _from_shapefile(path: str, parts: Mapping[str, bytes]) -> BaseGeometry:
    import shapefile  # type: ignore[import-untyped]

    try:
        with shapefile.Reader(**{k: io.BytesIO(v) for k, v in parts.items() if k != "prj"}) as reader:
            shapes = [
                shapely.geometry.shape(s.__geo_interface__)
                for s in reader.iterShapes()
                if s.shapeType != shapefile.NULL
            ]
    except (shapefile.ShapefileException, struct.error, ValueError, LookupError, TypeError) as error:
        raise StorageError(f"{path}: not a readable shapefile: {error}") from error
    shapes = [shapely.force_2d(s) for s in shapes if not s.is_empty]
    if not shapes:
        raise StorageError(f"{path}: holds no geometry")
    region = shapely.union_all([s if s.is_valid else shapely.make_valid(s) for s in shapes])
    crs = _crs(path, parts.get("prj"))
    if crs is not None:
        region = _to_degrees(region, crs)
    west, south, east, north = region.bounds
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        raise StorageError(
            f"{path}: coordinates from ({west:g}, {south:g}) to ({east:g}, {north:g}) are not degrees;"
            " a shapefile in another CRS needs its .prj file"
        )
    return region


def _parts_beside(path: str) -> dict[str, bytes]:
    """Return the files of a shapefile by suffix: shp, and prj if there is one."""
    found = {"shp": storage.read_bytes(path)}
    prj = f"{path[:-4]}.prj"
    if storage.exists(prj):
        found["prj"] = storage.read_bytes(prj)
    return found


def _from_zip(path: str, data: bytes) -> BaseGeometry:
    """Return the region of the one shapefile in an archive, or else of the one GeoJSON file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # folders, and what macOS adds, are nobody's region
            names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
            for suffixes in ((".shp",), (".geojson", ".json")):
                found = [name for name in names if name.lower().endswith(suffixes)]
                if len(found) > 1:
                    raise StorageError(
                        f"{path}: holds {len(found)} files that may be the region ({', '.join(found[:5])}):"
                        " unpack it and name one"
                    )
                if found:
                    return _from_member(path, archive, names, found[0])
    except zipfile.BadZipFile as error:
        raise StorageError(f"{path}: not a zip archive: {error}") from error
    except (NotImplementedError, RuntimeError) as error:  # a compression of its own, or a password
        raise StorageError(f"{path}: cannot be unpacked: {error}") from error
    what = f"holds {', '.join(names[:5]) or 'nothing'}{', ...' if len(names) > 5 else ''}"
    vectors = [name for name in names if name.lower().endswith(_OTHERS)]
    raise StorageError(not_read(path, what, f"/vsizip/{path}/{vectors[0]}" if vectors else None))


def _from_member(path: str, archive: zipfile.ZipFile, names: Sequence[str], name: str) -> BaseGeometry:
    """Return the region of a shapefile or a GeoJSON file in an archive."""
    if not name.lower().endswith(".shp"):
        return from_geojson(f"{path}!{name}", archive.read(name))
    parts = {"shp": archive.read(name)}
    by_name = {n.lower(): n for n in names}
    if prj := by_name.get(f"{name[:-4]}.prj".lower()):
        parts["prj"] = archive.read(prj)
    return _from_shapefile(path, parts)


def _crs(path: str, prj: bytes | None) -> CRS | None:
    """Return the CRS of a ``.prj``; None if there is none, or it is already longitude and latitude."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    if prj is None:
        return None
    try:
        crs = CRS.from_wkt(prj.decode("utf-8", "replace").strip("\ufeff\0 \n\r\t"))
    except CRSError as error:
        raise StorageError(f"{path}: its .prj is not a CRS: {str(error)[:120]}") from error
    return None if crs.is_geographic and crs.to_epsg() == 4326 else crs


def _to_degrees(region: BaseGeometry, crs: CRS) -> BaseGeometry:
    from pyproj import Transformer

    west, south, east, north = region.bounds
    fine = shapely.segmentize(region, max((east - west) / 200, (north - south) / 200, 1e-9))
    return project(fine, Transformer.from_crs(crs, "OGC:CRS84", always_xy=True))


def project(region: BaseGeometry, transformer: Any) -> BaseGeometry:
    """Return a geometry with every vertex transformed by a pyproj transformer."""

    def move(points: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(region, move)
