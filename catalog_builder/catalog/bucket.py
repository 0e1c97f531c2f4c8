"""A catalogue in S3: its layout, and how a new build replaces the old one.

::

    s3://BUCKET/PREFIX/
      catalog.json                         for readers of static files: fixed names
      tessera-v1/collection.json
      tessera-v1/items/year=2024/items.parquet
      cogs/                                what `convert` writes; immutable files
      .files/…/3f…/index.sqlite            every file of a build, named by its content; immutable
      .current.json                        lists the current ones: the one object that a build replaces

S3 has no links and no rename, but it has conditional puts. A build uploads its files below
``.files``, skipping existing ones, and then ``.current.json``, on the condition that
it is still the one that the build started from: of two builds at once one wins, and the other one has
changed nothing. A build that is killed before that has changed nothing either.

Servers and this project's commands read through ``.current.json``. For readers of static files the
store then copies what has changed to the fixed names (:meth:`BucketCatalog.promote`), documents
after the files they refer to; a build that is killed in between is completed by the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_builder import storage
from catalog_builder.catalog.digest import STATE, check_digest, note_digest
from catalog_builder.catalog.folder import CATALOG_JSON, INDEX, CatalogFolder
from catalog_builder.catalog.index.reader import Index
from catalog_builder.console import Progress
from catalog_builder.errors import CatalogError, ConflictError, StorageError
from catalog_builder.storage.headers import IMMUTABLE, MEDIA_JSON, REVALIDATE, media_type

if TYPE_CHECKING:
    from collections.abc import Iterator

POINTER = ".current.json"
FILES = ".files"
SCHEMA = 1
"""Version of the pointer's format."""
CACHE = "TESSERA_STAC_CACHE"
"""Environment variable with the cache folder for indexes."""

_KEPT_SECONDS = 86400
"""How long a replaced index stays in the cache: a process may have it open."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class File:
    """One file of a build."""

    key: str
    """Key relative to the catalogue's prefix."""
    size: int
    sha256: str
    """Lower-case hex."""


Files = Mapping[str, File]
"""By path relative to the catalogue."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The files that make up the catalogue."""

    files: Files
    previous: Files
    """Files of the previous build, kept for clients that still read them."""
    tag: str
    """ETag of the object."""
    made: float | None = None
    """When the build was published, in seconds since 1970."""

    @property
    def generation(self) -> str:
        """Identifies the build."""
        return self.files[INDEX].sha256[:16]


