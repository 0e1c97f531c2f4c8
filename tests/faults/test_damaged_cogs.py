"""A damaged COG: validate names it, pictures and `get` say it cannot be read, the rest goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from catalog_builder.convert.tile.verify import validate_results
from tests.support.converted import COLLECTION, FIRST, NEIGHBOUR, converted
from tests.support.http_server import serve

pytestmark = pytest.mark.xdist_group("pictures")


def _overwrite(path: Path, at: float, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(int(at * path.stat().st_size))
        file.write(data)


def _flip(path: Path) -> None:
    byte = path.read_bytes()[int(0.9 * path.stat().st_size)]
    _overwrite(path, 0.9, bytes([byte ^ 1]))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bytes of the header": (lambda p: _overwrite(p, 0, b"\0" * 64), "SHA-256"),
    "bytes of the data": (lambda p: _overwrite(p, 0.5, random.Random(1).randbytes(5000)), "SHA-256"),
    "one bit": (_flip, "SHA-256"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-5000]), "the ledger says"),
    "empty": (lambda p: p.write_bytes(b""), "0 bytes, the ledger says"),
    "gone": (Path.unlink, "missing"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "catalog"
    shutil.copytree(converted().catalog, folder, symlinks=True)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("role", ["embeddings", "visual"])
def test_each_is_found_and_none_is_a_500(copy: Path, role: str, damage: str) -> None:
    hurt, said = DAMAGE[damage]
    (file,) = (copy / "cogs").glob(f"*/2024/{FIRST.name}/*{role}*.tif")
    whole = file.read_bytes()
    try:
        hurt(file)
        report = validate_results(str(copy / "cogs"), pixels=False)
        (found,) = report.failed
        (problem,) = found.problems
        assert str(file) in problem
        assert said in problem
        with serve(create_app(copy)) as server, httpx.Client(base_url=server.url, timeout=60) as http:
            item = f"/collections/{COLLECTION}/items/{FIRST.name}_2024"
            for path in (f"{item}/preview.png", f"{item}/preview.png?bands=0,1,2"):
                answer = http.get(path)
                allowed = {404} if damage == "gone" else {409}
                assert answer.status_code in {200} | allowed, (path, answer.text)
                if answer.status_code != 200:
                    reason = answer.json()["description"]
                    assert "cannot be read" in reason or "does not exist" in reason
                    assert str(copy) not in answer.text
            other = f"/collections/{COLLECTION}/items/{NEIGHBOUR.name}_2024/preview.png"
            assert http.get(other).status_code == 200
    finally:
        file.write_bytes(whole)


def test_get_names_the_file_and_writes_the_rest(copy: Path, tmp_path: Path) -> None:
    (file,) = (copy / "cogs").glob(f"*/2024/{FIRST.name}/*embeddings*.tif")
    whole = file.read_bytes()
    try:
        _overwrite(file, 0, b"\0" * 64)
        box = ("--bbox", "15.68,78.22,15.72,78.23", "--year", "2024", "--tiles")
        done = subprocess.run(
            [sys.executable, "-m", "catalog_builder.cli", "get", copy, *box, "--out", tmp_path / "out"],
            capture_output=True,
            text=True,
        )
    finally:
        file.write_bytes(whole)
    assert done.returncode == 1
    assert file.name in done.stderr
    assert "Traceback" not in done.stderr
    assert "1 written, 0 already there, 1 failed" in done.stdout
