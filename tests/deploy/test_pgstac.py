"""The commands and environments of deploy/pgstac/compose.yaml, run as they stand on a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.catalogs import build_from, patch, write_manifest
from tests.conformance.pgstac_server import need_postgres, pgstac_python, wait_for
from tests.conformance.postgres import free_port, psql, running

HERE = Path(__file__).parents[2] / "deploy" / "pgstac"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    # What docker compose would put in, as its manual says: ${NAME:-default} and ${NAME:?reason}.
    values = {"CATALOG": "/srv/catalog", "URL": "https://stac.example.org"}

    def value(found: re.Match[str]) -> str:
        default = found[3] if found[2] == ":-" else None
        given = values.get(found[1], default)
        assert given is not None, found[0]
        return given

    text = re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, (HERE / "compose.yaml").read_text())
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_load_and_serve(compose: dict[str, Any], tmp_path: Path) -> None:
    need_postgres()
    build_from(tmp_path / "catalog", write_manifest(tmp_path, 2024, patch(0, 52, 4, 3)))
    load, api = compose["services"]["load"], compose["services"]["api"]
    assert load["volumes"] == ["/srv/catalog:/catalog:ro"]
    folder = Path(tempfile.mkdtemp(prefix="tessera-deploy-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            database = compose["services"]["database"]["environment"]
            psql(env, f"CREATE USER {database['POSTGRES_USER']} SUPERUSER")
            psql(env, f"CREATE DATABASE {database['POSTGRES_DB']} OWNER {database['POSTGRES_USER']}")
            here = {"PGHOST": env["PGHOST"], "PGPORT": env["PGPORT"]}
            verb, *arguments = load["command"]
            assert verb == "tessera-stac"
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "catalog_builder.cli",
                    *(a.replace("/catalog", str(tmp_path / "catalog")) for a in arguments),
                ],
                env={**os.environ, **load["environment"], **here},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert "12 items" in done.stdout
            port = free_port()
            command = ["0.0.0.0" if a == "0.0.0.0" else a.replace("8000", str(port)) for a in api["command"]]
            server = subprocess.Popen(
                [pgstac_python().parent / command[0], *command[1:]],
                env={**os.environ, **api["environment"], **here},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
            )
            try:
                wait_for(f"http://127.0.0.1:{port}/search?limit=1", server)
                found = httpx.get(f"http://127.0.0.1:{port}/search?limit=100").json()["features"]
            finally:
                server.terminate()
                server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert len(found) == 12
    assert found[0]["assets"]["embeddings_f32"]["href"].startswith("https://stac.example.org/source/v1/2024/")


def test_the_lock_holds_both_and_the_image_copies_what_there_is() -> None:
    lock = (HERE / "requirements.lock").read_text()
    assert "\nstac-fastapi-pgstac==7.2.0 " in lock
    assert "\npypgstac==0.10." in lock
    for line in (HERE / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (HERE.parents[1] / name).exists(), name
