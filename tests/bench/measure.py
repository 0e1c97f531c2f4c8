"""Run a command and say what it cost: wall seconds, CPU seconds, peak memory; what processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    """What a finished command took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Largest memory of the process, or of it and those it started, 10**6 bytes."""
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
    peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]  # ru_maxrss may be the parent's
    print(u.ru_utime + u.ru_stime, int(peak) * 1024 / 1e6, file=sys.stderr)
atexit.register(_report)
"""
"""Python that makes a process print its own cost as the last line of stderr."""


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it; those that end meanwhile are left out."""
    found, waiting = [], [pid]
    while waiting:
        at = waiting.pop()
        try:
            for task in Path(f"/proc/{at}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
            found.append(at)
        except OSError:
            continue
    return found


def cpu_of_tree(pid: int) -> float:
    """Return the CPU seconds of a process and those that it started and that run."""
    ticks = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return the memory of a process, 10**6 bytes; what it shares with others is counted in parts."""
    return _rollup(pid, "Pss:")


def own_memory(pid: int) -> float:
    """Return what a process holds alone, 10**6 bytes, swapped or not.

    Its part of what is shared is not in it: that changes when another process of the same program starts.
    """
    return _rollup(pid, "Anonymous:", "Swap:")


def _rollup(pid: int, *names: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(text.split(f"\n{name}")[1].split()[0]) for name in names) * 1024 / 1e6


def memory_of_tree(pid: int) -> float:
    """Return the memory of a process and those it started, shared parts counted once."""
    total = 0.0
    for each in tree(pid):
        try:
            total += memory(each)
        except (OSError, IndexError):  # it ended
            continue
    return total


def run_verb(*arguments: object, to: Path | None = None) -> Cost:
    """Run ``tessera-stac`` to its end; memory is that of all its processes, looked at ten times a second.

    Parameters
    ----------
    to
        Where standard output goes; None returns it.

    Raises
    ------
    subprocess.CalledProcessError
        If it fails; with its output.
    """
    command = [sys.executable, "-m", "catalog_builder.cli", *map(str, arguments)]
    with (
        tempfile.TemporaryFile("w+") if to is None else to.open("w+") as out,
        tempfile.TemporaryFile("w+") as errors,
    ):
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        peak = 0.0
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, None, errors.read())
        out.seek(0)
        return Cost(seconds, usage.ru_utime + usage.ru_stime, peak, out.read() if to is None else "")
