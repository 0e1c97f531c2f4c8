"""Converting a source by several processes at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMBEDDINGS = "global_0.1_degree_representation"
COMMAND = [sys.executable, "-c", "from catalog_builder.cli import main; main()"]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which the command line is found from every folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a program."""
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(processes: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for programs."""
    outputs = [p.communicate(timeout=200) for p in processes]
    return [
        subprocess.CompletedProcess(p.args, p.returncode, *output)
        for p, output in zip(processes, outputs, strict=True)
    ]


def at_once(
    options: Sequence[Sequence[str]], source: Path, out: Path
) -> list[subprocess.CompletedProcess[str]]:
    """Run ``convert`` once for each set of options, all at the same time."""
    convert = [*COMMAND, "convert", str(source), "--out", str(out)]
    return finished([start([*convert, *more], environment()) for more in options])
