"""How long a request may take, and whether anybody waits for it."""

from __future__ import annotations

import time

from starlette.types import Receive

from catalog_builder.errors import QueryTimeoutError, TesseraError, UnavailableError

ERROR_KEY = "tessera.error"
"""Where a request's scope says what kind of failure its response is, for the metrics."""


class BusyError(UnavailableError):
    """More requests than the server may keep at a time (HTTP 503)."""


class ClientGoneError(TesseraError):
    """The client closed the connection before its response was ready; nobody reads what is sent."""


class Deadline:
    """When a piece of work must have ended, and whether anybody still waits for it.

    Examples
    --------
    >>> Deadline(10.0).left > 9
    True
    """

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._abandoned = False

    @property
    def left(self) -> float:
        """Seconds that are left; 0 or less once it has passed, or nobody waits for the result."""
        return 0.0 if self._abandoned else self._until - time.monotonic()

    def check(self) -> None:
        """Call this between reads.

        Raises
        ------
        QueryTimeoutError
            If no time is left.
        """
        if self.left <= 0:
            raise QueryTimeoutError("the response takes longer than a request may")

    def abandon(self) -> None:
        """Say that nobody waits for the result any more."""
        self._abandoned = True


async def client_gone(receive: Receive) -> None:
    """Return when a request's client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
