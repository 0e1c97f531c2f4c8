"""Convert a folder and kill this process at its n-th file operation: ``killed_convert.py N SOURCE OUT``.

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

_FATAL = int(sys.argv[1])
_count = 0


def _mortal(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        global _count  # noqa: PLW0603
        _count += 1
        if _count == _FATAL:
            if name == "os.write":
                real(args[0], args[1][: len(args[1]) // 2])  # a line torn in its middle
            os.kill(os.getpid(), signal.SIGKILL)
        print(name)
        return real(*args, **kwargs)

    return call


if __name__ == "__main__":
    found = plan([sys.argv[2]], Wanted())
    for name in ("rename", "replace", "unlink", "fsync", "mkdir", "rmdir", "write"):
        setattr(os, name, _mortal(f"os.{name}", getattr(os, name)))
    report = run(found, ConvertOptions(sys.argv[3]), ExecutorWorkers(Inline(), 1))
    assert report.exit_code == 0, report.failed
