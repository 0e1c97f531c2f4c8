"""What the C library does with memory that was freed: a setting for a process with many threads.

glibc gives threads arenas of their own, eight per core, and keeps what was freed in each. A server whose
threads take turns at making answers of half a megabyte then holds several times what it uses: a worker
that was asked everything grew from 130 to 400 MB in two minutes, and with two arenas stayed below 220.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from functools import cache
from typing import Any

VARIABLE = "MALLOC_ARENA_MAX"
"""Read by glibc when a process starts; an operator's own value is left alone."""
ARENAS = 2
_M_ARENA_MAX = -8  # malloc.h


def few_arenas() -> None:
    """Keep this process, and those it will start, to few arenas; without glibc this does nothing."""
    if VARIABLE in os.environ or not sys.platform.startswith("linux"):
        return
    os.environ[VARIABLE] = str(ARENAS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library may have none
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


FORGET_SECONDS = 15.0
"""After a new build was put in force."""
TRIM_SECONDS = 20.0
"""How often what was freed is given back to the system."""


def give_back() -> None:
    """Give what this process has freed back to the system; without glibc this does nothing.

    Answers of all sizes leave holes that the C library keeps, and a worker under mixed load would grow by
    megabytes a minute without holding more.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def keep_giving_back() -> None:
    """Do so every :data:`TRIM_SECONDS`, in a thread of its own, for as long as the process lives."""
    if _trim() is None:
        return

    def work() -> None:
        never = threading.Event()
        while not never.wait(TRIM_SECONDS):
            give_back()

    threading.Thread(target=work, daemon=True, name="give memory back").start()


def forget_soon() -> None:
    """Collect what a replaced build has left, when the requests that began with it have ended.

    Its maps are few objects of many megabytes: Python, which counts objects, would not look for hours.
    """

    def work() -> None:
        gc.collect()
        give_back()

    timer = threading.Timer(FORGET_SECONDS, work)
    timer.daemon = True
    timer.start()


@cache
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
