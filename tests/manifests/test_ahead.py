"""Manifests in a bucket are fetched a few at a time, and read in their order."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from catalog_builder.manifests import ProblemLog, read_manifests
from catalog_builder.manifests.listing.ahead import AHEAD, ahead
from tests.support.s3_store import Asked, s3_store

PARTS = 30


def test_results_come_in_order_and_no_more_than_a_few_ahead() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.02 if i % 3 else 0.0)
        return i * i

    results = ahead(work, iter(range(40)))
    for i, found in enumerate(results):
        assert found == i * i
        assert max(begun) < i + AHEAD + 1


def test_an_error_is_raised_in_its_turn_and_ends_the_work() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 3:
            raise OSError("broken")
        return i

    results = ahead(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="broken"):
        next(results)
    assert len(begun) < 3 + AHEAD + 2


@pytest.mark.service
@pytest.mark.parametrize("has_master", [False, True])
def test_parts_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_master: bool) -> None:
    for i in range(PARTS):
        path = tmp_path / f"embeddings_{i:02d}.txt"
        stem = f"2024/grid_{i}.05_52.05/grid_{i}.05_52.05"
        path.write_text(f"{stem}.npy {'0' * 64}\n{stem}_scales.npy {'1' * 64}\n")
    if has_master:
        lines = (f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in sorted(tmp_path.iterdir()))
        (tmp_path / "registry.txt").write_text("\n".join(lines) + "\n")
    local = _read(str(tmp_path))
    assert len(local) == PARTS
    with s3_store() as store:
        for path in tmp_path.iterdir():
            store.client.upload_file(str(path), store.bucket, f"parts/{path.name}")
        lock, now, most = threading.Lock(), 0, 0

        def slow(asked: Asked) -> None:
            nonlocal now, most
            if asked.method != "GET" or ".txt" not in asked.path:
                return
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.05)
            with lock:
                now -= 1

        store.fault = slow
        started = time.monotonic()
        found = _read(f"{store.root}/parts/")
        elapsed = time.monotonic() - started
        gets = store.count("GET", ".txt")
    assert found == local
    assert 3 <= most <= AHEAD * (2 if has_master else 1)
    assert elapsed < gets * 0.05
    assert gets == (2 * PARTS + 1 if has_master else PARTS)


def _read(address: str) -> list[tuple[str, list[int]]]:
    problems = ProblemLog()
    found = [
        (part.source.rpartition("/")[2], part.tiles["lon_i"].to_pylist())
        for part in read_manifests(address, problems=problems)
        if part.tiles is not None
    ]
    assert not problems.total, problems.explained()
    return found
