"""Run a command and say what it cost: wall seconds, CPU seconds, peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished command took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Largest resident memory of the process, 10**6 bytes."""
    output: str


def run(command: Sequence[str], **environment: str) -> Cost:
    """Run a command to its end.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails; with its output.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    output, errors = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output, errors)
    return Cost(seconds, *_usage(errors), output)


def _usage(errors: str) -> tuple[float, float]:
    """Read the line that :data:`REPORT` prints last."""
    cpu, peak = errors.strip().splitlines()[-1].split()
    return float(cpu), float(peak)


REPORT = """
import atexit, resource, sys
def _report():
    u = resource.getrusage(resource.RUSAGE_SELF)
    print(u.ru_utime + u.ru_stime, u.ru_maxrss * 1024 / 1e6, file=sys.stderr)
atexit.register(_report)
"""
"""Python that makes a process print its own cost as the last line of stderr."""
