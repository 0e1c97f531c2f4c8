"""One state of a catalogue, and objects that are computed from it once."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Self, TypeVar

from api.access import Access
from api.catalogue.memory import forget_soon
from catalog_builder.catalog.index.reader import Index
from catalog_builder.catalog.index.record import CollectionRecord
from catalog_builder.catalog.index.tiles import Tiles

T = TypeVar("T")

REMEMBERED = 256
"""Responses cached per snapshot: clients choose requests and host names."""


class Renewable(ABC):
    """Something computed from a build that takes seconds, see :meth:`Snapshot.once`."""

    @abstractmethod
    def renew(self, snapshot: Snapshot) -> None:
        """Compute the same for another build."""


_VIEWS = 64
"""Sets of visible collections whose responses are cached."""


class Snapshot(ABC):
    """One state of the catalogue: its collections and tiles."""

    def __init__(
        self,
        tiles: Tiles,
        generation: str,
        built: float | None = None,
        home: str = "",
        access: Access = "https",
    ) -> None:
        self.tiles = tiles
        self.access: Access = access
        """How the server serves files below ``home``."""
        self.home = home
        """s3 URL of the catalogue; empty if it is a folder."""
        self.generation = generation
        """Identifies the build; part of every ETag."""
        self.built = built
        """When the index was written, in seconds since 1970; None if unknown."""
        self.collections: Mapping[str, CollectionRecord] = tiles.collections
        """Of tiles, by id."""
        self.documents: Mapping[str, str] = tiles.documents
        """Every collection's STAC document, by id, with ``{root}`` for the URL of the service."""
        self.years: tuple[int, ...] = tuple(
            sorted({year for record in self.collections.values() for year in record.years})
        )
        """Of all collections."""
        self._made: dict[Hashable, Any] = {}
        self._asked: OrderedDict[Hashable, Any] = OrderedDict()
        self._retired = False
        self._lock = threading.Lock()
        self._views: OrderedDict[frozenset[str], Self] = OrderedDict()
        self.is_part = False
        """Whether it lacks collections that the catalogue may have."""

    def only(self, ids: frozenset[str]) -> Self:
        """Return the same state with some of its collections, as if there were no others.

        It has caches and a generation of its own, so no response for one reader is another's.
        """
        with self._lock:
            found = self._views.get(ids)
            if found is None:
                mark = hashlib.blake2b("\0".join(sorted(ids)).encode(), digest_size=6).hexdigest()
                found = self._part(ids, f"{self.generation}-{mark}")
                found.is_part = True
                found._retired = self._retired  # then it is as short-lived as the request
                if not self._retired:
                    self._views[ids] = found
            if ids in self._views:
                self._views.move_to_end(ids)
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
            return found

    @abstractmethod
    def _part(self, ids: frozenset[str], generation: str) -> Self:
        """Return a snapshot of some collections."""

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached result of ``make`` for this key, kept as long as the build is in service.

        For keys bounded by the catalogue, such as one per collection.
        """
        with self._lock:
            if key in self._made:
                found: T = self._made[key]
                return found
        made = make()
        with self._lock:
            # two threads may have computed it at the same time: all continue with the same one
            return made if self._retired else self._made.setdefault(key, made)

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached result of ``make`` for this key; the least recently used are dropped.

        For keys chosen by requests: separate from :meth:`once`, so that small responses do not evict a map.
        """
        with self._lock:
            if key in self._asked:
                self._asked.move_to_end(key)
                found: T = self._asked[key]
                return found
        made = make()
        with self._lock:
            if not self._retired:
                self._asked[key] = made
                if len(self._asked) > REMEMBERED:
                    self._asked.popitem(last=False)
        return made

    def follow(self, old: Snapshot) -> None:
        """Recompute expensive objects of another build: call it before this one is in service.

        Otherwise every request that needs it would wait, each in a thread with its own connection.
        """
        with old._lock:
            made = [each for each in old._made.values() if isinstance(each, Renewable)]
            views = dict(old._views)
        for each in made:
            each.renew(self)
        for ids, view in views.items():
            self.only(ids.intersection(self.documents)).follow(view)

    def retire(self) -> None:
        """Drop the cache, and cache nothing from now on.

        Some of it references the snapshot. Without it the index is closed as soon as the last request that
        uses it ends, not whenever the garbage collector looks.
        """
        with self._lock:
            self._made.clear()
            self._asked.clear()
            self._retired = True
            views = list(self._views.values())
            self._views.clear()
        for view in views:
            view.retire()
        forget_soon()


class IndexSnapshot(Snapshot):
    """One build of the catalogue, its index open for reading.

    Parameters
    ----------
    index
        The index.
    generation, built, home, access
        See :class:`Snapshot`.
    """

    def __init__(
        self,
        index: Index,
        generation: str,
        built: float | None = None,
        home: str = "",
        access: Access = "https",
    ) -> None:
        super().__init__(index, generation, built, home, access)
        self.index = index
        """Rows of the tile-years, for searches."""

    def _part(self, ids: frozenset[str], generation: str) -> Self:
        return type(self)(self.index.only(ids), generation, self.built, self.home, self.access)


class StoredSnapshot(Snapshot, ABC):
    """The state of a catalogue whose items are documents in a database, and not rows of an index."""

    @abstractmethod
    def items(self, collection_id: str, ids: Sequence[str], root: str) -> list[dict[str, Any]]:
        """Return tile-years' items, in any order; missing ones are omitted.

        For threads, not for the event loop.
        """


AnySnapshot = IndexSnapshot | StoredSnapshot
