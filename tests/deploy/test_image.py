"""Both targets of the Dockerfile are built as it stands, and the compose file's services run from them.

It takes a quarter of an hour and needs root: ``make test-images``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import psql, running
from tests.deploy.container_files import compose
from tests.deploy.images import PYTHON, Image, Images, loopback, size_of
from tests.support.catalogs import patch, truncate, write_manifest
from tests.support.converted import converted
from tests.support.waiting import until

pytestmark = [pytest.mark.release, pytest.mark.service]

GOAL = 400
"""Megabytes of an image above its base."""
URL = "http://127.0.0.1:8000"

SEARCHED = f"""
import json, pystac_client
search = pystac_client.Client.open("{URL}/").search(query={{"tessera:cog": {{"eq": True}}}})
first = next(search.items())
print(json.dumps([first.id, first.assets["embeddings"].href]))
"""
READ = """
import hashlib, sys, rasterio
from rasterio.windows import Window
with rasterio.open(sys.argv[1]) as src:
    print(hashlib.sha256(src.read(window=Window(10, 20, 64, 64)).tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Image]]:
    folder = Path(tempfile.mkdtemp(prefix="tessera-images-"))
    try:
        store = Images(folder)
        store.make_bases()
        base = size_of(Path(store.buildah("mount", store.buildah("from", "--pull-never", PYTHON))))
        found = {}
        for target in ("api", "pgstac"):
            begun = time.monotonic()
            found[target] = store.build(target)
            above = found[target].megabytes_above(base)
            seconds = time.monotonic() - begun
            print(
                f"\n{target}: {above:.0f} MB above its base of {base / 1e6:.0f} MB, built in {seconds:.0f} s"
            )
            assert above < GOAL, target
        yield found
        store.buildah("umount", "--all")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    with loopback(f"tessera-{os.getpid()}") as prefix:
        yield prefix


def _run(network: Sequence[str], *command: str, **options: Any) -> str:
    done = subprocess.run([*network, *command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _served(
    network: Sequence[str], image: Image, command: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until its own health check says that it is well; stop it as an engine does."""
    process = subprocess.Popen([*network, *command])
    check = image.config["Healthcheck"]["Test"]
    assert check.pop(0) == "CMD"
    inside = ["chroot", str(image.root), "/opt/tessera-stac/bin/python", *check[1:]]

    def well() -> bool:
        assert process.poll() is None
        return subprocess.run([*network, *inside], capture_output=True).returncode == 0

    check.insert(0, "CMD")
    try:
        until(well, "never healthy")
        yield process
    finally:
        begun = time.monotonic()
        process.send_signal(getattr(signal, image.config["StopSignal"]))
        assert process.wait(40) in (0, -signal.SIGTERM)
        print(f"{image.target}: stopped within {time.monotonic() - begun:.1f} s")
    assert subprocess.run([*network, *inside], capture_output=True).returncode != 0


def _look(network: Sequence[str], catalog: Path) -> None:
    """Search with pystac-client, and read what it found by GDAL: the file's own pixels."""
    name, href = json.loads(_run(network, sys.executable, "-c", SEARCHED))
    (file,) = catalog.glob(f"cogs/**/{name}_*_embeddings.tif")
    assert href.endswith(file.name)
    read = _run(network, sys.executable, "-c", READ, f"/vsicurl/{href}")
    assert read == _run((), sys.executable, "-c", READ, str(file))


def test_the_api_serves_a_read_only_catalogue(images: dict[str, Image], network: list[str]) -> None:
    image, catalog = images["api"], converted().catalog
    service = compose(CATALOG="/srv/catalog")["services"]["api"]
    mounts = {"/catalog:ro": str(catalog)}
    for words, env in ((None, {}), (service["command"], service["environment"])):
        with _served(network, image, image.command(words, mounts=mounts, **env)) as process:
            assert _user(process) == 10001
            _look(network, catalog)
            assert "STAC Browser" in _get(network, "/browser/")
            with pytest.raises(AssertionError):
                _run(network, *image.command(["build", "/catalog", "--out", "/catalog"], mounts=mounts))
    said = _run(network, *image.command(["--version"]))
    assert "commit 000000000000" in said
    assert "synthetic" in _run(network, *image.command(["info", "/catalog"], mounts=mounts))


def test_the_build_service_writes_the_catalogue_alone(
    images: dict[str, Image], network: list[str], tmp_path: Path
) -> None:
    image = images["api"]
    command = compose(CATALOG="/srv/catalog")["services"]["build"]["command"]
    write_manifest(tmp_path / "manifests", 2024, patch(0, 52, 3, 3))
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 10001, 10001)
    mounts = {"/catalog": str(tmp_path)}
    assert "9 tile-years" in _run(network, *image.command(command, mounts=mounts))
    truncate(tmp_path / "manifests" / "registry_2024.txt")
    done = subprocess.run([*network, *image.command(command, mounts=mounts)], capture_output=True, text=True)
    assert (done.returncode, "unchanged" in done.stderr) == (1, True)


def test_the_database_s_services(images: dict[str, Image], network: list[str]) -> None:
    need_postgres()
    image, catalog = images["pgstac"], converted().catalog
    services = compose(CATALOG="/srv/catalog")["services"]
    load, api = services["load"], services["api-pgstac"]
    folder = Path(tempfile.mkdtemp(prefix="tessera-images-pg-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            database = services["database"]["environment"]
            psql(env, f"CREATE USER {database['POSTGRES_USER']} SUPERUSER")
            psql(env, f"CREATE DATABASE {database['POSTGRES_DB']} OWNER {database['POSTGRES_USER']}")
            # by its socket: the network is loopback of another namespace
            mounts = {"/catalog:ro": str(catalog), "/database": env["PGHOST"]}
            server = {"PGHOST": "/database", "PGPORT": env["PGPORT"]}
            _run(network, *image.command(load["command"], mounts=mounts, **{**load["environment"], **server}))
            command = image.command(api["command"], mounts=mounts, **{**api["environment"], **server})
            with _served(network, image, command):
                _look(network, catalog)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _get(network: Sequence[str], path: str) -> str:
    return _run(network, sys.executable, "-c", f"import httpx; print(httpx.get('{URL}{path}').text)")


def _user(process: subprocess.Popen[bytes]) -> int:
    status: Mapping[str, str] = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
    )
    return int(status["Uid"].split()[0])
