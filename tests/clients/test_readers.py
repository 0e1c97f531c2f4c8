"""A matrix of readers: each reads pixels of a tile in each container, or items, exactly or not.

What each does is the table in ``docs/clients.md``. ``READERS_WRITE=1`` writes it anew; without it a table
that is no longer true fails. A wrong value without an error is accepted only where :data:`WRONG` names it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from shapely.geometry import shape

from tests.conftest import SUPPORT, plain_environment
from tests.support.containers import ContainedIn
from tests.support.converted import COLLECTION, FIRST, Converted
from tests.support.environments import environment, node_environment
from tests.support.forked import run_script
from tests.support.http_server import Server
from tests.support.needs import distribution_gdal, program
from tests.support.pixels import cog, same, tile_values

pytestmark = pytest.mark.xdist_group("readers")

HERE = Path(__file__).parent / "readers"
DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- readers: made by tests/clients/test_readers.py -->\n", "<!-- end of readers -->\n"
WINDOW = (90, 500, 64, 48)
"""Column, row, width, height: over the edges of blocks."""

GDALS = ("GDAL 3.6", "GDAL 3.10", "GDAL 3.12")
TIFF_READERS = ("tifffile", "async-geotiff", "virtual-tiff")
PIXEL_READERS = (*GDALS, "rioxarray", *TIFF_READERS, "geotiff.js")
UNCONVERTED = ("npy", "zarr", "icechunk")
ASSETS = ("embeddings", "scales", "embeddings_f32", "embeddings_f32_window", *UNCONVERTED)
"""Of the converted tile; by container, the float32 view of it unconverted, which is one for both keys."""
ITEM_READERS = {
    "pystac": "items of the API",
    "pystac-client": "search of the API",
    "rustac": "search of the API, items.parquet",
    "stac-geoparquet": "items.parquet",
    "geopandas": "items.parquet, and a folder of them",
    "dask-geopandas": "a folder of items.parquet",
    "lonboard": "items.parquet as a layer",
    "duckdb": "a folder of items.parquet",
}

_NOT_A_TIFF = "no: not a TIFF"
REFUSALS = {
    **{(reader, asset): ("not a TIFF file", _NOT_A_TIFF) for reader in ("tifffile",) for asset in ASSETS[2:]},
    **{
        (reader, asset): ("unexpected magic bytes", _NOT_A_TIFF)
        for reader in ("async-geotiff", "virtual-tiff")
        for asset in ASSETS[2:]
    },
    **{("geotiff.js", asset): ("Invalid byte order value", _NOT_A_TIFF) for asset in ASSETS[2:]},
    ("GDAL 3.6", "embeddings_f32_window"): (
        "unrecognized subclass 'VRTProcessedRasterBand'",
        "no: needs GDAL 3.9",
    ),
}
"""What is refused, by which error, and what the table says of it."""
WRONG = {
    ("GDAL 3.6", "embeddings"): "codes as unsigned bytes, `PIXELTYPE=SIGNEDBYTE`",
}
"""What is read otherwise than it is, without an error, and is no fault of the file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reader made of an asset or of the items."""

    version: str = ""
    found: Any = None
    error: str = ""
    """All that it printed, where it failed."""


Key = tuple[str, str]
"""Reader, and asset or ``items``."""


def _run(*command: object) -> tuple[str, str]:
    """Return what a program printed and, if it failed, all that it said."""
    environment = plain_environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    arguments = [str(c) for c in command]
    return _said(subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300))


def _run_script(python: Path, script: Path, *arguments: object) -> tuple[str, str]:
    environment = plain_environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    return _said(run_script(python, script, *arguments, environment=environment))


def _said(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    ended = f"{done.stdout}{done.stderr}(exit code {done.returncode})"
    return done.stdout, "" if done.returncode == 0 else ended


def _by_gdal(python: Path, url: str, out: Path) -> Outcome:
    script = SUPPORT / "gdal_reader.py"
    said, error = _run_script(python, script, f"/vsicurl/{url}", out, json.dumps([{"window": WINDOW}]))
    if error:
        return Outcome(error=error)
    with np.load(out) as saved:
        return Outcome(json.loads(said)["gdal"], saved["0"])


def _by_python(python: Path, reader: str, url: str, out: Path) -> Outcome:
    said, error = _run_script(python, HERE / "pixels.py", reader, url, out, *WINDOW)
    return Outcome(error=error) if error else Outcome(said.split()[-1], np.load(out))


def _by_node(home: Path, url: str, out: Path, dtype: str) -> Outcome:
    said, error = _run(program("node", "nodejs"), home / "pixels.mjs", url, out, *WINDOW)
    if error:
        return Outcome(error=error)
    return Outcome(said.strip(), np.fromfile(out, dtype).reshape(-1, WINDOW[3], WINDOW[2]))


def _items(python: Path, reader: str, server: Server, tiles: Converted) -> Outcome:
    folder = tiles.catalog / COLLECTION / "items"
    said, error = _run_script(python, HERE / "items.py", reader, server.url, folder)
    return Outcome(error=error) if error else Outcome(*json.loads(said.splitlines()[-1]))


@pytest.fixture(scope="module")
def outcomes(
    server: Server, tiles: Converted, contained_in: ContainedIn, tmp_path_factory: pytest.TempPathFactory
) -> dict[Key, Outcome]:
    """Run every reader once."""
    folder = tmp_path_factory.mktemp("readers")
    python, node = environment(HERE / "readers.lock"), node_environment(HERE / "js")
    gdals = dict(
        zip(
            GDALS,
            (distribution_gdal(), environment(SUPPORT / "gdal310.lock"), Path(sys.executable)),
            strict=True,
        )
    )
    urls = _urls(server, contained_in)

    def pixels(key: Key) -> Outcome:
        reader, asset = key
        url, out = urls[asset], folder / re.sub(r"\W", "_", f"{reader}_{asset}")
        if reader in gdals:
            return _by_gdal(gdals[reader], url, out.with_suffix(".npz"))
        if reader == "geotiff.js":
            return _by_node(node, url, out, "i1" if asset == "embeddings" else "<f4")
        return _by_python(python, reader, url, out.with_suffix(".npy"))

    def one(key: Key) -> Outcome:
        return _items(python, key[0], server, tiles) if key[1] == "items" else pixels(key)

    keys = [(r, a) for r in PIXEL_READERS for a in ASSETS] + [(r, "items") for r in ITEM_READERS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(keys, pool.map(one, keys), strict=True))


def _urls(server: Server, contained_in: ContainedIn) -> dict[str, str]:
    def assets(of: Server) -> dict[str, Any]:
        (item,) = httpx.get(f"{of.url}/search", params={"ids": f"{FIRST.name}_2024"}).json()["features"]
        found: dict[str, Any] = item["assets"]
        return found

    urls = {name: asset["href"] for name, asset in assets(server).items() if name in ASSETS[:4]}
    for container in UNCONVERTED:
        views = assets(contained_in(container).server)
        (urls[container],) = {views[name]["href"] for name in ASSETS[2:4]}
    return urls


@pytest.fixture(scope="module")
def wanted(server: Server, tiles: Converted, contained_in: ContainedIn) -> Mapping[str, Any]:
    """Return what is right: pixels by numpy and rasterio on the files, bounds by shapely on the JSON."""
    x, y, width, height = WINDOW
    rows, columns = slice(y, y + height), slice(x, x + width)
    features = httpx.get(f"{server.url}/collections/{COLLECTION}/items?limit=100").json()["features"]

    def stored(name: str) -> npt.NDArray[Any]:
        with rasterio.open(cog(tiles, FIRST, 2024, name)) as src:
            return src.read()[:, rows, columns]  # type: ignore[no-any-return]

    return {
        "embeddings": stored("embeddings.tif"),
        "scales": stored("scales.tif"),
        **dict.fromkeys(ASSETS[2:4], tile_values(tiles, FIRST, 2024)[:, rows, columns]),
        **{c: contained_in(c).values(FIRST)[:, rows, columns] for c in UNCONVERTED},
        "items": {f["id"]: [*shape(f["geometry"]).bounds, f["properties"]["tessera:year"]] for f in features},
    }


def _is_right(found: Any, right: Any) -> bool:
    return same(found, right) if isinstance(right, np.ndarray) else bool(found == right)


def test_the_converted_tile_is_the_published_one(tiles: Converted, wanted: Mapping[str, Any]) -> None:
    """So that files that were written wrongly do not agree with themselves."""
    folder = tiles.embeddings / "2024" / FIRST.name
    codes = np.load(folder / f"{FIRST.name}.npy", mmap_mode="r")
    scales = np.load(folder / f"{FIRST.name}_scales.npy", mmap_mode="r")
    x, y, width, height = WINDOW
    rows, columns = slice(y, y + height), slice(x, x + width)
    valid = ~np.isnan(wanted["scales"][0])
    assert valid.mean() > 0.5
    assert np.array_equal(wanted["embeddings"][:, valid], np.moveaxis(codes[rows, columns], -1, 0)[:, valid])
    assert np.array_equal(wanted["scales"][0][valid], scales[rows, columns][valid])


@pytest.mark.parametrize("asset", ASSETS)
@pytest.mark.parametrize("reader", PIXEL_READERS)
def test_pixels(outcomes: dict[Key, Outcome], wanted: Mapping[str, Any], reader: str, asset: str) -> None:
    _judge(outcomes, wanted, (reader, asset))


@pytest.mark.parametrize("reader", ITEM_READERS)
def test_items(outcomes: dict[Key, Outcome], wanted: Mapping[str, Any], reader: str) -> None:
    _judge(outcomes, wanted, (reader, "items"))


def _judge(outcomes: dict[Key, Outcome], wanted: Mapping[str, Any], key: Key) -> None:
    outcome = outcomes[key]
    if key in REFUSALS:
        assert REFUSALS[key][0] in outcome.error
        return
    assert not outcome.error
    if key in WRONG:
        assert np.array_equal(outcome.found.view(np.int8), wanted[key[1]])  # the same bytes, another type
        assert outcome.found.dtype == np.uint8
        return
    assert _is_right(outcome.found, wanted[key[1]])


def _cell(outcomes: dict[Key, Outcome], wanted: Mapping[str, Any], key: Key) -> str:
    if key in REFUSALS:
        return REFUSALS[key][1]
    if key in WRONG:
        return WRONG[key]
    if outcomes[key].error:
        return "**failed**"
    return "exact" if _is_right(outcomes[key].found, wanted[key[1]]) else "**wrong**"


def _version(outcomes: dict[Key, Outcome], reader: str, lock: str) -> str:
    said = next((o.version for (r, _), o in outcomes.items() if r == reader and o.version), "")
    pinned = re.search(rf"^{re.escape(reader)}==(\S+)", lock, re.MULTILINE)
    return said or (pinned[1] if pinned else "?")


def test_the_table(outcomes: dict[Key, Outcome], wanted: Mapping[str, Any]) -> None:
    lock = (HERE / "readers.lock").read_text()
    lines = [
        "| reader | version | `embeddings`, `scales` | `embeddings_f32`, converted"
        " | `embeddings_f32_window`, converted | both, `.npy` | both, Zarr | both, Icechunk |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for reader in PIXEL_READERS:
        codes, scales, *views = (_cell(outcomes, wanted, (reader, asset)) for asset in ASSETS)
        pair = codes if codes == scales else f"{codes}; scales {scales}"
        lines.append(f"| {' | '.join([reader, _version(outcomes, reader, lock), pair, *views])} |")
    lines += ["", "| reader | version | reads | items |", "|---|---|---|---|"]
    for reader, what in ITEM_READERS.items():
        cell = _cell(outcomes, wanted, (reader, "items"))
        lines.append(f"| {reader} | {_version(outcomes, reader, lock)} | {what} | {cell} |")
    table = "\n".join(lines) + "\n"
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    document = f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
    if os.environ.get("READERS_WRITE"):
        DOCUMENT.write_text(document)
    assert DOCUMENT.read_text() == document, "READERS_WRITE=1 pytest tests/clients/test_readers.py"
