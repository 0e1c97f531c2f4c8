"""The arithmetic of docs/scale.md: its tables, from measured figures; ``python docs/scale.py`` writes them.

A table stands in the page between two marks of its name; the prose around it is written by hand. A test
keeps the page and this file in agreement, and the size of a mean tile with the grid's own formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("scale.md")

# ---- what there is (tests/scale/land.py, the grid)
CELLS = 1_598_871
"""Cells of 0.1 degree that touch land, without Antarctica."""
N_YEARS = 9
"""2017 to 2025."""
TILE_YEARS = CELLS * N_YEARS
MEAN_PIXELS = 898_130
"""Mean pixels of their rasters."""
PAIR = 132 * MEAN_PIXELS + 256
"""Bytes of a mean pair: 128 codes and a scale of 4 bytes per pixel, two headers of 128."""
KNOWN = {"v1": 1_755_251, "v1.1-cam": None, "v2-2B-L~beta1": None, "v2-2B-L~beta2": None}
"""Tile-years that upstream has said to be published (geotessera issue 161, January 2026); None: a part
whose size is not said."""

# ---- measured: the converter (README, test_convert.py)
TEST_PIXELS = 1139 * 729
"""Of the tile that the converter is measured on."""
COG_SHARE = 0.90
"""COGs, of the pair."""
COG_MB, GEOTIFF_MB = 98, 341
"""The same tile's COGs, and geotessera's float32 GeoTIFF of it."""
CPU_NPY, CPU_GEOTIFF = 0.66, 3.3
"""CPU seconds of a conversion."""

# ---- measured: the planet (tests/bench/test_planet.py)
PLANET_ROWS = 14_364_024
INDEX, PARQUET, STATE = 25.9, 71.5, 12.0
"""Bytes a tile-year: the index, stac-geoparquet, what the next build compares with."""
BUILD_CPU, BUILD_PEAK_MB = 127, 1_391
"""CPU seconds and memory of a build."""
WORKER_MB = 112
"""A worker's own memory with the planet."""

# ---- measured: a converted tile-year beside its pixels
LEDGER, INDEX_COG, PARQUET_COG = 4_926, 2_778, 4_288
"""Bytes in the ledger, and what index and stac-geoparquet then hold of it (44,907 of them)."""
PGSTAC = 1_715
"""Bytes of an item in pgSTAC, indexes and all (49,409 of them)."""

# ---- measured: reading (README, test_http.py)
READS = {
    # what: (GETs, MB) of one tile-year
    "pixel": (2, 1.65),
    "raw pixel": (7, 0.13),
    "window": (4, 13.3),
    "3 bands": (163, 0.020 * COG_MB),
    "overview": (7, 0.16),
}
DEGREE, COUNTRY = 100, 5_499
"""Tiles of 1 x 1 degree, and of Britain and Ireland (the cells of land between 11 W, 49 N, 2 E, 61 N)."""
REAL_DATASETS = len(KNOWN)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def size(n: float) -> str:
    """Return bytes for people."""
    for unit, step in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= step:
            return f"{n / step:,.0f} {unit}" if n >= 100 * step else f"{n / step:,.3g} {unit}"
    return f"{n / 1e3:,.3g} kB"


def datasets() -> str:
    """Tile-years of every dataset: what is known, and what is assumed."""
    rows = [
        [
            f"`{name}`",
            f"{known:,}" if known else "in part, size not stated",
            f"{TILE_YEARS:,}",
            size(TILE_YEARS * PAIR),
        ]
        for name, known in KNOWN.items()
    ]
    total = TILE_YEARS * REAL_DATASETS
    rows.append(["all four", "", f"{total:,}", size(total * PAIR)])
    return table(["dataset", "published (known)", "complete (assumed)", "its .npy pairs"], rows)


def disk() -> str:
    """Disk, for what is published of v1, one complete dataset, and all four."""
    known = KNOWN["v1"] or 0
    kinds = (
        ("source, .npy pairs", PAIR),
        ("COGs, native", PAIR * COG_SHARE),
        ("float32 GeoTIFF, as geotessera exports", PAIR * COG_SHARE * GEOTIFF_MB / COG_MB),
        ("catalogue before conversion: index", INDEX),
        ("catalogue before conversion: stac-geoparquet", PARQUET),
        ("catalogue of converted tiles: index", INDEX + INDEX_COG),
        ("catalogue of converted tiles: stac-geoparquet", PARQUET_COG),
        ("conversion ledger", LEDGER),
        ("pgSTAC instead", PGSTAC),
    )
    return table(
        ["data", "bytes per tile-year", "v1 as published", "one dataset, complete", "all four, complete"],
        [
            [what, f"{each:,.0f}", *(size(each * n) for n in (known, TILE_YEARS, TILE_YEARS * REAL_DATASETS))]
            for what, each in kinds
        ],
    )


