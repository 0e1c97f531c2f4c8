"""The store of a catalogue, by its location."""

from __future__ import annotations

from collections.abc import Callable

from api.catalogue.bucket_store import BucketStore
from api.catalogue.folder_store import FolderStore
from api.catalogue.store import IndexStore
from api.settings import Settings
from catalog_builder import storage


def make_store(catalog: str, settings: Settings, failed: Callable[[], None] = lambda: None) -> IndexStore:
    """Open a catalogue in a folder or in S3.

    Parameters
    ----------
    catalog
        A folder, or ``s3://bucket/prefix``.
    settings
        Interval between checks for a new build, among others.
    failed
        Called when a check for a new build fails.

    Raises
    ------
    CatalogError
        If there is no catalogue, or of another version, or it is damaged.
    StorageError
        If S3 does not respond.
    """
    if storage.scheme(catalog) == "s3":
        return BucketStore(catalog, settings.s3_refresh_seconds, settings.cache, settings.s3_access, failed)
    return FolderStore(storage.local_path(catalog), settings.refresh_seconds, failed)
