"""Facts of converted tiles: two threads of a build read them; of several conversions the last is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from catalog_builder.build.staging.cogs import CogStaging


def test_two_threads_read_at_once(tmp_path: Path) -> None:
    cells = np.arange(0, 400, 2, dtype=np.int32)
    with CogStaging(tmp_path, ("a", "b")) as staging:
        staging.add((2024, int(c), "2026", None, (int(c), f"of {c}")) for c in cells)

        def read(seed: int) -> int:
            rng = np.random.default_rng(seed)
            for _ in range(1000):
                some = rng.choice(cells, 3, replace=False)
                assert staging.rows_of(2024, some) == [(int(c), f"of {c}") for c in some]
                assert [row for batch in staging.rows(2024, ["a"]) for row in batch] == [
                    (int(c),) for c in cells
                ]
            return seed

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(read, range(4))) == [0, 1, 2, 3]


def test_of_several_conversions_the_last_is_kept_and_rivals_are_known(tmp_path: Path) -> None:
    early, late = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z"
    rows = {
        1: [(early, b"one", "a"), (late, b"one", "b")],  # converted again
        2: [(early, b"one", "a"), (late, b"two", "b")],
        3: [(early, b"one", "a"), (late, None, "b")],  # of a catalogue, which does not say
        4: [(early, b"one", "a"), (early, b"two", "b")],
        5: [(early, b"one", "a"), (late, b"two", "b"), ("2027", b"two", "c")],
    }
    for backwards in (False, True):
        with CogStaging(tmp_path, ("fact",)) as staging:
            for cell, found in rows.items():
                for finished, origin, fact in reversed(found) if backwards else found:
                    staging.add([(2024, cell, finished, origin, (fact,))])
            kept = [fact for (fact,) in staging.rows_of(2024, np.array([1, 2, 3, 4, 5]))]
            assert kept == ["b", "b", "b", "a" if backwards else "b", "c"]
            assert staging.rivals(2024).tolist() == [2, 4, 5]
            assert staging.rivals(2023).tolist() == []
