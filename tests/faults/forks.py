"""Run the command line, or another program, many times, killed or not, without importing it each time.

    python forks.py MODULE

Reads one JSON line per run, ``{"args": [...], "delay": seconds or null}``, forks before anything has
started a thread, runs the module's ``main`` there, and kills the fork (SIGKILL) after the delay. Answers
with a JSON line.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "5"))
"""Kills per verb."""


_NO_THREADS = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
"""Libraries that start a thread when they are imported: a fork would lack it, and may wait for it."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a run ended."""

    killed: bool
    code: int
    seconds: float
    group: int
    """Its process group: its own processes outlive it for a moment when it is killed."""
    said: str
    """What it printed to both streams."""


class Runner:
    """Asks the process of this script for runs of a module."""

    def __init__(self, module: str) -> None:
        command = [sys.executable, "-m", "tests.faults.forks", module]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **_NO_THREADS},
        )

    def run(self, *args: object, delay: float | None = None) -> Run:
        """Run it with some arguments; kill it after a delay."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"args": [str(a) for a in args], "delay": delay}) + "\n")
        self._process.stdin.flush()
        return Run(**json.loads(self._process.stdout.readline()))

    def good(self, *args: object) -> Run:
        """Run it to its end; it must succeed."""
        done = self.run(*args)
        assert done.code == 0, done.said
        return done

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@contextlib.contextmanager
def runner(module: str = "catalog_builder.cli") -> Iterator[Runner]:
    """Lend a runner of ``tessera-stac``, or of another module with a ``main``."""
    made = Runner(module)
    try:
        yield made
    finally:
        made.close()


def delays(seconds: float, rounds: int) -> list[float]:
    """Return moments over the length of a run, the same ones each time; the first is its very start.

    On a busy machine later runs may end before their moments: only the first is certain to be killed.
    """
    rng = random.Random(rounds)
    return [0.0, *(rng.uniform(0, 1.05 * seconds) for _ in range(rounds - 1))]


def _main() -> None:
    # What the verbs import on their way, so that their time is work.
    import catalog_builder.build.run
    import catalog_builder.convert.run
    import catalog_builder.publish.geoparquet_export
    import catalog_builder.publish.ndjson
    import catalog_builder.publish.static  # noqa: F401

    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            started = time.monotonic()
            child = os.fork()
            if not child:
                os.setpgid(0, 0)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                faulthandler.dump_traceback_later(120, exit=True)
                sys.argv = [sys.argv[1], *asked["args"]]
                code = 70
                try:
                    module.main()
                    code = 0
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else int(bool(end.code))
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            ends = os.pidfd_open(child)
            killed = not select.select([ends], [], [], asked["delay"])[0]
            if killed:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            os.close(ends)
            seconds = time.monotonic() - started
            said.seek(0)
            answer = {
                "killed": killed,
                "code": os.waitstatus_to_exitcode(status),
                "seconds": seconds,
                "group": child,
                "said": said.read(),
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
