"""Open a store, once per process, and read regions of its arrays."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from catalog_builder import storage
from catalog_builder.errors import StorageError, StoreError
from catalog_builder.extras import install_line
from catalog_builder.storage import Meter
from catalog_builder.stores.connections import CONNECTIONS
from catalog_builder.stores.zones import ZoneGroup, is_zone, zone_names

if TYPE_CHECKING:
    import zarr

    from catalog_builder.stores.keys import Files, Kept, Repository

StoreKind = Literal["zarr", "icechunk"]

ICECHUNK = ".icechunk"
"""How the address of an Icechunk repository ends; a local folder is also known by what is in it."""
ZARR = ".zarr"
"""How the address of a Zarr store may end; others are known by their root."""
OPENERS = 8
"""Threads that ask for groups while a store is opened."""
FRESH = 60.0
"""Seconds after which it is asked whether a repository has a newer snapshot."""
_FILES = ("parquet", "txt", "gz", "bz2", "xz", "zst", "zip", "tar", "tgz")
"""Endings of manifests and archives, which are no stores."""
GAP = 64 * 1024
"""Bytes between two chunks of a shard that are rather read than asked around."""
PUBLIC_BUCKETS = {"tessera-embeddings": "us-west-2"}
"""Buckets that are read without credentials, and their regions (geotessera 0.11, ``icechunk.py``)."""


class Shard(NamedTuple):
    """A shard of an array that was written."""

    time: int
    """Index of the year."""
    row: int
    """Counted in shards."""
    col: int


@dataclass(frozen=True)
class OpenStore:
    """A store that was opened; make it with :func:`open_store`."""

    address: str
    kind: StoreKind
    snapshot: str
    """Id of the Icechunk snapshot that is read; empty for a plain store."""
    attributes: Mapping[str, Any]
    """Of the root group."""
    groups: Mapping[str, ZoneGroup]
    """UTM zones by name."""
    kept: Kept
    _keys: Callable[[Meter], Files | Repository]
    _session: Any = None
    _remembered: dict[str, Any] = field(default_factory=dict)

    def remembered[T](self, what: str, find: Callable[[], T]) -> T:
        """Return what was found of this store before, or find it."""
        if what not in self._remembered:
            self._remembered[what] = find()
        found: T = self._remembered[what]
        return found

    def group_of(self, tile: Any) -> ZoneGroup | None:
        """Return the group with a tile's zone and hemisphere; None if the store has none."""
        return next((g for g in self.groups.values() if g.has(tile)), None)

    def array(self, group: str, name: str, meter: Meter | None = None) -> zarr.Array[Any]:
        """Return an array, whose reads are counted.

        Raises
        ------
        StoreError
            If there is no such array.
        StorageError
            If the store cannot be read.
        """
        return _open_array(self._keys(meter or Meter()), self.address, f"{group}/{name}")

    def written(self, group: str, name: str = "scales") -> Iterator[Shard]:
        """Yield the shards of an array that exist; the others read as fill.

        Raises
        ------
        StorageError
            If the store cannot be listed, as on the web.
        """
        if self._session is not None:
            yield from _of_session(self._session, f"/{group}/{name}")
            return
        below = storage.join(self.address, f"{group}/{name}/c/")
        for entry in storage.list_files(below):
            parts = entry.path.split("/")
            if len(parts) >= 3 and all(p.isdecimal() for p in parts):
                yield Shard(int(parts[0]), int(parts[-2]), int(parts[-1]))


