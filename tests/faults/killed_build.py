"""Build a catalogue and die by SIGKILL just before its n-th operation on the catalogue's files.

:mod:`tests.faults.forks` runs it, with N, manifests and the catalogue.
With N = 0 nothing happens to it, and it prints the operations, one a line.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.support.catalogs import build_from

WATCHED = {
    "open",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "sqlite3.connect",
}


def main() -> None:
    fatal, manifests, catalog = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    seen = []

    def watch(event: str, args: tuple[object, ...]) -> None:
        if event in WATCHED and any(catalog in str(a) for a in args[:2]):
            seen.append(event)
            if len(seen) == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    build_from(Path(catalog), manifests)
    print("\n".join(seen))
