"""Patches for training, as PyTorch's loaders take them."""

from __future__ import annotations

from collections.abc import Iterable
from os import fspath

from catalog_builder.public.catalogs import Location
from catalog_builder.public.tables import Area, At, labels_of, shape_of
from catalog_builder.tile.files import ALL_BANDS
from catalog_builder.vectors.patches import (
    Patches,
    PatchOptions,
    PatchType,
    patches_around,
    patches_over,
)
from catalog_builder.vectors.points.options import MAX_SCALE


def patches(
    catalog: Location,
    at: At,
    *,
    size: int = 64,
    label: str | None = None,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    dtype: PatchType = "float32",
    max_scale: float | None = MAX_SCALE,
) -> Patches:
    """Return a data set of patches around labelled points.

    It has a length and gives a sample by its number, so that ``torch.utils.data.DataLoader`` takes it, with
    workers of any start method; it needs no PyTorch itself. Only the catalogue is read here: a patch is read
    when it is asked for, by ranges.

    Parameters
    ----------
    catalog
        A catalogue, its folder, s3 URL, or the URL of a tessera-stac API.
    at
        A file of points, ``(lon, lat)`` in degrees (OGC:CRS84), or a GeoDataFrame of points in any CRS.
    size
        Rows and columns, of 10 m. The point lies in the pixel ``[size // 2, size // 2]``.
    label
        Column of the points that samples have as ``label``.
    years
        Years; None: all of the collection. There is a patch for each point and year that can be read:
        ``left_out`` of the result counts the others, by the reason.
    dataset
        Collection id; None: the only one, or the first real one.
    bands
        Dimensions, counted from 0.
    dtype
        ``float32`` values, or ``int8`` codes with their ``scale``.
    max_scale
        Pixels with this scale or a greater one have no data; None: whatever is stored.

    Returns
    -------
    Patches
        Samples are dictionaries, see :meth:`~catalog_builder.vectors.patches.Patches.__getitem__`.

    Raises
    ------
    QueryError
        If a point is not on the globe, there is no such column, or an option is out of range.
    CatalogError, DatasetError, StorageError
        If the catalogue, the dataset or the file cannot be read.

    Examples
    --------
    >>> data = patches("/srv/tessera", "labels.csv", label="crop", years=[2024])  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(data, 32, shuffle=True, num_workers=4)  # doctest: +SKIP
    """
    points = labels_of(at)
    options = PatchOptions(size, tuple(bands), dtype, max_scale)
    return patches_around(
        fspath(catalog),
        points.lon,
        points.lat,
        options,
        years=None if years is None else tuple(years),
        dataset=dataset,
        labels=points.columns,
        label=label,
    )


def patch_grid(
    catalog: Location,
    area: Area,
    *,
    size: int = 64,
    stride: int | None = None,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    dtype: PatchType = "float32",
    max_scale: float | None = MAX_SCALE,
) -> Patches:
    """Return a data set of patches over a region.

    Parameters
    ----------
    catalog, size, years, dataset, bands, dtype, max_scale
        As of :func:`patches`.
    area
        ``(west, south, east, north)`` in degrees, a file of polygons, or a shapely geometry in degrees
        (OGC:CRS84): patches have their middles in it.
    stride
        Pixels from a patch to the next, on a grid of each UTM zone; None: their size.

    Returns
    -------
    Patches
        As of :func:`patches`; samples have no ``point``.

    Raises
    ------
    QueryError, CatalogError, DatasetError, StorageError
        As of :func:`patches`.

    Examples
    --------
    >>> data = patch_grid("/srv/tessera", (0.1, 52.1, 0.2, 52.2), size=128, years=[2024])  # doctest: +SKIP
    """
    return patches_over(
        fspath(catalog),
        shape_of(area),
        PatchOptions(size, tuple(bands), dtype, max_scale),
        stride=stride,
        years=None if years is None else tuple(years),
        dataset=dataset,
    )
