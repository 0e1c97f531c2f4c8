"""Export a static tree and die by SIGKILL just before its n-th rename.

:mod:`tests.faults.forks` runs it, with N, the catalogue and the folder of the tree.
With N = 0 nothing happens to it, and it prints how many renames there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.static import write_static


def main() -> None:
    fatal, catalog, out = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    seen = 0

    def watch(event: str, _: tuple[object, ...]) -> None:
        nonlocal seen
        # removals count too: the last thing an export does
        if event in ("os.rename", "os.remove"):
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    write_static(out, extracts(CatalogFolder(catalog).open_index()))
    print(seen)
