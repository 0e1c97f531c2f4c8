"""Work that waits for a server, a few pieces ahead of who needs them, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

AHEAD = 8
"""Pieces of work at the same time, and results that wait."""


def ahead[T, R](work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield ``work`` of each item, in order; meanwhile threads do that of the next :data:`AHEAD` items.

    An error of an item is raised in its turn.

    Examples
    --------
    >>> list(ahead(str.upper, ["a", "b"]))
    ['A', 'B']
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(AHEAD)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
