"""No reader gets a wrong value from a raster that we write, whatever it is written for.

async-tiff undoes predictors of planar files of several bands with the stride of all bands. So every kind of
raster of several bands is read with it (async-geotiff, and lazycogs on top), by GDAL 3.12 and 3.10 and by
tifffile, and compared with the arrays that were written; what is misread is named by ``validate``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine

from catalog_builder.convert.encode.cog import write_cog
from catalog_builder.convert.encode.quantize import dequantize
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.pixels.values import Pixels, Quantized, Values
from catalog_builder.pixels.window import Window
from catalog_builder.tile.datasets import dataset
from catalog_builder.vectors.preview import Preview, write_preview
from catalog_builder.vectors.regions.grid import Grid
from catalog_builder.vectors.regions.write import Mosaic, write
from tests.conftest import SUPPORT, plain_environment
from tests.convert.making import POLAR, YEAR, convert_one, sample, sample_basis, write_pair
from tests.support.environments import environment
from tests.support.forked import run_script

Made = tuple[Path, np.ndarray[Any, Any]]
"""A file and what is in it, (rows, cols, bands)."""


@dataclass(frozen=True)
class _InMemory:
    """A canvas of pixels that are there."""

    pixels: Pixels

    @property
    def is_quantized(self) -> bool:
        return isinstance(self.pixels, Quantized)

    def read(self, window: Window) -> Pixels:
        if isinstance(self.pixels, Quantized):
            return Quantized(self.pixels.codes[window.slices], self.pixels.scales[window.slices])
        return Values(self.pixels.values[window.slices])


@pytest.fixture(scope="module")
def async_python() -> Path:
    """Return the Python of an environment with async-geotiff, made once from its lock."""
    return environment(SUPPORT / "async-geotiff.lock")


def _read(python: Path, script: str, folder: Path, path: Path, reads: list[dict[str, Any]]) -> list[Any]:
    out = folder / "out.npz"
    arguments = (path, out, json.dumps(reads))
    done = run_script(python, SUPPORT / script, *arguments, environment=plain_environment())
    assert not done.returncode, done.stderr
    with np.load(out) as arrays:
        return [arrays[str(i)] for i in range(len(reads))]


def _window(pixels: np.ndarray[Any, Any]) -> tuple[tuple[int, int, int, int], np.ndarray[Any, Any]]:
    """Return (column, row, width, height) across blocks, and what is there, (bands, rows, cols)."""
    width, height = min(200, pixels.shape[1] - 12), 200
    part = pixels[300 : 300 + height, 7 : 7 + width]
    return (7, 300, width, height), part.transpose(2, 0, 1)


def _levels(path: Path) -> list[np.ndarray[Any, Any]]:
    """Return every level of a TIFF, (bands, rows, cols), as tifffile has it."""
    with tifffile.TiffFile(path) as file:
        found = []
        for page in file.pages:
            values = page.asarray()
            if values.ndim == 2:
                values = values[..., None]
            elif page.planarconfig == 2:
                values = values.transpose(1, 2, 0)
            found.append(values.transpose(2, 0, 1))
        return found


# ------------------------------------------------------------------------------- what is written


def _converted(tmp_path: Path, **options: Any) -> LedgerRow:
    row = convert_one(write_pair(tmp_path / "src"), tmp_path / "out", bases=(sample_basis(),), **options).row
    assert row.ok, row.reason
    return row


def _pixels() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a tile's codes and scales as its files have them: without water, and what was not processed."""
    made = sample()
    codes, scales = made.codes.copy(), made.scales.copy()
    empty = ~(scales > 0) | (made.landmask == 0)
    codes[empty], scales[empty] = -128, np.nan
    return codes, scales


def _native(tmp_path: Path) -> Iterator[Made]:
    files = _converted(tmp_path).files
    codes, scales = _pixels()
    yield tmp_path / "out" / files["embeddings"].path, codes
    yield tmp_path / "out" / files["scales"].path, scales[..., None]


def _float32(tmp_path: Path) -> Iterator[Made]:
    file = _converted(tmp_path, profile="float32").files["embeddings"]
    yield tmp_path / "out" / file.path, dequantize(*_pixels())


def _visual(tmp_path: Path) -> Iterator[Made]:
    path = tmp_path / "out" / _converted(tmp_path).files["visual"].path
    yield path, _levels(path)[0].transpose(1, 2, 0)  # tifffile, which undoes predictors rightly


def _got(kind: Any, dtype: str) -> Callable[[Path], Iterator[Made]]:
    def make(tmp_path: Path) -> Iterator[Made]:
        codes, scales = _pixels()
        pixels = Values(dequantize(codes, scales)) if dtype == "float32" else Quantized(codes, scales)
        grid, ds = Grid.of(POLAR.raster()), dataset("synthetic")
        mosaic = Mosaic(grid, tuple(range(128)), YEAR, ds, _InMemory(pixels))
        arrays = [layer.of(pixels) for layer in mosaic.layers]
        for path, array in zip(write(tmp_path, "region", kind, mosaic), arrays, strict=True):
            yield path, array if array.ndim == 3 else array[..., None]

    return make


def _raster(bands: int, dtype: str) -> Callable[[Path], Iterator[Made]]:
    def make(tmp_path: Path) -> Iterator[Made]:
        source = tmp_path / "plain.tif"
        values = np.random.default_rng(1).integers(1, 100, (600, 520, bands)).astype(dtype)
        place = {"crs": "EPSG:32633", "transform": Affine(20, 0, 4e5, 0, -20, 5e6)}
        with rasterio.open(
            source, "w", driver="GTiff", height=600, width=520, count=bands, dtype=dtype, **place
        ) as ds:
            ds.write(values.transpose(2, 0, 1))
        row = convert_one(source, tmp_path / "out").row
        assert (row.status, row.profile) == ("ok", "raster"), row.reason
        yield tmp_path / "out" / row.files["embeddings"].path, values

    return make


