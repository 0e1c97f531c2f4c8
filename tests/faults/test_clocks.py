"""Clocks that are wrong: files from the future and the past, a clock that goes back between two runs."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.settings import Settings
from catalog_builder.convert.ledger.reader import latest, read_rows
from catalog_builder.convert.ledger.rows import LedgerRow
from catalog_builder.convert.ledger.writer import LedgerWriter
from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline
from tests.convert.making import write_pair
from tests.support.catalogs import build_from, patch, write_manifest
from tests.support.http_server import serve
from tests.support.paging import ok

DAY = 86_400


def _at(path: Path, seconds: float) -> None:
    """Give a file a time."""
    os.utime(path, (seconds, seconds))


@pytest.mark.parametrize("shift", [-400 * DAY, 0, 400 * DAY])
def test_a_build_is_noticed_whatever_its_time(tmp_path: Path, shift: int) -> None:
    """The second build's index has the first one's time, or one before or far after it."""
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))
    first = time.time()
    _at(catalog / "index.sqlite", first)
    with serve(create_app(catalog, Settings(refresh_seconds=0))) as server:
        http = httpx.Client(base_url=server.url)
        before = http.get("/search?limit=1")
        # as many tiles, elsewhere: an index of the same length
        build_from(catalog, write_manifest(tmp_path / "b", 2024, patch(1, 52, 3, 3)))
        _at(catalog / "index.sqlite", first + shift)
        after = http.get("/search?limit=1", headers={"if-none-match": before.headers["etag"]})
        assert after.status_code == 200
        assert after.headers["etag"] != before.headers["etag"]
        assert ok(after)["features"] != ok(before)["features"]


def test_copies_with_other_times_have_the_same_etags(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3))
    tags = set()
    for name, shift in (("one", 0), ("two", -DAY)):
        build_from(tmp_path / name, manifest)
        _at(tmp_path / name / "index.sqlite", time.time() + shift)
        with serve(create_app(tmp_path / name)) as server:
            answer = httpx.get(f"{server.url}/search?limit=1", headers={"host": "one.org"})
            tags.add(answer.headers["etag"])
    assert len(tags) == 1


def test_files_from_the_future_and_the_past(tmp_path: Path) -> None:
    """RFC 9110, 8.8.2.1: no Last-Modified is later than Date, which servers renew once in a while."""
    catalog = tmp_path / "catalog"
    build_from(catalog, write_manifest(tmp_path / "a", 2024, patch(0, 52, 3, 3)))
    file = catalog / "cogs" / "a.tif"
    file.parent.mkdir()
    file.write_bytes(b"first one")
    url = "/data/cogs/a.tif"
    with serve(create_app(catalog)) as server, httpx.Client(base_url=server.url) as http:
        for seconds in (time.time() + 400 * DAY, 2.0**33, time.time(), time.time() - 60, 0, -DAY, 1):
            _at(file, seconds)
            answer = http.get(url)
            assert answer.status_code == 200
            if seconds > time.time() - 5:
                assert "last-modified" not in answer.headers
            else:
                said = parsedate_to_datetime(answer.headers["last-modified"])
                assert said.timestamp() == int(seconds)
            assert http.get(url, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
            # a range is continued by ETag
            part = {"range": "bytes=0-1", "if-range": answer.headers["etag"]}
            assert http.get(url, headers=part).status_code == 206
        _at(file, time.time() + 400 * DAY)
        long_ago = formatdate(time.time() - 3600, usegmt=True)
        assert http.get(url, headers={"if-modified-since": long_ago}).status_code == 200
        # other bytes, and an older time: the ETag tells
        before = http.get(url)
        file.write_bytes(b"other one")
        _at(file, time.time() - 400 * DAY)
        after = http.get(
            url,
            headers={
                "if-none-match": before.headers["etag"],
                "if-modified-since": formatdate(usegmt=True),
            },
        )
        assert (after.status_code, after.content) == (200, b"other one")


def _convert(source: Path, out: Path) -> int:
    found = plan([str(source)], Wanted())
    report = run(found, ConvertOptions(str(out)), ExecutorWorkers(Inline(), 1))
    assert report.exit_code == 0
    return report.converted


def test_the_later_ledger_row_wins_though_the_clock_went_back(tmp_path: Path) -> None:
    """A first run on a machine whose clock is a year ahead; the tile is converted anew today."""
    source, out = tmp_path / "source", tmp_path / "out"
    npy = write_pair(source)
    assert _convert(source, out) == 1
    (row,) = read_rows(out / "ledger")
    (ledger,) = (out / "ledger").iterdir()
    ahead = replace(row, finished=f"{int(row.finished[:4]) + 1}{row.finished[4:]}")
    ledger.write_bytes(ahead.to_json() + b"\n")
    _at(npy, time.time() + DAY)  # another source
    assert _convert(source, out) == 1
    (last,) = latest(read_rows(out / "ledger")).values()
    assert last.fingerprint != row.fingerprint
    assert last.finished > ahead.finished
    assert _convert(source, out) == 0, "it is done, and stays so"


def test_rows_with_unreadable_times_do_not_stop_a_run(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_pair(source)
    assert _convert(source, out) == 1
    (row,) = read_rows(out / "ledger")
    with LedgerWriter(out / "ledger") as writer:
        writer.append(replace(row, status="failed", reason="x", finished="not a time"))
    assert _convert(source, out) in (0, 1)
    assert isinstance(next(read_rows(out / "ledger")), LedgerRow)
