"""A load into pgSTAC that is killed, and a server whose database restarts or dies, many times."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson

from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from tests.conformance.pgstac_server import need_postgres
from tests.conformance.postgres import psql, running
from tests.support.backends import EXPORTED_AT, PGSTAC_GROUP, dsn_of, load, new_database, pgstac_client
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.waiting import until

pytestmark = PGSTAC_GROUP
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "8"))


def _stored(env: Mapping[str, str], database: str) -> dict[str, object]:
    sql = "SET search_path TO pgstac, public; SELECT content_hydrate(items) FROM items"
    return {i["id"]: i for i in map(json.loads, psql(env, sql, database).splitlines())}


def _expected(catalog: Path) -> dict[str, object]:
    parts = extracts(CatalogFolder(catalog).open_index(), url=EXPORTED_AT)
    items = [orjson.loads(t) for part in parts for rows in part.pages() for t in part.texts(rows)]
    return {i["id"]: {**i, "links": []} for i in items}


def test_a_load_killed_at_random_moments(postgres: Mapping[str, str], tmp_path: Path) -> None:
    """Two catalogues by turns, so that every load has items to bring, to change and to remove."""
    catalogs = []
    for name, tiles in (("one", patch(0, 52, 20, 10)), ("two", patch(1, 52, 20, 10))):
        for year in range(2019, 2025):
            write_manifest(tmp_path / name / "m", year, tiles, salt=name)
        build_from(tmp_path / name / "c", tmp_path / name / "m")
        catalogs.append(tmp_path / name / "c")
    both = [_expected(c) for c in catalogs]
    database = new_database(postgres)
    dsn = dsn_of(postgres, database)
    command = [sys.executable, "-m", "catalog_builder.cli", "export", "--pgstac", "--quiet",
               "--dsn", dsn, "--url", EXPORTED_AT]  # fmt: skip
    began = time.monotonic()
    subprocess.run([*command, str(catalogs[0])], check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - began
    rng = random.Random(6)
    killed = 0
    for n in range(ROUNDS):
        process = subprocess.Popen([*command, str(catalogs[(n + 1) % 2])], stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.2, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        for item_id, item in _stored(postgres, database).items():
            assert item in [b.get(item_id) for b in both], "half an item"
    assert killed
    for catalog, expected in zip(catalogs, both, strict=True):
        subprocess.run([*command, str(catalog)], check=True, stdout=subprocess.DEVNULL)
        assert _stored(postgres, database) == expected
    assert load(catalogs[1], dsn).loaded == 0, "what is written down is true"


@contextmanager
def _asking(url: str, clients: int) -> Iterator[list[httpx.Response]]:
    """Ask in several threads until the block ends; lend the answers."""
    answers: list[httpx.Response] = []
    done = threading.Event()

    def ask(i: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as http:
            while not done.is_set():
                paths = ("/search?limit=100", "/collections/tessera-v1/items/grid_0.05_52.05_2022",
                         "/search?bbox=0,52,1,53&limit=5", "/collections")  # fmt: skip
                answers.append(http.get(paths[(i + len(answers)) % len(paths)]))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join(60)


def test_the_database_restarts_under_load(tmp_path: Path) -> None:
    """Stopped, and killed: every answer is right or a 503 with its reason, and it goes on by itself."""
    need_postgres()
    write_manifest(tmp_path / "m", 2022, patch(0, 52, 4, 3))
    build_from(tmp_path / "c", tmp_path / "m")
    folder = Path(tempfile.mkdtemp(prefix="tessera-restarts-"))
    folder.chmod(0o755)
    try:
        with running(folder / "pg") as env:
            dsn = dsn_of(env, new_database(env, template=None))
            load(tmp_path / "c", dsn, migrate=True)
            port = int(env["PGPORT"])
        with pgstac_client(dsn, None, refresh_seconds=0.1, search_seconds=15) as http:
            with _asking(str(http.base_url), clients=4) as answers:
                for how in ("stopped", "killed", "stopped", "killed"):
                    with running(folder / "pg", port=port) as env:
                        before = len(answers)
                        until(lambda since=before: _good(answers[since:]) >= 30)
                        if how == "killed":
                            os.kill(int(env["POSTGRES_PID"]), signal.SIGKILL)
                            until(lambda: not Path(f"/proc/{env['POSTGRES_PID']}").exists())
                    before = len(answers)
                    until(lambda since=before: len(answers) > since + 4)
                with running(folder / "pg", port=port):
                    before = len(answers)
                    until(lambda since=before: _good(answers[since:]) >= 30)
            statuses = Counter(a.status_code for a in answers)
            assert set(statuses) == {200, 503}, statuses
            for answer in answers:
                if answer.status_code == 503:
                    assert "database" in answer.json()["description"]
                    assert answer.headers["retry-after"]
                elif answer.url.path == "/search" and "bbox" not in answer.url.params:
                    assert len(answer.json()["features"]) == 12
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _good(answers: list[httpx.Response]) -> int:
    return sum(a.status_code == 200 and a.url.path != "/collections" for a in answers)


def test_a_search_beyond_the_time_limit(postgres: Mapping[str, str], tmp_path: Path) -> None:
    """The database is told to stop; the reason is a 503 with advice, and the connection is good again."""
    write_manifest(tmp_path / "m", 2022, patch(0, 52, 40, 30))
    build_from(tmp_path / "c", tmp_path / "m")
    dsn = dsn_of(postgres, new_database(postgres))
    load(tmp_path / "c", dsn)
    slow = " OR ".join(f"casei(title) LIKE '%{i}x%'" for i in range(120))
    with pgstac_client(dsn, None, search_seconds=0.15, count_seconds=0.01, pgstac_connections=2) as http:
        late = http.post("/search", json={"filter": slow, "filter-lang": "cql2-text"})
        assert late.status_code == 503, late.text
        assert "narrow" in late.json()["description"]
        assert late.headers["retry-after"]
        # On a busy machine a short search may be late too.
        until(lambda: http.get("/collections/tessera-v1/items/grid_0.05_52.05_2022").status_code == 200)


def test_more_searches_than_connections(postgres: Mapping[str, str], tmp_path: Path) -> None:
    """Each search counts beside it; whoever waits for a connection is answered all the same."""
    write_manifest(tmp_path / "m", 2022, patch(0, 52, 40, 30))
    build_from(tmp_path / "c", tmp_path / "m")
    dsn = dsn_of(postgres, new_database(postgres))
    load(tmp_path / "c", dsn)
    path = "/search?limit=50&filter=casei(title) LIKE '%52.%' AND casei(id) LIKE '%3%'"
    with pgstac_client(dsn, None, pgstac_connections=2, count_seconds=0.01) as http:
        answers: list[int] = []

        def ask() -> None:
            answers.extend(httpx.get(f"{http.base_url}{path}", timeout=60).status_code for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [200] * 60