def conversion() -> str:
    """Core-hours, days and input and output."""
    scale = MEAN_PIXELS / TEST_PIXELS
    rows = []
    for what, cpu, read in (
        ("from .npy", CPU_NPY, PAIR),
        ("from GeoTIFF", CPU_GEOTIFF, PAIR * COG_SHARE * GEOTIFF_MB / COG_MB),
    ):
        hours = TILE_YEARS * cpu * scale / 3600
        for cores in (16, 128, 1024):
            per_second = cores / (cpu * scale)
            rows.append(
                [
                    what,
                    f"{hours:,.0f}",
                    f"{hours * REAL_DATASETS:,.0f}",
                    f"{cores:,}",
                    f"{hours / cores / 24:,.1f}",
                    f"{hours * REAL_DATASETS / cores / 24:,.1f}",
                    f"{size(per_second * read)}/s",
                    f"{size(per_second * PAIR * COG_SHARE)}/s",
                ]
            )
    head = ["", "core-hours, one", "all four", "cores", "days, one", "days, all four", "read", "written"]
    return table(head, rows)


def egress() -> str:
    """Bytes and requests of questions, by ranges and by whole tiles."""
    questions = (
        ("1 pixel, 128 bands, 9 years", 9, "pixel", "raw pixel"),
        ("1,000 labelled points in 1,000 tiles, one year", 1_000, "pixel", "raw pixel"),
        ("a window of 256 x 256, 128 bands, one year", 1, "window", None),
        ("1 x 1 degree, 3 bands at 1/8, one year", DEGREE, "overview", None),
        ("Britain and Ireland, 3 bands at 1/8, one year", COUNTRY, "overview", None),
        ("Britain and Ireland, 3 bands in full, one year", COUNTRY, "3 bands", None),
        ("Britain and Ireland, everything, one year", COUNTRY, None, None),
    )
    rows = []
    for what, tiles, cog, raw in questions:
        whole = tiles * PAIR
        gets, read = (2, PAIR * COG_SHARE / 1e6) if cog is None else READS[cog]
        if cog == "3 bands":
            read *= MEAN_PIXELS / TEST_PIXELS
        cell = [what, f"{size(whole)}, {2 * tiles:,}", f"{size(tiles * read * 1e6)}, {tiles * gets:,}"]
        if raw is None:
            cell.append("")
        else:
            cell.append(f"{size(tiles * READS[raw][1] * 1e6)}, {tiles * READS[raw][0]:,}")
        least = min(read, READS[raw][1] if raw else read)
        cell += [f"{PAIR / 1e6 / least:,.3g}", f"{whole / 1e12:,.3g} p", f"{tiles * least / 1e6:,.3g} p"]
        rows.append(cell)
    head = [
        "question (p: price per TB)",
        "whole .npy pairs: bytes, requests",
        "COGs by range",
        "published .npy by range",
        "reduction factor",
        "cost, whole tiles",
        "cost, by range",
    ]
    return table(head, rows)


def growth() -> str:
    """One planet, ten and a hundred: each line by its measured slope."""

    def of_each(each: float) -> list[str]:
        return [size(each * k) for k in (1, 10, 100)]

    def of(each: float) -> list[str]:
        return of_each(each * PLANET_ROWS)

    rows = [
        ["tile-years", *(f"{PLANET_ROWS * k:,}" for k in (1, 10, 100))],
        ["source, .npy pairs", *of(PAIR)],
        ["index, nothing converted", *of(INDEX)],
        ["stac-geoparquet, nothing converted", *of(PARQUET)],
        ["index, all converted", *of(INDEX + INDEX_COG)],
        ["stac-geoparquet, all converted", *of(PARQUET_COG)],
        ["ledger, all converted", *of(LEDGER)],
        ["pgSTAC", *of(PGSTAC)],
        ["build from manifests, CPU", *(f"{BUILD_CPU * k / 60:,.0f} min" for k in (1, 10, 100))],
        ["coverage arrays per worker, one per collection", *of_each(4 * 1800 * 3600)],
        ["counts per worker, one per collection and year", *of_each(4 * 180 * 360 * N_YEARS)],
    ]
    return table(["", "1 dataset, 14.4 M", "10 datasets, 144 M", "100 datasets, 1.4 G"], rows)


TABLES: dict[str, Callable[[], str]] = {f.__name__: f for f in (datasets, disk, conversion, egress, growth)}


def filled(text: str) -> str:
    """Return the page with its tables made anew.

    Raises
    ------
    KeyError
        If it has a table that is not known here.
    """

    def one(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", one, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