def open_store(address: str) -> OpenStore:
    """Open a Zarr store (layout ``utm31`` or ``31N``) or an Icechunk repository of the second layout.

    Parameters
    ----------
    address
        A folder, ``s3://bucket/prefix`` or ``http(s)://…``. Icechunk repositories end in ``.icechunk``.

    Raises
    ------
    StoreError
        If the extra ``zarr`` is not installed, or it is not a store of TESSERA embeddings on the 10 m
        lattice of the tiles.
    StorageError
        If it cannot be read.
    """
    address = address.rstrip("/")
    if not storage.scheme(address) and not storage.local_path(address).is_dir():
        raise StoreError(f"{address}: not a store: expected a folder")
    kind: StoreKind = "icechunk" if _is_icechunk(address) else "zarr"
    try:
        import zarr

        from catalog_builder.stores.keys import Files, Kept, Repository

        if kind == "icechunk":
            import icechunk  # noqa: F401
    except ImportError as error:
        raise StoreError(
            f"{address}: packages that read stores are missing ({error}): {install_line('zarr')}"
        ) from error
    kept, session, snapshot = Kept(), None, ""
    keys: Callable[[Meter], Files | Repository]
    if kind == "icechunk":
        session = _session(address)
        inner, snapshot = session.store, str(session.snapshot_id)
        keys = lambda meter: Repository(address, kept, meter, inner)  # noqa: E731
    else:
        keys = lambda meter: Files(address, kept, meter)  # noqa: E731
    with _reading(address, "its groups"):
        try:
            root = zarr.open_group(keys(Meter()), mode="r", zarr_format=3)
        except FileNotFoundError as error:
            raise StoreError(f"{address}: not a Zarr v3 store: it has no root group") from error
        groups = _groups(root, keys(Meter()))
    if not groups:
        raise StoreError(f"{address}: has no group of a UTM zone, such as utm31 or 31N")
    return OpenStore(
        address,
        kind,
        snapshot,
        MappingProxyType(dict(root.attrs)),
        MappingProxyType(groups),
        kept,
        keys,
        session,
    )


@cache
def _opened() -> tuple[dict[tuple[int, str], tuple[OpenStore, float]], threading.Lock]:
    return {}, threading.Lock()


def opened(address: str) -> OpenStore:
    """Return a store, opened once per process; of an Icechunk repository the newest snapshot, after a while.

    Raises
    ------
    StorageError
        As :func:`open_store`.
    """
    stores, lock = _opened()
    key = os.getpid(), address
    with lock:
        found = stores.get(key)
        if found is None or (found[0].kind == "icechunk" and time.monotonic() - found[1] > FRESH):
            now = open_store(address)
            same = found is not None and found[0].snapshot == now.snapshot
            found = stores[key] = found[0] if found and same else now, time.monotonic()
        return found[0]


def is_store(address: str) -> bool:
    """Return whether there is a Zarr store or an Icechunk repository at an address, by its name or root.

    False also where that cannot be asked: who reads the address as something else says why not.
    """
    address = address.rstrip("/")
    if _is_icechunk(address) or address.endswith(ZARR):
        return True
    suffix = address.rpartition("/")[2].rpartition(".")[2]
    if storage.scheme(address) and suffix in _FILES:
        return False  # one request less
    try:
        return storage.exists(storage.join(address, "zarr.json"))
    except StorageError:
        return False


def _groups(root: zarr.Group, keys: Files | Repository) -> dict[str, ZoneGroup]:
    """Return the groups of zones, from consolidated metadata or else by asking for each name."""
    consolidated = root.metadata.consolidated_metadata
    if consolidated is not None:
        names = sorted(name for name in consolidated.metadata if is_zone(name))
    else:  # stores on the web cannot be listed
        with ThreadPoolExecutor(OPENERS) as pool:
            there = pool.map(lambda name: _has(keys, name), zone_names())
            names = [name for name, found in zip(zone_names(), there, strict=True) if found]
    with ThreadPoolExecutor(OPENERS) as pool:
        return dict(zip(names, pool.map(lambda name: _group(root, name), names), strict=True))


def _has(keys: Files | Repository, name: str) -> bool:
    from zarr.core.sync import sync

    return sync(keys.exists(f"{name}/zarr.json"))


def _group(root: zarr.Group, name: str) -> ZoneGroup:
    import zarr

    group = root[name]
    if not isinstance(group, zarr.Group):
        raise StoreError(f"{name}: an array, expected a group")
    for array in ("embeddings", "scales", "time"):
        if array not in group:
            raise StoreError(f"group {name}: has no array '{array}'")
    return ZoneGroup.of(name, dict(group.attrs), _years(group["time"]))


def _years(array: Any) -> list[int]:
    """Return the years of a time axis: integers, or nanoseconds since 1970 (geotessera 0.11, ``_years``)."""
    values = np.asarray(array[:])
    if str(array.attrs.get("units", "")).startswith("nanoseconds since 1970-01-01"):
        values = values.astype("datetime64[ns]")
    if np.issubdtype(values.dtype, np.datetime64):
        return [int(v) + 1970 for v in values.astype("datetime64[Y]").astype(int)]
    if not np.issubdtype(values.dtype, np.integer):
        raise StoreError(f"{array.path}: the times are {values.dtype}, expected years")
    return [int(v) for v in values]


