"""Float32 views as GDAL 3.6, 3.10 and 3.12 read them, of every container, from the server and from the disk.

GDAL 3.6 is Debian 12's, with its QGIS. It has no Int8: what it reads must be right, or refused.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from pystac_client import Client

from tests.conftest import SUPPORT, plain_environment
from tests.support.containers import UNCONVERTED, YEAR, Contained, ContainedIn
from tests.support.converted import FIRST, Converted, converted
from tests.support.forked import run_script
from tests.support.needs import program, require_qgis
from tests.support.pixels import cog, same

WINDOW = (90, 500, 64, 48)
"""Column, row, width, height: over the edges of blocks."""
BAND = 5
"""Counted from 0."""
VIEWS = ("cog", "cog file", *UNCONVERTED)
WAYS = (*VIEWS, "cog band", *(pytest.param(f"{p.values[0]} band", marks=p.marks) for p in UNCONVERTED))
"""By container: the item's view of all bands, from the server or beside the COGs, or that of one band."""


@dataclass(frozen=True)
class View:
    """What GDAL opens."""

    path: str
    number: int
    """Of :data:`BAND` in it."""
    of: Contained

    @property
    def is_beside_cogs(self) -> bool:
        return not self.path.startswith("/vsicurl/")

    def exact(self) -> npt.NDArray[np.float64]:
        """Return the window of one band in double, where a code times a scale is exact."""
        x, y, width, height = WINDOW
        rows, columns = slice(y, y + height), slice(x, x + width)
        if self.of.container == "cog":
            with rasterio.open(cog(converted(), FIRST, YEAR, "embeddings.tif")) as src:
                codes = src.read(BAND + 1)[rows, columns]
            with rasterio.open(cog(converted(), FIRST, YEAR, "scales.tif")) as src:
                scales = src.read(1)[rows, columns]
        else:
            arrays = self.of.arrays[FIRST]
            codes, scales = arrays[0][rows, columns, BAND], arrays[1][rows, columns]
        values: npt.NDArray[np.float64] = codes.astype(np.float64) * scales.astype(np.float64)
        assert np.isfinite(values).any()
        return values


@pytest.fixture(params=WAYS)
def view(request: pytest.FixtureRequest, contained_in: ContainedIn) -> View:
    """Return each view of the first tile."""
    container, _, kind = request.param.partition(" ")
    contained = contained_in(container)
    if kind == "file":
        return View(str(cog(converted(), FIRST, YEAR, "f32.vrt")), BAND + 1, contained)
    bands = {"view": "bands"} if kind == "band" else None
    client = Client.open(f"{contained.server.url}/", parameters=bands)
    item = next(client.search(ids=[f"{FIRST.name}_{YEAR}"]).items())
    asset = item.assets[f"b{BAND:03d}" if bands else "embeddings_f32"]
    return View(f"/vsicurl/{asset.href}", 1 if bands else BAND + 1, contained)


