"""The coverage map as a web page: served by the API, or as one self-contained file.

The file contains the grid of years: every cell's set of years as an index into the sets that
occur, deflated, about 100 kB for the planet. The page is ``web/coverage.html`` with its style and its
scripts inserted; it loads nothing from other hosts.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from catalog_builder.catalog.coverage.picture import ALPHA, COLORS
from catalog_builder.catalog.coverage.table import Cells, touching
from catalog_builder.catalog.coverage.tiles import (
    ELSEWHERE,
    ELSEWHERE_ALPHA,
    LEVELS,
    LINES_FROM,
    MAX_ZOOM,
    CoverageGrid,
)
from catalog_builder.errors import QueryError
from catalog_builder.storage import write_atomic
from catalog_builder.tile.years import COVERAGE_NAMES, Masks

_WEB = Path(__file__).parents[2] / "web"


def coverage_html(
    target: str | Path,
    layers: Sequence[tuple[str, str, CoverageGrid]],
) -> None:
    """Write the coverage map of collections as one HTML file.

    Parameters
    ----------
    target
        Path or s3:// URL, written atomically.
    layers
        Id, title and grid of each collection.

    Raises
    ------
    QueryError
        If there is no collection.
    """
    if not layers:
        raise QueryError("a coverage map needs at least one collection")
    shown = [{**layer(*one), "grid": embedded(one[2])} for one in layers]
    with write_atomic(target) as file:
        file.write_text(coverage_page(shown))


def coverage_page(layers: Sequence[dict[str, Any]], links: str = "") -> str:
    """Return the page.

    Parameters
    ----------
    layers
        The result of :func:`layer` for each collection, with ``grid`` (see :func:`embedded`), or with
        ``tiles`` and ``at``: URLs of the map tiles, and of the tile at a point.
    links
        HTML below the legend.
    """
    config = {
        "collections": layers,
        "maxZoom": MAX_ZOOM,
        "levels": LEVELS,
        "linesFrom": LINES_FROM,
        "colors": [*((*COLORS[name], ALPHA) for name in COVERAGE_NAMES), (*ELSEWHERE, ELSEWHERE_ALPHA)],
    }
    return fill_page("coverage.html", COVERAGE_PARTS, config, links)


def fill_page(name: str, parts: Sequence[str], config: dict[str, Any], links: str = "") -> str:
    """Return a page of ``web/`` with its parts and its configuration inserted, and what it may load."""
    page = _with_parts(name, *parts)
    page = page.replace("<!--{policy}-->", f'<meta http-equiv="{POLICY}" content="{content_policy(page)}">')
    # In a script element only "</" and "<!--" end or change what follows.
    said = orjson.dumps(config).decode().replace("<", "\\u003c")
    return page.replace("/*{config}*/", said).replace("<!--{links}-->", links)


POLICY = "Content-Security-Policy"
COVERAGE_PARTS = ("style.css", "map.js", "coverage.js")


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of one of our pages: its own scripts and styles, and no others.

    Parameters
    ----------
    page
        The page as we wrote it: before anything of a catalogue or a request is inserted, which must not
        become a script that is allowed.
    """

    def digests(element: str) -> str:
        found = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        sums = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        return " ".join(f"'sha256-{each}'" for each in sums) or "'none'"

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')};"
        " img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


@cache
def coverage_policy() -> str:
    """Return the policy of :func:`coverage_page`, for the header of a response."""
    return content_policy(_with_parts("coverage.html", *COVERAGE_PARTS))


@cache
def _with_parts(name: str, *parts: str) -> str:
    page = _read(name)
    for part in parts:
        page = page.replace(f"/*{{{part}}}*/", _read(part))
    return page


@cache
def _read(name: str) -> str:
    return (_WEB / name).read_text()


def layer(cid: str, title: str, grid: CoverageGrid) -> dict[str, Any]:
    """Return the page's configuration for a collection, apart from its grid or its tiles."""
    return {
        "id": cid,
        "title": title,
        "years": list(grid.years),
        "bounds": list(grid.bounds),
        "counts": grid.counts,
    }


def embedded(grid: CoverageGrid) -> dict[str, Any]:
    """Return a grid to embed in a page: the part with tiles, deflated, as base64."""
    rows = np.flatnonzero(grid.masks.any(axis=1))
    cols = np.flatnonzero(grid.masks.any(axis=0))
    if not len(rows):
        raise QueryError("there is no tile to show")
    part = grid.masks[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    masks, index = np.unique(part, return_inverse=True)
    wide = len(masks) > 256
    values = index.astype("<u2" if wide else "u1").reshape(part.shape)
    return {
        "row0": int(rows[0]),
        "col0": int(cols[0]),
        "rows": part.shape[0],
        "cols": part.shape[1],
        "masks": masks.tolist(),
        "wide": wide,
        "data": base64.b64encode(zlib.compress(values.tobytes(), 9)).decode(),
    }


def grid_of(cell: Cells, mask: Masks, years: Sequence[int], region: Any = None) -> CoverageGrid:
    """Return the grid of some tiles, restricted to those that touch a region if one is given."""
    if region is not None:
        keep = touching(cell, region)
        cell, mask = cell[keep], mask[keep]
    return CoverageGrid(cell, mask, years)
