"""What a folder of tiles may hold besides tiles, and what must be said of it."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio

from catalog_builder.synthetic.world import SampleTile
from catalog_builder.tile.grid import TileId
from tests.convert.making import YEAR, sample, write_pair

DATA = "global_0.1_degree_representation"
NAME_MAX = 200


@dataclass(frozen=True, slots=True)
class Oddity:
    """One thing that is wrong with a folder."""

    make: Callable[[Path, str], object]
    """Makes it: a new folder, and the name of a tile that nothing else has."""
    says: str
    """Words of the reason, which also names the folder."""


def _fifo(folder: Path, name: str) -> None:
    folder.mkdir()
    os.mkfifo(folder / name)


def _link(folder: Path, name: str, target: str) -> None:
    folder.mkdir()
    (folder / name).symlink_to(target)


def _socket(folder: Path, _: str) -> None:
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)  # its path may have 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket.tif")
    finally:
        os.chdir(here)


def _closed(folder: Path, _: str) -> None:
    folder.mkdir()
    (folder / "inside.tif").touch()
    folder.chmod(0)


def _deep(folder: Path, _: str) -> None:
    """Nest folders until their path is longer than the system takes: nobody can list them by it."""
    folder.mkdir()
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(4096 // NAME_MAX + 1):
            os.mkdir("d" * NAME_MAX)  # noqa: PTH102
            os.chdir("d" * NAME_MAX)
    finally:
        os.fchdir(here)
        os.close(here)


def _written(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir()
    (folder / name).write_bytes(content)


def _pair(folder: Path, tile: str, sidecar: bytes | None) -> None:
    made = sample()
    write_pair(folder, SampleTile(TileId.from_name(tile), YEAR, made.codes, made.scales, made.landmask))
    path = folder / "tessera_metadata.json"
    path.unlink()
    if sidecar is not None:
        path.write_bytes(sidecar)


def _half(folder: Path, tile: str, break_: Callable[[Path], None]) -> None:
    """Make a pair whose scales are broken."""
    _pair(folder, tile, b'{"dataset_version": "0.0", "dataset_variant": "synthetic"}')
    scales = next(folder.rglob("*_scales.npy"))
    scales.unlink()
    break_(scales)


def _array(folder: Path, tile: str, array: np.ndarray) -> None:
    where = folder / DATA / str(YEAR) / tile
    where.mkdir(parents=True)
    np.save(where / f"{tile}.npy", array)
    np.save(where / f"{tile}_scales.npy", np.ones(array.shape[:2], np.float32))


def _landmask(folder: Path, tile: str) -> None:
    _pair(folder, tile, b'{"dataset_version": "0.0", "dataset_variant": "synthetic"}')
    path = next(folder.rglob(f"{tile}.tiff"))
    path.unlink()
    path.symlink_to("gone.tiff")


def _twice(folder: Path, tile: str) -> None:
    _pair(folder / "a", tile, None)
    _pair(folder / "b", tile, None)
    codes = next((folder / "b").rglob(f"{tile}.npy"))
    values = np.load(codes)
    values[0, 0, 0] ^= 1
    np.save(codes, values)


def _beside(folder: Path, suffix: str) -> None:
    """Make an ordinary raster with a pipe beside it."""
    folder.mkdir()
    profile = {"driver": "GTiff", "height": 9, "width": 9, "count": 1, "crs": "EPSG:3857"}
    with rasterio.open(folder / "a.tif", "w", dtype="uint8", **profile) as ds:
        ds.transform = rasterio.Affine(9, 0, 0, 0, -9, 0)
        ds.write(np.ones((1, 9, 9), np.uint8))
    os.mkfifo(folder / suffix)


def _tagged(folder: Path, name: str, **tags: str) -> None:
    """Make a GeoTIFF of a tile's whole size with odd tags."""
    folder.mkdir()
    tile = TileId.from_name(name)
    raster = tile.raster("source")
    profile = {"driver": "GTiff", "height": raster.height, "width": raster.width, "count": 128, "nodata": 0}
    where = folder / f"{tile.name}_{YEAR}.tiff"
    with rasterio.open(
        where, "w", dtype="float32", crs=f"EPSG:{raster.epsg}", transform=raster.transform, **profile
    ) as ds:
        ds.update_tags(**tags)


