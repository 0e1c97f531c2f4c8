"""A catalogue, wherever it is."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike, fspath

from catalog_builder.vectors.find import collections_of


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of TESSERA embeddings."""

    id: str
    """Such as ``tessera-v1``; functions take it as ``dataset``."""
    title: str
    years: tuple[int, ...]
    """Those of its tiles; of an API, those that its extent spans."""
    is_synthetic: bool
    """Whether its pixels are made up, for trying things out."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalogue whose vectors can be read."""

    location: str
    """A folder, an s3 URL, or the URL of a tessera-stac API."""
    collections: tuple[Collection, ...]

    def __fspath__(self) -> str:
        """Return its location, so that it can be passed wherever a location can."""
        return self.location


Location = str | PathLike[str]
"""A folder, an s3 URL, the URL of a tessera-stac API, or an open :class:`Catalog`."""


def open_catalog(location: Location) -> Catalog:
    """Open a catalogue.

    Parameters
    ----------
    location
        A catalogue folder, its s3 URL, or the http(s) URL of a tessera-stac API.

    Returns
    -------
    Catalog
        What it has; pass it, or the location, to the other functions.

    Raises
    ------
    CatalogError
        If there is no catalogue, or the URL does not respond as a STAC API.

    Examples
    --------
    >>> catalog = open_catalog("/srv/tessera")  # doctest: +SKIP
    >>> catalog.collections[0].years  # doctest: +SKIP
    (2017, 2018, 2019, 2020, 2021, 2022, 2023, 2024)
    """
    place = fspath(location)
    found = tuple(
        Collection(dataset.collection_id, dataset.title, years, dataset.is_synthetic)
        for dataset, years in collections_of(place)
    )
    return Catalog(place, found)
