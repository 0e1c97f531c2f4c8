"""The profile pgstac of compose.yaml: its commands and environments, as they stand, on a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import PROGRAMS, psql, running
from tests.deploy.container_files import compose
from tests.deploy.processes import ROOT, serving, tessera_stac
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.ports import free_port

pytestmark = pytest.mark.xdist_group("pgstac")


def _path() -> str:
    return f"{PROGRAMS}:{os.environ['PATH']}"


def _documented(folder: Path) -> list[str]:
    """Return the commands of docs/operations.md, with a file of ours."""
    text = (ROOT / "docs" / "operations.md").read_text()
    block = text.partition("<!-- snippet: pgstac-backup -->")[2].partition("```sh\n")[2].partition("```")[0]
    commands = block.replace("\\\n", "").splitlines()
    assert len(commands) >= 3
    return [c.replace("/backup/", f"{folder}/") for c in commands]


def test_load_serve_back_up_and_restore(tmp_path: Path) -> None:
    need_postgres()
    services = compose(CATALOG="/srv/catalog")["services"]
    load, api = services["load"], services["api-pgstac"]
    build_from(tmp_path / "catalog", write_manifest(tmp_path, 2024, patch(0, 52, 4, 3)))
    folder = Path(tempfile.mkdtemp(prefix="tessera-deploy-"))
    folder.chmod(0o755)

    def here(words: list[str], **changes: str) -> list[str]:
        changes = {"/catalog": str(tmp_path / "catalog"), **changes}
        return tessera_stac(*(changes.get(w, w) for w in words))

    def found(database: str) -> list[str]:
        port = free_port()
        command = here(api["command"], **{"8000": str(port), "0.0.0.0": "127.0.0.1"})
        environment = {**api["environment"], **server, "PGDATABASE": database}
        with serving(command, port, **environment) as running_api:
            page = httpx.get(f"{running_api.url}/search?limit=100").json()
            for item in page["features"]:
                for asset in item["assets"].values():
                    assert asset["href"].startswith((running_api.url, "https://")), "as the catalogue's own"
            return sorted(item["id"] for item in page["features"])

    try:
        with running(folder / "pg") as env:
            database = services["database"]["environment"]
            psql(env, f"CREATE USER {database['POSTGRES_USER']} SUPERUSER")
            psql(env, f"CREATE DATABASE {database['POSTGRES_DB']} OWNER {database['POSTGRES_USER']}")
            server = {"PGHOST": env["PGHOST"], "PGPORT": env["PGPORT"]}
            for again in (False, True):
                environment = {**os.environ, **load["environment"], **server}
                done = subprocess.run(
                    here(load["command"]), env=environment, cwd=ROOT, capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                assert "12 items" in done.stdout or again
            first = found(load["environment"]["PGDATABASE"])
            assert len(first) == 12
            user = {**os.environ, **env, "PGUSER": database["POSTGRES_USER"], "PATH": _path()}
            for command in _documented(folder):
                ran = subprocess.run(["bash", "-ec", command], env=user, capture_output=True, text=True)
                assert ran.returncode == 0, ran.stderr
            assert found("restored") == first
    finally:
        shutil.rmtree(folder, ignore_errors=True)