def read(python: Path, path: str, out: Path, *reads: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    environment = plain_environment(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    script = SUPPORT / "gdal_reader.py"
    done = run_script(python, script, path, out, json.dumps(reads), environment=environment)
    assert done.returncode == 0, done.stderr
    with np.load(out) as saved:
        return [saved[str(i)] for i in range(len(saved))], json.loads(done.stdout)


def test_buffers(view: View, any_gdal: Path, tmp_path: Path) -> None:
    """Bit for bit in float32 and float64, rounded in int16, and the same in complex buffers."""
    kinds = ("float32", "float64", "int16", "complex64", "complex128")
    reads = [{"window": WINDOW, "bands": [view.number], "dtype": kind} for kind in kinds]
    found, about = read(any_gdal, view.path, tmp_path / "out.npz", *reads)
    wanted = view.exact()
    assert (about["shape"], about["dtypes"], about["epsg"]) == ([*FIRST.raster().shape], ["float32"], 32633)
    assert about["transform"] == list(FIRST.raster().transform)[:6]
    for kind, array in zip(kinds, found, strict=True):
        if kind == "int16":
            halves = np.nan_to_num(wanted + np.copysign(0.5, wanted))
            assert np.array_equal(array[0], np.trunc(halves).astype(np.int16))
        else:
            assert same(array[0].real, wanted.astype(array.real.dtype)), kind
            assert not array.imag.any()


@pytest.mark.parametrize("view", VIEWS, indirect=True)
def test_all_bands(view: View, any_gdal: Path, tmp_path: Path) -> None:
    (found,), _ = read(any_gdal, view.path, tmp_path / "out.npz", {"window": WINDOW})
    x, y, width, height = WINDOW
    assert same(found, view.of.values(FIRST)[:, y : y + height, x : x + width])


def test_commands_of_the_distribution(view: View, gdal36: Path, tmp_path: Path) -> None:
    """Complex values are read by gdallocationinfo, by gdal_translate the type that it is to write."""
    path, number = view.path, view.number
    x, y, width, height = WINDOW
    wanted = view.exact()
    row, column = np.argwhere(np.isfinite(wanted) & (wanted < 0))[0]

    def run(name: str, *arguments: str) -> str:
        command = [program(name, "gdal-bin"), *arguments]
        done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = run("gdallocationinfo", "-valonly", "-b", str(number), path, str(x + column), str(y + row))
    assert float(shown) == pytest.approx(wanted[row, column], rel=1e-14)
    for kind, dtype in (("Float32", "<f4"), ("Float64", "<f8")):
        out = tmp_path / f"{kind}.img"
        window = map(str, WINDOW)
        arguments = ("-q", "-of", "ENVI", "-ot", kind, "-b", str(number), "-srcwin", *window, path, str(out))
        run("gdal_translate", *arguments)
        assert same(np.fromfile(out, dtype).reshape(height, width), wanted.astype(dtype)), kind
    report = json.loads(run("gdalinfo", "-json", path))
    assert report["bands"][number - 1]["type"] == "Float32"
    assert report["bands"][number - 1]["description"] == f"Tessera_Band_{BAND}"


def test_qgis_of_the_distribution(view: View, gdal36: Path, tmp_path: Path) -> None:
    """A window as it is, and the whole tile zoomed out: the overview of a COG."""
    require_qgis(gdal36)
    path = view.path
    if view.is_beside_cogs:  # QGIS writes statistics and histograms into a VRT that it may write
        copied = shutil.copytree(Path(path).parent, tmp_path / "tile")
        path = str(copied / Path(path).name)
    out = tmp_path / "out.npz"
    command = [str(c) for c in (gdal36, SUPPORT / "qgis_reader.py", path, out, view.number, *WINDOW, 2)]
    environment = plain_environment(QT_QPA_PLATFORM="offscreen", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3.22.")
    with np.load(out) as saved:
        window, reduced = saved["window"], saved["reduced"]
    assert same(window, view.exact().astype(np.float32))
    if view.of.container != "cog":
        return  # published arrays have no overviews: which pixels are taken is up to QGIS
    with rasterio.open(cog(converted(), FIRST, YEAR, "embeddings.tif"), overview_level=0) as src:
        codes = src.read(BAND + 1)
    with rasterio.open(cog(converted(), FIRST, YEAR, "scales.tif"), overview_level=0) as src:
        scales = src.read(1)
    assert same(reduced, codes.astype(np.float32) * scales)


def test_int8_on_gdal_36(tiles: Converted, gdal36: Path, tmp_path: Path) -> None:
    """Codes of a COG are unsigned there, and said to be signed; scales and colours are what they are."""
    codes, about = read(gdal36, str(cog(tiles, FIRST, 2024, "embeddings.tif")), tmp_path / "out.npz", {})
    with rasterio.open(cog(tiles, FIRST, 2024, "embeddings.tif")) as src:
        assert np.array_equal(codes[0].view(np.int8), src.read())
    assert (about["dtypes"], about["pixeltype"]) == (["byte"], "SIGNEDBYTE")
    for name in ("scales.tif", "visual.tif"):
        path = cog(tiles, FIRST, 2024, name)
        (found,), _ = read(gdal36, str(path), tmp_path / "out.npz", {})
        with rasterio.open(path) as src:
            assert same(found, src.read()), name
