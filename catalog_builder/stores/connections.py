"""How many requests a process makes to the host of stores at the same time, whoever reads.

zarr-python limits those of one read (ten), and Icechunk those of one repository. A server reads for many
clients at once, from stores in one bucket: what its host bears, or refuses with 429 and 503, is the sum.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from catalog_builder import storage
from catalog_builder.errors import StorageError

DEFAULT = 16
VARIABLE = "TESSERA_STAC_STORE_CONNECTIONS"
"""Environment variable that sets another limit, also for the command line."""


class Connections:
    """The requests of this process to each host."""

    def __init__(self) -> None:
        self._limit: int | None = None
        # zarr-python reads in one event loop; a semaphore belongs to a loop
        self._semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]]
        self._semaphores = WeakKeyDictionary()

    @property
    def limit(self) -> int:
        """The most requests to one host at the same time.

        Raises
        ------
        StorageError
            If the environment says something that is no number from 1 on.
        """
        if self._limit is None:
            text = os.environ.get(VARIABLE) or str(DEFAULT)
            if not text.isdecimal() or int(text) < 1:
                raise StorageError(f"{VARIABLE}: expected a number from 1 on, found '{text}'")
            self._limit = int(text)
        return self._limit

    def allow(self, limit: int | None) -> None:
        """Set the limit for what is requested from now on; None: as the environment says."""
        self._limit = limit
        self._semaphores.clear()

    @asynccontextmanager
    async def to(self, address: str) -> AsyncIterator[None]:
        """Wait until a request to the host of a store may be made; it ends with the block."""
        host = host_of(address)
        if not host:
            yield
            return
        hosts = self._semaphores.setdefault(asyncio.get_running_loop(), {})
        if host not in hosts:
            hosts[host] = asyncio.Semaphore(self.limit)
        async with hosts[host]:
            yield


def host_of(address: str) -> str:
    """Return the host of a store's address, with its port; empty if it is local.

    >>> host_of("https://tiles.example.org:8080/v1.zarr")
    'tiles.example.org:8080'
    """
    kind = storage.scheme(address)
    return urlsplit(storage.https_address(address) if kind == "s3" else address).netloc if kind else ""


CONNECTIONS = Connections()
