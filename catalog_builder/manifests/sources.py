"""From a source to its readers: folders, archives and compression are unpacked, contents sniffed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from catalog_builder import storage
from catalog_builder.errors import StorageError
from catalog_builder.manifests.listing.ahead import ahead
from catalog_builder.manifests.listing.listing import SIDECAR, read_listing, read_sidecar
from catalog_builder.manifests.listing.saved import looks_like_tile, saved_entries
from catalog_builder.manifests.parquet import blocks, filled, manifest, registry
from catalog_builder.manifests.parquet.columns import open_parquet
from catalog_builder.manifests.part import ManifestPart, Subset
from catalog_builder.manifests.problems import ProblemKind, ProblemLog
from catalog_builder.manifests.reading import (
    DECOMPRESSION_ERRORS,
    Reading,
    dataset_of_address,
    dataset_path,
)
from catalog_builder.manifests.sniff import HEAD, Form, sniff
from catalog_builder.manifests.text import read_master, read_text
from catalog_builder.storage import Entry
from catalog_builder.storage.local import Oddity
from catalog_builder.tile.datasets import Dataset, dataset_in

_MANIFEST_NAME = re.compile(r"\.(?:txt|parquet)(?:\.(?:gz|bz2|xz|zst))?$|(?:^|/)SHA256(?:SUM)?$")
"""Files with these names in a folder are intended as manifests; others may be anything."""
SMALL = 8 << 20
"""Bytes up to which a manifest in S3 is read before its turn."""
UNPACKED_BYTES = 256 << 20
UNPACKED_TIMES = 100
"""What a compressed file may unpack to: so many bytes, or so many times its own; listings take up to 20."""
XZ_MEMORY = 128 << 20
"""What unpacking may take; that of ``xz -9`` takes 65 MB."""
_WEB_FOLDER = ("manifest.parquet", "registry.parquet", "registry.txt", "landmasks.parquet")
"""Files requested below an http(s) URL that ends with a slash: web folders cannot be listed."""


def read_source(
    address: str, problems: ProblemLog, selection: Subset, hint: Dataset | None, *, is_said: bool
) -> Iterator[ManifestPart]:
    """Read a source of any kind; see :func:`catalog_builder.manifests.read_manifests`."""
    says, folders = dataset_of_address(address), dataset_path(address)
    reading = Reading(address, problems, selection, hint, says, is_said)
    if says is None:
        if reading.leaves_out(folders):
            return
        if hint is not None and not is_said:
            # A local folder may have any name, so it chooses no dataset; but it contradicts one nobody said.
            reading = replace(reading, dataset=dataset_in(folders))
    before, rows = problems.total, 0
    others = False
    for part in _read_address(address, reading):
        others |= hint is not None and part.dataset not in (None, hint)
        rows += part.tiles.num_rows if part.tiles is not None else 0
        rows += part.landmasks.num_rows if part.landmasks is not None else 0
        rows += part.blocks.num_rows if part.blocks is not None else 0
        yield part
    if not rows and not others and problems.total == before:
        if selection == Subset():
            problems.add(ProblemKind.EMPTY, address, "no tile found")
        else:
            message = "no tile found in the requested years and bounding box"
            problems.add(ProblemKind.NOT_WANTED, address, message)


def _read_address(address: str, reading: Reading) -> Iterator[ManifestPart]:
    kind = storage.scheme(address)
    if kind == "s3":
        is_folder = address.endswith("/") or not storage.exists(address)
    else:
        is_folder = not kind and storage.local_path(address).is_dir()
    if is_folder:
        yield from _read_folder(address, reading)
    elif kind.startswith("http") and address.endswith("/"):
        yield from _read_web_folder(address, reading)
    else:
        yield from _read_file(address, reading)


def _read_file(address: str, reading: Reading) -> Iterator[ManifestPart]:
    with storage.open_binary(address) as file:
        local = None if storage.scheme(address) else storage.local_path(address)
        yield from _read_stream(file, reading, local)


def _read_folder(address: str, reading: Reading) -> Iterator[ManifestPart]:
    """Read a folder of data, or, if it contains none, of manifests."""
    entries = storage.list_files(address, partial(_report_odd, reading=reading))
    others: list[Entry] = []
    for entry in entries:
        if looks_like_tile(entry.path):
            manifests = [e.path for e in others if _MANIFEST_NAME.search(e.path) and "SHA256" not in e.path]
            if manifests:
                which = ", ".join(manifests[:5])
                reading.problems.note(
                    f"{address}: contains the data itself; manifests in it are not read: {which}"
                )
            files = enumerate(chain(others, [entry], entries), 1)
            yield from read_listing(files, reading, root=address)
            return
        others.append(entry)
    if not others:
        reading.problems.add(ProblemKind.EMPTY, address, "the folder is empty, or there is no such folder")
    names = {e.path for e in others}
    if SIDECAR in names:
        reading = replace(reading, dataset=read_sidecar(storage.join(address, SIDECAR), reading))
    members = [
        entry
        for entry in others
        if entry.path.rpartition("/")[2] != SIDECAR and not reading.leaves_out(entry.path.rpartition("/")[0])
    ]
    contents = ahead(partial(_small_remote, address), members)
    for entry, content in zip(members, contents, strict=True):
        member = storage.join(address, entry.path)
        says = dataset_in(entry.path.rpartition("/")[0]) or reading.dataset
        yield from _read_member(member, replace(reading, source=member, dataset=says), content)


def _small_remote(address: str, entry: Entry) -> bytes | None:
    """Return a small remote file; None of others, which are read as a stream when it is their turn."""
    if not storage.scheme(address) or entry.size > SMALL:
        return None
    return storage.read_bytes(storage.join(address, entry.path))


def _report_odd(odd: Oddity, reading: Reading) -> None:
    """Report what is no file: what it stands for is not there; a folder that cannot be read ends it all."""
    if odd.is_folder:
        raise StorageError(f"{odd.path}: {odd.reason}")
    if looks_like_tile(odd.path) or _MANIFEST_NAME.search(odd.path) or Path(odd.path).is_symlink():
        reading.problems.add(ProblemKind.MISSING_FILE, odd.path, odd.reason)


def _read_member(address: str, reading: Reading, content: bytes | None) -> Iterator[ManifestPart]:
    with storage.open_binary(address) if content is None else io.BytesIO(content) as file:
        local = None if storage.scheme(address) else storage.local_path(address)
        yield from _read_stream(file, reading, local, in_folder=True)


def _read_web_folder(address: str, reading: Reading) -> Iterator[ManifestPart]:
    found = [address + name for name in _WEB_FOLDER if storage.exists(address + name)]
    if not found:
        raise StorageError(f"{address}: none of {', '.join(_WEB_FOLDER)} is there")
    for one in found:
        yield from _read_file(one, replace(reading, source=one))


def _read_stream(
    file: BinaryIO, reading: Reading, local: Path | None = None, *, in_folder: bool = False
) -> Iterator[ManifestPart]:
    """Read a file from its bytes.

    Parameters
    ----------
    local
        Path of a local file with the same bytes, if there is one.
    in_folder
        Whether it came with others in a folder or archive, where a file that is not a manifest is
        not a problem unless its name says that it is one.
    """
    head = b""
    try:
        while len(head) < HEAD and (more := _read1(file, HEAD - len(head))):
            head += more
    except DECOMPRESSION_ERRORS as error:
        if not head:
            reading.problems.add(ProblemKind.CORRUPT, reading.source, str(error) or type(error).__name__)
            return
    form = sniff(head, reading.source)
    body = cast(BinaryIO, io.BufferedReader(_Rejoined(head, file), 1 << 20))
    match form:
        case Form.GZIP | Form.BZIP2 | Form.XZ | Form.ZSTD:
            packed = _Counted(body)
            unpacked = _decompressed(form, cast(BinaryIO, io.BufferedReader(packed, 1 << 16)))
            bounded = _bounded(unpacked, lambda: packed.read_bytes)
            yield from _read_stream(bounded, reading, in_folder=in_folder)
        case Form.TAR:
            yield from _read_tar(body, reading)
        case Form.ZIP:
            with _on_disk(body, local) as path:
                yield from _read_zip(path, reading)
        case Form.PARQUET:
            with _on_disk(body, local) as path:
                yield from _read_parquet(path, reading)
        case Form.REGISTRY:
            yield from read_text(body, reading)
        case Form.LISTING:
            yield from read_listing(saved_entries(body, reading), reading)
        case Form.MASTER:
            yield from _follow_master(body, reading, in_folder=in_folder)
        case _:
            if in_folder and not _MANIFEST_NAME.search(reading.source):
                reading.problems.note(f"{reading.source}: not a manifest; ignored")
            else:
                kind, why = _UNREADABLE[form]
                reading.problems.add(kind, reading.source, why)


_UNREADABLE = {
    Form.EMPTY: (ProblemKind.EMPTY, "the file is empty"),
    Form.UTF16: (ProblemKind.ENCODING, "the text is UTF-16, expected UTF-8"),
    Form.WEB_PAGE: (ProblemKind.UNKNOWN_FORMAT, "this is a web page, not a manifest"),
    Form.UNKNOWN: (
        ProblemKind.UNKNOWN_FORMAT,
        "not a manifest: expected lines of '<path> <sha256>', Parquet, a listing of tiles, or an archive",
    ),
}


def _decompressed(form: Form, body: BinaryIO) -> BinaryIO:
    if form is Form.GZIP:
        return cast(BinaryIO, gzip.GzipFile(fileobj=body))
    if form is Form.BZIP2:
        return cast(BinaryIO, bz2.BZ2File(body))
    return cast(BinaryIO, io.BufferedReader((_Xz if form is Form.XZ else _Zstd)(body), 1 << 20))


def _bounded(file: BinaryIO, packed: Callable[[], int]) -> BinaryIO:
    """Return a decompressed stream that ends with an error where it grows out of proportion."""
    return cast(BinaryIO, io.BufferedReader(_Bounded(file, packed), 1 << 16))


class _Counted(io.RawIOBase):
    """A stream that counts what is read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = _read1(self._file, len(buffer))
        self.read_bytes += len(data)
        buffer[: len(data)] = data
        return len(data)


