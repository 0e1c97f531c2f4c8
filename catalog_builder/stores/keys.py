"""The keys of a store as zarr-python asks for them: counted, and the indexes of shards read once.

The index of a shard of 4096 pixels has 262 kB, a chunk in it 131 kB: whoever reads pixel by pixel must not
read the index each time. A shard that is replaced meanwhile is noticed: its chunks are read from the version
of the file that its index was read from (:mod:`catalog_builder.storage.versioned`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from catalog_builder import storage
from catalog_builder.errors import FileChangedError, StorageError
from catalog_builder.storage import Meter
from catalog_builder.storage.versioned import Tail
from catalog_builder.stores.connections import CONNECTIONS

KEPT = 64 << 20
"""Bytes of indexes and metadata that are kept of a store: those of 250 shards of 4096 pixels."""
FRESH = 60.0
"""Seconds after which it is asked whether a shard is still the one whose index is kept."""


class Kept:
    """What is kept of a store between reads, by all threads: metadata, and the ends of shards."""

    def __init__(self, budget: int = KEPT) -> None:
        self.epoch = 0
        """Changes when a file was found changed: what was decoded before is of another version."""
        self._budget, self._bytes = budget, 0
        self._found: OrderedDict[tuple[str, int], tuple[Tail | None, float]] = OrderedDict()
        self._versions: dict[str, str] = {}
        self._lock = threading.Lock()

    def get(self, key: str, n: int) -> tuple[Tail | None, float] | None:
        """Return the last ``n`` bytes of a key (0: all) and when they were looked at; None if not kept."""
        with self._lock:
            found = self._found.get((key, n))
            if found is not None:
                self._found.move_to_end((key, n))
            return found

    def put(self, key: str, n: int, tail: Tail | None) -> None:
        """Keep the end of a key, or that there is no such key; what was not used for longest is dropped."""
        with self._lock:
            before = self._found.pop((key, n), None)
            if before is not None:
                self._bytes -= _weight(before[0])
                self.epoch += before[0] != tail
            self._found[key, n] = tail, time.monotonic()
            self._bytes += _weight(tail)
            if tail is not None:
                self._versions[key] = tail.version
            while self._bytes > self._budget and len(self._found) > 1:
                (name, _), (dropped, _) = self._found.popitem(last=False)
                self._bytes -= _weight(dropped)
                self._versions.pop(name, None)

    def version(self, key: str) -> str | None:
        """Return the version of the file whose end is kept."""
        with self._lock:
            return self._versions.get(key)

    def forget(self) -> None:
        """Drop everything: a file has changed."""
        with self._lock:
            self._found.clear()
            self._versions.clear()
            self._bytes = 0
            self.epoch += 1


def _weight(tail: Tail | None) -> int:
    return 200 + (len(tail.data) if tail else 0)


class _ReadOnly(Store):
    """A store of which keys are read and nothing else."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, address: str, kept: Kept, meter: Meter) -> None:
        super().__init__(read_only=True)
        self.address, self.kept, self.meter = address, kept, meter

    def __eq__(self, other: object) -> bool:
        """Whether both read the same files."""
        return type(other) is type(self) and other.address == self.address

    __hash__ = Store.__hash__

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of several keys."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return await self.get(key, default_buffer_prototype()) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        self._refuse()

    async def delete(self, key: str) -> None:
        """Refuse."""
        self._refuse()

    def list(self) -> AsyncIterator[str]:
        """Refuse: groups and arrays are found by their names, shards otherwise."""
        self._refuse()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse."""
        self._refuse()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotImplementedError(f"{self.address}: keys are read here, and nothing else")


class Files(_ReadOnly):
    """A Zarr store in a folder, in S3 or on the web, read by range."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a key's bytes; None if there is none."""
        async with CONNECTIONS.to(self.address):
            data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        address = storage.join(self.address, key)
        if isinstance(part, SuffixByteRequest):
            tail = self._tail(address, key, part.suffix)
            return None if tail is None else tail.data
        if isinstance(part, RangeByteRequest):
            version = self.kept.version(key)
            if version is None:  # dropped in the meantime, or no shard: whatever version it is
                with storage.open_ranged(address, self.meter) as file:
                    return file.read(part.start, part.end)
            try:
                return storage.read_version(address, part.start, part.end, version, self.meter)
            except FileChangedError:
                self.kept.forget()
                raise
        whole = self._whole(address, key)
        return whole if whole is None or part is None else whole[part.offset :]

    def _tail(self, address: str, key: str, n: int) -> Tail | None:
        found = self.kept.get(key, n)
        if found is not None and time.monotonic() - found[1] < FRESH:
            return found[0]
        if found is not None and found[0] is not None:
            now = storage.read_tail(address, 1, self.meter)
            if now is not None and now.version == found[0].version:
                self.kept.put(key, n, found[0])
                return found[0]
        tail = storage.read_tail(address, n, self.meter)
        self.kept.put(key, n, tail)
        return tail

    def _whole(self, address: str, key: str) -> bytes | None:
        found = self.kept.get(key, 0)
        if found is not None:
            return found[0].data if found[0] else None
        data = storage.read_bytes(address) if storage.exists(address) else None
        if data is not None:
            self.meter.add(len(data))
        if key.endswith("zarr.json"):
            self.kept.put(key, 0, None if data is None else Tail(data, ""))
        return data


class Repository(_ReadOnly):
    """A snapshot of an Icechunk repository: what it holds never changes."""

    def __init__(self, address: str, kept: Kept, meter: Meter, inner: Any) -> None:
        super().__init__(address, kept, meter)
        self._inner = inner

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a key's bytes; None if there is none."""
        n = byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else 0
        keeps = bool(n) or key.endswith("zarr.json")
        if keeps and (found := self.kept.get(key, n)) is not None:
            return None if found[0] is None else prototype.buffer.from_bytes(found[0].data)
        try:
            async with CONNECTIONS.to(self.address):
                buffer: Buffer | None = await self._inner.get(key, prototype, byte_range)
        except Exception as error:  # icechunk's own, of which there is no common class
            raise StorageError(f"{self.address}: {key} cannot be read: {error}") from error
        data = None if buffer is None else buffer.to_bytes()
        if data is not None:
            self.meter.add(len(data))
        if keeps:
            self.kept.put(key, n, None if data is None else Tail(data, ""))
        return buffer
