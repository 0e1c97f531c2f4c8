"""rustac as it is on PyPI: a search, and the catalogue's own parquet files. It is strict about types."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pystac_client
import pytest

from tests.conftest import plain_environment
from tests.support.containers import Contained
from tests.support.converted import COLLECTION
from tests.support.environments import environment

LOCK = Path(__file__).parent / "readers" / "readers.lock"


def ran(script: str, *arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [environment(LOCK), "-c", script, *arguments],
        cwd=folder,
        env=plain_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_SEARCH = """
import asyncio, json, os, sys, rustac
async def main():
    url, collection, out, *more = sys.argv[1:]
    found = await rustac.search(url, collections=[collection])
    n = await rustac.search_to(out, url, collections=[collection])
    again = await rustac.read(out)
    print(json.dumps({"found": found, "n": n, "again": again["features"]}))
asyncio.run(main())
sys.stdout.flush()
os._exit(0)  # rustac 0.9.18 crashes now and then as the interpreter ends, after its work
"""


@pytest.mark.parametrize("out", ["items.parquet", "items.ndjson", "items.json"])
def test_a_search_is_read_and_written(contained: Contained, tmp_path: Path, out: str) -> None:
    """Items of every container, converted or not, with every asset."""
    root = f"{contained.server.url}/"
    said = json.loads(ran(_SEARCH, root, COLLECTION, str(tmp_path / out), folder=tmp_path))
    wanted = {i.id: i for i in pystac_client.Client.open(root).search().items()}
    assert said["n"] == len(wanted) == sum(map(len, contained.years.values()))
    for items in (said["found"], said["again"]):
        assert {i["id"] for i in items} == set(wanted)
        for item in items:
            there = wanted[item["id"]].assets
            assert {k: a["href"] for k, a in item["assets"].items() if a} == {
                k: a.href for k, a in there.items()
            }


_READ = """
import asyncio, json, os, sys, rustac
async def main():
    print(json.dumps([await rustac.read(path) for path in sys.argv[1:]]))
asyncio.run(main())
sys.stdout.flush()
os._exit(0)  # rustac 0.9.18 crashes now and then as the interpreter ends, after its work
"""


def test_the_catalogues_parquet_is_read(contained: Contained, tmp_path: Path) -> None:
    paths = sorted(map(str, (contained.catalog / COLLECTION / "items").rglob("*.parquet")))
    assert len(paths) == len(contained.years)
    found = json.loads(ran(_READ, *paths, folder=tmp_path))
    items = [item for collection in found for item in collection["features"]]
    years = [year for year, tiles in contained.years.items() for _ in tiles]
    assert sorted(i["properties"]["tessera:year"] for i in items) == years
    for item in items:
        native = item["properties"]["tessera:cog"]
        assert item["assets"]["embeddings"]["data_type"] == "int8"
        assert item["assets"]["embeddings"].get("nodata") == (-128 if native else None)