ODDITIES = {
    "pipe.tif": Oddity(lambda f, t: _fifo(f, "pipe.tif"), "a named pipe, not a file"),
    "pipe named as a tile": Oddity(lambda f, t: _fifo(f, f"{t}_{YEAR}.tiff"), "a named pipe"),
    "pipe.npy": Oddity(lambda f, t: _fifo(f, "pipe.npy"), "not named like a tile"),
    "link to itself": Oddity(lambda f, t: _link(f, "loop", "loop"), "a link that leads back to itself"),
    "loop.tif": Oddity(lambda f, t: _link(f, "loop.tif", "loop.tif"), "a link that leads back to itself"),
    "dangling link": Oddity(lambda f, t: _link(f, "disk", "/not/there"), "a link to /not/there"),
    "dangling.tif": Oddity(lambda f, t: _link(f, "a.tif", "gone.tif"), "a link to gone.tif, which"),
    "socket": Oddity(_socket, "a socket, not a file"),
    "endless device": Oddity(lambda f, t: _link(f, "zero.tif", "/dev/zero"), "a device, not a file"),
    "null device": Oddity(lambda f, t: _link(f, "null.tiff", "/dev/null"), "a device, not a file"),
    "unlistable folder": Oddity(_deep, ": file name too long"),
    "empty.tif": Oddity(lambda f, t: _written(f, "empty.tif", b""), "not a TIFF"),
    "text.tif": Oddity(lambda f, t: _written(f, "text.tif", b"hello"), "not a TIFF"),
    "cut.tif": Oddity(lambda f, t: _written(f, "cut.tif", b"II*\0\x08\0\0\0"), "damaged TIFF"),
    "sidecar cut off": Oddity(lambda f, t: _pair(f, t, b"{"), "is not JSON (line 1, column 2)"),
    "sidecar of nothing": Oddity(lambda f, t: _pair(f, t, b"[]"), "it has no dataset_version"),
    "sidecar in another encoding": Oddity(
        lambda f, t: _pair(f, t, b"\xff\xfe{"), "is not JSON, so the dataset is not known"
    ),
    "sidecar of an unknown dataset": Oddity(
        lambda f, t: _pair(f, t, b'{"dataset_version": "3.0"}'), "unknown dataset version '3.0'"
    ),
    "sidecar that is nested too deeply": Oddity(
        lambda f, t: _pair(f, t, b"[" * 100_000), "is not JSON"
    ),
    "sidecar without tiles": Oddity(
        lambda f, t: _written(f, "tessera_metadata.json", b"null"), "it has no dataset_version"
    ),
    "unknown dataset": Oddity(
        lambda f, t: _pair(f / "v2", t, None), "'v2' is named like a dataset"
    ),
    "scales are a pipe": Oddity(lambda f, t: _half(f, t, os.mkfifo), "a named pipe"),
    "scales lead nowhere": Oddity(
        lambda f, t: _half(f, t, lambda p: p.symlink_to("gone.npy")), "a link to gone.npy"
    ),
    "scales are a folder": Oddity(lambda f, t: _half(f, t, Path.mkdir), "a folder, not a file"),
    "landmask leads nowhere": Oddity(_landmask, "a link to gone.tiff"),
    "mask is a pipe": Oddity(lambda f, t: _beside(f, "a.tif.msk"), "a.tif.msk: a named pipe, not a file"),
    "metadata is a pipe": Oddity(lambda f, t: _beside(f, "a.tif.aux.xml"), "aux.xml: a named pipe"),
    "world file is a pipe": Oddity(lambda f, t: _beside(f, "a.tfw"), "a.tfw: a named pipe, not a file"),
    "array of no pixels": Oddity(
        lambda f, t: _array(f, t, np.zeros((0, 0, 128), np.int8)), "0 x 0 pixels do not fit"
    ),
    "array of one number": Oddity(
        lambda f, t: _array(f, t, np.zeros((1, 1), np.int8)), "expected int8 (rows, columns, 128)"
    ),
    "array with a negative shape": Oddity(
        lambda f, t: _written(
            f, f"{t}.npy",
            b"\x93NUMPY\1\0\x76\0%-117b\n"
            % b"{'descr': '|i1', 'fortran_order': False, 'shape': (-1, -1, 128), }",
        ),
        "no year in its folder name",
    ),
    "same tile-year twice": Oddity(_twice, "with different content"),
    "tags that are no numbers": Oddity(
        lambda f, t: _tagged(f, t, TESSERA_TILE_LAT="abc", TESSERA_TILE_LON="inf"), "which are no coordinates"
    ),
    "tags of an odd year": Oddity(lambda f, t: _tagged(f, t, TESSERA_YEAR="MMXXIV"), "which is no year"),
    "tags of an unknown dataset": Oddity(
        lambda f, t: _tagged(f, t, TESSERA_DATASET_VERSION="7"), "unknown dataset version '7'"
    ),
}  # fmt: skip


CLOSED = Oddity(_closed, "a folder that cannot be read: permission denied")
"""Root needs :func:`without_privileges` to find it closed."""


def make(folder: Path, names: Iterable[str]) -> dict[str, Oddity]:
    """Make some oddities of a folder, each in a folder ``odd <name>`` of its own."""
    order = list(ODDITIES)
    for name in names:
        south, west = divmod(order.index(name), 30)  # of the 60 zones half are the good tiles'
        tile = TileId(lat_i=-8995 if south else 8995, lon_i=-17995 + 600 * west)
        ODDITIES[name].make(folder / f"odd {name}", tile.name)
    return {name: ODDITIES[name] for name in names}


def without_privileges() -> None:
    """Give up what lets root read everything; for ``preexec_fn``, it holds after the program is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # DAC_OVERRIDE, DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
