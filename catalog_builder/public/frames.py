"""Vectors as xarray Datasets and GeoDataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import fspath
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from catalog_builder.errors import QueryError, StorageError
from catalog_builder.extras import install_line
from catalog_builder.public.catalogs import Location
from catalog_builder.public.remote import PointsAtServer
from catalog_builder.public.tables import At, Reader, is_remote, labels_of, points
from catalog_builder.tile.datasets import Dataset
from catalog_builder.tile.files import ALL_BANDS
from catalog_builder.vectors.points.options import MAX_SCALE, PointOptions, PointYear
from catalog_builder.vectors.points.reading import Threads
from catalog_builder.vectors.points.rows import OUTCOMES
from catalog_builder.vectors.points.sample import Sampling
from catalog_builder.vectors.tables.read import Points

if TYPE_CHECKING:
    import xarray as xr


@overload
def vectors(
    catalog: Location,
    at: At,
    *,
    years: Iterable[int] | None = ...,
    dataset: str | None = ...,
    bands: Iterable[int] = ...,
    kind: Literal["xarray"] = ...,
    workers: int = ...,
    reader: Reader = ...,
) -> xr.Dataset: ...
@overload
def vectors(
    catalog: Location,
    at: At,
    *,
    years: Iterable[int] | None = ...,
    dataset: str | None = ...,
    bands: Iterable[int] = ...,
    kind: Literal["geopandas"],
    workers: int = ...,
    reader: Reader = ...,
) -> Any: ...
def vectors(
    catalog: Location,
    at: At,
    *,
    years: Iterable[int] | None = None,
    dataset: str | None = None,
    bands: Iterable[int] = ALL_BANDS,
    kind: Literal["xarray", "geopandas"] = "xarray",
    workers: int = 4,
    reader: Reader = "here",
) -> Any:
    """Return the vectors at points as an xarray Dataset or a GeoDataFrame; needs the extra ``frames``.

    Parameters
    ----------
    catalog, at, years, dataset, bands, workers, reader
        As of :func:`catalog_builder.public.tables.points`.
    kind
        ``xarray``, or ``geopandas``.

    Returns
    -------
    xarray.Dataset or geopandas.GeoDataFrame
        The Dataset has ``embedding``, float32 (point, year, band), NaN where there is none, and ``status``,
        text (point, year), with the coordinates ``lon``, ``lat``, ``year`` and ``band``. The GeoDataFrame is
        the table of :func:`~catalog_builder.public.tables.points`, in OGC:CRS84.

    Raises
    ------
    StorageError
        If the library is not installed.
    QueryError, CatalogError, DatasetError
        As of :func:`catalog_builder.public.tables.points`.

    Examples
    --------
    >>> ds = vectors("/srv/tessera", ([0.12, 0.14], [52.2, 52.2]), years=[2023, 2024])  # doctest: +SKIP
    >>> change = ds.embedding.sel(year=2024) - ds.embedding.sel(year=2023)  # doctest: +SKIP
    """
    if kind not in ("xarray", "geopandas"):
        raise QueryError(f"kind: expected xarray or geopandas, found '{kind}'")
    try:
        if kind == "geopandas":
            import geopandas
        else:
            import xarray
    except ImportError as error:
        raise StorageError(f"{kind} is not installed: {install_line('frames')}") from error
    if kind == "geopandas":
        table = points(catalog, at, years=years, dataset=dataset, bands=bands, workers=workers, reader=reader)
        frame = table.drop_columns(["geometry"]).to_pandas()
        geometry = geopandas.GeoSeries.from_wkb(table["geometry"].to_numpy(zero_copy_only=False))
        return geopandas.GeoDataFrame(frame, geometry=geometry.to_numpy(), crs="OGC:CRS84")
    labels = labels_of(at)
    wanted = None if years is None else tuple(years)
    options = PointOptions(wanted, dataset, tuple(bands), max_scale=MAX_SCALE)
    with _years_of(fspath(catalog), labels, options, workers, reader) as (found_years, in_years, of):
        shape = len(labels.lon), len(in_years)
        values = np.full((*shape, len(options.bands)), np.nan, np.float32)
        status = np.empty(shape, OUTCOMES.dtype)
        for i, found in enumerate(found_years):
            values[:, i], status[:, i] = found.vectors.dequantized(), OUTCOMES[found.outcome]
    return xarray.Dataset(
        {"embedding": (("point", "year", "band"), values), "status": (("point", "year"), status)},
        {
            "lon": ("point", labels.lon, {"units": "degrees_east"}),
            "lat": ("point", labels.lat, {"units": "degrees_north"}),
            "year": ("year", np.array(in_years, np.int32)),
            "band": ("band", np.array(options.bands, np.int16)),
        },
        {"crs": "OGC:CRS84", "collection": of.collection_id},
    )


@contextmanager
def _years_of(
    catalog: str, labels: Points, options: PointOptions, workers: int, reader: Reader
) -> Iterator[tuple[Iterator[PointYear], tuple[int, ...], Dataset]]:
    """Yield what reads each year, which years, and of what."""
    if is_remote(reader):
        remote = PointsAtServer(catalog, labels, options, "float32", workers)
        yield remote.read(), remote.years, remote.dataset
        return
    threads = Threads(workers)
    try:
        sampling = Sampling.of(catalog, labels.lon, labels.lat, options, threads)
        yield sampling.read(), sampling.years, sampling.listed.dataset
    finally:
        threads.close()