class _Bounded(io.RawIOBase):
    """A decompressed stream, as long as a manifest may be; ``packed`` says of how many bytes it came."""

    def __init__(self, file: BinaryIO, packed: Callable[[], int]) -> None:
        self._file = file
        self._packed = packed
        self._length = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = _read1(self._file, len(buffer))
        self._length += len(data)
        if self._length > max(UNPACKED_BYTES, UNPACKED_TIMES * self._packed()):
            raise OSError(
                f"it unpacks to more than {UNPACKED_BYTES} bytes and {UNPACKED_TIMES} times its size, as no"
                " manifest does"
            )
        buffer[: len(data)] = data
        return len(data)


class _Frames(io.RawIOBase):
    """A stream of compressed frames, each with a decompressor of its own."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._frame: Any = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            # a block of 128 kB may be four bytes: so few, that they are 64 MB at most
            packed = _read1(self._body, 1 << 11)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the compressed stream is truncated")
                return 0
            self._rest = self._unpack(packed)
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def _unpack(self, packed: bytes) -> bytes:
        out = []
        while packed := packed if self._frame is not None else self._between(packed):
            if self._frame is None:
                self._frame = self._begin()
            out.append(self._frame.decompress(packed))
            packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        return b"".join(out)

    def _begin(self) -> Any:
        """Return the decompressor of a frame."""
        raise NotImplementedError

    def _between(self, packed: bytes) -> bytes:
        """Return what follows a frame without what may stand between two."""
        return packed


class _Zstd(_Frames):
    """A zstd stream that, unlike the library's own, detects truncation; windows have at most 128 MB."""

    def _unpack(self, packed: bytes) -> bytes:
        try:
            return super()._unpack(packed)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error

    def _begin(self) -> Any:
        return zstandard.ZstdDecompressor().decompressobj()


