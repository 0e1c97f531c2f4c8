"""The same inputs to our server and to stac-fastapi-pgstac over the same items; ours must be right.

What each answers is the table in ``docs/peers.md``. ``PEERS_WRITE=1`` writes it anew; without it a
table that is no longer true fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest

from api.app import create_app
from catalog_builder.catalog import CatalogFolder
from catalog_builder.publish.extract import extracts
from catalog_builder.publish.pgstac import load_pgstac
from tests.catalogs import build_from, patch, write_manifest
from tests.conformance.peer_answers import Answer, Case, Item
from tests.conformance.peer_cases import CASES
from tests.conformance.pgstac_server import need_postgres, serve_pgstac
from tests.conformance.postgres import psql, running
from tests.http_server import serve

# One database for all of them, in one test process.
pytestmark = pytest.mark.xdist_group("peers")
DOCUMENT = Path(__file__).parents[2] / "docs" / "peers.md"
URL = "http://served"

HEAD = """# Beside stac-fastapi-pgstac

The same {n:,} items of two collections, in our index and in pgSTAC, asked the same things. What is right
was found by testing every item with shapely, or is what the specification says. Versions:
stac-fastapi-pgstac 7.2.0 with its defaults and `USE_API_HYDRATE=true`, pgSTAC 0.10.0, PostgreSQL 15 with
PostGIS 3.3. Made and kept true by `tests/conformance/test_peers.py`.

{ours} of {of} answers of ours are right, {theirs} of theirs. What is not in the table: their server has
transactions and takes items of any kind, ours takes tiles of one grid and changes by building anew.

| | input | right | tessera-stac | stac-fastapi-pgstac | note |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Peers:
    """What is right, what ours said and what theirs said, case by case."""

    n_items: int
    answers: Mapping[Case, tuple[Answer, Answer, Answer]]


def _ask_all(items: Sequence[Item], ours: httpx.Client, theirs: httpx.Client) -> Peers:
    return Peers(len(items), {c: (c.right(items), c.ask(ours), c.ask(theirs)) for c in CASES})


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    need_postgres()
    home = tmp_path_factory.mktemp("peers")
    middle = patch(-1, 50, 20, 20)
    edge = [*patch(179, 50, 10, 20), *patch(-180, 50, 10, 20)]
    for year in (2020, 2021, 2022):
        # Tiles of all years, of the newest only, and of some.
        write_manifest(home / "a", year, [*middle[::2], *edge] if year == 2022 else middle[::3] + edge[::5])
    write_manifest(home / "b", 2021, middle[:100])
    build_from(home / "catalog", home / "a", url=URL)
    build_from(home / "catalog", home / "b", url=URL, dataset="v1.1-cam")
    parts = extracts(CatalogFolder(home / "catalog").open_index())
    items = [orjson.loads(text) for part in parts for rows in part.pages() for text in part.texts(rows)]
    # PostgreSQL runs as another user, who may not look into pytest's own folders.
    database = Path(tempfile.mkdtemp(prefix="tessera-peers-"))
    database.chmod(0o755)
    try:
        with running(database / "pg") as env:
            psql(env, "CREATE DATABASE stac")
            dsn = f"postgresql://{env['PGUSER']}@{env['PGHOST']}:{env['PGPORT']}/stac"
            assert load_pgstac(dsn, parts, migrate=True) == len(items)
            with (
                serve_pgstac(env, "stac") as url,
                serve(create_app(home / "catalog")) as server,
                httpx.Client(base_url=server.url, timeout=60) as ours,
                httpx.Client(base_url=url, timeout=60) as theirs,
            ):
                return _ask_all(items, ours, theirs)
    finally:
        shutil.rmtree(database, ignore_errors=True)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.topic} {c.shown}"[:60])
def test_ours_is_right(peers: Peers, case: Case) -> None:
    right, ours, _ = peers.answers[case]
    assert ours == right


def _cell(answer: Answer, right: Answer) -> str:
    """Show an answer, and what is wrong with it."""
    if answer == right:
        return answer.text
    text = f"**{answer.text}**"
    if answer.keys is not None and right.keys is not None:
        missing, wrong = len(right.keys - answer.keys), len(answer.keys - right.keys)
        parts = [f"{n:,} {what}" for n, what in ((missing, "missing"), (wrong, "wrong")) if n]
        text += f" ({', '.join(parts)})" if parts else ""
    return text


def _row(case: Case, right: Answer, ours: Answer, theirs: Answer) -> str:
    cells = (case.topic, f"`{case.shown}`", right.text, _cell(ours, right), _cell(theirs, right), case.why)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def test_the_table(peers: Peers) -> None:
    rows, good = "", [0, 0]
    for case, (right, ours, theirs) in peers.answers.items():
        good[0] += ours == right
        good[1] += theirs == right
        rows += _row(case, right, ours, theirs)
    document = HEAD.format(n=peers.n_items, ours=good[0], theirs=good[1], of=len(CASES)) + rows
    print(document)
    if os.environ.get("PEERS_WRITE"):
        DOCUMENT.write_text(document)
    assert DOCUMENT.read_text() == document, "PEERS_WRITE=1 pytest tests/conformance/test_peers.py"
