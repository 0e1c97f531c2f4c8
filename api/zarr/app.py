"""The app below ``/zarr``; see :mod:`api.zarr`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

import anyio
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api.catalogue.snapshot import AnySnapshot
from api.catalogue.store import Store
from api.files.folder import visible
from api.files.ranges import ContentChangedError, Document, Span, failed
from api.files.respond import lists, respond, send_failure
from api.files.sending import only_reading, route_path, send_error, send_not_found, send_redirect
from api.http.work.pool import CHUNKS_WAITING, Pool
from api.http.work.waiting import BusyError, Deadline
from api.settings import Settings
from api.zarr.paths import asked
from api.zarr.view import Chunk, DatasetView, Member
from catalog_builder.errors import (
    CatalogError,
    FileChangedError,
    QueryTimeoutError,
    StorageError,
    UnavailableError,
    UnreadableError,
)
from catalog_builder.storage import scheme
from catalog_builder.storage.headers import IMMUTABLE, MEDIA_BYTES, MEDIA_JSON, REVALIDATE
from catalog_builder.zone_arrays.metadata import EMBEDDINGS, encoded
from catalog_builder.zone_arrays.reader import Placed, ZoneReader

FORM = 1
"""Version of what is computed: part of every ETag."""
_ATTEMPTS = 3
"""How often a chunk is read whose files are replaced meanwhile."""
_EXPECTED = "expected <dataset>/zarr.json, or <dataset>/utm31/embeddings/c/<time>/0/<y>/<x> and its siblings"


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A chunk in memory: a :class:`~api.files.ranges.Content`."""

    size: int
    etag: str
    body: bytes
    """Empty if nobody will see it."""
    modified: int | None = None

    def read_now(self, span: Span) -> bytes:
        """Return some of the bytes."""
        return self.body if span == (0, len(self.body)) else self.body[span.start : span.stop]

    def read(self, span: Span) -> bytes:
        """Return some of the bytes."""
        return self.read_now(span)


