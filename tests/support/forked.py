"""Run a script many times, each time in a fresh process, without importing again what it imports.

    python forked.py SCRIPT

Imports the script, reads one JSON line per run, ``{"arguments": [...], "environment": {...}, "seconds":
limit}``, forks, and calls the script's ``main`` with the arguments in the fork, as the script would itself.
Answers with a JSON line of what the fork printed and its exit code. It runs in any Python, so it imports
nothing of ours there.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_NO_THREADS = {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
"""Libraries that start a thread when they are imported: a fork would lack it, and may wait for it."""


class _Script:
    """Asks the process of this module for runs of a script."""

    def __init__(self, python: Path, script: Path) -> None:
        command = [python, Path(__file__), script]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | _NO_THREADS
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        atexit.register(self._close)

    def run(self, arguments: list[str], environment: Mapping[str, str], seconds: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            asked = {"arguments": arguments, "environment": dict(environment), "seconds": seconds}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            found: dict[str, Any] = json.loads(self._process.stdout.readline())
            return found

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


_script = cache(_Script)
_COMMAND = Path(__file__).with_name("command_script.py")


def tessera_stac(
    *arguments: object, environment: Mapping[str, str] = os.environ, seconds: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``tessera-stac`` in a process of its own."""
    return run_script(Path(sys.executable), _COMMAND, *arguments, environment=environment, seconds=seconds)


def run_script(
    python: Path, script: Path, *arguments: object, environment: Mapping[str, str], seconds: int = 300
) -> subprocess.CompletedProcess[str]:
    """Run a script that has a ``main`` of strings, in a process that has done nothing else.

    After some seconds it is ended, with the exit code -SIGALRM.
    """
    texts = [str(a) for a in arguments]
    done = _script(python, script).run(texts, environment, seconds)
    return subprocess.CompletedProcess([str(python), str(script), *texts], **done)


def _serve(script: Path) -> None:
    sys.path[0] = str(script.parent)
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                signal.alarm(asked["seconds"])
                os._exit(_call(module.main, asked["arguments"], asked["environment"]))
            _, status = os.waitpid(child, 0)
            out.seek(0)
            err.seek(0)
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"returncode": code, "stdout": out.read(), "stderr": err.read()}), flush=True)


def _call(main: Any, arguments: list[str], environment: dict[str, str]) -> int:
    """Call it, and return the exit code that a process of its own would have."""
    os.environ.clear()
    os.environ.update(environment)
    try:
        main(*arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
