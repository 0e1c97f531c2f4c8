"""Tables that the benchmarks print, and the planet they measure on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catalog_builder.grid import rasters
from catalog_builder.items import npy_size, scales_size

YEARS = tuple(range(2017, 2026))


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    print(f"\n{title}\n", line(cells[0]), rule, *map(line, cells[1:]), sep="\n")


def write_planet(path: Path, rows: range, cols: range, years: Sequence[int] = YEARS) -> int:
    """Write a synthetic ``manifest.parquet`` as geotessera 0.10 does, every tile of a block of the grid.

    Returns the number of tile-years.
    """
    prefix = "s3://tessera/tessera/npy/v1"
    writer: pq.ParquetWriter | None = None
    row, col = (a.ravel() for a in np.meshgrid(np.array(rows), np.array(cols), indexing="ij"))
    raster = rasters(row, col)
    lat, lon = (row * 10 - 8995) / 100, (col * 10 - 17995) / 100
    for year in years:
        names = pa.compute.binary_join_element_wise(
            "grid", _decimals(lon), _decimals(lat), "_", null_handling="skip"
        )
        folder = pa.compute.binary_join_element_wise(prefix, str(year), names, "/")
        n = len(row)
        table = pa.table(
            {
                "version": pa.repeat("1.0", n),
                "variant": pa.repeat("vultr", n),
                "year": pa.repeat(year, n),
                "lon": lon,
                "lat": lat,
                "lon_i": (col * 10 - 17995).astype(np.int32),
                "lat_i": (row * 10 - 8995).astype(np.int32),
                "directory": folder,
                "grid_path": pa.compute.binary_join_element_wise(folder, names, "/").cast(pa.string()),
                "grid_size": npy_size(raster.height, raster.width),
                "scales_size": scales_size(raster.height, raster.width),
                "grid_mtime": pa.repeat(pa.scalar(1_755_000_000, pa.timestamp("s", tz="UTC")), n),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=100_000)
    if writer is not None:
        writer.close()
    return len(row) * len(years)


def _decimals(values: np.ndarray) -> pa.Array:
    """Return numbers as text with two decimals, fast."""
    hundredths = np.rint(values * 100).astype(np.int64)
    distinct, at = np.unique(hundredths, return_inverse=True)
    return pa.array([f"{v / 100:.2f}" for v in distinct.tolist()]).take(pa.array(at))
