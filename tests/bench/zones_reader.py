"""Read a zone's arrays from a store by URL, with zarr-python and obstore: a script for where these are.

``zones_reader.py URL GROUP TIME ROW COL`` opens the group with its coordinates, then reads 200 single pixels,
a window of 1000 x 1000 pixels and one of 4096 x 4096 from ROW and COL on, all bands and the scales. Prints a
JSON object: seconds and bytes received of each, seconds of the client's processor, and a sum to compare.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import zarr
from obstore.store import HTTPStore
from zarr.storage import ObjectStore, WrapperStore

RECEIVED = 0


class Counted(WrapperStore):  # type: ignore[type-arg]
    """A store that counts what is received."""

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        global RECEIVED  # noqa: PLW0603 - of this script
        found = await super().get(*args, **kwargs)
        RECEIVED += 0 if found is None else len(found)
        return found


def main(url: str, group: str, at: int, row: int, col: int) -> None:
    """Read everything."""
    zarr.config.set({"async.concurrency": 32})
    store = Counted(ObjectStore(HTTPStore.from_url(url, client_options={"allow_http": True}), read_only=True))
    said: dict[str, Any] = {}

    def timed(name: str, read: Any) -> Any:
        before, wall, own = RECEIVED, time.perf_counter(), time.process_time()
        found = read()
        said[name] = [time.perf_counter() - wall, RECEIVED - before, time.process_time() - own]
        return found

    def opened() -> Any:
        zone = zarr.open_group(store, mode="r", use_consolidated=True)[group]
        for name in ("time", "x", "y"):
            zone[name][:]
        return zone

    zone = timed("open", opened)
    codes, scales = zone["embeddings"], zone["scales"]
    rng = np.random.default_rng(17)
    times, total = [], 0
    for r, c in rng.integers(0, 4096, (200, 2)).tolist():
        started = time.perf_counter()
        before = RECEIVED
        vector, has = codes[at, :, row + r, col + c], np.isfinite(scales[at, row + r, col + c])
        total += int(vector.sum(dtype=np.int64)) * int(has) + int(has)
        times.append((time.perf_counter() - started, RECEIVED - before))
    seconds = np.array([t for t, _ in times])
    sizes = np.array([n for _, n in times])
    said["pixel"] = [float(np.median(seconds)), float(np.quantile(seconds, 0.95)), int(sizes.max())]
    for side in (1000, 4096):
        window = np.s_[row : row + side, col : col + side]

        def read(window: Any = window) -> int:
            has, found = np.isfinite(scales[at, *window]), codes[at, :, *window]
            # codes without a scale mean nothing: those of a COG are other ones
            return int((found[:, ::7, ::7] * has[::7, ::7]).sum(dtype=np.int64)) + int(has.sum())

        total += timed(f"{side}", read)
    said["sum"] = total
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
