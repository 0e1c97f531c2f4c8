"""The server's state of the database's collections, refreshed every second in the background."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import orjson
from fastapi import FastAPI
from stac_fastapi.pgstac.config import Settings as PgstacSettings

from api.catalogue.store import warm_up
from api.pgstac.database import Database
from api.pgstac.snapshot import LoadedTiles, PgstacSnapshot, masks_of, records_of
from api.settings import Settings
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.errors import CatalogError, TesseraError, UnavailableError
from catalog_builder.publish.pgstac.state import SCHEMA_VERSION, unpack_cells

LOG = logging.getLogger("tessera_stac.pgstac")

_LOOK_SECONDS = 10.0
_PROBE_SECONDS = 2.0
_LOAD_SECONDS = 120.0
_VERSION = "SELECT to_regclass('pgstac.items')::text, to_regclass('tessera_stac.meta')::text"
_MARK = """
SELECT concat(
  (SELECT string_agg(name || value, ' ' ORDER BY name) FROM tessera_stac.meta),
  (SELECT string_agg(md5(content::text), ' ' ORDER BY id) FROM pgstac.collections))
"""
"""Differs after every load, and when a collection is changed by others."""


class PgstacStore:
    """Provides the current snapshot of a database; a :class:`~api.catalogue.store.Store`.

    Parameters
    ----------
    home
        The catalogue, a folder or an s3 URL, whose COGs the server is to serve, if any.
    settings
        Which database, among others.
    failed
        Called whenever a check of the database fails.
    """

    refused: str | None = None
    damage: str | None = None
    """Always None: there is no build and no index."""

    def __init__(
        self, home: str | None, settings: Settings, failed: Callable[[], None] = lambda: None
    ) -> None:
        self.home = home or "/nonexistent"
        self.database = Database(settings)
        self._refresh = max(settings.refresh_seconds, 0.05)
        self._failed = failed
        self._newest: PgstacSnapshot | None = None
        self._mark = ""
        self._fault = "the database is not connected yet; try again"

    def attach(self, app: FastAPI) -> None:
        """Connect when the application starts, and give stac-fastapi-pgstac what it looks for."""
        app.router.lifespan_context = self._running
        app.state.settings = PgstacSettings(_env_file=None, use_api_hydrate=True)
        app.state.get_connection = self.database.of_request

    def check(self) -> str | None:
        """Return None: there is no index that could be damaged."""
        return None

    def health(self) -> dict[str, Any]:
        """Return nothing: the items are in the database."""
        return {}

    def metrics(self) -> Iterator[str]:
        """Yield nothing: the database has its own metrics."""
        return iter(())

    async def probe(self) -> None:
        """Check whether searches can be served; see :meth:`api.catalogue.store.Store.probe`."""
        self.current()
        await self.database.within(_PROBE_SECONDS, self._read_mark)

    @asynccontextmanager
    async def _running(self, _app: FastAPI) -> AsyncIterator[None]:
        """Keep the snapshot up to date; the database may be down at the start, and for a while."""
        await self.database.open()
        await self._take_up()
        task = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.database.close()

    def current(self) -> PgstacSnapshot:
        """Return the newest snapshot.

        Raises
        ------
        UnavailableError
            If the database has not been reached since the start.
        """
        if self._newest is None:
            raise UnavailableError(self._fault)
        return self._newest

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._refresh)
            await self._take_up()

    async def _take_up(self) -> None:
        """Read the database's state if it changed; what was read before stays good if that fails."""
        try:
            mark = await self.database.within(_LOOK_SECONDS, self._read_mark)
            if mark != self._mark:
                old = self._newest
                self._newest = await self.database.within(_LOAD_SECONDS, lambda: self._read(mark))
                if old is not None:
                    old.retire()
                self._mark = mark
            self._say("")
        except TesseraError as error:
            self._say(str(error))
        except Exception as error:  # a loop that ends would keep the old state for good
            LOG.exception("the database's state cannot be read")
            self._say(f"the database's state cannot be read ({type(error).__name__})")

    def _say(self, fault: str) -> None:
        """Count an error; log it once, and its end."""
        if fault:
            self._failed()
        if fault != self._fault:
            if fault:
                LOG.warning("pgSTAC: %s", fault)
            elif self._fault:
                LOG.info("pgSTAC: connected")
            self._fault = fault

    async def _read_mark(self) -> str:
        async with self.database.connection(_LOOK_SECONDS) as db:
            pgstac, ours = await db.fetchrow(_VERSION)
            if pgstac is None:
                raise CatalogError("the database has no pgSTAC: run 'tessera-stac export --pgstac --migrate'")
            found = None
            if ours is not None:
                found = await db.fetchval("SELECT value FROM tessera_stac.meta WHERE name = 'schema_version'")
            if found != str(SCHEMA_VERSION):
                have = f"of version {found}" if found else "not there"
                raise CatalogError(
                    f"the tables of tessera-stac in the database are {have}, but this program reads version"
                    f" {SCHEMA_VERSION}: run 'tessera-stac export --pgstac' of the same version"
                )
            return str(await db.fetchval(_MARK))

    async def _read(self, mark: str) -> PgstacSnapshot:
        async with self.database.connection(_LOAD_SECONDS) as db:
            documents = await db.fetch("SELECT id, content FROM pgstac.collections ORDER BY id")
            records = await db.fetch("SELECT id, record, url FROM tessera_stac.collection")
            loaded = await db.fetch("SELECT collection, year, items, cells FROM tessera_stac.loaded")
        loop = asyncio.get_running_loop()
        return await anyio.to_thread.run_sync(self._snapshot_of, mark, documents, records, loaded, loop)

    def _snapshot_of(
        self, mark: str, documents: Any, records: Any, loaded: Any, loop: asyncio.AbstractEventLoop
    ) -> PgstacSnapshot:
        stored = {cid: CollectionRecord.from_json(text) for cid, text, _ in records}
        urls = {cid: url for cid, _, url in records}
        counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        cells: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for cid, year, items, packed in loaded:
            counts[cid][year] += items
            cells[cid][year].append(unpack_cells(packed))
        masks = {cid: masks_of(cells[cid]) for cid in stored}
        tiles = LoadedTiles(
            records_of(stored, counts, masks),
            {cid: _text(content, urls.get(cid)) for cid, content in documents},
            masks,
        )
        # Of a part, a tile's years are not those that its items were made with.
        whole = frozenset(r.ordinal for r in tiles.collections.values() if r.counts == stored[r.id].counts)
        generation = hashlib.blake2b(mark.encode(), digest_size=8).hexdigest()
        snapshot = PgstacSnapshot(tiles, generation, urls, whole, self.items, loop)
        warm_up(snapshot)
        return snapshot

    async def items(self, collection_id: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return items as stored, in any order; missing ones are omitted."""

        async def read() -> list[dict[str, Any]]:
            async with self.database.connection(_LOOK_SECONDS) as db:
                rows = await db.fetch(
                    "SELECT content_hydrate(i) FROM items i WHERE collection = $1 AND id = ANY($2)",
                    collection_id,
                    list(ids),
                )
                return [item for (item,) in rows]

        return await self.database.within(_LOOK_SECONDS, read)


def _text(content: dict[str, Any], url: str | None) -> str:
    """Return a collection's document as text, with its root URL as ``{root}``."""
    document = {k: v for k, v in content.items() if k not in ("parent_ids", "links")}
    document["links"] = [k for k in content.get("links", []) if k.get("rel") not in _STRUCTURAL]
    text = orjson.dumps(document).decode()
    return text.replace(f'"{url}/', '"{root}/') if url else text


_STRUCTURAL = ("self", "root", "parent", "items", "collection")
