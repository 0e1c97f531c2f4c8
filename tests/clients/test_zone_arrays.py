"""Clients of Zarr stores read the server's arrays of zones, unmodified, as a store with the same pixels."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from pyproj import Transformer

from api.app import create_app
from tests.conftest import SUPPORT, plain_environment
from tests.support.catalogs import build_from
from tests.support.environments import node_environment
from tests.support.http_server import Server, serve
from tests.support.needs import program
from tests.support.sample_stores import YEAR, SampleStores

HERE = Path(__file__).parent
TIME = 7
"""Of 2024 on the time axis from 2017 on."""
pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(sample_stores: SampleStores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """Serve the sample's .npy files, of two zones and hemispheres."""
    catalog, npy = tmp_path_factory.mktemp("zarr") / "catalog", sample_stores.npy
    build_from(catalog, npy.root, dataset="synthetic", landmask_root=str(npy.landmasks))
    # As behind a proxy: obstore, by which geotessera reads the web, refuses http without an option.
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
         "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    with serve(create_app(catalog), ssl_keyfile=key, ssl_certfile=certificate) as server:
        yield Secure(server, f"https://localhost:{server.port}", certificate)


@dataclass(frozen=True)
class Secure:
    """A server behind TLS."""

    server: Server
    url: str
    certificate: Path


def points(stores: SampleStores) -> list[tuple[float, float]]:
    """Return points with a vector and in water, in each zone and hemisphere, and beside all tiles."""
    found = []
    for written in stores.npy.written:
        raster, valid = written.tile.raster(), np.load(written.scales) > 0
        with rasterio.open(written.landmask) as mask:
            land = mask.read(1) > 0
        to_degrees = Transformer.from_crs(raster.epsg, 4326, always_xy=True)
        for row, col in (
            *(tuple(np.argwhere(valid & some)[9000]) for some in (land, ~land)),
            (9, raster.width // 2),
        ):
            found.append(to_degrees.transform(*(raster.transform @ (col + 0.5, row + 0.5))))
    (west, south, _, _) = stores.npy.written[0].tile.bounds
    return [*found, (west - 0.001, south + 0.05), (west - 1, south), (100.0, 20.0), (18.0, 83.95)]


def test_zarrita(served: Secure, sample_stores: SampleStores, tmp_path: Path) -> None:
    """In Node: codes, scales and coordinates as zarr-python reads them of the store."""
    home, out = node_environment(HERE / "readers" / "js"), tmp_path / "out.bin"
    raster = sample_stores.npy.written[0].tile.raster()
    group = zarr.open_group(sample_stores.zarr.store, mode="r")["utm33"]
    west, top = (group.attrs["spatial:transform"][i] for i in (2, 5))
    row, col = round((top - raster.transform.f) / 10) + 300, round((raster.transform.c - west) / 10)
    left, shape = max(col - 20, 0), (50, raster.width + 20)
    window = np.s_[row : row + 50, left : left + shape[1]]
    command = [program("node", "nodejs"), home / "zone.mjs", f"{served.url}/zarr/synthetic", "utm33", out,
               TIME, row, left, *shape]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True,
        env={**plain_environment(), "NODE_EXTRA_CA_CERTS": str(served.certificate)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, n = out.read_bytes(), shape[0] * shape[1]
    codes = np.frombuffer(found[: 128 * n], np.int8).reshape(128, *shape)
    scales = np.frombuffer(found[128 * n : 132 * n], "<f4").reshape(shape)
    np.testing.assert_array_equal(codes, group["embeddings"][TIME, :, *window])
    np.testing.assert_array_equal(scales, group["scales"][TIME, *window])
    np.testing.assert_array_equal(np.frombuffer(found[132 * n :], "<f8"), group["y"][row : row + 50])
    assert np.isfinite(scales).any()


def survey(
    python: Path, store: object, out: Path, where: list[tuple[float, float]], **environment: str
) -> Any:
    """Return what geotessera reads at points."""
    done = subprocess.run(
        [python, SUPPORT / "geotessera11.py", "survey", store, str(YEAR), out, json.dumps(where)],
        env=plain_environment(MPLBACKEND="agg", MPLCONFIGDIR="/tmp", **environment),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as arrays:
        return dict(arrays)


def test_geotessera(served: Secure, sample_stores: SampleStores, geotessera11: Path, tmp_path: Path) -> None:
    """All that it does with the store that it fills itself from these tiles gives the same, bit for bit."""
    where = points(sample_stores)
    theirs = survey(geotessera11, sample_stores.zarr.store, tmp_path / "theirs.npz", where)
    for root in ("synthetic", "synthetic/bulk"):
        url = f"{served.url}/zarr/{root}"
        trusted = str(served.certificate)
        ours = survey(geotessera11, url, tmp_path / "ours.npz", where, SSL_CERT_FILE=trusted)
        assert theirs.keys() == ours.keys()
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key], key)
    assert set(theirs["probes"].tolist()) >= {"valid", "water", "outside"}
    assert theirs["years"].tolist() == list(range(2017, 2026))
    assert sum("tiff_" in key for key in theirs) >= 2
    assert np.isfinite(theirs["patch_0"]).any()
    assert {r.status for r in served.server.log} == {200, 404}
