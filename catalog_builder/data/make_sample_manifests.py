"""Cut the sample manifests out of geotessera's own: ``python -m … SOURCE [TARGET]``.

SOURCE is a folder with ``registry_<year>.txt`` of geotessera 0.1.0, plain or compressed. The lines are
copied as they are; the output is the same byte for byte wherever it is made.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from catalog_builder.storage import write_atomic
from catalog_builder.tile.grid import Bounds, TileId

BOX = Bounds(-11.0, 49.0, 2.0, 61.0)
"""Britain and Ireland: west, south, east, north in degrees."""
YEARS = range(2017, 2025)
TARGET = Path(__file__).parent / "sample-manifests"

_LINE = re.compile(rb"(\d{4})/(grid_[-.\d]+_[-.\d]+)/\2(?:_scales)?\.npy [0-9a-f]{64}\n")

_PROVENANCE = """\
# Sample manifests

Real tile manifests of TESSERA v1 (version 1.0, variant vultr): every tile-year of 2017 to 2024 whose
0.1 degree cell lies inside longitude {west:g} to {east:g}, latitude {south:g} to {north:g}: Britain and
Ireland.

- **Source**: the files `registry_<year>.txt` that the Python package geotessera 0.1.0 (July 2025,
  https://github.com/ucam-eo/geotessera, ISC licence) carries.
- **What they list**: the embeddings of the TESSERA project (https://github.com/ucam-eo/tessera), CC0-1.0.
- **How they were cut**: lines copied unchanged, in their order, by
  `python -m catalog_builder.data.make_sample_manifests SOURCE`; xz, preset 9 extreme. Running it again gives
  the same bytes.
- **Not later**: TESSERA v1 was republished under the same name in August 2025 (geotessera issue 324), and
  has grown since. The hashes are those of July 2025.

| file | tile-years | SHA-256 |
|---|---|---|
{rows}
| **all** | **{total:,}** | |
"""


def lines_inside(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the registry lines whose tile's cell lies inside :data:`BOX`.

    Raises
    ------
    ValueError
        At a line that is not a registry's.
    """
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"expected '<path> <sha256>', found {line!r}")
        cell = TileId.from_name(match[2].decode()).bounds
        if (
            cell.west >= BOX.west
            and cell.east <= BOX.east
            and cell.south >= BOX.south
            and cell.north <= BOX.north
        ):
            yield line


def make(source: Path, target: Path = TARGET) -> int:
    """Write the sample of every year and ``PROVENANCE.md``; return the number of tile-years."""
    rows, total = [], 0
    for year in YEARS:
        plain = source / f"registry_{year}.txt"
        compressed = plain.with_name(f"{plain.name}.xz")
        with lzma.open(compressed) if compressed.exists() else plain.open("rb") as file:
            kept = list(lines_inside(iter(file)))
        name = compressed.name
        data = lzma.compress(b"".join(kept), preset=9 | lzma.PRESET_EXTREME)
        with write_atomic(target / name) as path:
            path.write_bytes(data)
        rows.append(f"| `{name}` | {len(kept) // 2:,} | `{hashlib.sha256(data).hexdigest()}` |")
        total += len(kept) // 2
    text = _PROVENANCE.format(**BOX._asdict(), rows="\n".join(rows), total=total)
    with write_atomic(target / "PROVENANCE.md") as path:
        path.write_text(text, encoding="utf-8")
    return total


if __name__ == "__main__":
    print(f"{make(*map(Path, sys.argv[1:])):,} tile-years")
