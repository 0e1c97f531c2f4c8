"""The index record of the collection being built, above all the locations of its files."""

from __future__ import annotations

from collections.abc import Mapping

from catalog_builder import storage
from catalog_builder.build.options import BuildOptions
from catalog_builder.build.staging.reader import Found
from catalog_builder.catalog.folder import COGS
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import DatasetError
from catalog_builder.item.addresses import Addresses, Bucket
from catalog_builder.item.item import url_path
from catalog_builder.stores.open import public_region
from catalog_builder.stores.zones import ZoneGroup


def make_record(
    options: BuildOptions,
    home: str,
    found: Found,
    *,
    present: Mapping[str, CollectionRecord],
    years: Mapping[int, int],
    n_tiles: int,
    zones: tuple[ZoneGroup, ...],
    converted: bool,
) -> CollectionRecord:
    """Return the record of the collection being built.

    Parameters
    ----------
    home
        The catalogue: a folder, or its s3:// URL.
    found
        What the sources hold besides rows.
    present
        Collections of the existing catalogue, whose ordinals are kept.
    years
        Tile-years per year, ascending.
    n_tiles
        Distinct tiles.
    zones
        The zones that they are in.
    converted
        Whether any tile-year has COGs.
    """
    ds, store = options.dataset, found.store
    source_root = source_root_of(options, found)
    taken = [r.ordinal for r in present.values()]
    ordinal = present[ds.collection_id].ordinal if ds.collection_id in present else max(taken, default=0) + 1
    landmask_root = options.landmask_root or ds.published_landmasks or ""
    lane = f"{{root}}/source/{url_path(ds.directory)}"
    own = f"{home if storage.scheme(home) else '{root}/data'}/{COGS}/{url_path(ds.directory)}"
    in_store = store is not None and not found.has_files
    source = source_root if storage.scheme(source_root) and not in_store else lane
    masks = landmask_root if storage.scheme(landmask_root) else f"{lane}/{{year}}/grid_{{lon}}_{{lat}}"
    data = (options.data_root or own).rstrip("/")
    return CollectionRecord(
        ordinal=ordinal,
        dataset=ds,
        years=tuple(years),
        addresses=Addresses(
            source=source,
            landmasks=masks,
            lane=lane,
            data=data,
            cogs=converted,
            mirrors=options.mirrors,
            source_mirrors=options.source_mirrors,
            buckets=_buckets(source, masks, data, *([store.address] if store else [])),
            store=store,
            is_direct_from_store=in_store,
        ),
        grid=options.grid,
        source_root=storage.absolute(source_root),
        landmask_root=storage.absolute(landmask_root) if landmask_root else "",
        counts=tuple(years.values()),
        n_tiles=n_tiles,
        zones=zones,
    )


def source_root_of(options: BuildOptions, found: Found) -> str:
    """Return the location of the source files: as given, the one folder that was scanned, or as published.

    If all pixels are in a store, of the store.

    Raises
    ------
    DatasetError
        If the dataset is not published and no location is given; or one is, and there are no files.
    """
    if found.store is not None and not found.has_files:
        if options.source_root is not None:
            raise DatasetError(
                f"--source-root says where files are, and all tile-years are in {found.store.address}"
            )
        return found.store.address
    if options.source_root is not None:
        return options.source_root.rstrip("/")
    roots = found.roots or (set() if found.has_arrays_elsewhere else found.export_roots)
    if len(roots) == 1:
        return next(iter(roots)).rstrip("/")
    if options.dataset.published_root is None:
        raise DatasetError(
            f"dataset {options.dataset.directory} is not published anywhere:"
            " give the location of its files with --source-root"
        )
    return options.dataset.published_root


def _buckets(*addresses: str) -> tuple[Bucket, ...]:
    """Return how to reach the buckets of URLs, with the current settings."""
    found = {}
    for address in addresses:
        if address.startswith("s3://"):
            name, _ = storage.bucket_key(address)
            settings = storage.S3Settings.from_environment()
            platform, region = storage.platform(address)
            public = public_region(name, settings)
            found[name] = Bucket(
                name,
                platform,
                public or region,
                settings.requester_pays,
                anonymous=public is not None,
            )
    return tuple(found.values())
