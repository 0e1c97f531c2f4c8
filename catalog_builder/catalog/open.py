"""Open a catalogue: the only place that chooses between folder and bucket."""

from __future__ import annotations

from pathlib import Path

from catalog_builder import storage
from catalog_builder.catalog.folder import INDEX, CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.errors import CatalogError


def open_index(address: Path | str) -> Index:
    """Open the current index of a catalogue in a folder, or in S3, where it is downloaded once per build.

    Raises
    ------
    CatalogError
        If there is no catalogue, or one of another version.
    StorageError
        If it cannot be downloaded.
    """
    kind = storage.scheme(address)
    if not kind:
        return CatalogFolder(storage.local_path(address)).open_index()
    if kind != "s3":
        raise CatalogError(f"{address}: expected a catalogue folder or its s3:// URL")
    from catalog_builder.catalog.bucket import BucketCatalog

    return BucketCatalog(str(address)).open_index()


def is_catalog(address: Path | str) -> bool:
    """Return whether there is a catalogue at a local path or s3 URL."""
    kind = storage.scheme(address)
    if kind == "s3":
        from catalog_builder.catalog.bucket import POINTER

        return storage.exists(storage.join(address, POINTER))
    return not kind and (storage.local_path(address) / INDEX).exists()