def cache_folder() -> Path:
    """Return the cache folder for indexes: ``TESSERA_STAC_CACHE``, or the user's cache folder."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tessera-stac"


class BucketCatalog:
    """A catalogue in S3.

    Parameters
    ----------
    address
        ``s3://bucket/prefix``.
    cache
        Folder for its index; None is :func:`cache_folder`.
    """

    def __init__(self, address: str, cache: Path | None = None) -> None:
        self.address = address.rstrip("/")
        storage.bucket_key(self.address)
        self._cache = cache

    def pointer(self, known: str = "") -> Pointer | None:
        """Return the pointer; None if there is no catalogue, or if it still has the given ETag.

        Raises
        ------
        CatalogError
            If it was made by a newer version of this software.
        StorageError
            If the store does not respond.
        """
        address = storage.join(self.address, POINTER)
        found = storage.s3.objects.read_tagged(address, known)
        if found is None:
            return None
        try:
            said = json.loads(found.data)
            if said["schema"] != SCHEMA:
                raise CatalogError(f"{address}: schema {said['schema']}, this version reads {SCHEMA}")
            files, previous = (
                {path: File(**file) for path, file in said[name].items()} for name in ("files", "previous")
            )
            made = datetime.fromisoformat(said["made"]).timestamp()
        except (ValueError, KeyError, TypeError) as error:
            raise CatalogError(f"{address}: not the pointer file of a catalogue ({error})") from error
        return Pointer(files, previous, found.tag, made)

    def open_index(self) -> Index:
        """Open the current index, downloading it if it is not in the cache.

        Raises
        ------
        CatalogError
            If there is no catalogue, or one of another version.
        StorageError
            If it cannot be downloaded.
        """
        found = self.pointer()
        if found is None:
            raise CatalogError(
                f"{self.address}: no catalogue ({POINTER} is missing); make one with 'tessera-stac build"
                f" --out {self.address}'"
            )
        return Index(self.fetch_index(found))

    def fetch_index(self, pointer: Pointer) -> Path:
        """Return the index of a build in the cache. Concurrent processes download it only once."""
        name = hashlib.blake2b(self.address.encode(), digest_size=8).hexdigest()
        folder = (self._cache or cache_folder()) / name
        file = pointer.files[INDEX]
        path = folder / pointer.generation / INDEX
        with _locked(folder):
            if not _is_whole(path):
                path.parent.mkdir(exist_ok=True)
                storage.fetch_to(storage.join(self.address, file.key), path, sha256=file.sha256)
                note_digest(path, file.sha256)
            path.parent.touch()
            for other in folder.iterdir():
                with suppress(OSError):
                    if other.is_dir() and time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                        shutil.rmtree(other)
        return path

    # ---------------------------------------------------------------------------------- building

    def check_out(self, folder: Path) -> Pointer | None:
        """Create a folder that a build can compare with; return the current pointer, None if there is none.

        Parquet files are not downloaded: a build writes or keeps them, and never reads them. An
        empty file represents each.
        """
        found = self.pointer()
        if found is None:
            return None
        version = folder / "checked-out"

        def fetch(name: str) -> None:
            path = version / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = found.files[name]
            if path.suffix == ".parquet":
                path.touch()
            elif name == INDEX:
                path.symlink_to(self.fetch_index(found).absolute())
            else:
                storage.fetch_to(storage.join(self.address, file.key), path, sha256=file.sha256)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, found.files))
        CatalogFolder(folder).adopt(version)
        return found

    def publish(self, version: Path, before: Pointer | None, progress: Progress) -> None:
        """Upload the files of a new version, and make them the current catalogue.

        Parameters
        ----------
        version
            Folder of the new version.
        before
            The pointer that the build started from.
        progress
            Receives the number of uploaded files.

        Raises
        ------
        ConflictError
            If another build was published in the meantime; this one then changes nothing.
        StorageError
            If an upload fails; the catalogue is then the old one.
        """
        paths = {p.relative_to(version).as_posix(): p for p in version.rglob("*") if p.is_file()}
        files: dict[str, File] = {}
        old = before.files if before else {}
        # Uploads of a build that was stopped are found by the next one from the same beginning. Another
        # beginning has other names: what it puts is never what is being removed as out of use.
        base = hashlib.blake2b((before.tag if before else "").encode(), digest_size=4).hexdigest()
        for done, (name, path) in enumerate(sorted(paths.items(), key=_order)):
            progress("uploading", done, len(paths))
            stands_for_old = path.suffix == ".parquet" and not path.stat().st_size
            files[name] = old[name] if stands_for_old else self._put(path, base, old.get(name))
        document = {
            "schema": SCHEMA,
            "made": datetime.now(UTC).isoformat(),
            "files": {name: asdict(file) for name, file in files.items()},
            "previous": {name: asdict(file) for name, file in old.items()},
        }
        pointer = version / POINTER
        pointer.write_text(json.dumps(document, indent=1))
        try:
            storage.s3.put.put(
                pointer,
                storage.join(self.address, POINTER),
                content_type=MEDIA_JSON,
                cache_control=REVALIDATE,
                replacing=before.tag if before else storage.s3.put.NEW,
            )
        except ConflictError as error:
            raise ConflictError(
                f"{self.address}: another build was published meanwhile and is now the catalogue;"
                " nothing of this one is visible. Run it again"
            ) from error
        kept = {file.key for file in (*files.values(), *old.values())}
        self._remove({f.key for f in (before.previous if before else {}).values()} - kept)

    def _put(self, path: Path, base: str, old: File | None) -> File:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if old is not None and old.sha256 == sha256:
            return old
        file = File(f"{FILES}/{base}/{sha256[:20]}/{path.name}", path.stat().st_size, sha256)
        storage.put_file(
            path,
            storage.join(self.address, file.key),
            cache_control=IMMUTABLE,
            immutable=True,
        )
        return file

    def promote(self) -> None:
        """Update the fixed names to the current catalogue, copying only what differs.

        Raises
        ------
        StorageError
            If the store does not respond; the next build completes it.
        """
        found = self.pointer()
        while found is not None:
            for name, file in sorted(found.files.items(), key=_order):
                if name == INDEX or name.startswith(f"{STATE}/"):
                    continue
                target = storage.join(self.address, name)
                there = storage.s3.objects.head(target)
                if there is None or there.sha256 != file.sha256:
                    source = storage.join(self.address, file.key)
                    storage.s3.put.copy(
                        source,
                        target,
                        sha256=file.sha256,
                        content_type=media_type(name),
                        cache_control=REVALIDATE,
                    )
            self._remove({name for name in found.previous if name not in found.files})
            # A build published in the meantime may have been faster, and was just overwritten.
            found = self.pointer(found.tag)

    def _remove(self, names: set[str]) -> None:
        """Remove files that are no longer in use; without the permission to, they stay."""
        with suppress(StorageError):
            storage.s3.objects.remove([storage.join(self.address, name) for name in sorted(names)])


def _is_whole(path: Path) -> bool:
    """Return whether the cached index exists, and is unchanged since it was downloaded."""
    try:
        return path.exists() and check_digest(path)
    except CatalogError:
        return False


def _order(entry: tuple[str, Any]) -> tuple[int, str]:
    """Sort files so that none refers to a later one."""
    name = entry[0]
    if name in (CATALOG_JSON, INDEX):
        return 2, name
    return (1, name) if name.endswith(".json") else (0, name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created if missing, for one process at a time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written, set {CACHE} ({error.strerror})") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
