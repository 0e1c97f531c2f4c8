"""The same inputs to our server and to stac-fastapi-pgstac over the same items; ours must be right.

What each answers is the table in ``docs/peers.md``. ``PEERS_WRITE=1`` writes it anew; without it a
table that is no longer true fails.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest

from api.app import create_app
from catalog_builder.catalog.extract import extracts
from catalog_builder.catalog.folder import CatalogFolder
from catalog_builder.publish.pgstac.load import load_pgstac
from tests.conformance.peer_answers import Answer, Case, Item
from tests.conformance.peer_cases import CASES
from tests.conformance.pgstac_server import serve_pgstac
from tests.support.backends import PGSTAC_GROUP, dsn_of, new_database, serve_pgstac_backend
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve

pytestmark = PGSTAC_GROUP
DOCUMENT = Path(__file__).parents[2] / "docs" / "peers.md"
URL = "http://served"

HEAD = """# Comparison with stac-fastapi-pgstac

The same {n:,} items of two collections, in our index and in pgSTAC, and the same requests to three servers:
ours with its index, ours with pgSTAC ([docs/pgstac.md](pgstac.md)), and stac-fastapi-pgstac. The correct
result was found by testing every item with shapely, or is what the specification says. Versions:
stac-fastapi-pgstac 7.2.0 with its defaults and `USE_API_HYDRATE=true`, pgSTAC 0.10.0, PostgreSQL 15 with
PostGIS 3.3. Generated and kept up to date by `tests/conformance/test_peers.py`.

Of {of} responses, {ours} of ours are correct, {mended} of ours with pgSTAC, and {theirs} of theirs. Not in
the table: their server supports transactions and filters items of any kind; ours takes tiles of one grid
and changes only by a new build or load.

| | input | correct | tessera-stac | tessera-stac on pgSTAC | stac-fastapi-pgstac | note |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Peers:
    """What is right, and what each server said, case by case: ours, ours on pgSTAC, theirs."""

    n_items: int
    answers: Mapping[Case, tuple[Answer, tuple[Answer, ...]]]


def _ask_all(items: Sequence[Item], *servers: httpx.Client) -> Peers:
    return Peers(len(items), {c: (c.right(items), tuple(c.ask(s) for s in servers)) for c in CASES})


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory, postgres: Mapping[str, str]) -> Peers:
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
    database = new_database(postgres)
    dsn = dsn_of(postgres, database)
    assert load_pgstac(dsn, parts).loaded == len(items)
    with (
        serve_pgstac(postgres, database) as url,
        serve(create_app(home / "catalog")) as server,
        serve_pgstac_backend(dsn, None, count_seconds=10) as on_pgstac,
        httpx.Client(base_url=server.url, timeout=60) as ours,
        httpx.Client(base_url=on_pgstac.url, timeout=60) as mended,
        httpx.Client(base_url=url, timeout=60) as theirs,
    ):
        return _ask_all(items, ours, mended, theirs)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.topic} {c.shown}"[:60])
def test_ours_is_right(peers: Peers, case: Case) -> None:
    right, (ours, mended, _) = peers.answers[case]
    assert ours == right
    assert mended == right, "on pgSTAC"


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


def _row(case: Case, right: Answer, answers: Sequence[Answer]) -> str:
    cells = (case.topic, f"`{case.shown}`", right.text, *(_cell(a, right) for a in answers), case.why)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def test_the_table(peers: Peers) -> None:
    rows = "".join(_row(case, right, answers) for case, (right, answers) in peers.answers.items())
    good = [sum(answers[i] == right for right, answers in peers.answers.values()) for i in range(3)]
    counts = dict(zip(("ours", "mended", "theirs"), good, strict=True))
    document = HEAD.format(n=peers.n_items, of=len(CASES), **counts) + rows
    print(document)
    if os.environ.get("PEERS_WRITE"):
        DOCUMENT.write_text(document)
    assert DOCUMENT.read_text() == document, "PEERS_WRITE=1 pytest tests/conformance/test_peers.py"
