"""The command line: one file per group of commands, each command one thin function.

Heavy imports are made inside the functions, so that ``--help`` is fast.
"""

from catalog_builder.cli.main import app, main

__all__ = ["app", "main"]
