"""The generated documents of direct access: views, labels and the index of a folder."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from api.files.direct.paths import SUFFIXES, ServedKind, SourceFolder
from api.files.folder import open_below
from api.files.ranges import Span
from catalog_builder.errors import ArrayError
from catalog_builder.raster.label import RawArray, label_sidecar, raw_label
from catalog_builder.raster.npy import LONGEST_HEADER, NPY_HEADER, ArrayHeader, read_header
from catalog_builder.raster.vrt import (
    RAW_STRIP,
    VrtSource,
    band_vrt,
    f32_vrt,
    raw_bytes_vrt,
    raw_codes_vrt,
    raw_scales_vrt,
    tessera_metadata,
)
from catalog_builder.tile.files import N_BANDS
from catalog_builder.tile.grid import Raster


def document(found: SourceFolder, kind: ServedKind, band: int, local: str | None) -> str:
    """Return the text of a view or label.

    Parameters
    ----------
    found
        The tile-year.
    kind, band
        Which document, and of which band if it is a ``band_vrt``.
    local
        The local folder that the arrays lie in, below its root; None if they lie elsewhere or are
        computed, and so are as the tile's formula says.

    Raises
    ------
    FileNotFoundError
        If the view's source file is not in the local folder; the message is its path.
    ArrayError
        If it is there and is not the tile's array.
    """
    raster = found.tile.raster()
    name = found.tile.name
    metadata = tessera_metadata(found.source.dataset, found.tile, found.year)
    if kind == "sidecar":
        return label_sidecar(raster)
    if kind in ("codes_vrt", "bytes_vrt", "codes_label", "planes_label"):
        array = RawArray(f"{name}.npy", "Int8", N_BANDS, codes_offset(found, raster, local))
        if kind == "codes_vrt":
            return raw_codes_vrt(raster, array, metadata)
        if kind == "bytes_vrt":
            return raw_bytes_vrt(raster, array)
        if kind == "planes_label":
            array = replace(array, href=f"{name}_planes.bin", offset=0, planar=True)
        return raw_label(raster, array)
    offset, bands, big_endian = _scales(found, raster, local)
    array = RawArray(f"{name}_scales.npy", "Float32", bands, offset, big_endian)
    if kind == "scales_vrt":
        return raw_scales_vrt(raster, array, metadata)
    if kind == "scales_label":
        return raw_label(raster, array)
    codes_offset(found, raster, local)
    if kind == "f32_vrt":
        codes = VrtSource(f"{name}_u8.vrt", "Byte", bands=N_BANDS)
        scales = VrtSource(f"{name}_scales.vrt", "Float32", bands=bands)
        return f32_vrt(raster, codes, scales, metadata, strip=RAW_STRIP)
    scales = VrtSource(f"{name}_scales.xml", "Float32", bands=bands)
    label = ".xml" if local is None else "_planes.xml"
    return band_vrt(raster, VrtSource(f"{name}{label}", "Int8", bands=N_BANDS), scales, band, metadata)


def require_pair(found: SourceFolder, local: str) -> None:
    """Check that local arrays are the codes of a tile, and one scale per pixel.

    Raises
    ------
    FileNotFoundError, ArrayError
        As :func:`document`.
    """
    raster = found.tile.raster()
    codes_offset(found, raster, local)
    if _scales(found, raster, local)[1] != 1:
        path = found.path("_scales.npy")
        raise ArrayError(f"{path}: has one scale per value, expected one per pixel; '_f32.vrt' reads it")


def codes_offset(found: SourceFolder, raster: Raster, local: str | None) -> int:
    """Return the bytes before the codes in their file, which is checked where it is local.

    Raises
    ------
    FileNotFoundError, ArrayError
        As :func:`document`.
    """
    header = _header(found, ".npy", local)
    if header is None:
        return NPY_HEADER
    header.require("int8", (*raster.shape, N_BANDS))
    return header.offset


def _scales(found: SourceFolder, raster: Raster, local: str | None) -> tuple[int, int, bool]:
    """Return offset, number of bands and whether the scales are big-endian."""
    header = _header(found, "_scales.npy", local)
    if header is None:
        return NPY_HEADER, 1, False
    # upstream's code accepts one scale per pixel, and one per value
    header.require("float32", raster.shape, (*raster.shape, N_BANDS))
    return header.offset, N_BANDS if len(header.shape) == 3 else 1, header.big_endian


def _header(found: SourceFolder, suffix: str, local: str | None) -> ArrayHeader | None:
    """Return the header of a local file; None where the source is not local."""
    if local is None:
        return None
    path = found.path(suffix)
    with open_below(local, path) as content:
        header = read_header(content.read(Span(0, min(content.size, LONGEST_HEADER))), path)
        header.require_size(content.size)
    return header


def index(found: SourceFolder, local: str, public: str) -> str:
    """Return a page that lists a tile-year's folder, in the form of nginx's.

    GDAL fetches it when it opens a file, unless ``GDAL_DISABLE_READDIR_ON_OPEN`` says otherwise,
    and then asks neither for sidecar files that are not there, nor for sizes that the page states.

    Parameters
    ----------
    found, local
        As of :func:`document`.
    public
        The folder's path, as clients see it.
    """
    lines = []
    for suffix, kind in SUFFIXES.items():
        date = f"01-Jan-{found.year}"  # GDAL's parser wants one; a view is as old as its subject
        size = "-"
        try:
            if kind in ("computed", "computed_vrt"):
                pass  # as bands below: nothing is said of their sizes
            elif kind == "sidecar" or kind.endswith(("_vrt", "_label")):
                size = str(len(document(found, kind, 0, local).encode()))
            elif kind == "planes":
                height, width = found.tile.raster().shape
                size = str(height * width * N_BANDS)
            elif kind != "landmask":
                with open_below(local, found.path(suffix)) as content:
                    size = str(content.size)
            elif found.source.landmasks is None:
                continue
        except (FileNotFoundError, ArrayError):
            continue
        name = f"{found.tile.name}{suffix}"
        lines.append(f'<a href="{name}">{name}</a> {date} 00:00 {size:>15}')
    # GDAL takes what a listing does not name for absent
    bands = [f"{found.tile.name}_b{band:03d}.vrt" for band in range(N_BANDS)]
    lines += [f'<a href="{name}">{name}</a> {date} 00:00 {"-":>15}' for name in bands]
    title = f"Index of {escape(public)}"
    return (
        f"<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1><hr><pre>\n"
        + "\n".join(lines)
        + "\n</pre><hr></body>\n</html>\n"
    )
