"""Labels of uncompressed arrays, so that GDAL can read any window of a ``.npy`` directly.

A label is a small XML document in the form of NASA's Planetary Data System, version 4 (PDS4
Information Model 1.x, ``Array_2D_Image`` and ``Array_3D_Image``): name of the file, bytes before the
array, element type, axes. GDAL has a driver for it since 2.2 that opens the label, never looks for
siblings, and reads it by range. CRS and transform are in a GDAL sidecar, ``<label>.aux.xml``:
without one GDAL would look for it under five names. Names of bands and tags are in the views
(:mod:`catalog_builder.raster.vrt`).

**Why not VRTRawRasterBand everywhere.** GDAL keeps one file handle for all raw bands that a thread opens
on one file (``CPLOpenShared``), also among datasets. Where these are then read in several threads, as
stackstac reads its assets, one's seek moves the other's read: some rows are another band's, and nothing
says so. With this driver every dataset has its own file handle, so views of single bands read labels. The
view of all bands keeps raw bands, which read parts of lines: this driver reads whole lines of all but the
first band (seen in GDAL 3.10 and 3.12), 6.2 MB instead of 1.8 for 64 x 64 pixels. That view opens its
arrays when it is first read, so datasets of one file that are each read in their own thread are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Literal

from catalog_builder.raster.npy import NPY_HEADER
from catalog_builder.tile.grid import Raster

_ELEMENTS = {
    ("Int8", False): "SignedByte",
    ("Int8", True): "SignedByte",
    ("Float32", False): "IEEE754LSBSingle",
    ("Float32", True): "IEEE754MSBSingle",
}


@dataclass(frozen=True, slots=True)
class RawArray:
    """A C-order array in a file: ``(height, width, bands)``, or ``(height, width)`` with one band.

    Raises
    ------
    ValueError
        If ``href`` is not the name of a file.
    """

    href: str
    """Name of a file in the same folder as the label: GDAL reads arrays only there."""
    dtype: Literal["Int8", "Float32"]
    """GDAL's name of the element type."""
    bands: int
    offset: int = NPY_HEADER
    """Bytes before the first element."""
    big_endian: bool = False
    planar: bool = False
    """Whether the shape is ``(bands, height, width)`` instead."""

    def __post_init__(self) -> None:
        """Reject what GDAL would not read."""
        if "/" in self.href or "\\" in self.href or self.href in ("", ".", ".."):
            raise ValueError(f"'{self.href}' is not the name of a file in the same folder as its label")

    @property
    def item_size(self) -> int:
        """Bytes of one element."""
        return 1 if self.dtype == "Int8" else 4


def raw_label(raster: Raster, array: RawArray) -> str:
    """Return the label of an array of a raster's shape, for a file beside it."""
    axes = [("Line", raster.height), ("Sample", raster.width)]
    if array.bands > 1:
        axes.insert(0 if array.planar else 2, ("Band", array.bands))
    kind = f"Array_{len(axes)}D_Image"
    described = "".join(
        f"<Axis_Array><axis_name>{name}</axis_name><elements>{length}</elements>"
        f"<sequence_number>{number}</sequence_number></Axis_Array>\n"
        for number, (name, length) in enumerate(axes, start=1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Product_Observational xmlns="http://pds.nasa.gov/pds4/pds/v1"><File_Area_Observational>\n'
        f"<File><file_name>{escape(array.href)}</file_name></File>\n"
        f'<{kind}><offset unit="byte">{array.offset}</offset><axes>{len(axes)}</axes>\n'
        "<axis_index_order>Last Index Fastest</axis_index_order>\n"
        f"<Element_Array><data_type>{_ELEMENTS[array.dtype, array.big_endian]}</data_type></Element_Array>\n"
        f"{described}"
        f"</{kind}></File_Area_Observational></Product_Observational>\n"
    )


def label_sidecar(raster: Raster) -> str:
    """Return the label's GDAL sidecar, ``<label>.aux.xml``, with CRS and transform of the array."""
    return f"<PAMDataset>\n{placement(raster)}</PAMDataset>\n"


def placement(raster: Raster) -> str:
    """Return a raster's CRS and transform in the form of GDAL's XML formats."""
    t = raster.transform
    # repr() gives the shortest text that parses to the same double
    transform = ", ".join(repr(float(v)) for v in (t.c, t.a, t.b, t.f, t.d, t.e))
    return (
        f'<SRS dataAxisToSRSAxisMapping="1,2">EPSG:{raster.epsg}</SRS>\n'
        f"<GeoTransform>{transform}</GeoTransform>\n"
    )
