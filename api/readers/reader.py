"""A reader, the one who is asking now, and the rule of who may see which collection.

Everything that decides about visibility is here: :data:`ASKING` is set once per request by
:class:`api.http.front.Front`, and read once, where a request takes the catalogue
(:class:`api.catalogue.visible.VisibleStore`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who reads."""

    name: str = ""
    """Empty: without credentials."""
    may_see: tuple[str, ...] = ()
    """Ids of private collections, or patterns of them such as ``lab-*``."""


ANYBODY = Reader()
"""Who gives no credentials."""
ASKING: ContextVar[Reader] = ContextVar("asking", default=ANYBODY)
"""Who sent the request in progress; threads that work on it inherit it."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """Which collections are private."""

    private: tuple[str, ...] = ()
    """Ids, or patterns of them; ``*`` is all."""

    @property
    def is_total(self) -> bool:
        """Whether there is nothing to see without credentials."""
        return "*" in self.private

    def hides(self, cid: str) -> bool:
        """Return whether a collection is private."""
        return _is_one_of(cid, self.private)

    def seen(self, ids: Iterable[str], reader: Reader) -> frozenset[str]:
        """Return the collections that a reader may see.

        >>> sorted(Privacy(("lab-*",)).seen(["open", "lab-a", "lab-b"], Reader("anna", ("lab-b",))))
        ['lab-b', 'open']
        """
        return frozenset(cid for cid in ids if not self.hides(cid) or _is_one_of(cid, reader.may_see))


def patterns(text: str) -> tuple[str, ...]:
    """Parse comma-separated ids and patterns."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _is_one_of(cid: str, of: Iterable[str]) -> bool:
    return any(fnmatchcase(cid, pattern) for pattern in of)
