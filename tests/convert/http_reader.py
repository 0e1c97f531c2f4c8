"""Read one access pattern from a COG by URL: ``http_reader.py PATTERN URL``; a fresh process each time.

``window:COL:ROW`` is a window of 256 x 256 pixels there.
"""

from __future__ import annotations

import sys

import rasterio
from rasterio.windows import Window

if __name__ == "__main__":
    pattern, url = sys.argv[1:]
    level = {"overview": {"overview_level": 2}}.get(pattern, {})
    with rasterio.open(f"/vsicurl/{url}", **level) as ds:
        if pattern == "open":
            shape: tuple[int, ...] = ds.shape
        elif pattern == "pixel":
            shape = ds.read(window=Window(431, 702, 1, 1)).shape
        elif pattern == "field":  # over the corner of four blocks
            shape = ds.read(window=Window(48, 118, 30, 25)).shape
        elif pattern.startswith("window:"):
            col, row = map(int, pattern.split(":")[1:])
            shape = ds.read(window=Window(col, row, 256, 256)).shape
        elif pattern == "window":
            shape = ds.read(window=Window(300, 500, 256, 256)).shape
        elif pattern == "aligned":
            shape = ds.read(window=Window(256, 512, 256, 256)).shape
        elif pattern in ("bands", "overview"):
            shape = ds.read(indexes=[3, 40, 90] if ds.count > 1 else [1]).shape
        else:
            shape = ds.read().shape
    print(shape)