class _Xz(_Frames):
    """An xz stream that, unlike the library's own, takes no more memory than ``xz -9`` needs."""

    def _unpack(self, packed: bytes) -> bytes:
        try:
            return super()._unpack(packed)
        except lzma.LZMAError as error:
            if "memory" not in str(error).lower():
                raise
            most = f"{XZ_MEMORY >> 20} MB"
            raise OSError(
                f"it takes more than {most} of memory to unpack: compress it by xz -9 or less"
            ) from error

    def _begin(self) -> Any:
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def _between(self, packed: bytes) -> bytes:
        return packed.lstrip(b"\0")  # padding


def _read_tar(body: BinaryIO, reading: Reading) -> Iterator[ManifestPart]:
    try:
        # "r|" reads strictly forwards: nothing is extracted, and a stream need not be seekable
        with tarfile.open(fileobj=body, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                folder, _, name = member.name.rpartition("/")
                if file is not None and not name.startswith(".") and not reading.leaves_out(folder):
                    inner = _of_member(reading, member.name)
                    yield from _read_stream(cast(BinaryIO, file), inner, in_folder=True)
    except (tarfile.TarError, *DECOMPRESSION_ERRORS) as error:
        reading.problems.add(
            ProblemKind.CORRUPT,
            reading.source,
            f"the archive is truncated or damaged ({error or type(error).__name__})",
        )


def _read_zip(path: Path, reading: Reading) -> Iterator[ManifestPart]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                if member.is_dir() or name.rpartition("/")[2].startswith(".") or name.startswith("__MACOSX/"):
                    continue
                if reading.leaves_out(name.rpartition("/")[0]):
                    continue
                with archive.open(member) as file:
                    bounded = _bounded(cast(BinaryIO, file), partial(int, member.compress_size))
                    yield from _read_stream(bounded, _of_member(reading, name), in_folder=True)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        MemoryError,
        *DECOMPRESSION_ERRORS,
    ) as error:
        why = str(error) or type(error).__name__
        reading.problems.add(ProblemKind.CORRUPT, reading.source, f"the archive is damaged ({why})")


