"""Hatchling's hook: a wheel, and a source distribution, say which commit they were built from.

A wheel has the package ``tessera_stac`` too, with the public names of ``catalog_builder``: the repository has
no folder for it, and an editable installation gets the same file.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FACE = '''"""TESSERA embeddings: vectors at points, in polygons, and of regions."""

from catalog_builder import __version__ as __version__
from catalog_builder.public import *  # noqa: F403
from catalog_builder.public import __all__ as __all__
'''


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``commit.txt`` into the package, and ``tessera_stac`` beside it; a checkout is unchanged."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Find the commit: what a source distribution says already, TESSERA_STAC_COMMIT, or ``.git``."""
        self._folder = tempfile.TemporaryDirectory()
        if self.target_name == "wheel":
            into = build_data["force_include_editable" if version == "editable" else "force_include"]
            for name, text in (("__init__.py", FACE), ("py.typed", "")):
                into[self._made(name, text)] = f"tessera_stac/{name}"
        root = Path(self.root)
        module = runpy.run_path(str(root / "catalog_builder" / "version.py"))
        inside = f"catalog_builder/{module['RECORD']}"
        if version == "editable" or (root / inside).exists():
            return
        text = module["record"](root, os.environ.get("TESSERA_STAC_COMMIT", ""))
        if text:
            build_data["force_include"][self._made(module["RECORD"], f"{text}\n")] = inside

    def _made(self, name: str, text: str) -> str:
        """Write a file that is only on its way; return its path."""
        file = Path(self._folder.name) / name
        file.write_text(text)
        return str(file)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only on its way."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
