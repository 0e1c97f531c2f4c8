"""What Python users call: vectors at points, by the names that stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unchanged.record import Entries, Entry
from tests.unchanged.world import environment

_SCRIPT = """
import hashlib, json
from pathlib import Path
from catalog_builder.get import Options, Report, Samples, get, sample_points
from catalog_builder.get.region_file import region_of

found = sample_points("catalog", [-33.05, -33.01, -32.95], [82.55, 82.52, 82.53], [2022, 2023, 2024],
                      dataset="synthetic", bands=[0, 5, 127])
options = Options(region=region_of("-33.01,82.53,-32.99,82.535"), years=frozenset({2024}),
                  dataset="synthetic", bands=(3,))
fetched = get("catalog", Path("fetched"), options, lambda *_: None)
print(json.dumps({
    "values": found.values.tolist(), "years": found.years, "requests": found.requests,
    "read": found.read_bytes, "whole": found.whole_bytes, "synthetic": found.is_synthetic,
    "fetched": [hashlib.sha256(path.read_bytes()).hexdigest() for path in fetched.files],
    "pixels": fetched.pixels,
}))
"""


def python_entries(folder: Path) -> Entries:
    """Return what the functions of Python users give."""
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {"python: sample_points and get": Entry.of(done.stdout.strip().encode())}