def _of_member(reading: Reading, name: str) -> Reading:
    """Return the context for a member of an archive.

    Its folder is known to be of a dataset, or of none that has a name: see :meth:`Reading.leaves_out`.
    """
    says = dataset_in(name.rpartition("/")[0]) or reading.dataset
    return replace(reading.member(name), dataset=says)


def _read_parquet(path: Path, reading: Reading) -> Iterator[ManifestPart]:
    file = open_parquet(path, reading)
    if file is None:
        return
    with file:
        names = set(file.schema_arrow.names)
        reader = _parquet_reader(names)
        if reader is not None:
            yield from reader(file, reading)
            return
        reading.problems.add(
            ProblemKind.UNKNOWN_COLUMNS,
            reading.source,
            f"the columns are {', '.join(sorted(names)) or 'none'}; expected those of {_KNOWN_COLUMNS}",
        )


_KNOWN_COLUMNS = (
    "a manifest (lat, lon, year, grid_size), a registry (lat, lon, year, hash, file_size), "
    "landmasks (lat, lon, file_size), a registry of blocks (tile, embedded, assembled_at) or of what was"
    " filled into a store (year, zone, tile_lon, tile_lat)"
)


def _parquet_reader(names: set[str]) -> Any:
    located = {"lat", "lon"} <= names or {"lat_i", "lon_i"} <= names
    if "year" in names and "grid_size" in names and (located or "grid_path" in names):
        return manifest.read_manifest
    if located and {"year", "hash"} <= names:
        return registry.read_registry
    if located and "year" not in names and ("file_size" in names or "hash" in names):
        return registry.read_landmasks
    if names.issuperset(filled.COLUMNS):
        return filled.read_filled
    if names.issuperset(blocks.COLUMNS):
        return blocks.read_blocks
    return None


def _follow_master(body: BinaryIO, reading: Reading, *, in_folder: bool) -> Iterator[ManifestPart]:
    """Read the blocks that a master registry refers to; in a folder they are read anyway."""
    folder = reading.source.rpartition("/")[0]

    def find(listed: tuple[str, str | None]) -> tuple[str, str | None, str | None, bytes | None]:
        """Return what is listed, the address of the block, and its content if that is to be compared."""
        name, sha256 = listed
        sub = "landmasks" if name.startswith(("landmasks_", "registry_tiles_")) else "embeddings"
        candidates = [storage.join(folder, p) if folder else p for p in (name, f"{sub}/{name}")]
        block = next((c for c in candidates if storage.exists(c)), None)
        if block is None or sha256 is None or len(sha256) != 64:
            return name, None, block, None
        return name, sha256, block, storage.read_bytes(block)

    everything = read_master(body, reading)
    if "!" in reading.source:  # in an archive, whose members are read anyway
        deque(everything, maxlen=0)
        return
    for name, sha256, block, content in ahead(find, everything):
        if block is None:
            reading.problems.add(
                ProblemKind.MISSING_FILE,
                reading.source,
                f"refers to '{name}', which is not in the same folder",
                place="",
            )
            continue
        if content is not None:
            found = hashlib.sha256(content).hexdigest()
            if found != sha256:
                reading.problems.add(
                    ProblemKind.BAD_HASH, block, f"the master registry expects {sha256}, the file has {found}"
                )
            if not in_folder:
                yield from _read_stream(cast(BinaryIO, io.BytesIO(content)), replace(reading, source=block))
        elif not in_folder:
            yield from _read_file(block, replace(reading, source=block))


@contextmanager
def _on_disk(body: BinaryIO, local: Path | None) -> Iterator[Path]:
    """Yield the bytes as a file, for formats that must be read from their end."""
    if local is not None:
        yield local
        return
    with tempfile.NamedTemporaryFile(prefix="tessera-manifest-") as file:
        shutil.copyfileobj(body, file, 1 << 20)
        file.flush()
        yield Path(file.name)


def _read1(file: BinaryIO, n: int) -> bytes:
    """Return the data of a single read, so that data before a break in the stream is not lost."""
    data: bytes = cast(Any, file).read1(n)
    return data


class _Rejoined(io.RawIOBase):
    """A stream whose head has already been read."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] if self._head else _read1(self._rest, len(buffer))
        self._head = self._head[len(data) :] if self._head else b""
        buffer[: len(data)] = data
        return len(data)