def _is_icechunk(address: str) -> bool:
    if address.endswith(ICECHUNK):
        return True
    folder = None if storage.scheme(address) else storage.local_path(address)
    return folder is not None and (folder / "snapshots").is_dir() and not (folder / "zarr.json").exists()


def _session(address: str) -> Any:
    """Open the newest snapshot of a repository's main branch."""
    import icechunk

    kind = storage.scheme(address)
    icechunk.set_logs_filter("error")  # it warns of concurrent commits whenever a folder is opened
    try:
        if not kind:
            place = icechunk.local_filesystem_storage(str(storage.local_path(address)))
        elif kind == "s3":
            place = icechunk.s3_storage(**_s3_options(address))
        else:
            place = icechunk.http_storage(address)
        config = icechunk.RepositoryConfig(max_concurrent_requests=CONNECTIONS.limit)
        return icechunk.Repository.open(place, config=config).readonly_session(branch="main")
    except Exception as error:  # icechunk's own, of which there is no common class
        reason = str(error).partition("\n")[0]  # then where in its own source
        raise StorageError(f"{address}: the Icechunk repository cannot be opened: {reason}") from error


def public_region(bucket: str, settings: storage.S3Settings) -> str | None:
    """Return the region of a bucket that is read without credentials; None if it is not known to be one.

    At another endpoint than Amazon's a bucket of that name is somebody else's.
    """
    return PUBLIC_BUCKETS.get(bucket) if settings.endpoint is None else None


def _s3_options(address: str) -> dict[str, Any]:
    """Return how Icechunk reaches a bucket, as the same user as everything else."""
    bucket, prefix = storage.bucket_key(address)
    settings = storage.S3Settings.from_environment()
    if (public := public_region(bucket, settings)) is not None:
        return {"bucket": bucket, "prefix": prefix, "region": public, "anonymous": True}
    found = None if settings.anonymous else storage.s3.client.credentials(settings)
    options: dict[str, Any] = {"anonymous": True}
    if found is not None:
        frozen = found.get_frozen_credentials()
        options = {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "session_token": frozen.token,
        }
    if settings.endpoint:
        options |= {
            "endpoint_url": settings.endpoint,
            "allow_http": settings.endpoint.startswith("http://"),
            "force_path_style": not settings.virtual_hosting,
        }
    region = settings.region or "us-east-1"
    pays = settings.requester_pays
    return {"bucket": bucket, "prefix": prefix, "region": region, "requester_pays": pays, **options}


async def _coordinates(session: Any, path: str) -> list[tuple[int, ...]]:
    return [tuple(found) async for found in session.chunk_coordinates(path)]


def _of_session(session: Any, path: str) -> Iterator[Shard]:
    for found in asyncio.run(_coordinates(session, path)):
        yield Shard(found[0], found[1], found[2])


def _open_array(keys: Files | Repository, address: str, path: str) -> zarr.Array[Any]:
    import zarr

    with _reading(address, path):
        try:
            found = zarr.open_array(keys, path=path, mode="r", zarr_format=3)
        except FileNotFoundError as error:
            raise StoreError(f"{address}: has no array {path}") from error
        return found.with_config({"sharding_coalesce_max_gap_bytes": GAP})


def read_region(
    store: OpenStore, group: str, name: str, key: tuple[Any, ...], meter: Meter | None = None
) -> npt.NDArray[Any]:
    """Return part of an array by zarr-python, from files of one version.

    Parameters
    ----------
    key
        An index or a slice for each axis.

    Raises
    ------
    FileChangedError
        If a shard was replaced while it was being read: read again.
    StoreError
        If it cannot be decoded.
    StorageError
        If it cannot be read.
    """
    array = store.array(group, name, meter)
    with _reading(store.address, f"{group}/{name}"):
        return np.asarray(array[key])


@contextmanager
def _reading(address: str, what: str) -> Iterator[None]:
    """Turn what zarr-python raises in this block into a :class:`StorageError`, or a :class:`StoreError`."""
    try:
        yield
    except StorageError as error:
        raise error if str(error).startswith(address) else type(error)(f"{address}: {error}") from error
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):  # of requests in parallel
            cause = cause.exceptions[0]
        if isinstance(cause, StorageError):
            raise cause from error
        # the bytes were there: what was read from elsewhere or a disk in vain is a StorageError already
        kind = StorageError if isinstance(cause, OSError) else StoreError
        raise kind(f"{address}: {what} cannot be read or decoded: {cause or type(cause).__name__}") from error
