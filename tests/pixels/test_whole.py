"""Files read whole: what numpy and rasterio have, with the hash of every byte; refused if not as expected."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio

from catalog_builder import storage
from catalog_builder.errors import ArrayError, ChecksumError, StorageError
from catalog_builder.pixels.whole import local_file, open_raster, read_array, read_blocks
from tests.pixels.conftest import WHERE, Files, Placed
from tests.support.pixels import same


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("known", [True, False])
def test_arrays(files: Files, placed: Placed, where: str, known: bool) -> None:
    place = placed("npy", where)
    for address, path, array in (
        (place.main, files.places["npy"].main, files.codes),
        (place.scales, files.places["npy"].scales, files.scales),
    ):
        assert address is not None
        body = (files.root / str(path)).read_bytes()
        sha256 = hashlib.sha256(body).hexdigest()
        found, file = read_array(address, *((len(body), sha256) if known else ()))
        assert same(found, array)
        assert found.flags.writeable
        assert (file.address, file.size, file.sha256) == (address, len(body), sha256)


@pytest.mark.parametrize("array", [np.arange(24, dtype=">f4").reshape(4, 6), np.eye(5, 3, order="F")])
def test_arrays_in_another_order(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    found, _ = read_array(str(tmp_path / "a.npy"))
    assert same(found, np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    assert found.flags.c_contiguous


def test_what_is_not_as_expected(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4), np.int8))
    body = path.read_bytes()
    with pytest.raises(ChecksumError, match=r"a.npy: SHA-256 is [0-9a-f]{64}, the manifest says 00"):
        read_array(str(path), len(body), "00")
    for size in (len(body) - 1, len(body) + 1):
        with pytest.raises(StorageError, match=f"{len(body)} bytes, expected {size}: truncated, or changed"):
            read_array(str(path), size)
        with pytest.raises(StorageError, match="truncated, or changed"), local_file(str(path), size):
            pass
    for odd, reason in ((body[:-1], "is truncated"), (body + b"x", "is too long"), (b"", "it is empty")):
        path.write_bytes(odd)
        with pytest.raises(ArrayError, match=reason):
            read_array(str(path))
    with pytest.raises(StorageError, match=r"none: no such file"), local_file(str(tmp_path / "none")):
        pass


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("container", ["float", "geotiff"])
def test_blocks_are_the_raster(files: Files, placed: Placed, container: str, where: str) -> None:
    address = placed(container, where).main
    path = files.root / files.places[container].main
    with local_file(address) as (local, file), open_raster(local, address) as ds:
        assert (local == path) == (not storage.scheme(address))
        assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        whole = np.zeros((ds.height, ds.width, ds.count), np.float32)
        for window, values in read_blocks(ds, address):
            assert not whole[window.slices].any(), "no pixel twice"
            whole[window.slices] = values
    with rasterio.open(path) as ds:
        assert same(whole, np.moveaxis(ds.read(), 0, -1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda body: b"PK\3\4" + body[4:], r"not a TIFF \(begins with b'PK"),
        (lambda body: body[:6], "damaged TIFF"),
    ],
)
def test_damaged_rasters(files: Files, tmp_path: Path, damage: object, reason: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(damage((files.root / files.places["cog"].scales).read_bytes()))  # type: ignore[operator]
    with pytest.raises(StorageError, match=f"there: {reason}"), open_raster(path, "there"):
        pass