class ZarrView:
    """The ASGI app; mount it at ``/zarr``, outside of compressing middleware.

    Parameters
    ----------
    store
        Of the catalogue, as whoever asks may see it.
    settings
        Of the server.
    pool
        Where chunks are computed.
    """

    def __init__(self, store: Store, settings: Settings, pool: Pool) -> None:
        self._store, self._settings, self._pool = store, settings, pool
        self._reader = ZoneReader(settings.chunk_cache_bytes)
        seconds = settings.cache_seconds
        self._control = f"public, max-age={seconds}" if seconds else REVALIDATE
        self._room: dict[int, anyio.CapacityLimiter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if not await only_reading(scope, send):
            return
        route = route_path(scope)
        path = visible(route.strip("/"), scope.get("raw_path") or b"")
        named = None if path is None else asked(path)
        if named is None:
            await send_not_found(scope, send, _EXPECTED)
            return
        try:
            view = self._view(self._store.current(), named.dataset)
        except UnavailableError as error:
            await send_error(scope, send, 503, "Unavailable", str(error), [(b"retry-after", b"5")])
            return
        found = view if isinstance(view, str) else view.find(named)
        if isinstance(view, str) or isinstance(found, str):
            await send_not_found(scope, send, str(found))
        elif named.build not in (None, view.build):
            reason = f"build '{str(named.build)[:40]}' is not in service any more: now it is '{view.build}'"
            await send_error(scope, send, 410, "Gone", reason)
        elif named.is_folder:
            last = "" if route.endswith("/") else f"{quote(route.rpartition('/')[2])}/"
            await send_redirect(send, f"{last}zarr.json", self._control, permanent=False)
        else:
            control = self._control if named.build is None else IMMUTABLE
            if isinstance(found, Chunk):
                await self._chunk(found, control, scope, receive, send)
            else:
                await self._whole(view, found, control, scope, receive, send)

    def _view(self, snapshot: AnySnapshot, directory: str) -> DatasetView | str:
        """Return a dataset's arrays, or why there are none."""
        records = {r.dataset.directory: r for r in snapshot.collections.values()}
        record = records.get(directory)
        if record is None:
            return f"no dataset '{directory[:40]}' here: expected one of {', '.join(records)}"
        if not record.zones:
            return f"the catalogue does not say how far zones of {directory} reach: build it again"
        return snapshot.once(
            ("zarr", record.ordinal),
            lambda: DatasetView(snapshot, record, self._store.home, self._settings.s3_access),
        )

    async def _whole(
        self, view: DatasetView, member: Member, control: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Respond with a document or a coordinate."""
        content = view.made(member)
        if content is None:
            content = await self._pool.run(lambda _: view.make(member), receive)
        kind = MEDIA_BYTES if member.is_coordinate else MEDIA_JSON
        await respond(
            scope, receive, send, Document(content), media_type=kind, cache_control=control, in_memory=True
        )

    async def _chunk(self, chunk: Chunk, control: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond with a chunk of codes or scales, when there is room for it in memory."""
        headers = dict(scope["headers"])
        has = headers.get(b"if-none-match", b"").decode("latin-1")
        blind = scope["method"] == "HEAD"
        # it waits for room in memory, then for a thread
        elsewhere = await self._pool.elsewhere(Request(scope, receive), waits=2)
        if elsewhere is not None:
            await elsewhere(scope, receive, send)
            return
        async with self._entered(chunk.layout.chunk_bytes):
            try:
                content = await self._pool.run(
                    lambda until: self._computed(chunk, has, until, blind=blind), receive
                )
            except (ContentChangedError, UnreadableError) as error:
                await send_failure(scope, send, error)
                return
            await respond(
                scope, receive, send, content, media_type=MEDIA_BYTES, cache_control=control, in_memory=True
            )

    @asynccontextmanager
    async def _entered(self, size: int) -> AsyncIterator[None]:
        """Wait until a chunk has room: all together take half of what may be in flight.

        More are not refused at once, as many readers do not ask twice.

        Raises
        ------
        BusyError
            If too many wait.
        QueryTimeoutError
            If there is no room in time.
        """
        room = self._room.get(size)
        if room is None:
            most = self._settings.max_bytes_in_flight // 2
            room = self._room[size] = anyio.CapacityLimiter(max(most // size, 1))
        if room.statistics().tasks_waiting >= CHUNKS_WAITING:
            raise BusyError("the server is busy with other chunks of arrays; try again")
        try:
            with anyio.fail_after(self._settings.chunk_seconds):
                await room.acquire()
        except TimeoutError:
            raise QueryTimeoutError("the server is busy with other chunks of arrays; try again") from None
        try:
            yield
        finally:
            room.release()

    def _computed(self, chunk: Chunk, has: str, until: Deadline, *, blind: bool) -> _Bytes:
        """Return a chunk, without its bytes if they are not sent; runs in a thread.

        Raises
        ------
        ContentChangedError
            If pixels cannot be read at the moment.
        UnreadableError
            If what contains them is damaged, or is not there.
        """
        attempts = 0
        while True:
            attempts += 1
            try:
                placed = chunk.view.placed(chunk)
            except (CatalogError, OSError) as error:
                raise ContentChangedError("the catalogue cannot be read at the moment, try again") from error
            etag, size = _etag(chunk, placed), chunk.layout.chunk_bytes
            if blind or (has and lists(has, etag, weak=True)):
                return _Bytes(size, etag, b"")
            with_codes = chunk.layout.name == EMBEDDINGS
            try:
                block = self._reader.read(chunk.window, placed, with_codes=with_codes, check=until.check)
            except FileChangedError as error:  # its files are others than those of the ETag
                if attempts == _ATTEMPTS:
                    raise failed(error, _public(str(error), placed)) from error
            except StorageError as error:
                raise failed(error, _public(str(error), placed)) from error
            else:
                return _Bytes(size, etag, encoded(chunk.layout, block.codes if with_codes else block.scales))


def _etag(chunk: Chunk, placed: Iterable[Placed]) -> str:
    """Return a tag that changes with the pixels' files, and with where they lie.

    What lies elsewhere is known by what its item says; a store's by the build that found it.
    """
    said = [FORM, chunk.layout.name, chunk.layout.chunks, chunk.window, chunk.year]
    for one in placed:
        place = one.source.place
        said += [one.touched, place.kind, place.inside, one.files]
        if place.kind == "store":
            said.append(chunk.view.build)
    return f'"{hashlib.blake2b(repr(said).encode(), digest_size=16).hexdigest()}"'


def _public(reason: str, placed: Iterable[Placed]) -> str:
    """Return a reason without the folders of the server's own files."""
    for one in placed:
        source = one.source
        for address in (source.place.main, source.place.scales, source.landmask):
            if address is not None and not scheme(address):
                reason = reason.replace(f"{address.rpartition('/')[0]}/", "")
    return reason
