"""Settings of the C library's allocator for a process with many threads.

glibc gives threads separate arenas, eight per core, and keeps freed memory in each. A server whose
threads take turns at producing responses of half a megabyte then holds several times what it uses: a worker
under a mixed load grew from 130 to 400 MB in two minutes, and with two arenas stayed below 220.
And once an array of many megabytes was freed, glibc takes the next one from the heap, where small things
that live on lie behind it: with 110 MB in use, the heap then swayed between 150 and 220 MB.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from typing import Any

# Variable that glibc reads when a process starts: (its number for mallopt, see malloc.h; the value).
SETTINGS = {
    "MALLOC_ARENA_MAX": (-8, 2),
    # Blocks from this size on come from the system and go back when they are freed.
    "MALLOC_MMAP_THRESHOLD_": (-3, 1 << 20),
    # Bytes at the end of the heap that are kept: a few responses.
    "MALLOC_TRIM_THRESHOLD_": (-1, 8 << 20),
}
"""Values set by the operator are kept."""
_LINUX = sys.platform.startswith("linux")
FORGET_SECONDS = 15.0
"""Seconds after a new build was put into service."""


def set_up_malloc() -> None:
    """Set up this process, and those it will start; without glibc this does nothing."""
    if not _LINUX:
        return
    mallopt = _libc("mallopt")
    for variable, (number, value) in SETTINGS.items():
        if variable not in os.environ:
            os.environ[variable] = str(value)
            if mallopt is not None:
                mallopt(number, value)


def _libc(function: str) -> Any:
    """Return a function of glibc; None where the C library is another one that lacks it."""
    return getattr(ctypes.CDLL(None), function, None) if _LINUX else None


def forget_soon() -> None:
    """Collect what a replaced build has left, when the requests that began with it have ended.

    Its maps are few objects of many megabytes: Python, which counts objects, would not look for hours.
    Then two builds were open for a while, and the C library keeps the holes between what is left of both:
    they are given back.
    """

    def work() -> None:
        gc.collect()
        trim = _libc("malloc_trim")
        if trim is not None:
            trim(0)

    timer = threading.Timer(FORGET_SECONDS, work)
    timer.daemon = True
    timer.start()
