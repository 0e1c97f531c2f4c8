"""Make the reference anew: ``python -m tests.unchanged.make``; with ``--check`` only say what differs.

The reference (``reference.json``, ``bodies.json.xz``) is what users got before something was moved. Making
it anew is right in two cases only, and the commit that brings the new one says which:

* What users get was **meant to change**: a message, a link, an asset, a header. The commit names it, and
  what this command lists is that and nothing else.
* The **locked libraries changed** and with them bytes, and our own code did not: made from a checkout
  where the lock is all that differs.

It is wrong where code was moved, renamed, split or sped up: then the test is right, and the code is not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.unchanged.points import python_entries
from tests.unchanged.record import (
    REFERENCE,
    Entries,
    differences,
    read_reference,
    report,
    write_reference,
)
from tests.unchanged.served import REQUESTS, ask_all
from tests.unchanged.world import World


def everything(folder: Path) -> Entries:
    """Make the small demonstration in an empty folder, serve it, and return an entry for all of it."""
    made = World(folder).make()
    return made | python_entries(folder) | ask_all(folder, REQUESTS)


def main() -> int:
    """Make the reference, or compare with it; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="unchanged-") as folder:
        now = everything(Path(folder))
    if REFERENCE.exists():
        made_with, before = read_reference()
        found = differences(before, now)
        print(report(made_with, found) if found else f"{len(now)} things, all as they were")
        if "--check" in sys.argv[1:]:
            return 1 if found else 0
    write_reference(now)
    print(f"{REFERENCE}: {len(now)} things")
    return 0


if __name__ == "__main__":
    sys.exit(main())
