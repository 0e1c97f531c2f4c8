"""The command line: one file per group of verbs, each verb one thin function.

Heavy imports are made inside the functions, so that ``--help`` answers at once.
"""

from catalog_builder.cli.main import app, main

__all__ = ["app", "main"]
