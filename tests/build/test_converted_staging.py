"""Facts of converted tiles are read by two threads of a build at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from catalog_builder.build.staging.cogs import CogStaging


def test_two_threads_read_at_once(tmp_path: Path) -> None:
    cells = np.arange(0, 400, 2, dtype=np.int32)
    with CogStaging(tmp_path, ("a", "b")) as staging:
        staging.add((2024, int(c), "2026", (int(c), f"of {c}")) for c in cells)

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
