"""The blocks of docs/s3.md, run as a reader would, on the tests' store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.storage.s3.client import S3Settings
from tests.conftest import plain_environment
from tests.support.http_server import serve
from tests.support.s3_store import Store, environment
from tests.support.snippets import run_python, snippets

DOCUMENT = Path(__file__).parents[2] / "docs" / "s3.md"
BLOCKS = snippets(DOCUMENT)


def test_the_document(store: Store, tmp_path: Path) -> None:
    def here(name: str) -> str:
        return BLOCKS[name][1].replace("my-bucket", store.bucket)

    ours = f'tessera-stac() {{ "{sys.executable}" -m catalog_builder.cli "$@"; }}\n'
    given = environment(store)
    done = subprocess.run(
        ["bash", "-euc", ours + here("s3-build")],
        cwd=tmp_path,
        env=plain_environment(**given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "FAIL" not in done.stdout
    assert f"{store.root}/tessera: tessera-synthetic, 1 tile-years of 1 tiles" in done.stdout
    assert {"tree/catalog.json", "tessera/catalog.json"} <= store.stored()
    said = run_python(here("s3-python"), tmp_path, **given)
    assert "['./tessera-synthetic/collection.json']" in said
    assert f"grid_15.65_78.25_2024 {store.url}" in said
    assert "int8" in said
    with serve(create_app(f"{store.root}/tessera", Settings(s3_refresh_seconds=0, presign=True))) as server:
        text = here("s3-client").replace("http://localhost:8000", server.url)
        said = run_python(text, tmp_path, **given)
    assert f"{store.url}/{store.bucket}/tessera/cogs/synthetic/2024/" in said


def test_the_policy_is_json() -> None:
    policy = json.loads(BLOCKS["s3-policy"][1])
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == {
        "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"
    }  # fmt: skip


@pytest.mark.parametrize("file", ["storage/s3/client.py", "storage/s3/put.py", "catalog/bucket.py"])
def test_every_variable_is_documented(file: str) -> None:
    import re

    text = (Path(__file__).parents[2] / "catalog_builder" / file).read_text()
    documented = DOCUMENT.read_text()
    for name in set(re.findall(r'"((?:AWS|TESSERA)_[A-Z0-9_]+)"', text)):
        assert f"`{name}" in documented, name
    assert S3Settings().timeout == 60