def _preview(tmp_path: Path) -> Iterator[Made]:
    pixels = np.random.default_rng(2).integers(0, 255, (600, 520, 3), np.uint8)
    write_preview(Preview(pixels, (0, 0, 5200, 6000), "", YEAR, 1, 0, False), tmp_path / "p.tif")
    yield tmp_path / "p.tif", pixels


KINDS: dict[str, Callable[[Path], Iterator[Made]]] = {
    "convert": _native,
    "convert --profile float32": _float32,
    "visual": _visual,
    "get as geotiff, float32": _got("geotiff", "float32"),
    "get as geotiff, int8": _got("geotiff", "int8"),
    "get as cog, float32": _got("cog", "float32"),
    "get as cog, int8": _got("cog", "int8"),
    "convert 24 bands, int16": _raster(24, "int16"),
    "convert 24 bands, float32": _raster(24, "float32"),
    "convert 4 bands, uint8": _raster(4, "uint8"),
    "convert 4 bands, float32": _raster(4, "float32"),
    "convert 4 bands, float64": _raster(4, "float64"),
    "preview": _preview,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_gets_what_was_written(
    kind: str, tmp_path: Path, async_python: Path, gdal310: Path
) -> None:
    for path, pixels in KINDS[kind](tmp_path):
        window, there = _window(pixels)
        levels = _levels(path)
        np.testing.assert_array_equal(levels[0], pixels.transpose(2, 0, 1), err_msg=f"{path}: tifffile")
        reads: list[dict[str, Any]] = [{"window": window}]
        for level, values in enumerate(levels[1:]):
            reads.append({"window": (0, 0, values.shape[2], values.shape[1]), "overview": level})
        expected = [there, *levels[1:]]
        for name, python, script in (
            ("GDAL 3.12", Path(sys.executable), "gdal_reader.py"),
            ("GDAL 3.10", gdal310, "gdal_reader.py"),
            ("async-geotiff", async_python, "async_reader.py"),
        ):
            found = _read(python, script, tmp_path, path, reads)
            for read, array, wanted in zip(reads, found, expected, strict=True):
                np.testing.assert_array_equal(array, wanted, err_msg=f"{path}: {name}, {read}")
        (found,) = _read(
            async_python, "async_reader.py", tmp_path, path, [{"window": window, "by": "lazycogs"}]
        )
        np.testing.assert_array_equal(found, there, err_msg=f"{path}: lazycogs")


# ------------------------------------------------------------- what earlier versions wrote, or is asked for


@pytest.mark.parametrize(("interleave", "bands"), [("tile", 128), ("band", 3), ("pixel", 3), ("tile", 1)])
@pytest.mark.parametrize(("dtype", "predictor"), [("int8", 2), ("float32", 3)])
def test_what_is_called_misread_is_misread(
    tmp_path: Path, async_python: Path, interleave: Any, bands: int, dtype: str, predictor: Any
) -> None:
    """The rule is the fault's: when a later async-tiff is right, this fails and the rule can go."""
    from catalog_builder.convert.ledger.encoding import encoding_of

    full = np.random.default_rng(3).integers(-127, 127, (200, 180, bands)).astype(dtype)
    path = tmp_path / "a.tif"
    with path.open("wb") as stream:
        write_cog(
            stream,
            [full, np.ascontiguousarray(full[:100, :90])],
            crs_epsg=32631,
            transform=(10.0, 0.0, 300930.0, 0.0, -10.0, 5776130.0),
            block_size=64,
            interleave=interleave,
            predictor=predictor,
        )
    window = (10, 20, 150, 160)
    reads = [
        {"window": window},
        {"window": (0, 0, 90, 100), "overview": 0},
        {"window": window, "by": "lazycogs"},
    ]
    found = _read(async_python, "async_reader.py", tmp_path, path, reads)
    there = full[20:180, 10:160].transpose(2, 0, 1)
    wanted = [there, full[:100, :90].transpose(2, 0, 1), there]
    wrong = [float((a != b).mean()) for a, b in zip(found, wanted, strict=True)]
    assert encoding_of(path).predictor == predictor
    if encoding_of(path).is_misread:
        assert min(wrong) > 0.9
    else:
        assert max(wrong) == 0


def test_validate_names_a_file_that_is_misread(tmp_path: Path, async_python: Path) -> None:
    row = _converted(tmp_path, predictor=2)
    path = tmp_path / "out" / row.files["embeddings"].path
    window, there = _window(_pixels()[0])
    (found,) = _read(async_python, "async_reader.py", tmp_path, path, [{"window": window}])
    assert (found != there).mean() > 0.9
    with LedgerWriter(tmp_path / "out" / "ledger") as ledger:
        ledger.append(row)
    command = [sys.executable, "-m", "catalog_builder.cli", "validate", str(tmp_path / "out"), "--quiet"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "warn 1 file has a predictor" in text
    assert "async-geotiff 0.5.1 with async-tiff 0.7.2; lazycogs 0.7.0" in text
    assert f"{row.files['embeddings'].path}: predictor 2" in text
    assert f"--out {tmp_path / 'out'} --redo predictor" in text
    said = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True).stdout)
    assert said["sound"] is True
    assert said["tiles"]["misread"]["files"] == [{"file": row.files["embeddings"].path, "predictor": 2}]
