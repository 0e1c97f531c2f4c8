"""Hatchling's hook: a wheel, and a source distribution, say which commit they were built from."""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts ``commit.txt`` into the package; in a checkout itself nothing is written."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Find the commit: what a source distribution says already, TESSERA_STAC_COMMIT, or ``.git``."""
        root = Path(self.root)
        module = runpy.run_path(str(root / "catalog_builder" / "version.py"))
        inside = f"catalog_builder/{module['RECORD']}"
        if version == "editable" or (root / inside).exists():
            return
        text = module["record"](root, os.environ.get("TESSERA_STAC_COMMIT", ""))
        if not text:
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / module["RECORD"]
        file.write_text(f"{text}\n")
        build_data["force_include"][str(file)] = inside

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only on its way."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
