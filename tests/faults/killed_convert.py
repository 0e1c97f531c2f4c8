"""Convert a folder and kill this process at its n-th file operation.

:mod:`tests.faults.forks` runs it, with N, the source and the folder of the COGs.
With N = 0 it runs to the end and prints the operations. They are counted where Python makes them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from catalog_builder.convert.plan.job import ConvertOptions
from catalog_builder.convert.plan.sources import Wanted, plan
from catalog_builder.convert.run import run
from catalog_builder.convert.workers.processes import ExecutorWorkers, Inline

_count = 0


def _mortal(name: str, real: Callable[..., Any], fatal: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global _count  # noqa: PLW0603
        _count += 1
        if _count == fatal:
            if name == "os.write":
                real(args[0], args[1][: len(args[1]) // 2])  # a line torn in its middle
            os.kill(os.getpid(), signal.SIGKILL)
        print(name)
        return real(*args, **kwargs)

    return call


def main() -> None:
    fatal, source, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    found = plan([source], Wanted())
    for name in ("rename", "replace", "unlink", "fsync", "mkdir", "rmdir", "write"):
        setattr(os, name, _mortal(f"os.{name}", getattr(os, name), fatal))
    report = run(found, ConvertOptions(out), ExecutorWorkers(Inline(), 1))
    assert report.exit_code == 0, report.failed
